"""The ledger: which runs began and which ended, in the order they did, chained over the whole log.

The chain of a run (events.py) shows what was done to its events, but not that the whole run is gone or that its tail was cut
off. So the first and the last event of every run are entered here, in the transaction that writes them:

    chain = sha256(chain of the entry before, or 32 zero bytes | "n,run,what,seq," | hash of the event)

`what` is `started` or `ended`. The newest entry's chain therefore covers every ended run whole and the beginning of every open
one; with the last hash of each open run beside it, it is the head of the log: kept elsewhere, it proves that nothing before it
was changed, not even by someone who recomputed every hash.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from ..errors import InputError, LogError
from ..events import GENESIS

What = Literal["started", "ended"]

_HEAD = re.compile(r"1:(\d+):([0-9a-f]{64})((?:,[0-9a-f]+@\d+:[0-9a-f]{64})*)")


@dataclass(frozen=True, slots=True)
class Entered:
    """One entry of the ledger."""

    n: int
    run: str
    what: str
    seq: int
    hash: bytes
    chain: bytes

    @property
    def is_whole(self) -> bool:
        """Whether each value has the type that was written. SQLite stores any type in any column."""
        types = (type(self.n), type(self.run), type(self.what), type(self.seq), type(self.hash), type(self.chain))
        return types == (int, str, str, int, bytes, bytes) and self.run.isprintable()


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a log: its newest ledger entry, and (run, seq, hash) of the newest event of each run that is open.

    As text `1:N:CHAIN[,RUN@SEQ:HASH…]`, hashes in hexadecimal; the leading 1 is the version of this form.
    """

    n: int
    chain: bytes
    open: tuple[tuple[str, int, bytes], ...] = ()

    def __str__(self) -> str:
        return f"1:{self.n}:{self.chain.hex()}" + "".join(f",{run}@{seq}:{own.hex()}" for run, seq, own in self.open)

    @classmethod
    def parse(cls, text: str) -> "Head":
        """The inverse of `str`. Raises InputError."""
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise InputError(f"{text[:80]!r} is no head of a log; `retold verify --head` prints one: 1:ENTRIES:HASH.")
        ends = [re.split("[@:]", each) for each in found[3].split(",")[1:]]
        return cls(int(found[1]), bytes.fromhex(found[2]), tuple((run, int(seq), bytes.fromhex(own)) for run, seq, own in ends))


def chained(before: bytes, n: int, run: str, what: str, seq: int, own: bytes) -> bytes:
    """The chain of an entry: covers the entry before it and the event it stands for."""
    return sha256(before + f"{n},{run},{what},{seq},".encode("utf-8", "surrogateescape") + own).digest()


def enter(connection: sqlite3.Connection, run: str, what: What, seq: int, own: bytes) -> None:
    """Enter the first or last event of a run, in the transaction that writes it."""
    n, before = connection.execute("SELECT n, chain FROM ledger ORDER BY n DESC LIMIT 1").fetchone() or (0, GENESIS)
    chain = chained(before, n + 1, run, what, seq, own)
    connection.execute(
        "INSERT INTO ledger (n, run, what, seq, hash, chain) VALUES (?, ?, ?, ?, ?, ?)", (n + 1, run, what, seq, own, chain)
    )


def entries(connection: sqlite3.Connection) -> Iterator[Entered]:
    """The entries in order, all of them as one moment has them."""
    rows = connection.execute("SELECT n, run, what, seq, hash, chain FROM ledger ORDER BY n").fetchall()
    return (Entered(*row) for row in rows)


def head(connection: sqlite3.Connection) -> Head:
    """The head of the log at this moment. Raises LogError if an entry of the ledger is not as it was written."""
    connection.execute("BEGIN")  # ledger and events of the same moment
    try:
        found = list(entries(connection))
        if not all(entry.is_whole for entry in found):
            raise LogError("the ledger of the log is not as it was written; `retold verify` names the entry.")
        return head_of(connection, found)
    except sqlite3.Error as error:
        raise LogError(f"the ledger of the log cannot be read: {error}; see `retold verify`.") from error
    finally:
        connection.execute("COMMIT")


def head_of(connection: sqlite3.Connection, found: Sequence[Entered]) -> Head:
    """The head of a log with these entries, in the snapshot of the caller."""
    ended = {entry.run for entry in found if entry.what == "ended"}
    last = "SELECT seq, hash FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1"
    open_runs = [entry.run for entry in found if entry.run not in ended]
    rows = [(run, *row) for run in open_runs if (row := connection.execute(last, (run,)).fetchone()) is not None]
    ends = tuple((run, seq, own) for run, seq, own in rows if isinstance(seq, int) and isinstance(own, bytes))
    return Head(found[-1].n, found[-1].chain, ends) if found else Head(0, GENESIS)
