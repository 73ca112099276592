"""Check the hash chain of one run row by row, and find the first wrong row and the kind of its change.

These are pure functions over rows. A row is accepted if its number is the next one and its hash covers the hash before, its
header and its digest (recorder/events.py). Otherwise the rows after it show the change:
1. A later row fits in this place: the row was moved, or others were inserted before it.
2. No row has the number: rows were removed.
3. Later rows have lower numbers than those that their hashes cover: rows were removed, and the rest was renumbered.
4. In any other case the row was edited.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from types import NoneType
from typing import Literal

from ..recorder.events import GENESIS, Event, seal
from ..recorder.log.sqlite.rows import to_column

What = Literal[
    "edited", "removed", "inserted", "reordered", "cut off", "missing run", "unknown run", "listing", "ledger", "received",
    "schema", "damaged", "fork",
]  # fmt: skip
"""The kind of a finding. `listing`: the line in `runs` differs from the events. `received`: a run of
another log, or the cursor of a shelf. `schema`: a table, index, view, trigger or setting is not as retold makes it. `damaged`:
the file itself cannot be read, or its indexes do not fit its tables. `fork`: a fork and its parent do not share the events
before the fork."""

MOVED_WITHIN = 100_000
"""A moved row is searched for in so many rows after its place."""


class Row(Event):
    """The cells of an event. `payload` is the sha256 of the payload, so that rows stay small. Text may hold surrogates."""

    __slots__ = ()

    def sealed(self, before: bytes, *, seq: int | None = None, run: str | None = None) -> bytes | None:
        """Return the hash that this row should have after a row with the hash `before`; None if its header cannot be sealed."""
        if type(self.exchange) not in (int, NoneType):
            return None  # empty text would have the same seal as no exchange
        try:
            return seal(
                before, self.schema, run or self.run, self.seq if seq is None else seq, self.t_ns, self.wall_ns, self.kind,
                self.exchange, self.step, self.task, self.digest,
            )  # fmt: skip
        except (UnicodeEncodeError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference: its place (run and seq, if it has one), its kind, and a description."""

    run: str
    seq: int | None
    what: What
    detail: str


@dataclass(frozen=True, slots=True)
class End:
    """The end of a run: the number and hash of its last row."""

    seq: int
    hash: bytes


Rows = Callable[[int | None], Iterator[Row]]
"""A function that yields the rows of a run in order: from a number on, or with None all of them, whether numbered or not."""

Allowed = Callable[[int], bytes | None]
"""A function that returns the sha256 of the replacement of an erased payload, by the row's number."""


def check(run: str, rows: Rows, end: End | None, allowed: Allowed, *, counted: Callable[[Row], None]) -> End | Finding:
    """Return the last row of an unchanged run, or the first finding. `end` is the end of the run in the ledger."""
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
            return Finding(run, row.seq, "edited", "the run was rewritten: its end differs from the ledger")
        last = End(row.seq, row.hash)
        counted(row)
    if end is not None and last.seq < end.seq:
        return Finding(run, last.seq + 1, "cut off", f"{_span(last.seq + 1, end.seq)} missing at the end")
    return last


def _diagnosis(run: str, rows: Rows, last: End, end: End | None) -> Finding:
    """Return the change of the first row that does not follow `last`."""
    at = last.seq + 1
    rest = list(_first(rows(at), 4))
    first = rest[0]
    home = _home(rows(at), at, last.hash)
    if home is not None and type(home.seq) is not int:
        return Finding(run, at, "edited", "the number of this event was replaced by a value of another type")
    if type(first.seq) is not int:
        return Finding(
            run, at, "edited", "the number of this event was replaced by a value of another type, and the rest was edited"
        )
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
    """Return the row that was written at `at` and now has another place."""
    for row in _first(rows, MOVED_WITHIN):
        if row.seq != at and row.sealed(before, seq=at) == row.hash:
            return row
    return None


def _renumbered(rest: list[Row], end: End | None, at: int) -> int:
    """Return the number of rows removed before two rows that follow each other under later numbers than their present ones."""
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
    """Return the sha256 of a payload in its column, or no bytes if retold would not store it in this type.

    Views and JSON functions read text only, so they do not show a message that was changed to a blob of the same bytes.
    """
    if isinstance(payload, str):
        return b"" if "\0" in payload else sha256(payload.encode("utf-8", "surrogateescape")).digest()
    if isinstance(payload, bytes):
        return b"" if isinstance(to_column(payload), str) else sha256(payload).digest()
    return b""
