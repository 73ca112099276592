"""Share the file of a log with other processes and readers: which runs have a living writer (Liveness), when another program
changed the files (Watch), and when there is something new (Bell).

A writer holds a lock on a file of its own, `LOG.live/RUN`, while its run is open. The kernel drops the lock at any end of the
process, `kill -9` included, also across containers. A process id could be reused, and a heartbeat would cost writes. The writer
fills the file when it makes it, so that on a full disk there is room for a note: the status and error of the run.

Other programs delete, rename, replace, overwrite and truncate files under a running recorder; SQLite goes on writing to the
files that it has open. A change of a folder's entries changes the folder's time, so most looks are one `fstat` of the folder.
Every two milliseconds, and when a run ends, a look also covers the content of the files and the folders further up.

A reader in the process of the writer waits for a bell that the writer rings after each commit. Other readers poll.
"""

import contextlib
import fcntl
import json
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from weakref import WeakMethod, ref

from ... import strict_json
from ...clock import monotonic_ns, wall_ns
from ...errors import LogError

Change = Literal["touched", "shrunk", "moved"]
"""touched: the log was written by another connection or program. shrunk: it, or its WAL, lost bytes that SQLite needs. moved:
another file, or none, has the place of one that is open."""

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one."""

LOOK_EVERY_NS = 2_000_000
TICK_NS = 20_000_000
"""File systems stamp by the tick of a clock: a folder that changed less than this ago may change again with the same time."""

CHECK_SHARE = 400
"""Looking behind a touch takes at most one part in so many of the time. With several writers, each checkpoint of one is a touch
for the others, and their streams wait meanwhile."""

_TRIES = 100

_INDEX = struct.Struct("=IIIBBHI")
"""The beginning of the WAL's index (https://www.sqlite.org/walformat.html, 2.1): version, unused, changes, whether it is made,
order of the checksums, bytes of a page, frames."""

_INDEX_VERSION = 3007000
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24

State = tuple[int, int]
"""The bytes of a file, and the time of its last change in nanoseconds; two zeros if there is none."""

_Id = tuple[int, int]


class Watch:
    """A watch over the files of the log at an absolute path, from the moment at which they were opened."""

    def __init__(self, path: Path, locks: Path, renew: Callable[[], None]) -> None:
        """Watch the log at `path`; the method `renew` is called after a change of the folder or of the folder of locks in it."""
        self._path = path
        self._locks = str(locks)
        self._renew = WeakMethod(renew)  # no cycle: a log that is let go of closes its connection at once
        self._folder = self._wal = -1
        self._spared_until_ns = 0

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
        self._names = (str(self._path), *self.beside)
        folder = os.path.dirname(real)
        self._stamped = tuple(dict.fromkeys((str(self._path.parent), folder, self._locks)))
        self.let_go()
        # Never the log itself: closing it would drop the locks that SQLite holds on it in this process.
        self._folder, self._wal = _opened(folder), _opened(self.beside[0])
        self._changed_ns = self._folder_ns()
        self._stamps = self._current_stamps()
        found = [_stat(name) for name in self._names]
        self._ids = [_id(file) for file in found]
        self._size, self._time = _state(found[0])
        self._wal_size = self._wal_end()
        self.spare(cost_ns)
        self._look_at_ns = self._next_look_ns(monotonic_ns())

    def spare(self, cost_ns: int) -> None:
        """Look behind the next touch later, because looking behind the last one took so many nanoseconds."""
        self._spared_until_ns = max(self._spared_until_ns, monotonic_ns()) + CHECK_SHARE * cost_ns

    def is_quiet(self) -> bool:
        """Return whether the folder is unchanged, the WAL has not shrunk, and the next look at everything is not due."""
        if monotonic_ns() >= self._look_at_ns or self._folder_ns() != self._changed_ns:
            return False
        size = self._wal_end()
        if size < self._wal_size:
            return False
        self._wal_size = size
        return True

    def look(self, *, own_checkpoint: bool = False, left: State | None = None, thorough: bool = True) -> Change | None:
        """Return the change of the files since they were accepted, or None if there is none.

        With `own_checkpoint`, a checkpoint of this process may be writing the log's file. One that ended since the last look left
        the file as `left`. Without `thorough`, a later look may report a touch.
        """
        now_ns = monotonic_ns()
        self._look_at_ns = 0
        changed_ns = self._folder_ns()
        found = [_stat(name) for name in self._names]  # once each: a look is a fifth of a commit
        ids = [_id(file) for file in found]
        if ids != self._ids and any(old is not None and old != new for old, new in zip(self._ids, ids, strict=True)):
            return "moved"
        stamps = self._current_stamps()
        if stamps != self._stamps:
            self._stamps = stamps
            if (renew := self._renew()) is not None:
                renew()
        self._ids = ids  # SQLite makes the files beside the log when it needs them
        if self._wal < 0:
            self._wal = _opened(self.beside[0])
        if left is not None:
            self._size, self._time = left
        (size, time_ns), wal_size = _state(found[0]), self._wal_end()
        if size < self._size or (wal_size < self._wal_size and not self._has_every_frame()):
            return "shrunk"
        self._size, self._wal_size = size, wal_size
        if own_checkpoint:
            self._time = time_ns
        elif time_ns != self._time and (thorough or now_ns >= self._spared_until_ns):
            return "touched"
        self._changed_ns = changed_ns
        self._look_at_ns = self._next_look_ns(now_ns)
        return None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the log's file itself is no longer at its path."""
        return self._ids[0] != _id(_stat(self._path))

    @property
    def is_empty(self) -> bool:
        """Whether the file at the path is empty."""
        return _state(_stat(self._path))[0] == 0

    def remove_beside(self) -> None:
        """Remove the WAL and its index, if they belong to the file that was at the path.

        SQLite would read them as those of another file there."""
        for name, known in zip(self.beside, self._ids[1:], strict=True):
            if known is not None and known == _id(_stat(name)):
                os.unlink(name)

    def _folder_ns(self) -> int:
        return 0 if self._folder < 0 else os.fstat(self._folder).st_ctime_ns

    def _wal_end(self) -> int:
        return 0 if self._wal < 0 else os.lseek(self._wal, 0, os.SEEK_END)

    def _has_every_frame(self) -> bool:
        """Return whether the WAL holds every frame in its index. SQLite itself shortens a WAL only after it emptied the index.

        Otherwise each erasure in a log of 5 GB, which folds the WAL many times, would make its writers read all of it.
        """
        for _ in range(_TRIES):  # another process may write between two looks
            index = _index_of(self.beside[1])
            size = self._wal_end()
            if index is not None and index == _index_of(self.beside[1]):
                _, page_bytes, frames = index
                return frames == 0 or size >= _WAL_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes)
        return False

    def _current_stamps(self) -> list[int]:
        return [_state(_stat(folder))[1] for folder in self._stamped]

    def _next_look_ns(self, now_ns: int) -> int:
        return now_ns + LOOK_EVERY_NS if 0 < self._changed_ns < wall_ns() - TICK_NS else 0


