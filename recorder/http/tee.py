"""The tee on httpx2 (and httpx, for older SDKs): record the bytes of a response while the client reads them, sync and async.

A tee stamps a frame when the client pulls it, or pulls one that arrived together with it. `patching.py` brings requests here.

httpx2 is a fork of httpx with the same names. Nothing here imports either before a client does; the type of a request shows
which of the two it belongs to.
"""

import contextlib
import functools
import itertools
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..errors import LogError
from .capture import Capture
from .exchange import Request
from .patching import LIBRARIES, Send, SendAsync
from .patching import current as current
from .patching import intercepted as intercepted
from .sdk_errors import for_sdk

__tracebackhide__ = True
"""An error that passes through is shown by pytest as it would be without us."""

MAX_TOGETHER = 64
"""Chunks committed together: more of them would make the first one wait for the work on the others."""

# The end of the chunk before, the size of the next one (not 0, which ends the body), and a byte of it.
_CHUNK_SIZE = re.compile(rb"\r\n(0{0,8}[1-9a-fA-F][0-9a-fA-F]{0,8})\r\n(?=.)", re.DOTALL)


class Recorder:
    """An interceptor that sends each request and records what comes back.

    `begin` makes the Capture of a request; it is the only thing that differs between a workflow and a test.
    """

    def __init__(self, begin: Callable[[Request], Capture]) -> None:
        self._begin = begin

    def _started(self, request: Any) -> Capture:
        try:
            return self._begin(to_request(request))
        except LogError as error:  # the SDK would send it again and call it a connection error
            raise for_sdk(error) from None

    def handle(self, request: Any, send: Send) -> Any:
        request.read()
        capture = self._started(request)
        try:
            response = send(request)
        except BaseException as error:
            capture.end("no_response", error)
            raise
        tee(response, capture)
        if response.status_code >= 400:
            # The SDK closes an error it will retry without reading it; read now, so that the recording has it.
            response.stream = read_ahead(response.stream)
        return response

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        await request.aread()
        capture = self._started(request)
        try:
            response = await send(request)
        except BaseException as error:
            capture.end("no_response", error)
            raise
        tee(response, capture)
        if response.status_code >= 400:
            response.stream = await read_ahead_async(response.stream)
        return response


def tee(response: Any, capture: Capture) -> None:
    """Record the head of a response whose body is still to come, and its body as the client reads it."""
    reason = response.extensions.get("reason_phrase", b"")
    capture.response(response.status_code, reason.decode("ascii", "replace"), pairs(response.headers))
    response.stream = _of_library(TeeStream, response)(response.stream, capture)


class TeeStream:
    """A response's byte stream that records each chunk before it hands it on. What it does not know, the original does."""

    def __init__(self, stream: Any, capture: Capture) -> None:
        self._stream = stream
        self._capture = capture
        self._parser = _http_parser(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _arrived(self) -> int:
        """How many chunks can be taken without waiting and without an error: they are here already."""
        return 0 if self._parser is None else chunks_in(self._parser.trailing_data[0])

    def __iter__(self) -> Iterator[bytes]:
        with self._ending():
            stream = iter(self._stream)
            for chunk in stream:
                chunks = [chunk, *itertools.islice(stream, self._arrived())]
                self._capture.data(*chunks)
                yield from chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._ending():
            stream = aiter(self._stream)
            async for chunk in stream:
                chunks = [chunk]
                for _ in range(self._arrived()):
                    chunks.append(await anext(stream))  # noqa: PERF401 - awaits nothing, and reads better than a comprehension
                self._capture.data(*chunks)
                for each in chunks:
                    yield each

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._capture.end("closed")

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._capture.end("closed")

    def __del__(self) -> None:
        # Dropped without being read to its end or closed. A collector may run in the middle of anything, a write to the log
        # included, so the log writes this ending when it is next at rest.
        self._capture.dropped()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Read to its end: complete. Left early (GeneratorExit, cancelled): closed. Anything else that stops it: cut."""
        try:
            yield
        except Exception as error:
            self._capture.end("cut", error)
            raise
        except BaseException:
            self._capture.end("closed")
            raise
        self._capture.end("complete")


def _http_parser(stream: Any) -> Any:
    """The `h11.Connection` that the chunks of a stream come from; None where it is another kind of stream.

    A commit costs as much as the rest of a frame. When frames come faster than they are read, what one read of the socket
    brought is committed together; what it brought only h11 knows, and the way to it leads through attributes that are
    private to httpx and httpcore. Where one of them is missing (HTTP/2, aiohttp, a later version) each chunk is its own commit.
    """
    while stream is not None and not hasattr(stream, "_h11_state"):
        held = vars(stream) if hasattr(stream, "__dict__") else {}
        stream = next((held[name] for name in ("_stream", "_httpcore_stream", "_connection") if name in held), None)
    parser = getattr(stream, "_h11_state", None)
    return parser if hasattr(parser, "trailing_data") else None


def chunks_in(buffer: bytes) -> int:
    """How many chunks of a chunked body have come, the last one perhaps in part, in `buffer`, where a chunk has just ended."""
    count = at = 0
    while count < MAX_TOGETHER - 1 and (size := _CHUNK_SIZE.match(buffer, at)) is not None:
        at = size.end() + int(size[1], 16)
        count += 1
    return count


class ReadStream:
    """A stream that was read ahead: gives the same chunks, and then the same error if there was one."""

    def __init__(self, chunks: list[bytes], error: Exception | None) -> None:
        self._chunks = chunks
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        """Nothing is open any more."""

    async def aclose(self) -> None:
        """Nothing is open any more."""


def read_ahead(stream: Any) -> Any:
    """Read a whole stream now; the client gets what it would have got."""
    chunks: list[bytes] = []
    failure = None
    try:
        chunks.extend(stream)
    except Exception as error:
        failure = error
    finally:
        stream.close()
    return _of_library(ReadStream, stream)(chunks, failure)


async def read_ahead_async(stream: Any) -> Any:
    """`read_ahead` for an event loop."""
    chunks: list[bytes] = []
    failure = None
    try:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - what came before an error counts
    except Exception as error:
        failure = error
    finally:
        await stream.aclose()
    return _of_library(ReadStream, stream)(chunks, failure)


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the classes of connection errors of the libraries that are imported."""
    return tuple(sys.modules[name].TransportError for name in LIBRARIES if name in sys.modules)


def library_of(value: object) -> Any:
    """The library, httpx2 or httpx, that a request, response or stream of its own belongs to."""
    for kind in type(value).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in LIBRARIES:
            return sys.modules[name]
    raise TypeError(f"{type(value).__name__} belongs to neither of {', '.join(LIBRARIES)}")


@functools.cache
def stream_class(kind: Any, library: Any) -> Any:
    """`kind` as a stream of that library, which checks for its own base classes."""
    return type(kind.__name__, (kind, library.SyncByteStream, library.AsyncByteStream), {"__module__": __name__})


def _of_library(kind: Any, value: object) -> Any:
    return stream_class(kind, library_of(value))


def to_request(request: Any) -> Request:
    """A client's request, already read, as it is recorded."""
    return Request(request.method, str(request.url), pairs(request.headers), request.content)


def pairs(headers: Any) -> tuple[tuple[str, str], ...]:
    """Headers as pairs of text, in order and with the case they had on the wire."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw)
