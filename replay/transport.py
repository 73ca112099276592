"""Answer httpx2 and httpx clients from a recording: no network, the recorded bytes, the recorded ending.

`Replayer` is an interceptor for the patched transports. `ReplayTransport` is a transport that you pass to a client yourself.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Self

from ..recorder import clock
from ..recorder.errors import MissError, RecordingEnded
from ..recorder.http.exchange import Exchange, content_encoding
from ..recorder.http.patching import Send, SendAsync
from ..recorder.http.recognition import library_of, pairs, to_request
from ..recorder.http.sdk_errors import for_sdk
from ..recorder.http.tee import stream_class
from .accepted import readable, repeated_at_once
from .matching.matcher import Matcher
from .timing.session_order import SessionOrder
from .timing.timing import (
    AT_ONCE,
    INSTANT,
    Timeline,
    Timing,
    head_ns,
    hold_ns,
    play,
    play_async,
    timeline_of,
    wait_until,
    wait_until_async,
)

HOLD_S = 1.0
"""How much longer than recorded an async client may take to close a stream that the recorded client closed.

A sync client gets the error at once, because only the reader itself could end its read.
"""

_KEPT_BY_TRANSPORT = frozenset({"transfer-encoding", "content-length", "connection"})
"""Headers about the transport of the bytes. The replayed bytes travel differently, and stored lengths are often wrong."""


class Replayer:
    """Answers requests from the recording of a matcher. Raise MissError if nothing matches."""

    def __init__(self, matcher: Matcher, timing: Timing = INSTANT) -> None:
        self._matcher = matcher
        self._timing = timing
        self._order = SessionOrder(matcher.exchanges)

    def take(self, request: Any) -> Exchange:
        """Return the recorded exchange for a client's request. Raise MissError, in a form that SDKs do not retry."""
        try:
            return self._matcher.take(to_request(request))
        except MissError as miss:
            raise for_sdk(miss) from None

    def handle(self, request: Any, send: Send | None = None) -> Any:  # noqa: ARG002 - as every interceptor
        request.read()
        return self.answer(request, self.take(request))

    async def handle_async(self, request: Any, send: SendAsync | None = None) -> Any:  # noqa: ARG002 - as every interceptor
        await request.aread()
        return await self.answer_async(request, self.take(request))

    def answer(self, request: Any, exchange: Exchange, timing: Timing | None = None) -> Any:
        """Return the recorded response when its head is due, paced by `timing` if given. Raise MissError."""
        began_ns = clock.monotonic_ns()
        order = self._order_of(exchange)
        exchange = _readable(exchange, request)
        timing = self._timing if timing is None else timing
        timeline = AT_ONCE if timing.speed is None else timeline_of(exchange, timing)
        if not timeline.is_instant:
            wait_until(began_ns + head_ns(exchange, timeline))
        return _response(request, exchange, order, timeline, began_ns)

    async def answer_async(self, request: Any, exchange: Exchange, timing: Timing | None = None) -> Any:
        """`answer` in an event loop."""
        began_ns = clock.monotonic_ns()
        order = self._order_of(exchange)
        exchange = _readable(exchange, request)
        timing = self._timing if timing is None else timing
        timeline = AT_ONCE if timing.speed is None else timeline_of(exchange, timing)
        if not timeline.is_instant:
            await wait_until_async(began_ns + head_ns(exchange, timeline))
        if exchange.response is None and exchange.ending == "closed":
            await wait_until_async(began_ns + hold_ns(exchange, HOLD_S))
        return _response(request, exchange, order, timeline, began_ns)

    def _order_of(self, exchange: Exchange) -> SessionOrder | None:
        """Note the request of a session, and return the order of its events; None for a request of no session."""
        if "/sessions" not in exchange.request.uri:
            return None
        self._order.came(exchange)
        return self._order


if TYPE_CHECKING:
    import httpx2

    class _Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
        """The type that clients declare for their transports."""
else:
    _Transport = object


