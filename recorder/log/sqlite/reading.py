"""Answer questions from an SQLite file: through one connection (SqliteReadings), or each through its own (OneByOne)."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from ...clock import monotonic_ns
from ...errors import LogError
from ...events import Event, fault_in_row
from ..runs import RunInfo, RunQuery
from ..store import PAGE, Entered, Part, Readings
from . import listing, opening, rows
from .listing import Listing
from .rows import COLUMNS
from .sharing import INTERRUPTED, RUNNING, Bell, Ended, Liveness

_TYPES = {
    (str, int, int, int, str, str, str, exchange, payload, bytes, bytes, int)
    for exchange in (int, NoneType)
    for payload in (str, bytes)
}
"""The types of the columns, in the order of `COLUMNS`."""

_PARTS = (
    "SELECT seq, t_ns, kind, payload FROM events WHERE run = ? AND seq > ? AND seq <= ? AND exchange = ? "
    f"AND kind IN ('frame', 'chunk') ORDER BY seq LIMIT {PAGE}"
)

LAST = 2**63 - 1
"""The greatest number of an event."""

PAGE_BYTES = 1_000_000
"""Bytes of payload after which an answer ends, so that memory stays flat."""

POLL_S = 0.01
"""Seconds between two looks for commits of another process."""

LOOK_EVERY = 10
"""After so many looks without a commit, a waiting reader checks whether the writer is alive."""


class SqliteReadings(Readings):
    """The answers of a log file through one read-only connection. Close it when you have them."""

    def __init__(self, path: Path, named: Path, alive: Liveness) -> None:
        """Open the log at an absolute path; `named` is its name in messages. Raises LogError, LogVersionError."""
        self._alive = alive
        self._bell = Bell.of(path)
        self.named = named
        self.connection = opening.open_for_reading(path, named=named)

    def __repr__(self) -> str:
        return f"<SqliteReadings {self.named}>"

    @property
    def name(self) -> str:
        """The path of the log as it was given."""
        return str(self.named)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def read(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None, newest_first: bool = False, limit: int = PAGE,
    ) -> Sequence[Event]:  # fmt: skip
        """Return the events of a run that fit the values. Raises LogError."""
        where, values = ["run = ?", "seq > ?"], [run, after]  # type: list[str], list[object]
        if until is not None:
            where.append("seq <= ?")
            values.append(until)
        if kinds is not None:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values.extend(kinds)
            if "frame" not in kinds:
                where.append("kind <> 'frame'")  # repeated in the words of the index, so that SQLite uses it
        if exchange is not None:
            where.append("exchange = ?")
            values.append(exchange)
        if step is not None:
            where.append("step = ?")
            values.append(step)
        order = "DESC" if newest_first else "ASC"
        query = f"SELECT {COLUMNS} FROM events WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT {limit}"
        events, size = [], 0
        try:
            with closing(self.connection.execute(query, values)) as rows:
                for row in rows:
                    events.append(event := _event(row))
                    size += len(event.payload)
                    if size > PAGE_BYTES:
                        break
            return events
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.named}: {error}; see `retold verify`.") from error

    def parts(self, run: str, exchange: int, *, after: int, until: int | None = None) -> Sequence[Part]:
        """Return a page of the frames and chunks of an exchange: four columns cost a fourth of all. Raises LogError."""
        parts: list[Part] = []
        size = 0
        try:
            with closing(self.connection.execute(_PARTS, (run, after, LAST if until is None else until, exchange))) as rows:
                for seq, t_ns, kind, payload in rows:
                    if type(t_ns) is not int or type(payload) not in (str, bytes):
                        raise LogError(f"run {run}, event {seq}: it is not of a type that retold writes; see `retold verify`.")
                    data = payload.encode() if type(payload) is str else payload
                    parts.append((seq, t_ns, kind, data))
                    size += len(data)
                    if size > PAGE_BYTES:
                        break
            return parts
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.named}: {error}; see `retold verify`.") from error

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]:
        """Return the runs that fit the query, newest first. Raises LogError."""
        return Listing(self.connection, self.named, self._status).runs(query, limit=limit, skip=skip)

    def entries(self, after: int = 0) -> Sequence[Entered]:
        """Return the entries of the ledger with a number above `after`. Raises LogError."""
        try:
            return list(rows.entries(self.connection, after or None))
        except sqlite3.Error as error:
            raise LogError(f"the ledger of the log cannot be read: {error}; see `retold verify`.") from error

    def wait(self, run: str, after: int, seconds: float) -> None:
        """Return when the run holds an event after `after`, its writer is gone, or so many seconds have passed.

        A writer in this process wakes the reader. For commits of other processes the reader polls SQLite.
        """
        deadline_ns = monotonic_ns() + int(seconds * 1e9)
        while True:
            is_own, seen, look = self._alive.is_held(run), self._bell.rung, 0
            version = None if is_own else opening.data_version(self.connection)
            if self._holds_more(run, after) or not (is_own or self.is_alive(run)):
                return
            while self._bell.rung == seen and (is_own or opening.data_version(self.connection) == version):
                left_s = (deadline_ns - monotonic_ns()) / 1e9
                if left_s <= 0:
                    return
                self._bell.wait(seen, left_s if is_own else min(left_s, POLL_S))
                look += 1
                if look == LOOK_EVERY:
                    break

    def is_alive(self, run: str) -> bool:
        """Return whether this process, another one or another log writes the run."""
        return self._alive.is_held(run) or self._status(run) == RUNNING

    def version(self) -> int:
        """Return SQLite's number for the state of the file."""
        return opening.data_version(self.connection)

    def cursor(self, shelf: str) -> str | None:
        """Return the cursor that was kept last for the shelf."""
        row = self._row("SELECT cursor FROM shelves WHERE shelf = ?", shelf)
        return None if row is None else str(row[0])

    def cursors(self) -> dict[str, str]:
        """Return all kept cursors by shelf."""
        try:
            rows = self.connection.execute("SELECT shelf, cursor FROM shelves").fetchall()
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.named}: {error}.") from error
        return {str(shelf): str(cursor) for shelf, cursor in rows}

    def source_of(self, run: str) -> str | None:
        """Return the source of a received run, or None for any other run."""
        row = self._row("SELECT source FROM received WHERE run = ?", run)
        return None if row is None else str(row[0])

    def count_kinds(self, run: str) -> Counter[str]:
        """Return the number of events of each kind that a run holds now."""
        return listing.count_kinds(self.connection, run)

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.named}: {error}.") from error
        return row

    def _status(self, run: str) -> Ended:
        """Return the status of a run without a last event: another log writes a received run, as far as this one knows."""
        status = self._alive.status(run)
        return RUNNING if status == INTERRUPTED and self.source_of(run) is not None else status

    def _holds_more(self, run: str, after: int) -> bool:
        query = "SELECT 1 FROM events WHERE run = ? AND seq > ? LIMIT 1"
        try:
            return self.connection.execute(query, (run, after)).fetchone() is not None
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.named}: {error}.") from error


