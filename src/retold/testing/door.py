"""The door of a block: a loopback server that answers from the cassette in use, if a client cannot be answered in process.

Child processes and aiohttp sessions send their requests to it. It listens from the first such use until the block ends. The
server (`doorman.py`) is imported at that first use.
"""

import os
import secrets
import threading
from typing import TYPE_CHECKING

from .lead import Lead

if TYPE_CHECKING:
    from .doorman import Doorman
    from .session import CassetteSession


class Door:
    """The door of a cassette in use. `url` opens it; the end of the `with` block closes it."""

    def __init__(self, used: "CassetteSession") -> None:
        self._used = used
        self._token = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._doorman: Doorman | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Door of {self._used.source} {'closed' if self._doorman is None else self._doorman.url}>"

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._doorman is not None and self._pid == os.getpid():
                self._doorman.stop()
            self._doorman = None

    @property
    def url(self) -> str:
        """Return the door's address; open the door if it is closed. Raise OSError if it cannot listen."""
        with self._lock:
            if self._doorman is None:
                from .doorman import Doorman

                self._doorman = Doorman(self._used, self._token)
            return self._doorman.url

    @property
    def lead(self) -> Lead:
        """Return the lead to this door; open the door if it is closed. Raise OSError if it cannot listen."""
        return self._used.lead(self.url, self._token)

    def forget(self) -> None:
        """In a forked child, drop the parent's listening socket, and a lock that another thread may have held at the fork."""
        self._lock = threading.Lock()
        if self._doorman is not None:
            self._doorman.forget()