def _opened(name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY)
    except OSError:
        return -1


_indexes: dict[_Id | None, int] = {}
"""Handles of indexes of WALs. They stay open: closing one would drop the locks that SQLite holds on the file in this process."""


def _index_of(name: str) -> tuple[int, int, int] | None:
    """Return the changes, the bytes of a page and the number of frames in the index of a WAL, or None if it has none."""
    key = _id(_stat(name))
    if key is not None and key not in _indexes and (handle := _opened(name)) >= 0:
        _indexes[_id(os.fstat(handle))] = handle  # not `key`: the file may have been replaced since
    if key not in _indexes:
        return None
    data = os.pread(_indexes[key], _INDEX.size, 0)
    if len(data) < _INDEX.size:
        return None
    version, _, changes, is_made, _, page, frames = _INDEX.unpack(data)
    page_bytes = (page & 0xFE00) + ((page & 1) << 16)  # 1 is 65536
    return (changes, page_bytes, frames) if version == _INDEX_VERSION and is_made else None


def _stat(name: str | Path) -> os.stat_result | None:
    try:
        return os.stat(name)
    except OSError:
        return None


def _id(found: os.stat_result | None) -> _Id | None:
    return None if found is None else (found.st_dev, found.st_ino)


def _state(found: os.stat_result | None) -> State:
    return (0, 0) if found is None else (found.st_size, found.st_mtime_ns)


def state_of(path: Path) -> State:
    """Return the size and the time of a file, as a look at it compares them."""
    return _state(_stat(path))


_bells: "dict[str, ref[Bell]]" = {}
_making = threading.Lock()


