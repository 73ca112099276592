"""Checkpoints of the log of a writer: what is in the WAL is written to the file of the log, now and then."""

import contextlib
import os
import sqlite3
import threading
from pathlib import Path

from . import opening, reserve
from .sharing import State, state_of

CHECKPOINT_PAGES = 4000
"""After so many pages of WAL (16 MB) a checkpoint begins. An append rewrites the page it shares with its neighbours, so
waiting longer folds more appends into one."""

CHECKPOINT_IF_NEARLY_FULL_PAGES = 256
"""On a disk that is nearly full a checkpoint begins after 1 MB: what is not folded into the database when the disk is full must
not need more room there than the reserve has."""

CATCH_UP_MS = 5
"""How long the end of a checkpoint waits for the writer, and the writer for a reader."""
CATCH_UP_TRIES = 3


class Checkpoints:
    """Checkpoints of the WAL, now and then, in a thread: a checkpoint syncs to the disk, and no stream should wait for it.

    The writer adds to `pages` the pages that each commit writes. At `due` pages it calls `begin`. `has_written` is whether a
    checkpoint may have written the database since `taken` was called.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.pages = 0
        self.due = 0
        self.has_written = False
        self._left: State | None = None
        self._thread: threading.Thread | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a checkpoint if none is running and the WAL is long, or the disk is nearly full.

        On a disk that is nearly full the writer waits for it: the WAL of a stream without a pause would take all the room.
        """
        if self.is_running:
            return
        is_nearly_full = reserve.is_nearly_full(self._path)
        if is_nearly_full or self.pages >= CHECKPOINT_PAGES:
            self.pages = 0
            self.has_written = True
        self.due = min(self.pages + CHECKPOINT_IF_NEARLY_FULL_PAGES, CHECKPOINT_PAGES)
        if is_nearly_full:
            self._fold(connection)
            self._left = state_of(self._path)
        elif self.pages == 0:
            self._thread = threading.Thread(target=self._run, name="retold-checkpoint")
            with contextlib.suppress(RuntimeError):  # the interpreter shuts down: closing the log folds the WAL
                self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether a checkpoint is running."""
        return self._thread is not None and self._thread.is_alive()

    def taken(self) -> tuple[bool, State | None]:
        """Return whether a checkpoint is running, and how one that ended since the last call left the file of the log.

        Any other change of the file is one of another program: it could cut the file, or overwrite it with an older copy.
        """
        if self.is_running:
            return True, None
        left, self._left, self.has_written = self._left, None, False
        return False, left

    def wait(self) -> None:
        """Return when no checkpoint is running. The thread of a checkpoint may close a collected log, and does not wait."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        uri = f"{self._path.absolute().as_uri()}?mode=rw"  # makes no file where the log is gone
        with contextlib.suppress(sqlite3.Error), contextlib.closing(opening.connect(uri, uri=True)) as connection:
            self._fold(connection)
            _sync_open(self._path)  # else the writer waits in the catching up for all pages that were folded
            self._catch_up(connection)
        self._left = state_of(self._path)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Fold the little that the writer has appended meanwhile, while it waits, so that it begins the WAL anew.

        A stream without a pause would otherwise let the WAL grow until the writer folds all of it itself, and waits ten times
        as long. A reader of an old snapshot prevents it: it is not waited for.
        """
        with contextlib.suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {CATCH_UP_MS}")
            for _ in range(CATCH_UP_TRIES):
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                if not busy:
                    break

    def _fold(self, connection: sqlite3.Connection) -> None:
        reserve.keep(self._path)
        with contextlib.suppress(sqlite3.Error):  # on a full disk it stays in the WAL, and the writer tries again
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _sync_open(path: Path) -> None:
    """Sync a log that this process has open, and its WAL, to the disk. Do nothing if that is impossible.

    It uses SQLite's own handles: to close another one would drop the locks that SQLite holds on the file in this process.
    """
    with contextlib.suppress(OSError):  # a system without the folder, or a file is gone
        left = [os.stat(name) for name in (path, f"{path}-wal")]
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                for file in [file for file in left if os.path.samestat(file, os.fstat(int(name)))]:
                    left.remove(file)
                    os.fsync(int(name))
