"""The server of `retold view`. It runs until Ctrl-C or SIGTERM."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable

import h11

from ..recorder.errors import InputError
from ..recorder.log.log import EventLog

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from .app import application
except ModuleNotFoundError as error:
    if error.name not in ("starlette", "uvicorn"):
        raise
    raise InputError(f"retold view needs {error.name}, which is not installed: pip install 'retold[view]'.") from error

HOST = "127.0.0.1"

CLIENTS = 256
"""The number of concurrent connections. Further ones are answered 503."""

HEAD_S = 30.0
"""How long a client may take to send the head of a request, in seconds."""


def serve(log: EventLog, port: int, ready: Callable[[str], None]) -> None:
    """Serve the pages of a log on this machine. Call `ready` with the address, secret included, once the server listens.

    Raise InputError if the server cannot listen on the port.
    """
    home = f"/{secrets.token_urlsafe(12)}/"
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"cannot listen on {HOST} port {port}: {reason}. --port 0 takes a free one.") from error
    with listening:
        config = uvicorn.Config(
            lambda: application(log, home, lambda: server.should_exit), factory=True, log_level="warning", access_log=False,
            lifespan="off", timeout_graceful_shutdown=2, http=TimedConnection, limit_concurrency=CLIENTS,
        )  # fmt: skip
        server = _Server(config)
        ready(f"http://{HOST}:{listening.getsockname()[1]}{home}")
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that a signal ends without a failure, because Ctrl-C and SIGTERM are the way to end a viewer."""

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - uvicorn calls it so
        self.force_exit = self.should_exit  # a second signal stops at once
        self.should_exit = True


class TimedConnection(H11Protocol):
    """A connection that is closed if the head of a request takes longer than HEAD_S. uvicorn has no such limit."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._due is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._due = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
