"""Bell: wake the readers of a log in the process that writes it, so that they wait instead of polling."""

import threading
from pathlib import Path
from weakref import ref

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
