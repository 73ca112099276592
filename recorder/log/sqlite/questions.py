"""Questions: the base of classes that read the file of a log through named questions and return the values of its cells."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from ...errors import LogError
from ..reading import LogReader
from .store import SqliteStore

Cells = tuple[Any, ...]
"""The values of a row as they are in the file. Another program may have written a value of any type."""


class Unreadable(LogError):
    """SQLite cannot read the file of a log, or not any further. The message is the reason that SQLite gives."""


class Questions:
    """One connection to a log, for reading. Text that is not UTF-8 is decoded with `errors`, as `bytes.decode` does.

    Every question raises Unreadable.
    """

    def __init__(self, log: LogReader, errors: str) -> None:
        if not isinstance(log.store, SqliteStore):
            raise LogError(f"the log {log.path} is not kept in a file.")
        self._connection = log.store.reader()
        self._errors = errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Answer the questions of the block from the state of the log at one moment."""
        self._rows("BEGIN")
        try:
            yield
        finally:
            self._rows("COMMIT")

    def _rows(self, query: str, *values: object) -> list[Cells]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:  # perhaps a text that is not UTF-8: the decoder of all is slower, so it is not the first
            self._decode_all()
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error

    def _decode_all(self) -> None:
        """Decode text that is not UTF-8, too, from now on."""
        self._connection.text_factory = lambda data: data.decode("utf-8", self._errors)

    def _row(self, query: str, *values: object) -> Cells | None:
        return next(iter(self._rows(query, *values)), None)

    def _each(self, query: str, *values: object) -> Iterator[Cells]:
        """Yield rows without holding all of them."""
        self._decode_all()
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error


def integrity_lines(connection: sqlite3.Connection, most: int) -> list[str]:
    """Run SQLite's own check, which reads every page and compares each index with its table. Return its first findings."""
    rows = connection.execute(f"PRAGMA integrity_check({most})").fetchall()
    return [line for (text,) in rows if text != "ok" for line in str(text).split("\n")][:most]
