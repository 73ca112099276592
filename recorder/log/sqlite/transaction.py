"""A transaction of the log, and the errors of a log that cannot be written."""

import sqlite3
from pathlib import Path

from ...errors import LogError
from ..store import Conflict

_WAYS_OUT = {
    sqlite3.SQLITE_FULL: "free some space, or name another log with --db FILE",
    sqlite3.SQLITE_IOERR: "the disk refused it: free some space if it is full or a limit is reached, or name another log with "
    "--db FILE",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable, or name another log with --db FILE",
    sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable, or name another log with --db FILE",
    sqlite3.SQLITE_BUSY: "another process holds it; do the same again when that has ended, or name another log with --db FILE",
    sqlite3.SQLITE_CORRUPT: "`retold recover` saves what can be read of the damaged file; name another log with --db FILE",
    sqlite3.SQLITE_NOTADB: "another program wrote to it; name another log with --db FILE",
}
"""The way out of each kind of failure, by SQLite's primary error code."""

_UNHURT = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CONSTRAINT,
)  # fmt: skip
"""Failures that leave the committed events unchanged."""

_TAKEN = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)
"""Failures because another writer appended the same event, or began the same run."""


def write_error(path: Path, error: sqlite3.Error) -> LogError:
    """Return the error of a log that cannot be written, with the way out that is true for its cause."""
    whole = getattr(error, "sqlite_errorcode", None) or 0
    code = whole & 0xFF
    safe = "What was written before is safe; " if code in _UNHURT else ""
    way_out = _WAYS_OUT.get(code, "name another log with --db FILE")
    kind = Conflict if whole in _TAKEN else LogError
    return kind(f"cannot write the log {path}: {error}. {safe}{way_out if safe else way_out[:1].upper() + way_out[1:]}.")


class Transaction:
    """BEGIN IMMEDIATE … COMMIT. It takes the write lock first, so that it waits instead of failing halfway. Raises LogError."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path

    def __enter__(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise write_error(self.path, error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        failed = error
        try:
            self.connection.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error as refused:
            failed = failed or refused
            roll_back(self.connection)
        if isinstance(failed, sqlite3.Error):
            raise write_error(self.path, failed) from failed


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction that an error or an interrupt left open."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")
