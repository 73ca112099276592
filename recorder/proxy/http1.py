"""An HTTP/1.1 server on asyncio. It performs the commands of `ClientSide` and writes answers as bytes.

A recorder must relay reason phrases, header case and broken endings unchanged, and a replay must reproduce them. So the answerer
writes bytes, and decides whether the connection continues. If a client leaves, or half of its connection closes, its answer is
cancelled at once.
"""

import asyncio
import contextlib
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, assert_never, cast

from .client_side import ClientSide, Limits, Room
from .commands import (
    AbortClient,
    Answer,
    CancelAnswer,
    ClientCommand,
    CloseApi,
    CloseClient,
    EndClient,
    Refuse,
    SendClient,
    Wait,
)
from .http_messages import Asked, Peer, Refusal

MAX_UNSENT_BYTES = 1024 * 1024
"""How many unsent bytes a client may have before the answerer must wait for it."""

STOPPED = "stopped"
"""The message of a cancellation by a stopping server. It distinguishes the server's doing from a client that left."""


class Answerer(Protocol):
    """Answers the requests of one connection, one after the other."""

    def refuses(self, asked: Asked) -> Refusal | None:
        """Return the refusal of a request, None if it may pass. Called before the body is read: `asked.body` is empty."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Take note of a refused request of this connection. `refuses` refused it, or it was not valid."""
        ...

    async def answer(self, asked: Asked, client: Peer) -> bool:
        """Write the answer; return whether the connection continues. Cancelled when the client leaves."""
        ...

    def close(self) -> None:
        """The connection is over. May be called several times."""
        ...


class Crowd(Room):
    """The connections of a server, and the bytes of request bodies that they hold."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.clients: set[Client] = set()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._places = limits.clients if files == resource.RLIM_INFINITY else min(limits.clients, max(1, (files - 64) // 2))

    def __repr__(self) -> str:
        return f"<Crowd {len(self.clients)} of {self._places} clients, {self.held} bytes>"

    def has_room(self) -> bool:
        """Return whether one more client may connect. If all places are taken, an idle connection is closed for it."""
        if len(self.clients) < self._places:
            return True
        idle = next((client for client in self.clients if client.is_idle), None)
        if idle is None:
            return False
        self.clients.discard(idle)  # now, because its `connection_lost` is called only after the next clients connected
        idle.close()
        return True


class Client(asyncio.Protocol):
    """One client's connection: calls `ClientSide` for each event, and performs the commands that it returns."""

    def __init__(self, answerer: Answerer, crowd: Crowd) -> None:
        self._answerer = answerer
        self._crowd = crowd
        self._side = ClientSide(crowd, answerer.refuses)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lags = False
        """Whether `drain` would wait."""
        self._gone = asyncio.Event()
        self._goes_on = False

    def __repr__(self) -> str:
        state = "gone" if self._gone.is_set() else self._side.state
        return f"<Client {state}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun since the connection was made or the last answer ended."""
        return self._side.state == "idle"

    # Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
        has_room = self._crowd.has_room()
        self._crowd.clients.add(self)
        self._perform(self._side.connected() if has_room else self._side.crowded_out(len(self._crowd.clients) - 1))

    def data_received(self, data: bytes) -> None:
        self._perform(self._side.received(data))

    def eof_received(self) -> bool:
        return False  # closes the transport: a client that will ask nothing more is gone

    def pause_writing(self) -> None:
        self.lags = True
        self._writable.clear()

    def resume_writing(self) -> None:
        self.lags = False
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        self._gone.set()
        self.resume_writing()
        self._crowd.clients.discard(self)
        self._perform(self._side.left())

    # Commands

    def _perform(self, commands: Sequence[ClientCommand]) -> None:
        for command in commands:
            match command:
                case SendClient(data):
                    self.write(data)
                case Wait(seconds):
                    self._wait(seconds)
                case Answer(asked):
                    self._goes_on = False
                    self._task = asyncio.get_running_loop().create_task(self._answer(asked))
                    self._task.add_done_callback(self._answered)
                case CancelAnswer(stopped):
                    if self._task is not None:
                        self._task.cancel(STOPPED if stopped else None)
                case Refuse(refusal):
                    self._answerer.refused(refusal)
                case EndClient():
                    if self._transport.can_write_eof() and not self._transport.is_closing():
                        self._transport.write_eof()
                case CloseApi():
                    self._answerer.close()
                case CloseClient():
                    self._transport.close()
                case AbortClient():
                    self._transport.abort()
                case _:
                    assert_never(command)

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, lambda: self._perform(self._side.late()))

    async def _answer(self, asked: Asked) -> None:
        try:
            self._goes_on = await self._answerer.answer(asked, self)
        except asyncio.CancelledError:
            self._transport.abort()  # the client left, or the server stops: nothing awaits this task

    def _answered(self, task: asyncio.Task[None]) -> None:
        """Continue after an answer. A callback of the task, because a task cancelled before its first step runs no code."""
        del task
        self._task = None
        goes_on = self._goes_on and not self._gone.is_set() and not self._transport.is_closing()
        self._perform(self._side.answered(goes_on=goes_on))

    # For the answerer

    def write(self, data: bytes) -> None:
        """Write bytes to the client, without waiting. `drain` waits until there is room for more."""
        if data and not self._gone.is_set():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client no longer lags behind by more than MAX_UNSENT_BYTES."""
        await self._writable.wait()

    async def wait_gone(self, seconds: float) -> bool:
        """Wait until the client has left, for at most so many seconds; return whether it has left."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), seconds)
        return self._gone.is_set()

    async def reset(self) -> None:
        """Send everything written, then break the connection off as a crashed peer does (RST)."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close after everything written has been sent. An answer under way is cancelled with the message STOPPED."""
        self._perform(self._side.stop())


class Server:
    """Accepts connections and gives each an Answerer of its own. The port is open from the beginning."""

    def __init__(
        self, make: Callable[[], Answerer], *, host: str = "127.0.0.1", port: int = 0, limits: Limits | None = None,
        shares_port: bool = False,
    ) -> None:  # fmt: skip
        """Raise OSError if the address is not available. With `shares_port`, several processes may listen on it."""
        self._make = make
        self.crowd = Crowd(limits or Limits())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=1024, reuse_port=shares_port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    def __repr__(self) -> str:
        return f"<Server {self.url} {len(self.crowd.clients)} clients>"

    @property
    def url(self) -> str:
        """The address for clients on this machine."""
        return url_of(self.host, self.port)

    def close(self) -> None:
        """Close the port of a server that will not run."""
        self._socket.close()

    async def run(self, until: Awaitable[object], *, grace_s: float = 0.0) -> None:
        """Serve until `until` is done. Then wait `grace_s` for clients to leave, cut off the rest and close the port."""
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


def url_of(host: str, port: int) -> str:
    """Return the address of a server for clients on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"
