"""The tee on httpx2 (and what looks like it): what a client receives is recorded as it passes, sync and async.

The classes `HTTPTransport` and `AsyncHTTPTransport` are patched once per process; what happens to a request is decided by
the `Interceptor` of the current context, so that nothing changes for clients outside it. Patching the classes keeps
environment proxies, which a transport of our own would turn off. A tee stamps a frame when the client pulls it.
"""

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import httpx2

from .capture import Capture
from .exchange import Request

Send = Callable[[httpx2.Request], httpx2.Response]
SendAsync = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


class Interceptor(Protocol):
    """Decides what becomes of a request: record it, answer it from a recording, or just send it."""

    def handle(self, request: httpx2.Request, send: Send) -> httpx2.Response: ...

    async def handle_async(self, request: httpx2.Request, send: SendAsync) -> httpx2.Response: ...


_current: ContextVar[Interceptor | None] = ContextVar("retold_interceptor", default=None)


@contextlib.contextmanager
def intercepted(interceptor: Interceptor) -> Iterator[None]:
    """Hand every httpx2 request of this context to `interceptor`; tasks and copied contexts inherit it."""
    install()
    token = _current.set(interceptor)
    try:
        yield
    finally:
        _current.reset(token)


def install() -> None:
    """Patch the two transport classes; a second call changes nothing."""
    if getattr(httpx2.HTTPTransport.handle_request, "_retold", False):
        return
    send, send_async = httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request

    @functools.wraps(send)
    def handle_request(self: httpx2.HTTPTransport, request: httpx2.Request) -> httpx2.Response:
        interceptor = _current.get()
        if interceptor is None:
            return send(self, request)
        return interceptor.handle(request, functools.partial(send, self))

    @functools.wraps(send_async)
    async def handle_async_request(self: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        interceptor = _current.get()
        if interceptor is None:
            return await send_async(self, request)
        return await interceptor.handle_async(request, functools.partial(send_async, self))

    handle_request._retold = True  # type: ignore[attr-defined]
    httpx2.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]
    httpx2.AsyncHTTPTransport.handle_async_request = handle_async_request  # type: ignore[method-assign]


class Recorder:
    """An interceptor that sends each request and records what comes back.

    `begin` makes the Capture of a request; it is the only thing that differs between a workflow and a test.
    """

    def __init__(self, begin: Callable[[Request], Capture]) -> None:
        self._begin = begin

    def handle(self, request: httpx2.Request, send: Send) -> httpx2.Response:
        request.read()
        capture = self._begin(to_request(request))
        try:
            response = send(request)
        except BaseException as error:
            capture.end("no_response", error)
            raise
        _head(capture, response)
        response.stream = TeeStream(response.stream, capture)
        if response.status_code >= 400:
            # The SDK closes an error it will retry without reading it; read now, so that the recording has it.
            response.stream = _Read.of(response.stream)
        return response

    async def handle_async(self, request: httpx2.Request, send: SendAsync) -> httpx2.Response:
        await request.aread()
        capture = self._begin(to_request(request))
        try:
            response = await send(request)
        except BaseException as error:
            capture.end("no_response", error)
            raise
        _head(capture, response)
        response.stream = stream = TeeStream(response.stream, capture)
        if response.status_code >= 400:
            response.stream = await _Read.aof(stream)
        return response


class TeeStream(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A response's byte stream that records each chunk before it hands it on. What it does not know, the original does."""

    def __init__(self, stream: Any, capture: Capture) -> None:
        self._stream = stream
        self._capture = capture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[bytes]:
        with self._ending():
            for chunk in self._stream:
                self._capture.data(chunk)
                yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._ending():
            async for chunk in self._stream:
                self._capture.data(chunk)
                yield chunk

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


def to_request(request: httpx2.Request) -> Request:
    """An httpx2 request, already read, as it is recorded."""
    return Request(request.method, str(request.url), _pairs(request.headers), request.content)


def _head(capture: Capture, response: httpx2.Response) -> None:
    reason = response.extensions.get("reason_phrase", b"")
    capture.response(response.status_code, reason.decode("ascii", "replace"), _pairs(response.headers))


def _pairs(headers: httpx2.Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw)


class _Read(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A stream that was read ahead: gives the same chunks, and then the same error if there was one."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._error: Exception | None = None

    @classmethod
    def of(cls, stream: Any) -> "_Read":
        self = cls()
        try:
            self._chunks.extend(stream)
        except httpx2.TransportError as error:
            self._error = error
        finally:
            stream.close()
        return self

    @classmethod
    async def aof(cls, stream: Any) -> "_Read":
        self = cls()
        try:
            async for chunk in stream:
                self._chunks.append(chunk)
        except httpx2.TransportError as error:
            self._error = error
        finally:
            await stream.aclose()
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk
