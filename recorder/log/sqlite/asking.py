"""OneByOne: the questions that a log file answers, each through a connection of its own unless `reading` keeps one."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ...events import Event
from ..ledger import Entered
from ..runs import RunInfo, RunQuery
from ..store import PAGE, Readings
from . import opening
from .liveness import Liveness
from .reading import SqliteReadings, reading


class OneByOne(Readings):
    """The asking half of `SqliteStore`, which sets the attributes."""

    path: Path
    _file: Path
    _alive: Liveness

    @property
    def name(self) -> str:
        """The path as it was given."""
        return str(self.path)

    def exists(self) -> bool:
        """Return whether there is a file, or anything else, at the path."""
        return self._file.exists()

    def reading(self) -> AbstractContextManager[SqliteReadings]:
        """Answer several questions through one connection. Raises LogError, LogVersionError."""
        return reading(self._file, self.path, self._alive)

    def read(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None, newest_first: bool = False, limit: int = PAGE,
    ) -> Sequence[Event]:  # fmt: skip
        """Return the events of a run that fit the values. Raises LogError."""
        with self.reading() as store:
            return store.read(
                run, after=after, until=until, kinds=kinds, exchange=exchange, step=step, newest_first=newest_first, limit=limit
            )

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]:
        """Return the runs that fit the query, newest first. Raises LogError."""
        with self.reading() as store:
            return store.runs(query, limit=limit, skip=skip)

    def entries(self, after: int = 0) -> Sequence[Entered]:
        """Return the entries of the ledger with a number above `after`. Raises LogError."""
        with self.reading() as store:
            return store.entries(after)

    def wait(self, run: str, after: int, seconds: float) -> None:
        """Return when the run holds an event after `after`, its writer is gone, or so many seconds have passed."""
        with self.reading() as store:
            store.wait(run, after, seconds)

    def is_alive(self, run: str) -> bool:
        """Return whether this process, another one or another log writes the run. Raises LogError."""
        if self._alive.is_alive(run):
            return True
        with self.reading() as store:
            return store.is_alive(run)

    def version(self) -> int:
        """Return the number of this state of the file; it can be compared within one `reading` only."""
        with self.reading() as store:
            return store.version()

    def cursor(self, shelf: str) -> str | None:
        """Return the cursor that was kept last for the shelf. Raises LogError."""
        with self.reading() as store:
            return store.cursor(shelf)

    def cursors(self) -> dict[str, str]:
        """Return all kept cursors by shelf. Raises LogError."""
        with self.reading() as store:
            return store.cursors()

    def source_of(self, run: str) -> str | None:
        """Return the source of a received run, or None for any other run. Raises LogError."""
        with self.reading() as store:
            return store.source_of(run)

    def count_kinds(self, run: str) -> Counter[str]:
        """Return the number of events of each kind that a run holds now. Raises LogError."""
        with self.reading() as store:
            return store.count_kinds(run)

    def reader(self) -> sqlite3.Connection:
        """Return a read-only connection, which the caller closes. Raises LogError, LogVersionError."""
        return opening.open_for_reading(self._file, named=self.path)
