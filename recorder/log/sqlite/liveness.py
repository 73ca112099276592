"""Liveness: detect the runs with a living writer, wake their readers, and keep the endings that could not be written.

A writer holds a lock on a file of its own, `LOG.live/RUN`, while its run is open. The kernel drops the lock at any end of the
process, `kill -9` included, also across containers. A process id could be reused, and a heartbeat would cost writes. The writer
fills the file when it makes it, so that on a full disk there is room for a note: the status and error of the run.

A reader in the process of the writer waits for a bell that the writer rings after each commit. Other readers poll.
"""

import contextlib
import fcntl
import json
import os
import threading
from pathlib import Path
from weakref import ref

from ... import strict_json
from ...errors import LogError

NOTE_BYTES = 512
RUNNING, INTERRUPTED = ("running", None), ("interrupted", None)

Ended = tuple[str, str | None]
"""The status of a run and its error."""

_held: dict[Path, int] = {}
"""The lock files that this process holds, and their file descriptors."""

_changing = threading.RLock()

_bells: "dict[str, ref[Bell]]" = {}
_making = threading.Lock()


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
