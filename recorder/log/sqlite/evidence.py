"""Evidence: the cells of a log as they are in its file, for checks that trust neither rows nor schema.

Events are read along their primary key, which is the table itself, never through another index: an index may hide rows.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ...events import Event
from ..reading import LogReader
from ..store import Entered, Head
from . import opening, rows
from .listing import COLUMNS as LINE_COLUMNS
from .questions import Cells, Questions, Unreadable, integrity_lines
from .rows import COLUMNS

PAGE = 1000
"""Rows that are read at once."""

VERSION = opening.VERSION
"""The version of a log of this schema."""

SQLITE_VERSION = sqlite3.sqlite_version
"""The version of the SQLite library."""

MIGRATIONS = "_sqlite_migrations"
"""The table in which early versions listed their migrations. sqlite-utils made it, in several forms."""

Declared = tuple[str, str, str, str | None]
"""(type, name, table, SQL) of a table, index, view or trigger."""


def declarations() -> list[Declared]:
    """Return the declarations in a new log."""
    from .migrations import schema

    return schema()


def is_ordinary(sql: str | None) -> bool:
    """Return whether a declaration is one of an ordinary table. The rows of a virtual table may come from anywhere."""
    return str(sql).startswith("CREATE TABLE")


class Evidence(Questions):
    """The file of a log. Text that is not UTF-8 has surrogates in the place of its bytes."""

    def __init__(self, log: LogReader) -> None:
        super().__init__(log, "surrogateescape")

    # The file

    def declared(self) -> list[Declared]:
        """Return the declarations in the file."""
        return self._rows("SELECT type, name, tbl_name, sql FROM sqlite_master")

    def version(self) -> Any:
        """Return the version of the file."""
        (row,) = self._rows("PRAGMA user_version")
        return row[0]

    def migrations(self) -> list[dict[str, Any]] | None:
        """Return the rows of the list of migrations by column, or None if the log has no list."""
        if self._row("SELECT 1 FROM sqlite_master WHERE name = ?", MIGRATIONS) is None:
            return None
        try:
            cursor = self._connection.execute(f"SELECT * FROM {MIGRATIONS} ORDER BY rowid")
            return [dict(zip([name for name, *_ in cursor.description], row, strict=True)) for row in cursor]
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error

    def is_erasing(self) -> bool:
        """Return whether the file allows payloads to be replaced."""
        return self._row("SELECT 1 FROM erasing LIMIT 1") is not None

    def integrity(self, most: int) -> list[str]:
        """Return at most so many findings of SQLite's own check."""
        try:
            return integrity_lines(self._connection, most)
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error

    # The ledger

    def entries(self) -> list[Entered]:
        """Return the entries of the ledger in order."""
        try:
            return list(rows.entries(self._connection))
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error

    def head_of(self, entries: Sequence[Entered]) -> Head:
        """Return the head of a log with these entries, in the snapshot of the caller."""
        try:
            return rows.head_of(self._connection, entries)
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error

    def entered_end(self, run: str) -> Cells | None:
        """Return (seq, hash) of the newest entry for the end of a run."""
        return self._row("SELECT seq, hash FROM ledger WHERE run = ? AND what = 'ended' ORDER BY n DESC LIMIT 1", run)

    def runs_not_entered(self) -> list[str]:
        """Return the runs that have events and no entry for their beginning, at one moment. Each run is one look-up."""
        found = self._rows(
            "WITH RECURSIVE each(run) AS (SELECT min(run) FROM events UNION ALL "
            "SELECT (SELECT min(run) FROM events WHERE run > each.run) FROM each WHERE each.run IS NOT NULL) "
            "SELECT CAST(run AS BLOB) FROM each WHERE run IS NOT NULL "
            "AND NOT EXISTS (SELECT 1 FROM ledger WHERE what = 'started' AND ledger.run = each.run)"
        )
        return [name.decode("utf-8", "backslashreplace") for (name,) in found]

    # Events

    def rows(self, run: str, at: int | None = None) -> Iterator[Cells]:
        """Yield the rows of a run in the order of their numbers, page by page: from `at` on, or by default all of them.

        A number that was replaced by text or bytes ends its page and the answer: numbers come first in SQLite's order.
        """
        query = f"SELECT {COLUMNS} FROM events NOT INDEXED WHERE run = ? AND seq {{}} ? ORDER BY seq LIMIT {PAGE}"
        least: tuple[str, Any] = (">=", -(2**63) if at is None else at)
        while page := self._rows(query.format(least[0]), run, least[1]):
            yield from page
            if type(page[-1][1]) is not int:
                return
            least = (">", page[-1][1])

    def first_event(self, run: str) -> Event | None:
        """Return the first event of a run. Any of its fields may hold a value of another type."""
        return _event(self._row(f"SELECT {COLUMNS} FROM events NOT INDEXED WHERE run = ? ORDER BY seq LIMIT 1", run))

    def event(self, run: str, seq: int) -> Event | None:
        """Return an event. Any of its fields may hold a value of another type."""
        return _event(self._row(f"SELECT {COLUMNS} FROM events NOT INDEXED WHERE run = ? AND seq = ?", run, seq))

    def beginnings(self, mode: str, status: str) -> Iterator[Cells]:
        """Yield (run, payload of its first event) of the runs of a mode that ended with a status, oldest first."""
        return self._each(
            "SELECT r.run, e.payload FROM runs r JOIN events e ON e.run = r.run AND e.seq = 0 "
            "WHERE r.mode = ? AND r.status = ? ORDER BY r.id", mode, status,
        )  # fmt: skip

    def audit_events(self) -> Iterator[Cells]:
        """Yield (run, seq, kind, payload) of the events in runs of mode `audit`, in order."""
        return self._each(
            "SELECT e.run, e.seq, e.kind, e.payload FROM runs r JOIN events e ON e.run = r.run AND e.kind <> 'frame' "
            "WHERE r.mode = 'audit' ORDER BY r.id, e.seq"
        )

    def header_names(self) -> Iterator[str]:
        """Yield the names of steps and tasks, which the hash chain covers."""
        query = "SELECT step FROM events GROUP BY step UNION SELECT task FROM events GROUP BY task"
        return (str(name) for (name,) in self._each(query))

    # The runs of other logs

    def received(self) -> list[Cells]:
        """Return (run, shelf, source) of each run that another log records."""
        return self._rows("SELECT run, shelf, source FROM received")

    def shelves(self) -> list[Cells]:
        """Return (shelf, cursor) of each shelf that was read."""
        return self._rows("SELECT shelf, cursor FROM shelves")

    # The listing

    def line(self, run: str) -> dict[str, Any] | None:
        """Return the line of a run in the listing, by column."""
        row = self._row(f"SELECT {LINE_COLUMNS} FROM runs WHERE run = ?", run)
        return None if row is None else dict(zip(LINE_COLUMNS.split(", "), row, strict=True))

    def lines(self) -> list[Cells]:
        """Return the lines of the listing in order, each with the values of `LINE_COLUMNS`."""
        return self._rows(f"SELECT {LINE_COLUMNS} FROM runs ORDER BY id")

    def places(self) -> list[Cells]:
        """Return (number, run) of each line of the listing in order."""
        return self._rows("SELECT id, run FROM runs NOT INDEXED ORDER BY id")


def _event(cells: Cells | None) -> Event | None:
    return None if cells is None else Event._make(cells)
