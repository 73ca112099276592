"""The table `ledger`: enter the beginnings and ends of runs, and read the chain (recorder/log/ledger.py defines it)."""

import sqlite3
from collections.abc import Iterator, Sequence

from ..ledger import Entered, Head, What, next_entry, open_runs

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