class ReplayTransport(Replayer, _Transport):
    """Replay as a transport: `anthropic.Anthropic(http_client=httpx2.Client(transport=ReplayTransport(matcher)))`.

    Clients of httpx2 and httpx, sync and async, accept it, because they call these methods without checking the class. So you
    need only the library of your client.
    """

    def handle_request(self, request: Any) -> Any:
        """Return the recorded response for a request of a sync client. Raise MissError if no recording matches."""
        return self.handle(request)

    async def handle_async_request(self, request: Any) -> Any:
        """Return the recorded response for a request of an async client. Raise MissError if no recording matches."""
        return await self.handle_async(request)

    def close(self) -> None:
        """Close nothing: no connection is open."""

    async def aclose(self) -> None:
        """Close nothing: no connection is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


class RecordedStream:
    """The recorded body at its pace, then the recorded ending."""

    def __init__(
        self, request: Any, exchange: Exchange, order: SessionOrder | None, timeline: Timeline, began_ns: int
    ) -> None:  # fmt: skip
        self._request = request
        self._exchange = exchange
        self._order = order
        self._timeline = timeline
        self._began_ns = began_ns

    def __iter__(self) -> Iterator[bytes]:
        if self._order is not None:
            yield from self._order.play_sync(self._exchange, self._timeline, self._began_ns)
        elif not self._timeline.is_instant:
            yield from play(self._exchange, self._timeline, self._began_ns)
        elif body := self._body:
            yield body
        self._end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._order is None and self._timeline.is_instant:
            if body := self._body:
                yield body
        else:
            player = play_async if self._order is None else self._order.play
            async for data in player(self._exchange, self._timeline, self._began_ns):
                yield data
        if self._exchange.ending == "closed":  # a timer or a task of the program may close it, as in the recording
            await wait_until_async(self._began_ns + hold_ns(self._exchange, HOLD_S))
        self._end()

    @property
    def _body(self) -> bytes:
        """The whole body, which an instant replay hands on at once."""
        return b"" if self._exchange.response is None else self._exchange.response.body

    def close(self) -> None:
        """Close nothing: no connection is open."""

    async def aclose(self) -> None:
        """Close nothing: no connection is open."""

    def _end(self) -> None:
        if self._exchange.ending == "closed":
            raise _ended(self._exchange)
        if self._exchange.ending == "cut":
            raise _error(self._exchange, self._request)


def _readable(exchange: Exchange, request: Any) -> Exchange:
    """Return the exchange in an encoding that the client accepts. Raise MissError, in a form that SDKs do not retry."""
    if exchange.response is None or not content_encoding(exchange.response.headers):
        return exchange
    try:
        return readable(exchange, pairs(request.headers))
    except MissError as miss:
        raise for_sdk(miss) from None


def _response(request: Any, exchange: Exchange, order: SessionOrder | None, timeline: Timeline, began_ns: int) -> Any:
    response = exchange.response
    if response is None:
        raise _error(exchange, request)
    library = library_of(request)
    headers = [(name, value) for name, value in response.headers if name.lower() not in _KEPT_BY_TRANSPORT]
    if timeline.is_instant and response.status >= 400:
        headers = repeated_at_once(response.status, headers)
    # Keep an empty reason phrase empty: the API sends 529 without one.
    extensions = {"reason_phrase": response.reason.encode("ascii", "replace")}
    stream = stream_class(RecordedStream, library)(request, exchange, order, timeline, began_ns)
    return library.Response(response.status, headers=headers, stream=stream, extensions=extensions)


def _error(exchange: Exchange, request: Any) -> BaseException:
    """Return the exception that ended the recorded exchange, of the same type if the client's library has it."""
    library, failure = library_of(request), exchange.failure
    if exchange.ending == "closed":
        return _ended(exchange)
    name = "RemoteProtocolError" if failure is None else failure.type.rpartition(".")[2]
    kind = getattr(library, name, None)
    if not (isinstance(kind, type) and issubclass(kind, library.TransportError)):
        kind = library.RemoteProtocolError if exchange.response is not None else library.ConnectError
    error: Exception = kind("" if failure is None else failure.message, request=request)
    return error


def _ended(exchange: Exchange) -> BaseException:
    call = f"call {exchange.place.call}" if exchange.place.call else "this call"
    return for_sdk(RecordingEnded(
        f"the recording of {call} ends here, because the client closed the stream when it was recorded. Read no further than "
        "then, or record it again."
    ))  # fmt: skip
