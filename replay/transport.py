"""httpx2 transports that answer from a recording: no network, the recorded bytes, the recorded ending.

`Replayer` is an interceptor for the patched transports; `ReplayTransport` is a transport to give to a client explicitly.
"""

import time
from collections.abc import AsyncIterator, Iterator

import httpx2

from ..recorder.exchange import Exchange
from ..recorder.tee import Send, SendAsync, to_request
from .matcher import Matcher
from .player import head_ns, play, play_async, timeline_of, wait_until, wait_until_async
from .timing import INSTANT, Timeline, Timing

_KEPT_BY_TRANSPORT = frozenset({"transfer-encoding", "content-length", "connection"})
"""Headers that describe how the bytes travelled; the replayed bytes travel differently, and stored lengths often lie."""


class Replayer:
    """Answers requests from a matcher's recording. Raises MissError where nothing matches."""

    def __init__(self, matcher: Matcher, timing: Timing = INSTANT) -> None:
        self._matcher = matcher
        self._timing = timing

    def handle(self, request: httpx2.Request, send: Send | None = None) -> httpx2.Response:  # noqa: ARG002
        request.read()
        began_ns = time.monotonic_ns()
        exchange = self._matcher.take(to_request(request))
        timeline = timeline_of(exchange, self._timing)
        wait_until(began_ns + head_ns(exchange, timeline))
        return _response(request, exchange, timeline, began_ns)

    async def handle_async(self, request: httpx2.Request, send: SendAsync | None = None) -> httpx2.Response:  # noqa: ARG002
        await request.aread()
        began_ns = time.monotonic_ns()
        exchange = self._matcher.take(to_request(request))
        timeline = timeline_of(exchange, self._timing)
        await wait_until_async(began_ns + head_ns(exchange, timeline))
        return _response(request, exchange, timeline, began_ns)


class ReplayTransport(Replayer, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The same as a transport: `anthropic.Anthropic(http_client=httpx2.Client(transport=ReplayTransport(matcher)))`."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle(request)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self.handle_async(request)


class _Stream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The recorded body at its pace, then the recorded ending."""

    def __init__(self, request: httpx2.Request, exchange: Exchange, timeline: Timeline, began_ns: int) -> None:
        self._request = request
        self._exchange = exchange
        self._timeline = timeline
        self._began_ns = began_ns

    def __iter__(self) -> Iterator[bytes]:
        yield from play(self._exchange, self._timeline, self._began_ns)
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in play_async(self._exchange, self._timeline, self._began_ns):
            yield data
        self._end()

    def _end(self) -> None:
        if self._exchange.ending in ("cut", "closed"):
            raise _error(self._exchange, self._request)


def _response(request: httpx2.Request, exchange: Exchange, timeline: Timeline, began_ns: int) -> httpx2.Response:
    response = exchange.response
    if response is None:
        raise _error(exchange, request)
    headers = [(name, value) for name, value in response.headers if name.lower() not in _KEPT_BY_TRANSPORT]
    # An empty reason phrase is recorded as such: the API sends 529 without one.
    extensions = {"reason_phrase": response.reason.encode("ascii", "replace")}
    stream = _Stream(request, exchange, timeline, began_ns)
    return httpx2.Response(response.status, headers=headers, stream=stream, extensions=extensions)


def _error(exchange: Exchange, request: httpx2.Request) -> Exception:
    """The exception that ended the recorded exchange, of the same type where httpx2 has it."""
    failure = exchange.failure
    if exchange.ending == "closed":
        text = "the recording ends here: the client closed this stream when it was recorded"
        return httpx2.RemoteProtocolError(text, request=request)
    name = "RemoteProtocolError" if failure is None else failure.type.rpartition(".")[2]
    kind = getattr(httpx2, name, None)
    if not (isinstance(kind, type) and issubclass(kind, httpx2.TransportError)):
        kind = httpx2.RemoteProtocolError if exchange.response is not None else httpx2.ConnectError
    return kind("" if failure is None else failure.message, request=request)
