"""HTTP/1.1 as a server speaks it, with a hand on every byte and every ending: asyncio below, h11 for reading requests.

A recorder must pass on reason phrases, header case and broken endings unchanged, and a replay must return them; so answers are
written as bytes, and the answerer decides whether the connection goes on. A client that leaves, or half of whose connection
closes, cancels its answer at once.

A request passes four gates in this order, each before more of it is read: the connection is one of `Limits.clients`; the head is
whole within `head_s` and valid; the answerer does not refuse it; the body fits into the bytes left and keeps coming. A request
that fails one is answered by the server itself (`Answerer.refused` is told), and its connection closes.
"""

import asyncio
import contextlib
import resource
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

import h11

from .. import clock
from .http_messages import Asked, Refusal, refusal

MAX_HEAD_BYTES = 256 * 1024
"""The longest request line and headers taken."""

MAX_UNSENT_BYTES = 1024 * 1024
"""How far a client may lag behind before the answerer has to wait for it."""

LINGER_S = 2.0
"""How long a refused client's remaining bytes are read and dropped: closing at once would reset the connection, and the client
would lose the answer."""

STOPPED = "stopped"
"""The message of the cancellation that a stopping server sends, so that it is told apart from a client that left."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server: bytes, connections, and seconds for reading a request. How long an answer takes is not bounded.

    The API itself takes bodies of 32 MB, and 500 MB for files.
    """

    body_bytes: int = 256 * 1024 * 1024
    """The longest request body."""
    held_bytes: int = 512 * 1024 * 1024
    """The bodies of all requests together that are being read or answered."""
    clients: int = 512
    """Connections at once; fewer if the process may not open two files for each."""
    idle_s: float = 300.0
    """Between two requests, and before the first one."""
    head_s: float = 30.0
    """From the first byte of a request to the end of its headers."""
    gap_s: float = 30.0
    """Between two pieces of a body."""
    body_s: float = 600.0
    """For the whole body."""


