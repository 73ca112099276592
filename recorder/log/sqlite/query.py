"""Queries in SQL by a person: one statement that reads, on a connection that can do nothing else, within a bounded time.

1. The connection is read-only, and `query_only` is set.
2. An authorizer refuses every action but reading: no other file, no transaction, no extension, no setting.
3. A query that takes too long ends, and so does one after Ctrl-C, which SQLite alone would not notice.
"""

import re
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unicodedata import east_asian_width

from ...errors import InputError
from ...words import closest
from ..reading import LogReader
from .questions import Cells, Questions

STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock: less than a millisecond."""

MOST_BYTES = 256 * 1024 * 1024
"""The largest value that a query may make."""

PAGE = 200
"""Rows that are read at once."""

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}

_DESCRIBING = {"table_info", "table_xinfo", "table_list"}
"""Pragmas that describe tables, and change nothing."""

_NEAR = re.compile(r'near "(.*)": syntax error', re.DOTALL)
_UNKNOWN = re.compile(r"(?:no such (column|table|function)|ambiguous column name|unrecognized token): \"?([^\"]+)\"?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to a query: the names of its columns, and its rows, which are read while you iterate over them."""

    names: tuple[str, ...]
    rows: Iterator[Cells]


class SqlQuery(Questions):
    """A connection for the queries of a person. Bytes that are not UTF-8 are shown as escapes in a text."""

    def __init__(self, log: LogReader, seconds: float) -> None:
        """Open the log. A query may compute for so many seconds. Raises LogError."""
        super().__init__(log, "backslashreplace")
        self._seconds, self._due, self._is_late, self._is_stopped = seconds, 0.0, False, False
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.set_authorizer(_authorized)
        self._connection.set_progress_handler(self._look, STEPS)

    def ask(self, sql: str) -> Rows:
        """Return the rows of one SELECT. Raises InputError, also while the rows are read, and KeyboardInterrupt after Ctrl-C."""
        if not sql.strip().rstrip(";"):
            raise InputError("the SQL is empty.")
        try:
            with self._computing(self._seconds):
                cursor = self._connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._explained(error, sql) from error
        names = tuple(name for name, *_ in cursor.description or ())
        return Rows(names, self._rows_of(cursor, sql, self._due - time.monotonic()))

    def _rows_of(self, cursor: sqlite3.Cursor, sql: str, left_s: float) -> Iterator[Cells]:
        while True:
            # Only the time of the query counts, not that of a reader who pages through its rows.
            try:
                with self._computing(left_s):
                    page = cursor.fetchmany(PAGE)
            except sqlite3.Error as error:
                raise self._explained(error, sql) from error
            left_s = self._due - time.monotonic()
            if not page:
                return
            yield from page

    @contextmanager
    def _computing(self, seconds: float) -> Iterator[None]:
        """Let SQLite compute for so many seconds. Raise KeyboardInterrupt if Ctrl-C came meanwhile.

        An exception of a signal handler would be lost inside of SQLite's callbacks, so the handler only notes the signal.
        """
        self._due, self._is_stopped = time.monotonic() + seconds, False
        before = signal.getsignal(signal.SIGINT)
        is_noted = callable(before) and threading.current_thread() is threading.main_thread()
        if is_noted:
            signal.signal(signal.SIGINT, self._stop)
        try:
            yield
        except sqlite3.Error:
            if not self._is_stopped:
                raise
        finally:
            if is_noted:
                signal.signal(signal.SIGINT, before)
        if self._is_stopped:
            raise KeyboardInterrupt

    def _stop(self, *_: object) -> None:
        self._is_stopped = True

    def _look(self) -> bool:
        """Return whether the query has to end."""
        self._is_late = time.monotonic() > self._due
        return self._is_late or self._is_stopped

    def _explained(self, error: Exception, sql: str) -> Exception:
        """Return the error for the user: with the place in the SQL if SQLite names one."""
        text = str(error)
        if text == "interrupted" and self._is_late:
            return InputError(f"the query took longer than {self._seconds:g} s and was ended; narrow it, or allow more time.")
        if "one statement at a time" in text:
            return InputError("one statement at a time: the SQL holds several.")
        if "authoriz" in text or "prohibited" in text or "readonly" in text:
            return InputError(f"a query only reads the log: one SELECT ({text}).")
        place, hint = self._place(text, sql), self._hint(text)
        if place is None:
            return InputError(f"SQL: {text}{hint or '.'}")
        before = sql[:place]
        line = sql.split("\n")[before.count("\n")].replace("\t", " ")
        column = len(before) - (before.rfind("\n") + 1)
        caret = " " * sum(2 if east_asian_width(each) in "WF" else 1 for each in line[:column]) + "^"
        where = f"line {before.count(chr(10)) + 1}, column {column + 1}"
        return InputError(f"SQL, {where}: {text}{hint or '.'}\n  {line}\n  {caret}")

    def _place(self, text: str, sql: str) -> int | None:
        """Return the place of an error in the SQL, or None if SQLite's message names none."""
        if text == "incomplete input":
            return len(sql.rstrip())
        if (near := _NEAR.fullmatch(text)) is not None:
            found = [match.start() for match in re.finditer(re.escape(near[1]), sql)]
            # SQLite reads from left to right: it stops at the first of them at which the text before it already fails alike.
            return next((at for at in found if self._fails_alike(sql[: at + len(near[1])], text)), next(iter(found), None))
        if (unknown := _UNKNOWN.match(text)) is not None:
            name = unknown[2].rpartition(".")[2] or unknown[2]
            match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sql, re.IGNORECASE) or re.search(re.escape(name), sql)
            return None if match is None else match.start()
        return None

    def _fails_alike(self, sql: str, text: str) -> bool:
        try:
            with self._computing(1):
                self._connection.execute(f"EXPLAIN {sql}")
        except (sqlite3.Error, sqlite3.Warning) as error:
            return str(error) == text
        return False

    def _hint(self, text: str) -> str:
        """Return the tables, those with such a column, or the most similar name, after an unknown name."""
        unknown = _UNKNOWN.match(text)
        if unknown is None or unknown[1] not in ("column", "table"):
            return ""
        tables = [name for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")]
        if unknown[1] == "table":
            close = closest(unknown[2], tables)
            return f"; there are {', '.join(tables)}." if close is None else f"; did you mean {close!r}?"
        name = unknown[2].rpartition(".")[2]
        columns = {table: [row[1] for row in self._rows(f"PRAGMA table_info({_quoted(table)})")] for table in tables}
        if holders := [table for table, names in columns.items() if name.lower() in names]:
            return f"; it is a column of {', '.join(holders)}."
        close = closest(name, [each for names in columns.values() for each in names])
        return "; PRAGMA table_info(runs) lists the columns of runs." if close is None else f"; did you mean {close!r}?"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _authorized(action: int, name: str | None, detail: str | None, *_: Any) -> int:
    """Return SQLITE_OK for an action that only reads the log, else SQLITE_DENY."""
    if action == sqlite3.SQLITE_FUNCTION and detail == "load_extension":
        return sqlite3.SQLITE_DENY
    is_reading = action in _READING or (action == sqlite3.SQLITE_PRAGMA and name in _DESCRIBING)
    return sqlite3.SQLITE_OK if is_reading else sqlite3.SQLITE_DENY
