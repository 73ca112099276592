"""The ledger: the beginnings and ends of all runs in their order, chained over the whole log.

The chain of a run (events.py) proves changes of its events, but not the loss of the whole run or of its tail. So the first and
the last event of every run are entered here, in the transaction that writes them:

    chain = sha256(chain of the entry before, or 32 zero bytes | "n,run,what,seq," | hash of the event)

The third field is `started` or `ended`. The newest entry's chain therefore covers every ended run whole and the beginning of
every open one; with the last hash of each open run beside it, it is the head of the log: kept elsewhere, it proves that nothing
before it was changed, not even by a person who recomputed every hash.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from ..errors import InputError
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
    def of(cls, entries: Sequence[Entered], ends: tuple[tuple[str, int, bytes], ...] = ()) -> "Head":
        """Return the head of a log with these entries; `ends` are the newest events of its open runs."""
        return cls(entries[-1].n, entries[-1].chain, ends) if entries else cls(0, GENESIS)

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Return the head that a text describes: the inverse of `str`. Raises InputError."""
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise InputError(f"{text[:80]!r} is no head of a log; `retold verify --head` prints one: 1:ENTRIES:HASH.")
        ends = [re.split("[@:]", each) for each in found[3].split(",")[1:]]
        return cls(int(found[1]), bytes.fromhex(found[2]), tuple((run, int(seq), bytes.fromhex(own)) for run, seq, own in ends))


def open_runs(entries: Sequence[Entered]) -> list[str]:
    """Return the runs that began and did not end, in the order of their beginnings."""
    ended = {entry.run for entry in entries if entry.what == "ended"}
    return [entry.run for entry in entries if entry.run not in ended]


def chained(before: bytes, n: int, run: str, what: str, seq: int, own: bytes) -> bytes:
    """Return the chain of an entry: it covers the entry before it, and the event that it enters."""
    return sha256(before + f"{n},{run},{what},{seq},".encode("utf-8", "surrogateescape") + own).digest()


def next_entry(before: Entered | None, run: str, what: What, seq: int, own: bytes) -> Entered:
    """Return the entry of the first or last event of a run, which follows the entry `before`; `own` is the event's hash."""
    n, chain = (1, GENESIS) if before is None else (before.n + 1, before.chain)
    return Entered(n, run, what, seq, own, chained(chain, n, run, what, seq, own))