@contextmanager
def reading(path: Path, named: Path, alive: Liveness) -> Iterator[SqliteReadings]:
    """Open a log for some questions. Raises LogError, LogVersionError."""
    with closing(SqliteReadings(path, named, alive)) as readings:
        yield readings


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

    def parts(self, run: str, exchange: int, *, after: int, until: int | None = None) -> Sequence[Part]:
        """Return a page of the frames and chunks of an exchange. Raises LogError."""
        with self.reading() as store:
            return store.parts(run, exchange, after=after, until=until)

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


def last_row(connection: sqlite3.Connection, run: str) -> Event | None:
    """Return the last event of a run, or None if it has none. Raise LogError if a cell of its row was changed."""
    query = f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1"
    try:
        row = connection.execute(query, (run,)).fetchone()
    except sqlite3.OperationalError as error:  # text that is not UTF-8
        raise LogError(f"cannot read the last event of run {run}: {error}; see `retold verify`.") from error
    return None if row is None else _event(row)


def _event(row: tuple[Any, ...]) -> Event:
    """Return the event of a row. Raises LogError if a value has a type that is never written, because the log was changed."""
    if tuple(map(type, row)) not in _TYPES:
        column = fault_in_row(row)
        where = f"run {row[0]}, event {row[1]}"
        raise LogError(f"{where[:80]!r}: its {column} is not of a type that retold writes; see `retold verify`.")
    run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema = row
    payload = payload.encode() if isinstance(payload, str) else payload
    return Event(run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema)
