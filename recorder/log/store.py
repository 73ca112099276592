"""Store: the interface between the log and the place in which events are kept.

A log numbers, redacts and seals events. A store keeps them and answers questions that are asked by values, so a store may be
a file, a database on another machine, or memory. A store of another author passes the tests of `tests/contracts/store.py`.

`Readings` is the asking half of a store. `Erasable` and `Salvageable` are stores that can do more: replace payloads, remove
runs, accept exported runs, and rebuild their listing.

The ledger holds the beginnings and ends of all runs in their order, chained over the whole log. The chain of a run (events.py)
proves changes of its events, but not the loss of the whole run or of its tail. So a store enters the first and the last event of
every run in the ledger, in the transaction that writes them:

    chain = sha256(chain of the entry before, or 32 zero bytes | "n,run,what,seq," | hash of the event)

The third field is `started` or `ended`. The newest entry's chain therefore covers every ended run whole and the beginning of
every open one; with the last hash of each open run beside it, it is the head of the log: kept elsewhere, it proves that nothing
before it was changed, not even by a person who recomputed every hash.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, Protocol, Self, overload, runtime_checkable

from ..errors import InputError, LogError
from ..events import GENESIS, SCHEMA, Event, as_event, seal, seal_frames
from .runs import RunInfo, RunQuery

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


PAGE = 500
"""Events of one answer, unless a reader asks for another number."""

Part = tuple[int, int, str, bytes]
"""Number, time, kind and payload of an event that holds a part of a body."""


class Conflict(LogError):
    """An event is not the next one of its run: another writer appended, or the run has ended or has not begun."""


class Ended(Conflict):
    """The run has ended, so nothing can be appended to it."""


class Sealed(list[Event]):
    """Events that were sealed one after another. `before` is the hash that the first one follows.

    A store need not compute the hashes of these events again to check that they chain.
    """

    __slots__ = ("before",)

    before: bytes


class SealedFrames(Sequence[Event]):
    """Frames that were sealed one after another, as `Sealed`. They differ in number, exchange, payload, digest and hash only.

    `seals` has digest and hash of each frame by turns. An event is made when it is asked for: a store needs few of them.
    """

    __slots__ = ("before", "exchanges", "payloads", "run", "seals", "seq", "step", "t_ns", "task", "wall_ns")

    def __init__(
        self, before: bytes, run: str, seq: int, t_ns: int, wall_ns: int, step: str, task: str,
        exchanges: Sequence[int | None], payloads: Sequence[bytes],
    ) -> None:  # fmt: skip
        self.before, self.run, self.seq, self.t_ns, self.wall_ns = before, run, seq, t_ns, wall_ns
        self.step, self.task, self.exchanges, self.payloads = step, task, exchanges, payloads
        self.seals = seal_frames(before, run, seq, t_ns, wall_ns, step, task, exchanges, payloads)

    def __len__(self) -> int:
        return len(self.payloads)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # like a list

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = index if index >= 0 else range(len(self))[index]
        return as_event((
            self.run, self.seq + number, self.t_ns, self.wall_ns, "frame", self.step, self.task, self.exchanges[number],
            self.payloads[number], self.seals[2 * number], self.seals[2 * number + 1], SCHEMA,
        ))  # fmt: skip


SEALED = (Sealed, SealedFrames)


class Readings(Protocol):
    """The questions that a store answers. Every method raises LogError if the store cannot be read."""

    @property
    def name(self) -> str:
        """The name of the store in messages."""

    def read(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None, newest_first: bool = False, limit: int = PAGE,
    ) -> Sequence[Event]:  # fmt: skip
        """Return the events of a run with a number above `after`, and at most `until`, that fit the other values.

        The answer has at most `limit` events; a store may return fewer if they are long, but at least one if any fits.
        """

    def parts(self, run: str, exchange: int, *, after: int, until: int | None = None) -> Sequence[Part]:
        """Return a page of the frames and chunks of an exchange, as `read` does. A store may override it with a shorter way."""
        found = self.read(run, after=after, until=until, kinds=("frame", "chunk"), exchange=exchange)
        return [(event.seq, event.t_ns, event.kind, event.payload) for event in found]

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]:
        """Return the runs that fit the query, newest first."""

    def entries(self, after: int = 0) -> Sequence[Entered]:
        """Return the entries of the ledger with a number above `after`, in order."""

    def wait(self, run: str, after: int, seconds: float) -> None:
        """Return when the run holds an event after `after`, its writer is gone, or so many seconds have passed."""

    def is_alive(self, run: str) -> bool:
        """Return whether a writer may still append to the run."""

    def version(self) -> int:
        """Return a number that is another one after each commit. It is cheap to ask while the store is open for reading."""

    def source_of(self, run: str) -> str | None:
        """Return the source of a run that another log records, or None for any other run."""

    def exists(self) -> bool:
        """Return whether the store has been made. The first `open` or `begin` makes it."""
        return True

    def reading(self) -> "AbstractContextManager[Readings]":
        """Answer several questions in a row. A store that opens a connection to answer keeps it open for so long."""
        return nullcontext(self)


class Store(Readings, Protocol):
    """The events of runs, the listing of the runs and the ledger. Every method raises LogError if the store cannot be reached.

    `lock` guards each write. A log holds it while it seals, so that events are kept in the order in which they were sealed.
    Inherit from this class to get its defaults.
    """

    lock: threading.RLock

    def open(self) -> None:
        """Make the store, if necessary, and get ready for writing."""

    def close(self) -> None:
        """Let go of everything that writing needs. The next write opens the store again."""

    def reopened(self) -> "Store":
        """Return a store of the same events that shares no connection with this one, for a forked child."""
        return self

    def begin(self, run: RunInfo, first: Event) -> None:
        """Keep the first event of a run, with its line in the listing and its entry in the ledger. Raises Conflict."""

    def append(self, events: Sequence[Event]) -> None:
        """Keep events of one run, all or none of them; they are durable on return.

        Raises Conflict unless they are the next events of the run, and their hashes chain.
        """

    def end(self, last: Event, run: RunInfo) -> None:
        """Keep the last event of a run, with its new line in the listing and its entry in the ledger. Raises Conflict."""

    def note_ending(self, run: str, status: str, error: str | None) -> None:
        """Keep the ending of a run, as far as possible, because its last event cannot be written.

        If the writer does not come back, the run ends with this status and error. Never raises LogError.
        """

    def leave(self, run: str) -> None:
        """Take the writer of a run for gone: readers do not wait for more of it. Never raises LogError."""


@runtime_checkable
class Erasable(Store, Protocol):
    """A store that can remove the content of events while the chains of their runs stay valid."""

    def replace_payloads(self, run: str, payloads: Sequence[tuple[int, bytes]], record: Event) -> None:
        """Replace payloads, given by number, and keep the event that records this, all or nothing. Raises Conflict."""

    def prune(self, run: str, record: Event) -> None:
        """Remove a whole run, and keep the event that records this, all or nothing. Raises Conflict."""

    def vacuum(self) -> bool:
        """Remove the last traces of removed content from the storage. Return False if the storage could not shrink."""

    def make_room(self) -> None:
        """Free space before a removal, if that is possible."""


@runtime_checkable
class Salvageable(Store, Protocol):
    """A store that accepts whole runs and can rebuild its listing."""

    def restore(self, events: Iterable[Event], *, name: str, mode: str) -> int:
        """Keep the events of an exported run, all or none of them, and return their number.

        The caller has checked the chain. A run without a last event counts as interrupted.
        """

    def relist(self) -> None:
        """Rebuild the listing from the events and the ledger, and end the runs of writers that died."""


def erasable(store: Store) -> Erasable:
    """Return the store, if content can be removed from it. Raises LogError."""
    if not isinstance(store, Erasable):
        raise LogError(f"the log {store.name} is not kept in a file.")
    return store


def salvageable(store: Store) -> Salvageable:
    """Return the store, if it accepts whole runs. Raises LogError."""
    if not isinstance(store, Salvageable):
        raise LogError(f"the log {store.name} is not kept in a file.")
    return store


@dataclass
class Batch:
    """What a store keeps in one transaction: events in the order of their numbers, and the change of each run they begin or end.

    `begun` and `ended` have the line of the listing by run, `sources` the source of each run that begins. `erased` has the
    replaced payloads by run and number, `pruned` the runs to remove.
    """

    shelf: str
    cursor: str | None
    events: list[Event] = field(default_factory=list)
    begun: dict[str, RunInfo] = field(default_factory=dict)
    ended: dict[str, RunInfo] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    erased: dict[str, dict[int, bytes]] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)


@runtime_checkable
class Receiving(Store, Protocol):
    """A store that keeps runs which other logs record. It never ends such a run: it does not know whether its writer lives."""

    def receive(self, batch: Batch) -> None:
        """Keep a batch, with the cursor of its shelf, all or nothing. Raises Conflict if an event is not the next of its run."""

    def cursor(self, shelf: str) -> str | None:
        """Return the cursor that was kept last for the shelf."""

    def cursors(self) -> dict[str, str]:
        """Return all kept cursors by shelf."""

    def count_kinds(self, run: str) -> Counter[str]:
        """Return the number of events of each kind that a run holds now."""


class Tip:
    """The end of a run, by which a store recognises the next event: its number, and the hash that it follows."""

    __slots__ = ("before", "is_ended", "seq")

    def __init__(self, seq: int = 0, before: bytes = GENESIS, *, is_ended: bool = False) -> None:
        self.seq = seq
        self.before = before
        self.is_ended = is_ended

    @classmethod
    def after(cls, event: Event) -> Self:
        """Return the end of a run with this newest event."""
        return cls(event.seq + 1, event.hash, is_ended=event.kind == "run.ended")

    def check(self, run: str, events: Sequence[Event]) -> None:
        """Raise Conflict unless the events follow each other and are the next ones of the run."""
        if self.is_ended:
            raise Ended(f"run {run} has ended; nothing can be appended to it.")
        before, seq = self.before, self.seq
        if isinstance(events, SEALED) and events.before == before and events[0].seq == seq and events[0].run == run:
            return
        for event in events:
            if event.run != run or event.seq != seq or event.hash != _sealed(before, event):
                raise Conflict(f"event {event.seq} of run {event.run} is not the next one of run {run}, which is event {seq}.")
            before, seq = event.hash, seq + 1


def _sealed(before: bytes, event: Event) -> bytes:
    """Return the hash of an event that follows the hash `before`."""
    return seal(
        before, event.schema, event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.exchange, event.step,
        event.task, event.digest,
    )  # fmt: skip
