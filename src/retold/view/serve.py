"""The server of `retold view`, until Ctrl-C or SIGTERM."""

import os
import secrets
import socket
from collections.abc import Callable

from ..recorder.errors import InputError
from ..recorder.log import EventLog

try:
    import uvicorn

    from .app import application
except ModuleNotFoundError as error:
    if error.name not in ("starlette", "uvicorn"):
        raise
    raise InputError(f"retold view needs {error.name}, which is not installed: pip install 'retold[view]'.") from error

HOST = "127.0.0.1"


def serve(log: EventLog, port: int, ready: Callable[[str], None]) -> None:
    """Serve the pages of a log on this machine; `ready` is told the address, secret included, once it listens.

    Raises InputError.
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
            lifespan="off", timeout_graceful_shutdown=2,
        )  # fmt: skip
        server = _Server(config)
        ready(f"http://{HOST}:{listening.getsockname()[1]}{home}")
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Being told to stop is how a viewer ends: Ctrl-C and SIGTERM are no failure."""

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - uvicorn calls it so
        self.force_exit = self.should_exit  # asked twice: at once
        self.should_exit = True