class Bell:
    """A counter of commits with a condition. All stores of one file in a process share one bell."""

    def __init__(self) -> None:
        self.rung = 0
        self._waiting = 0
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"<Bell rung {self.rung} times, {self._waiting} waiting>"

    @classmethod
    def of(cls, path: Path) -> "Bell":
        """Return the bell of the log at an absolute path."""
        with _making:
            found = _bells[str(path)]() if str(path) in _bells else None
            if found is None:
                for dead in [name for name, bell in _bells.items() if bell() is None]:
                    del _bells[dead]
                _bells[str(path)] = ref(found := cls())
            return found

    def ring(self) -> None:
        """Wake the readers after a commit."""
        # A reader compares the counter before it waits, so the lock is needed only if a reader waits already.
        self.rung += 1
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def wait(self, seen: int, seconds: float) -> None:
        """Wait at most so many seconds for a commit after `rung` was `seen`."""
        with self._changed:
            self._waiting += 1
            try:
                if self.rung == seen:
                    self._changed.wait(seconds)
            finally:
                self._waiting -= 1


NOTE_BYTES = 512
RUNNING, INTERRUPTED = ("running", None), ("interrupted", None)

Ended = tuple[str, str | None]
"""The status of a run and its error."""

_held: dict[Path, int] = {}
"""The lock files that this process holds, and their file descriptors."""

_changing = threading.RLock()


class Liveness:
    """The lock files of the log at an absolute path."""

    def __init__(self, log: Path) -> None:
        self.folder = log.with_name(log.name + ".live")

    def __repr__(self) -> str:
        return f"<Liveness {self.folder}, {len(self._held)} held>"

    @property
    def _held(self) -> dict[str, int]:
        return {path.name: handle for path, handle in list(_held.items()) if path.parent == self.folder}

    def claim(self, run: str) -> None:
        """Lock the file of `run` until `release` or the end of the process. Raises LogError."""
        path = self.folder / run
        try:
            with _changing:
                self.folder.mkdir(mode=0o700, exist_ok=True)
                _held[path] = handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(OSError):  # on a full disk there is no room for a note
                os.pwrite(handle, b" " * NOTE_BYTES, 0)
        except OSError as error:
            self.release(run)
            raise LogError(f"cannot write {self.folder}: {error.strerror}. Name another log with --db FILE.") from error

    def note(self, run: str, status: str, error: str | None) -> None:
        """Note status and error of a run, for the process that opens the log next. Do nothing if that is impossible."""
        handle = _held.get(self.folder / run)
        while handle is not None:
            data = strict_json.dumps({"status": status, "error": error}, ensure_ascii=True).encode()
            if len(data) <= NOTE_BYTES:
                try:
                    os.pwrite(handle, data.ljust(NOTE_BYTES), 0)
                except OSError:
                    return  # a file system that copies on write and is full: the run will count as interrupted
                return
            error = (error or "")[: len(error or "") // 2] + "…"

    def release(self, run: str, *, keep_note: bool = False) -> None:
        """Unlock the file of `run`, and remove it unless `keep_note`. A run that was never claimed is no error."""
        with _changing:
            handle = _held.pop(self.folder / run, None)
            if handle is not None:
                if not keep_note:
                    self.forget(run)
                os.close(handle)

    def renew(self) -> bool:
        """Lock the files again that this process holds and another program removed; return whether there are any.

        Raises LogError.
        """
        renewed = False
        with _changing:
            for run, handle in self._held.items():
                try:
                    is_there = os.path.samestat(os.stat(self.folder / run), os.fstat(handle))
                except FileNotFoundError:
                    is_there = False
                if not is_there:
                    self.claim(run)
                    os.close(handle)
                    renewed = True
        return renewed

    def is_held(self, run: str) -> bool:
        """Return whether this process writes `run`."""
        return self.folder / run in _held

    def is_alive(self, run: str) -> bool:
        """Return whether this process or another one writes `run`."""
        return self.is_held(run) or self.status(run) == RUNNING

    def status(self, run: str) -> Ended:
        """Return status and error of a run without a last event: running, the noted ones, or interrupted."""
        if self.is_held(run):
            return RUNNING
        try:
            handle = os.open(self.folder / run, os.O_RDONLY)
        except OSError:
            return INTERRUPTED
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            noted = json.loads(os.pread(handle, NOTE_BYTES, 0))
            return str(noted["status"]), None if noted["error"] is None else str(noted["error"])
        except BlockingIOError:
            return RUNNING
        except (OSError, ValueError, KeyError, TypeError):
            return INTERRUPTED
        finally:
            os.close(handle)

    def forget(self, run: str) -> None:
        """Remove the file of a run."""
        (self.folder / run).unlink(missing_ok=True)
