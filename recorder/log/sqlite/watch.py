"""Watch: detect that the path of a log no longer leads to the files that a connection has open.

Other programs delete, rename, replace, overwrite and truncate files under a running recorder; SQLite goes on writing to the
files that it has open. A change of a folder's entries changes the folder's time, so most looks are one `fstat` of the folder.
Every two milliseconds, and when a run ends, a look also covers the content of the files and the folders further up.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from weakref import WeakMethod

from ...clock import monotonic_ns, wall_ns

Change = Literal["touched", "shrunk", "moved"]
"""touched: the log was written by another connection or program. shrunk: it, or its WAL, lost bytes. moved: another file, or
none, has the place of one that is open."""

LOOK_EVERY_NS = 2_000_000
TICK_NS = 20_000_000
"""File systems stamp by the tick of a clock: a folder that changed less than this ago may change again with the same time."""

CHECK_SHARE = 100
"""Looking behind a touch takes at most one part in so many of the time."""

_Id = tuple[int, int]


class Watch:
    """A watch over the files of the log at an absolute path, from the moment at which they were opened."""

    def __init__(self, path: Path, locks: Path, renew: Callable[[], None]) -> None:
        """Watch the log at `path`; the method `renew` is called after a change of the folder or of the folder of locks in it."""
        self._path = path
        self._locks = str(locks)
        self._renew = WeakMethod(renew)  # no cycle: a log that is let go of closes its connection at once
        self._folder = self._wal = -1

    def __del__(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        """Close the handles by which the watch looks at folder and WAL."""
        for handle in (self._folder, self._wal):
            if handle >= 0:
                os.close(handle)
        self._folder = self._wal = -1

    def __repr__(self) -> str:
        return f"<Watch {self._path}>"

    def adopt(self, cost_ns: int = 0) -> None:
        """Accept the files as they are now. The cost of opening them, in nanoseconds, limits how often touches are examined."""
        real = os.path.realpath(self._path)  # SQLite keeps the WAL beside the file that a link leads to
        self.beside = (real + "-wal", real + "-shm")
        self._folders = (str(self._path.parent), os.path.dirname(real))
        self.let_go()
        # Never the log itself: closing it would drop the locks that SQLite holds on it in this process.
        self._folder, self._wal = _opened(self._folders[1]), _opened(self.beside[0])
        self._changed_ns = self._folder_ns()
        self._stamps = self._current_stamps()
        self._ids = [_id(name) for name in (self._path, *self.beside)]
        self._size, self._wal_size = _size(self._path), self._wal_end()
        self._time = _time(self._path)
        now_ns = monotonic_ns()
        self._spared_until_ns = now_ns + CHECK_SHARE * cost_ns
        self._look_at_ns = self._next_look_ns(now_ns)

    def is_quiet(self) -> bool:
        """Return whether the folder is unchanged, the WAL has not shrunk, and the next look at everything is not due."""
        if monotonic_ns() >= self._look_at_ns or self._folder_ns() != self._changed_ns:
            return False
        size = self._wal_end()
        if size < self._wal_size:
            return False
        self._wal_size = size
        return True

    def look(self, *, own_checkpoint: bool = False, thorough: bool = True) -> Change | None:
        """Return the change of the files since they were accepted, or None if there is none.

        With `own_checkpoint`, this process wrote the log's file itself. Without `thorough`, a later look may report a touch.
        """
        now_ns = monotonic_ns()
        self._look_at_ns = 0
        changed_ns = self._folder_ns()
        ids = [_id(name) for name in (self._path, *self.beside)]
        if any(before is not None and before != after for before, after in zip(self._ids, ids, strict=True)):
            return "moved"
        stamps = self._current_stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            if (renew := self._renew()) is not None:
                renew()
        self._ids = ids  # SQLite makes the files beside the log when it needs them
        if self._wal < 0:
            self._wal = _opened(self.beside[0])
        size, wal_size = _size(self._path), self._wal_end()
        if size < self._size or wal_size < self._wal_size:
            return "shrunk"
        self._size, self._wal_size = size, wal_size
        if own_checkpoint:
            self._time = _time(self._path)
        elif _time(self._path) != self._time and (thorough or now_ns >= self._spared_until_ns):
            return "touched"
        self._changed_ns = changed_ns
        self._look_at_ns = self._next_look_ns(now_ns)
        return None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the log's file itself is no longer at its path."""
        return self._ids[0] != _id(self._path)

    @property
    def is_empty(self) -> bool:
        """Whether the file at the path is empty."""
        return _size(self._path) == 0

    def remove_beside(self) -> None:
        """Remove the WAL and its index, if they belong to the file that was at the path.

        SQLite would read them as those of another file there."""
        for name, known in zip(self.beside, self._ids[1:], strict=True):
            if known is not None and known == _id(name):
                os.unlink(name)

    def _folder_ns(self) -> int:
        return 0 if self._folder < 0 else os.fstat(self._folder).st_ctime_ns

    def _wal_end(self) -> int:
        return 0 if self._wal < 0 else os.lseek(self._wal, 0, os.SEEK_END)

    def _current_stamps(self) -> list[int]:
        return [_time(folder) for folder in (*self._folders, self._locks)]

    def _next_look_ns(self, now_ns: int) -> int:
        return now_ns + LOOK_EVERY_NS if 0 < self._changed_ns < wall_ns() - TICK_NS else 0


def _opened(name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY)
    except OSError:
        return -1


def _id(name: str | Path) -> _Id | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(name: str | Path) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return 0


def _time(name: str | Path) -> int:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return 0
