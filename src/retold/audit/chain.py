"""The hash chain of one run checked row by row: the first row that is wrong, and what was done to it.

Pure functions over rows. A row is accepted when its number is the next one and its hash covers the hash before, its header
and its digest (recorder/events.py). Where one is not, the rows behind it tell what happened: one that fits here was moved, a
run of strangers was inserted, a number that nobody has was removed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from types import NoneType
from typing import Literal

from ..recorder.events import GENESIS, Event, seal
from ..recorder.log.sqlite.rows import to_column

What = Literal[
    "edited", "removed", "inserted", "reordered", "cut off", "missing run", "unknown run", "listing", "ledger", "schema",
    "damaged",
]  # fmt: skip
"""The kind of a finding. `listing`: the line in `runs` differs from the events. `schema`: a table, index, view, trigger or
setting is not as retold makes it. `damaged`: the file itself cannot be read, or its indexes do not fit its tables."""

MOVED_WITHIN = 100_000
"""How far behind its place a moved row is looked for."""


class Row(Event):
    """An event as it stands in the table. `payload` is its sha256, so that rows stay small; text is UTF-8 or not."""

    __slots__ = ()

    def sealed(self, before: bytes, *, seq: int | None = None, run: str | None = None) -> bytes | None:
        """The hash that this row should have behind one with the hash `before`; None if its header cannot be sealed."""
        if type(self.exchange) not in (int, NoneType):
            return None  # empty text would be sealed as the absence of an exchange is
        try:
            return seal(
                before, self.schema, run or self.run, self.seq if seq is None else seq, self.t_ns, self.wall_ns, self.kind,
                self.exchange, self.step, self.task, self.digest,
            )  # fmt: skip
        except (UnicodeEncodeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: where (run and seq, as far as there is one), what, and in words."""

    run: str
    seq: int | None
    what: What
    detail: str


@dataclass(frozen=True, slots=True)
class End:
    """Where a run ends: the number and hash of its last row."""

    seq: int
    hash: bytes


Rows = Callable[[int | None], Iterator[Row]]
"""The rows of a run in order: from a number on, or with None all of them, whatever stands in the place of their numbers."""

Allowed = Callable[[int], bytes | None]
"""The sha256 of what an erasure put in the place of a payload, by the row's number."""


def check(run: str, rows: Rows, end: End | None, allowed: Allowed, *, counted: Callable[[Row], None]) -> End | Finding:
    """The last row of a run whose chain is right, or what is wrong first. `end` is where the ledger says that it ends."""
    last = End(-1, GENESIS)
    for row in rows(None):
        if end is not None and last.seq == end.seq:
            return Finding(run, row.seq, "inserted", f"the run ended with event {end.seq}")
        if type(row.seq) is int and row.seq < 0:
            return Finding(run, row.seq, "inserted", "the numbers of a run begin with 0")
        if row.seq != last.seq + 1 or row.sealed(last.hash) != row.hash:
            return _diagnosis(run, rows, last, end)
        if row.payload != row.digest and row.payload != allowed(row.seq):
            return Finding(run, row.seq, "edited", f"the payload of this {row.kind} is not the one that was recorded")
        if end is not None and row.seq == end.seq and row.hash != end.hash:
            return Finding(run, row.seq, "edited", "the run was rewritten: it ends otherwise than the ledger says")
        last = End(row.seq, row.hash)
        counted(row)
    if end is not None and last.seq < end.seq:
        return Finding(run, last.seq + 1, "cut off", f"{_span(last.seq + 1, end.seq)} missing at the end")
    return last


def _diagnosis(run: str, rows: Rows, last: End, end: End | None) -> Finding:
    """What was done to the first row that does not follow `last`."""
    at = last.seq + 1
    rest = list(_first(rows(at), 4))
    first = rest[0]
    home = _home(rows(at), at, last.hash)
    if home is not None and type(home.seq) is not int:
        return Finding(run, at, "edited", "the number of this event is no longer one")
    if type(first.seq) is not int:
        return Finding(run, at, "edited", "the number of this event is no longer one, and the rest of it is another")
    if first.seq > at:
        if home is not None:
            return Finding(run, at, "reordered", f"the event of this place is at {home.seq}")
        return Finding(run, at, "removed", f"{_span(at, first.seq - 1)} missing")
    if home is not None:
        behind = next((row for row in rows(at) if row.seq == home.seq + 1), None)
        if behind is None:
            moved = first.sealed(home.hash, seq=at + 1) == first.hash or home.seq - at > 1
        else:
            moved = behind.sealed(home.hash, seq=at + 1) != behind.hash
        if moved:
            return Finding(run, at, "reordered", f"the event of this place is at {home.seq}")
        return Finding(run, at, "inserted", f"{_span(at, home.seq - 1)} not of this run; the event of this place follows")
    should_be = first.sealed(last.hash) or first.hash
    if len(rest) > 1 and rest[1].hash not in (rest[1].sealed(first.hash), rest[1].sealed(should_be)):
        lost = _renumbered(rest, end, at)
        if lost:
            return Finding(run, at, "removed", f"{_span(at, at + lost - 1)} missing; those behind were renumbered")
    return Finding(run, at, "edited", f"this {_printable(first.kind)} is not as it was recorded")


def _home(rows: Iterable[Row], at: int, before: bytes) -> Row | None:
    """The row that was written at `at`, wherever it stands now; its own place does not count."""
    for row in _first(rows, MOVED_WITHIN):
        if row.seq != at and row.sealed(before, seq=at) == row.hash:
            return row
    return None


def _renumbered(rest: list[Row], end: End | None, at: int) -> int:
    """How many rows were taken out before two that follow each other under later numbers than they have now."""
    most = MOVED_WITHIN if end is None else min(end.seq - at, MOVED_WITHIN)
    return next((k for k in range(1, most + 1) if rest[1].sealed(rest[0].hash, seq=rest[1].seq + k) == rest[1].hash), 0)


def _first(rows: Iterable[Row], count: int) -> Iterator[Row]:
    for number, row in enumerate(rows):
        if number == count:
            return
        yield row


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"


def _printable(kind: object) -> str:
    return kind if isinstance(kind, str) and kind.isprintable() and kind.isascii() else "event"


def payload_digest(payload: object) -> bytes:
    """sha256 of a payload as its column holds it; of no bytes if retold would not store it in this type.

    Views and JSON functions read text alone: the same bytes as a blob are a hidden message.
    """
    if isinstance(payload, str):
        return b"" if "\0" in payload else sha256(payload.encode("utf-8", "surrogateescape")).digest()
    if isinstance(payload, bytes):
        return b"" if isinstance(to_column(payload), str) else sha256(payload).digest()
    return b""
