"""The tee on httpx2 (and httpx, for older SDKs): record the bytes of a response while the client reads them, sync and async.

The time of a frame is the time when the client pulls it, or pulls one that arrived together with it. `patching.py` calls this
module for each request.
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
from .patching import Send, SendAsync
from .recognition import LIBRARIES, library_of, pairs, to_request
from .sdk_errors import for_sdk

__tracebackhide__ = True
"""pytest hides these frames, so an error that passes through looks as it would without retold."""

MAX_TOGETHER = 128
"""The most chunks that are committed together. With more, the first one would wait too long for the others (0.5 ms now).

Half of the cost of a commit within a client is memory that the client's own work has pushed out of the caches.
"""

# The end of the previous chunk, the size of the next one (not 0, which ends the body), and one byte of it.
_CHUNK_SIZE = re.compile(rb"\r\n(0{0,8}[1-9a-fA-F][0-9a-fA-F]{0,8})\r\n(?=.)", re.DOTALL)


class Recorder:
    """An interceptor that sends each request and records the response.

    `begin` makes the Capture of a request. It is the only difference between a workflow and a test.
    """

    def __init__(self, begin: Callable[[Request], Capture]) -> None:
        self._begin = begin

    def _started(self, request: Any) -> Capture:
        try:
            return self._begin(to_request(request))
        except LogError as error:  # the SDK would retry the request and report a connection error
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
            # The SDK closes an error that it will retry without reading it. Read it now, so that it is recorded.
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
    """Record the head of a response now, and its body while the client reads it."""
    reason = response.extensions.get("reason_phrase", b"")
    capture.response(response.status_code, reason.decode("ascii", "replace"), pairs(response.headers))
    response.stream = _of_library(TeeStream, response)(response.stream, capture)


class TeeStream:
    """A response's byte stream that records each chunk before the client gets it. The original has all other attributes."""

    def __init__(self, stream: Any, capture: Capture) -> None:
        self._stream = stream
        self._capture = capture
        self._parser = _http_parser(stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _arrived(self) -> int:
        """Return how many chunks can be read without waiting and without an error, because they have arrived."""
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
        # Dropped without being read to its end or closed. A garbage collection may interrupt any code, even a write to the log,
        # so the log writes this ending later.
        self._capture.dropped()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Return complete if the body was read to its end, closed if the client left (GeneratorExit, cancelled), else cut."""
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
    """Return the `h11.Connection` behind the chunks of a stream; None for another kind of stream.

    A commit costs as much as all other work on a frame. If frames arrive faster than they are read, the frames of one read of
    the socket are committed together. Only h11 holds their number, behind private attributes of httpx and httpcore. If one of
    these is missing (HTTP/2, aiohttp, a later version), each chunk has a commit of its own.
    """
    while stream is not None and not hasattr(stream, "_h11_state"):
        held = vars(stream) if hasattr(stream, "__dict__") else {}
        stream = next((held[name] for name in ("_stream", "_httpcore_stream", "_connection") if name in held), None)
    parser = getattr(stream, "_h11_state", None)
    return parser if hasattr(parser, "trailing_data") else None


def chunks_in(buffer: bytes) -> int:
    """Return how many chunks of a chunked body are in `buffer`, which begins after a chunk. The last one may be incomplete."""
    count = at = 0
    while count < MAX_TOGETHER - 1 and (size := _CHUNK_SIZE.match(buffer, at)) is not None:
        at = size.end() + int(size[1], 16)
        count += 1
    return count


class ReadStream:
    """A stream that was read ahead: it returns the same chunks, and then raises the same error if there was one."""

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
        """Do nothing: the stream was read to its end."""

    async def aclose(self) -> None:
        """Do nothing: the stream was read to its end."""


def read_ahead(stream: Any) -> Any:
    """Read a complete stream now. The client gets the same chunks and the same error from the returned stream."""
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
    """Do the same as `read_ahead` in an event loop."""
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


@functools.cache
def stream_class(kind: Any, library: Any) -> Any:
    """Return Return `kind` as a stream of that library, which checks for its own base classes."""
    return type(kind.__name__, (kind, library.SyncByteStream, library.AsyncByteStream), {"__module__": __name__})


def _of_library(kind: Any, value: object) -> Any:
    return stream_class(kind, library_of(value))