class Answerer(Protocol):
    """Answers the requests of one connection, one after the other."""

    def refuses(self, asked: Asked) -> Refusal | None:
        """Return the refusal of a request, None if it may pass. Called before the body is read: `asked.body` is empty."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """A request of this connection was refused: by `refuses`, or because it was no valid request."""
        ...

    async def answer(self, asked: Asked, client: "Client") -> bool:
        """Write the answer; returns whether the connection goes on. Cancelled when the client leaves."""
        ...

    def close(self) -> None:
        """The connection is over."""
        ...


class Crowd:
    """The connections of a server, and the bytes of request bodies that they hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.clients: set[Client] = set()
        self.held = 0
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._room = limits.clients if files == resource.RLIM_INFINITY else min(limits.clients, max(1, (files - 64) // 2))

    def __repr__(self) -> str:
        return f"<Crowd {len(self.clients)} of {self._room} clients, {self.held} bytes>"

    def has_room(self) -> bool:
        """Whether one more client may connect. If all places are taken, a connection without a request loses its own."""
        if len(self.clients) < self._room:
            return True
        idle = next((client for client in self.clients if client.is_idle), None)
        if idle is None:
            return False
        self.clients.discard(idle)  # now: it is told of its end only after the next clients have come
        idle.close()
        return True


class Client(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, answerer: Answerer, crowd: Crowd) -> None:
        self._answerer = answerer
        self._crowd = crowd
        self._limits = crowd.limits
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._dropped: int | None = None  # bytes read after a refusal
        self._held = 0
        self._next_request()

    def _next_request(self) -> None:
        self._reading = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._asked: Asked | None = None
        self._body = bytearray()
        self._has_begun = False

    def __repr__(self) -> str:
        if self._gone.is_set():
            return "<Client gone>"
        return f"<Client {'waiting' if self._task is None else 'answering'}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun since the connection was made or the last answer ended."""
        return self._task is None and not self._has_begun and self._dropped is None

    # Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        has_room = self._crowd.has_room()
        self._crowd.clients.add(self)
        if has_room:
            self._wait(self._limits.idle_s, self._leave)
        else:
            self._refuse(503, "overloaded_error", f"all {len(self._crowd.clients) - 1} connections are in use")
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._dropped is not None:
            self._dropped += len(data)
            if self._dropped > self._limits.body_bytes:
                self._transport.abort()
            return
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
        self._crowd.clients.discard(self)
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()
        else:
            self._release()
            self._answerer.close()

    # Reading

    def _advance(self) -> None:
        """Read on until a request is whole, and have it answered."""
        if not self._has_begun:
            self._has_begun = True
            self._wait(self._limits.head_s, self._late, "headers", self._limits.head_s)
        try:
            while True:
                event = self._reading.next_event()
                if isinstance(event, h11.Request):
                    if not self._begin(event):
                        return
                elif isinstance(event, h11.Data):
                    if not self._add(bytes(event.data)):
                        return
                elif isinstance(event, h11.EndOfMessage):
                    return self._start()
                else:
                    break
        except h11.RemoteProtocolError as error:
            return self._refuse(error.error_status_hint, "invalid_request_error", f"this is no HTTP/1.1 request: {error}")
        if self._asked is not None:
            left_s = self._body_due - asyncio.get_running_loop().time()
            self._wait(min(self._limits.gap_s, left_s), self._late, "body", min(self._limits.gap_s, self._limits.body_s))

    def _begin(self, head: h11.Request) -> bool:
        """Take a head; return whether its body is to be read."""
        target = head.target.decode("latin-1")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers.raw_items())
        asked = self._asked = Asked(head.method.decode("ascii"), target, headers, b"", head.http_version.decode("ascii"))
        self._body_due = asyncio.get_running_loop().time() + self._limits.body_s
        if asked.method == "CONNECT" or not target.startswith("/"):
            # A proxy for any other host is what this must never be (RFC 9112, 3.2.2 and 3.2.3).
            self._refuse(405 if asked.method == "CONNECT" else 400, "invalid_request_error",
                         "this server speaks for one API only; ask it for a path, not for another host")  # fmt: skip
        elif (refusal := self._answerer.refuses(asked)) is not None:
            self._refuse(*refusal)
        elif int(asked.header("content-length") or 0) > self._limits.body_bytes:  # h11 has checked that it is a number
            self._refuse_length()
        else:
            if self._reading.they_are_waiting_for_100_continue:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        return False

    def _add(self, data: bytes) -> bool:
        """Take a piece of a body; return whether there was room for it."""
        self._body += data
        self._held += len(data)
        self._crowd.held += len(data)
        if self._held > self._limits.body_bytes:
            self._refuse_length()
        elif self._crowd.held > self._limits.held_bytes:
            self._refuse(503, "overloaded_error", f"the bodies of all requests exceed {self._limits.held_bytes} bytes")
        else:
            return True
        return False

    def _release(self) -> None:
        """Give back the room of a body."""
        self._crowd.held -= self._held
        self._held = 0
        self._body = bytearray()

    def _start(self) -> None:
        assert self._asked is not None
        self._stop_waiting()
        asked = replace(self._asked, body=bytes(self._body), arrived_ns=clock.monotonic_ns())
        self._body = bytearray()
        self._goes_on = False
        self._task = asyncio.get_running_loop().create_task(self._answer(asked))
        self._task.add_done_callback(self._answered)

    async def _answer(self, asked: Asked) -> None:
        try:
            self._goes_on = await self._answerer.answer(asked, self)
        except asyncio.CancelledError:
            self._transport.abort()  # left, or stopped: nobody waits for this task

    def _answered(self, task: asyncio.Task[None]) -> None:
        """Close the connection or go on. A callback of the task, because a task cancelled before its first step runs no code."""
        del task
        self._task = None
        self._release()
        if not self._goes_on or self._gone.is_set() or self._transport.is_closing():
            self._answerer.close()
            self._transport.close()
        else:
            rest, _ = self._reading.trailing_data
            self._next_request()
            self._wait(self._limits.idle_s, self._leave)
            if rest:
                self.data_received(rest)

    # Waiting for a client

    def _wait(self, seconds: float, then: Callable[..., None], *args: object) -> None:
        """Call `then` in so many seconds, unless the client does before that what it is waited for."""
        self._stop_waiting()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, seconds), then, *args)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self, part: str, seconds: float) -> None:
        self._refuse(408, "timeout_error", f"the {part} of the request did not come within {seconds:g} s")

    def _leave(self) -> None:
        self._answerer.close()
        self._transport.close()

    # Refusing

    def _refuse_length(self) -> None:
        self._refuse(413, "request_too_large", f"the body has more than {self._limits.body_bytes} bytes")

    def _refuse(self, status: int, kind: str, message: str) -> None:
        """Answer with an error of the server's own, and close once the client has read it."""
        self._answerer.refused(Refusal(status, kind, message))
        self._answerer.close()
        self._release()
        self.write(refusal(status, kind, message, closes=True, head=self._asked is not None and self._asked.method == "HEAD"))
        self._dropped = 0
        self._wait(LINGER_S, self._transport.abort)
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    # Writing

    def write(self, data: bytes) -> None:
        """Hand bytes on, now; `drain` says when there is room for more."""
        if data and not self._gone.is_set():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client no longer lags behind by more than MAX_UNSENT_BYTES."""
        await self._writable.wait()

    async def wait_gone(self, seconds: float) -> bool:
        """Wait until the client has left, at most so long; return whether it has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)
        return self._gone.is_set()

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
        if self._task is not None and not self._task.done():
            self._task.cancel(STOPPED)
        else:
            self._transport.close()


class Server:
    """Listens, and has each connection answered by an Answerer of its own. The port is open from the beginning on."""

    def __init__(
        self, make: Callable[[], Answerer], *, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None
    ) -> None:
        """Raises OSError where the address cannot be had."""
        self._make = make
        self.crowd = Crowd(limits or Limits())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024)
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    def __repr__(self) -> str:
        return f"<Server {self.url} {len(self.crowd.clients)} clients>"

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
        server = await asyncio.get_running_loop().create_server(lambda: Client(self._make(), self.crowd), sock=self._socket)
        try:
            await until
            server.close()
            await asyncio.gather(*(client.wait_gone(grace_s) for client in self.crowd.clients))
        finally:
            server.close()
            tasks = [client._task for client in self.crowd.clients if client._task is not None]
            for client in list(self.crowd.clients):
                client.close()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # the transports close
