"""The rows of events and of the ledger (../store.py), and the transaction that writes them. `reading.py` reads events."""

import functools
import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...clock import monotonic_ns
from ...errors import LogError
from ...events import SCHEMA, Event
from ..store import Conflict, Entered, Head, SealedFrames, What, next_entry, open_runs
from . import sharing

COLUMNS = ", ".join(Event._fields)
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(Event._fields))})"


def to_row(event: Event) -> tuple[Any, ...]:
    """Return the values of a row, in the order of `COLUMNS`.

    sqlite3 seeks an adapter for bytes, which takes as long as all else that it does with a value, and none for a bytearray.
    """
    run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema = event
    return (run, seq, t_ns, wall_ns, kind, step, task, exchange, to_column(payload), bytearray(digest), bytearray(own),
            schema)  # fmt: skip


def to_column(payload: bytes) -> bytes | str:
    """Return text if the payload is text, so that any SQLite tool shows it, and else bytes."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload
    return payload if "\0" in text else text


_MOST_FRAMES = 64
"""The most frames that one statement inserts."""

AT_ONCE = 16
"""So many events are inserted by one statement, which is its own transaction. It is compiled once for each number up to this."""


@functools.cache
def _insert_of(number: int) -> str:
    """Return the statement that inserts so many frames, from the values that they share and five values of each."""
    rows = (
        f"(?1, ?{n}, ?2, ?3, 'frame', ?4, ?5, ?{n + 1}, ?{n + 2}, ?{n + 3}, ?{n + 4}, ?6)" for n in range(7, 7 + 5 * number, 5)
    )
    return f"INSERT INTO events ({COLUMNS}) VALUES {', '.join(rows)}"


@functools.cache
def _insert_of_any(number: int) -> str:
    """Return the statement that inserts so many events of any kind, from all values of each."""
    row = f"({', '.join('?' * len(Event._fields))})"
    return f"INSERT INTO events ({COLUMNS}) VALUES {', '.join([row] * number)}"


def insertion_of_any(events: Sequence[Event]) -> tuple[str, list[Any]]:
    """Return the statement that inserts some events of any kind, and its values."""
    return _insert_of_any(len(events)), list(itertools.chain.from_iterable(map(to_row, events)))


def insertion(frames: SealedFrames, at: int, end: int) -> tuple[str, list[Any]]:
    """Return the statement that inserts the frames from `at` to `end`, and its values: half the cost of one for each frame."""
    values: list[Any] = [frames.run, frames.t_ns, frames.wall_ns, frames.step, frames.task, SCHEMA]
    seals = map(bytearray, frames.seals[2 * at : 2 * end])
    numbers = range(frames.seq + at, frames.seq + end)
    columns = zip(numbers, frames.exchanges[at:end], map(to_column, frames.payloads[at:end]), seals, seals, strict=True)
    for row in columns:
        values += row
    return _insert_of(end - at), values


def insert_frames(connection: sqlite3.Connection, frames: SealedFrames) -> None:
    """Insert any number of frames. A statement inserts a power of 2 of them, so few are compiled."""
    at = 0
    while rest := len(frames) - at:
        end = at + min(_MOST_FRAMES, 1 << rest.bit_length() - 1)
        connection.execute(*insertion(frames, at, end))
        at = end


_COLUMNS = "n, run, what, seq, hash, chain"


def enter(connection: sqlite3.Connection, run: str, what: What, seq: int, own: bytes) -> None:
    """Enter the first or last event of a run, in the transaction that writes it; `own` is its hash."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM ledger ORDER BY n DESC LIMIT 1").fetchone()
    entry = next_entry(None if row is None else Entered(*row), run, what, seq, own)
    connection.execute(
        f"INSERT INTO ledger ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (entry.n, entry.run, entry.what, entry.seq, entry.hash, entry.chain),
    )


def entries(connection: sqlite3.Connection, after: int | None = None) -> Iterator[Entered]:
    """Return all entries in order, or those with a number above `after`, of one moment."""
    where, values = ("", ()) if after is None else ("WHERE n > ?", (after,))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM ledger {where} ORDER BY n", values).fetchall()
    return (Entered(*row) for row in rows)


def head_of(connection: sqlite3.Connection, found: Sequence[Entered]) -> Head:
    """Return the head of a log with these entries, in the snapshot of the caller."""
    last = "SELECT seq, hash FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1"
    rows = [(run, *row) for run in open_runs(found) if (row := connection.execute(last, (run,)).fetchone()) is not None]
    ends = tuple((run, seq, own) for run, seq, own in rows if isinstance(seq, int) and isinstance(own, bytes))
    return Head.of(found, ends)


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


_PAUSES_S = (0.00005,) * 40 + (0.001,) * 100
_LONGEST_PAUSE_S = 0.005


def when_free(
    error: sqlite3.Error, connection: sqlite3.Connection, path: Path, statement: str, values: Sequence[Any] = ()
) -> None:
    """Execute a statement that failed with `error` because another connection was writing, as soon as it has ended.

    Raise LogError after `BUSY_TIMEOUT_S`, or if `error` has another cause. A commit takes 0.1 ms, but SQLite's own waiting sleeps
    for 1 ms before its second try, then 2, 5 and 10, and all streams of a proxy would wait with it.
    """
    end_ns = monotonic_ns() + int(sharing.BUSY_TIMEOUT_S * 1e9)
    for pause_s in itertools.chain(_PAUSES_S, itertools.repeat(_LONGEST_PAUSE_S)):
        # The code of a lock that another connection took after this one began to read has more bits.
        if (getattr(error, "sqlite_errorcode", 0) & 0xFF) != sqlite3.SQLITE_BUSY or monotonic_ns() > end_ns:
            raise write_error(path, error) from error
        time.sleep(pause_s)
        try:
            connection.execute(statement, values)
            return
        except sqlite3.Error as again:
            error = again


@contextmanager
def waiting(connection: sqlite3.Connection, most_ms: int = int(sharing.BUSY_TIMEOUT_S * 1000)) -> Iterator[None]:
    """Let SQLite itself wait for other connections. The writer of a store does not: see `when_free`."""
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {most_ms}")
    try:
        yield
    finally:
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {before}")


class Transaction:
    """BEGIN IMMEDIATE … COMMIT. It takes the write lock first, so that it waits instead of failing halfway. Raises LogError."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path

    def __enter__(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            when_free(error, self.connection, self.path, "BEGIN IMMEDIATE")

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
