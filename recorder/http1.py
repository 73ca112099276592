"""HTTP/1.1 as a server speaks it, with a hand on every byte and every ending: asyncio below, h11 for reading requests.

A recorder must pass on what came as it came (reason phrases, header case, broken endings), and a replay must give it back;
so answers are written as bytes, and whoever answers says itself whether the connection goes on. A client that leaves, or
half of whose connection closes, cancels its answer at once.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, cast

import h11

from . import clock, strict_json
from .exchange import Headers, header
from .recognition import REFUSED_HEADER

MAX_HEAD_BYTES = 256 * 1024
"""The longest request line and headers taken."""

MAX_BODY_BYTES = 256 * 1024 * 1024
"""The longest request body taken; the API itself takes 32 MB (500 MB for files)."""

MAX_UNSENT_BYTES = 8 * 1024 * 1024
"""How far a client may lag behind before whoever answers it has to wait for it."""

STOPPED = "stopped"
"""The message of the cancellation that a stopping server sends, so that it is told apart from a client that left."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a client sent it: target in origin form, headers in their order and case, the whole body.

    `arrived_ns` is when it was whole, on the monotonic clock.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    http_version: str = "1.1"
    arrived_ns: int = field(default_factory=clock.monotonic_ns)

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case; None where there is none."""
        return header(self.headers, name)

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants the connection to go on."""
        return self.http_version == "1.1" and "close" not in (self.header("connection") or "").lower()


class Answerer(Protocol):
    """Answers the requests of one connection, one after the other."""

    async def answer(self, asked: Asked, client: "Client") -> bool:
        """Write the answer; returns whether the connection goes on. Cancelled when the client leaves."""
        ...

    def close(self) -> None:
        """The connection is over."""
        ...


class Client(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, answerer: Answerer, clients: set["Client"]) -> None:
        self._answerer = answerer
        self._clients = clients
        self._reading = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Client {'gone' if self._gone.is_set() else 'waiting' if self._task is None else 'answering'}>"

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        self._clients.add(self)

    def data_received(self, data: bytes) -> None:
        self._reading.receive_data(data)
        if self._task is None:
            self._advance()
        elif len(self._reading.trailing_data[0]) > MAX_HEAD_BYTES:
            self._transport.abort()  # a client that goes on sending while it is answered wants something else than HTTP

    def eof_received(self) -> bool:
        return False  # closes the transport: a client that will ask nothing more is gone

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        self._gone.set()
        self._writable.set()
        self._clients.discard(self)
        if self._task is not None:
            self._task.cancel()
        else:
            self._answerer.close()

    # Reading

    def _advance(self) -> None:
        """Read on until a request is whole, and have it answered."""
        try:
            while True:
                event = self._reading.next_event()
                if isinstance(event, h11.Request):
                    self._head = event
                    self._body.clear()
                    if self._reading.they_are_waiting_for_100_continue:
                        self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY_BYTES:
                        return self._refuse(413, "request_too_large", f"a body of more than {MAX_BODY_BYTES} bytes")
                elif isinstance(event, h11.EndOfMessage):
                    return self._start()
                else:
                    return None
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "invalid_request_error", f"this is no HTTP/1.1 request: {error}")

    def _start(self) -> None:
        head = self._head
        assert head is not None
        target = head.target.decode("latin-1")
        if head.method == b"CONNECT" or not target.startswith("/"):
            # A proxy for any other host is what this must never be (RFC 9112, 3.2.2 and 3.2.3).
            return self._refuse(405 if head.method == b"CONNECT" else 400, "invalid_request_error",
                                "this server speaks for one API only; ask it for a path, not for another host")  # fmt: skip
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers.raw_items())
        asked = Asked(head.method.decode("ascii"), target, headers, bytes(self._body), head.http_version.decode("ascii"))
        self._body.clear()
        self._task = asyncio.get_running_loop().create_task(self._answer(asked))

    async def _answer(self, asked: Asked) -> None:
        goes_on = False
        try:
            goes_on = await self._answerer.answer(asked, self)
        except asyncio.CancelledError:
            self._transport.abort()  # left, or stopped: nobody waits for this task
        finally:
            self._task = None
            if not goes_on or self._gone.is_set() or self._transport.is_closing():
                self._answerer.close()
                self._transport.close()
            else:
                rest, _ = self._reading.trailing_data
                self._reading = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
                if rest:
                    self.data_received(rest)

    def _refuse(self, status: int, kind: str, message: str) -> None:
        self.write(refusal(status, kind, message, closes=True))
        self._answerer.close()
        self._transport.close()

    # Writing

    def write(self, data: bytes) -> None:
        """Hand bytes on, now; `drain` says when there is room for more."""
        if data and not self._gone.is_set():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client no longer lags behind by more than MAX_UNSENT_BYTES."""
        await self._writable.wait()

    async def wait_gone(self, seconds: float) -> None:
        """Wait until the client has left, at most so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)

    async def reset(self) -> None:
        """Break the connection off as a crashed peer does (RST), after what was written."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close after what was written; an answer under way is cancelled as the server's own doing."""
        if self._task is not None:
            self._task.cancel(STOPPED)
        else:
            self._transport.close()


def refusal(status: int, kind: str, message: str, *, closes: bool = False, mark: str | None = None) -> bytes:
    """Return an answer of retold's own: Anthropic's error envelope, and a header that keeps SDKs from asking again.

    `mark` names the error for retold's own clients.
    """
    body = strict_json.dumps(
        {"type": "error", "error": {"type": kind, "message": f"retold: {message}"}}, ensure_ascii=True
    ).encode()
    headers = [("content-type", "application/json"), ("x-should-retry", "false"), ("content-length", str(len(body)))]
    headers += [(REFUSED_HEADER, mark)] if mark is not None else []
    return head_bytes(status, phrase(status), [*headers, *([("connection", "close")] if closes else [])]) + body


def head_bytes(status: int, reason: str, headers: Headers | list[tuple[str, str]]) -> bytes:
    """Status line and headers as they go over the wire."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def phrase(status: int) -> str:
    """The usual reason phrase of a status; none for one that HTTP does not know."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""


class Server:
    """Listens, and has each connection answered by an Answerer of its own. The port is open from the beginning on."""

    def __init__(self, make: Callable[[], Answerer], *, host: str = "127.0.0.1", port: int = 0) -> None:
        """Raises OSError where the address cannot be had."""
        self._make = make
        self._clients: set[Client] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024)
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    def __repr__(self) -> str:
        return f"<Server {self.url} {len(self._clients)} clients>"

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Close the port of a server that is not going to run."""
        self._socket.close()

    async def run(self, until: Awaitable[object], *, grace_s: float = 0.0) -> None:
        """Serve until `until` is done; then let clients leave for so long, cut off the rest and close the port."""
        server = await asyncio.get_running_loop().create_server(lambda: Client(self._make(), self._clients), sock=self._socket)
        try:
            await until
            server.close()
            await asyncio.gather(*(client.wait_gone(grace_s) for client in self._clients))
        finally:
            server.close()
            tasks = [client._task for client in self._clients if client._task is not None]
            for client in list(self._clients):
                client.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # the transports close
