"""The recording reverse proxy: what the API answers reaches the client byte for byte as it arrives, and the log with its time.

The answer's bytes are passed on as they are, chunk framing, compression and broken endings included; h11 reads them on the
side for the recording alone. Each connection of a client has a connection of its own to the API, and they end together: so
keep-alive, idle timeouts, cuts and resets reach the client as they would have without a proxy between.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import NamedTuple

import h11

from ..events import Ending
from ..http.capture import Capture
from ..http.exchange import Failure, Headers, Request
from .http1 import MAX_HEAD_BYTES, STOPPED, Client
from .http_messages import Asked
from .upstream import READ_BYTES, Streams, Upstream

_NOT_PASSED_ON = frozenset({"expect", "upgrade", "http2-settings", "proxy-connection", "proxy-authorization"})
"""Headers between client and proxy: the proxy has read the whole body already, and speaks HTTP/1.1 only."""

THREADED_BYTES = 256 * 1024
"""Requests above this are read and written down in a thread: their JSON would hold up every other stream."""

DISCONNECTED = Failure("h11.RemoteProtocolError", "Server disconnected without sending a response.")
STOPPED_HERE = Failure("Stopped", "the recording proxy was stopped")


def to_request(asked: Asked, upstream: Upstream) -> Request:
    """A client's request as it is recorded: with the URL it goes to."""
    scheme = "https" if upstream.is_tls else "http"
    headers = passed_on(asked, upstream)
    return Request(asked.method, f"{scheme}://{upstream.authority}{upstream.path}{asked.target}", headers, asked.body)


def passed_on(asked: Asked, upstream: Upstream) -> Headers:
    """The headers as the API gets them: the client's, in its order and case, but for its own host."""
    headers, has_length = [], False
    for name, value in asked.headers:
        match name.lower():
            case "host":
                headers.append((name, upstream.authority))
            case "transfer-encoding" | "content-length":
                # The body is whole by now and has one length: two of them could be read in two ways (RFC 9112, 6.3).
                if not has_length:
                    headers.append((name if name.lower() == "content-length" else "Content-Length", str(len(asked.body))))
                has_length = True
            case low if low not in _NOT_PASSED_ON and not low.startswith("x-retold-"):
                headers.append((name, value))
    return tuple(headers)


class Relay:
    """Forwards the requests of one client's connection, over one connection of its own, and records them.

    A recording that fails (LogError) leaves both connections closed: nothing reaches a client that is not in the log.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._streams: Streams | None = None
        self._idle: asyncio.Task[None] | None = None

    async def forward(self, asked: Asked, client: Client, begin: Callable[[Request], "Capture | Unrecorded"]) -> bool:
        """Send a request on and its answer back, recorded by the Capture that `begin` makes; returns whether both
        connections go on. Raises LogError."""
        await self._wake()
        request = to_request(asked, self._upstream)
        capture = await asyncio.to_thread(begin, request) if len(asked.body) > THREADED_BYTES else begin(request)
        try:
            try:
                reader, writer = self._streams = self._streams or await self._upstream.connect()
                lines = self._upstream.opening(asked.method, asked.target, asked.http_version)
                lines += [f"{name}: {value}" for name, value in request.headers]
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + asked.body)
                goes_on = await self._pass_back(reader, client, _Observer(asked, capture))
            except OSError as error:
                capture.end("cut" if capture.status is not None else "no_response", error)
                self.close()
                await client.reset()
                return False
        except asyncio.CancelledError as left:
            capture.end("cut", failure=STOPPED_HERE) if left.args == (STOPPED,) else capture.end("closed")
            raise
        finally:
            if capture.ending is None:  # the log failed
                self.close()
        if goes_on:
            self._idle = asyncio.create_task(self._watch(reader, client))
        return goes_on

    async def _pass_back(self, reader: asyncio.StreamReader, client: Client, observer: "_Observer") -> bool:
        """Every piece as it comes: recorded, then handed on."""
        while True:
            data = await reader.read(READ_BYTES)
            observer.feed(data)
            client.write(data)
            if observer.is_over:
                return observer.goes_on
            await client.drain()

    async def _watch(self, reader: asyncio.StreamReader, client: Client) -> None:
        """Between two requests: the API closing its connection closes the client's."""
        with contextlib.suppress(OSError):
            client.write(await reader.read(READ_BYTES))  # nothing is due; what comes all the same is passed on
        self.close()
        client.close()

    async def _wake(self) -> None:
        """Stop watching; two at once cannot read one connection."""
        if (idle := self._idle) is not None:
            idle.cancel()
            await asyncio.wait([idle])
            self._idle = None

    def close(self) -> None:
        """Close the connection to the API, at once."""
        if self._idle is not None and self._idle is not asyncio.current_task():
            self._idle.cancel()
        self._idle = None
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Unrecorded:
    """Stands for the Capture of an exchange that is passed on without being recorded."""

    status: int | None = None
    ending: Ending | None = None

    def response(self, status: int, reason: str, headers: Headers) -> None:  # noqa: ARG002 - as a Capture
        self.status = status

    def data(self, *chunks: bytes) -> None:
        """Record nothing."""

    def end(self, ending: Ending, error: BaseException | None = None, *, failure: Failure | None = None) -> None:  # noqa: ARG002
        self.ending = ending


class _Observer:
    """Reads an answer on the side: head, body and ending for the recording."""

    def __init__(self, asked: Asked, capture: "Capture | Unrecorded") -> None:
        self._capture = capture
        self._asked = asked
        self._head = bytearray()
        self._lenient: LenientHead | None = None
        self.is_over = False
        self.goes_on = False
        self._begin()

    def _begin(self) -> None:
        asked = self._asked
        self._reading = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # h11 has to know what was asked: that decides whether an answer has a body and whether the connection goes on.
        closes = [("Connection", "close")] if not asked.keeps_alive else []
        self._reading.send(h11.Request(method=asked.method, target="/", headers=[("Host", "upstream"), *closes]))
        self._reading.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        """Bytes of the answer came, or its connection ended (empty). What they complete is recorded when this returns."""
        if self._capture.ending is not None:  # no HTTP since a while: the client reads on, and so does the recording not
            self.is_over = not data
            return
        body, failure = self._parsed(data)
        if failure is not None and self._capture.status is None and (head := lenient_head(bytes(self._head))) is not None:
            # The client may take what h11 refuses: the answer is recorded all the same.
            self._lenient = head
            self._begin()
            body, failure = self._parsed(head.framing + head.rest)
        if body:
            self._capture.data(*body)
        if self.is_over:
            self.goes_on = self._reading.our_state is h11.DONE and self._reading.their_state is h11.DONE and bool(data)
            self._capture.end("complete")
        elif failure is not None or not data:
            ending: Ending = "no_response" if self._capture.status is None else "cut"
            if not data and self._capture.status is None:
                self._capture.end(ending, failure=DISCONNECTED)
            else:
                self._capture.end(ending, failure)
            self.is_over = not data

    def _parsed(self, data: bytes) -> tuple[list[bytes], h11.RemoteProtocolError | None]:
        """The pieces of the body that these bytes complete, and the reason why they are no HTTP."""
        body: list[bytes] = []
        if self._capture.status is None and self._lenient is None:
            self._head += data
        try:
            self._reading.receive_data(data)
            while not isinstance(event := self._reading.next_event(), type(h11.NEED_DATA) | type(h11.PAUSED)):
                if isinstance(event, h11.Response):
                    self._respond(event)
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.is_over = True
                elif isinstance(event, h11.ConnectionClosed):
                    break
        except h11.RemoteProtocolError as error:
            return body, error
        return body, None

    def _respond(self, event: h11.Response) -> None:
        if self._lenient is not None:
            self._capture.response(self._lenient.status, self._lenient.reason, self._lenient.headers)
            return
        headers = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers.raw_items())
        self._capture.response(event.status_code, event.reason.decode("latin-1"), headers)


class LenientHead(NamedTuple):
    """The head of an answer read leniently; `framing` is a head for h11 that frames the body in the same way."""

    status: int
    reason: str
    headers: Headers
    framing: bytes
    rest: bytes


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


def lenient_head(data: bytes) -> LenientHead | None:
    """The final head at the beginning of an answer, whatever its fields hold; None if it has no status line or no end."""
    while (end := _HEAD_END.search(data)) is not None:
        first, *lines = re.split(rb"\r?\n", data[: end.start()])
        rest = data[end.end() :]
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            return None
        if status_line[2].startswith(b"1"):
            data = rest
            continue
        pairs = [
            (name.strip().decode("latin-1"), value.strip().decode("latin-1"))
            for name, _, value in (line.partition(b":") for line in lines)
        ]
        headers = tuple((name, value) for name, value in pairs if name)
        framing = [b"HTTP/1.%b %b " % (status_line[1], status_line[2]), *_framing(headers)]
        reason = (status_line[3] or b"").decode("latin-1")
        return LenientHead(int(status_line[2]), reason, headers, b"\r\n".join(framing) + b"\r\n\r\n", rest)
    return None


def _framing(headers: Headers) -> list[bytes]:
    """The header lines that frame a body, as h11 takes them: chunks go before a length (RFC 9112, 6.3)."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value)
    closes = [b"Connection: close"] if any("close" in value.lower() for value in values.get("connection", ())) else []
    if any(value.lower().endswith("chunked") for value in values.get("transfer-encoding", ())):
        return [b"Transfer-Encoding: chunked", *closes]
    length = next((value for value in values.get("content-length", ()) if value.isdecimal() and value.isascii()), None)
    return [*([] if length is None else [f"Content-Length: {length}".encode()]), *closes]
