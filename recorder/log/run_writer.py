"""RunWriter: the state of a run in the process that writes it, and the way in which entries become its next events."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from .. import clock
from ..events import GENESIS, OWN_SEQ, SCHEMA, Ending, Entry, Event, encode, seal
from ..secrets.redactor import Redactor
from .runs import RunInfo
from .store import Sealed

Mode = Literal["live", "mock", "import", "audit"]
"""A run of mode `audit` records a change of the log itself: an erasure, a redaction, a removal."""

Status = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class Log(Protocol):
    """The methods of `EventLog` that a writer calls; all of them may raise LogError."""

    def has(self, run: str, exchange: int, kind: str, /) -> bool:
        """Return whether an exchange of a run has an event of that kind."""

    def append(self, writer: "RunWriter", entries: Sequence[Entry], /) -> list[Event]:
        """Commit the entries as the next events of the writer's run."""

    def end(self, writer: "RunWriter", status: Status, error: str | None, /) -> None:
        """Write the last event of the writer's run."""

    def defer(self, write: Callable[[], None], /) -> None:
        """Call `write` before the next event is written."""


class Recorded(Protocol):
    """An exchange that is being recorded."""

    def end(self, ending: Ending, /) -> None:
        """Write its last event, if that is not written yet."""


class RunWriter:
    """The writer of one run; as a context manager it ends the run, as failed if an exception passes through."""

    def __init__(
        self, log: Log, run: str, name: str, redactor: Redactor | None = None, *, recorded_ns: int | None = None
    ) -> None:
        self.log = log
        self.run = run
        self.redactor = redactor or Redactor()
        self.name = self.redactor.label(name)
        self.started_ns = clock.monotonic_ns()
        self.recorded_ns = recorded_ns
        self.seq = 0
        self.hash = GENESIS
        self.t_ns = 0
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.info: RunInfo | None = None
        self.ending: tuple[Status, str | None] | None = None
        self.ended = False
        self.lost = False
        self.open: dict[int, Recorded] = {}
        self.in_flight: Sequence[Event] | None = None

    def __repr__(self) -> str:
        return f"<RunWriter {self.run} {self.name!r} {self.seq} events{' ended' if self.ended else ''}>"

    def now_ns(self) -> int:
        """Return the nanoseconds since the run began, on the monotonic clock that stamps its events."""
        return clock.monotonic_ns() - self.started_ns

    def append(self, *entries: Entry) -> list[Event]:
        """Append in one transaction, and return the committed events. Raises LogError."""
        return self.log.append(self, entries)

    def note(self, kind: str, data: Any, *, step: str = "", task: str = "", exchange: int | None = None) -> Event:
        """Append one event with a JSON payload, and return it. Raises LogError."""
        return self.append(Entry(kind, encode(data), step, task, exchange))[0]

    def has(self, exchange: int, kind: str) -> bool:
        """Return whether an exchange of the run has an event of that kind. Raises LogError."""
        return self.log.has(self.run, exchange, kind)

    def moved_past(self, events: Sequence[Event]) -> None:
        """Take committed events as the newest ones. After a failed append the log does not call this, so no gap remains."""
        last = events[-1]
        # An interrupt may come between two of these lines. `seq` is the first, so `EventLog._settle` can tell how far it got.
        self.seq, self.hash, self.t_ns = last.seq + 1, last.hash, last.t_ns
        for event in events:
            self.counts[event.kind] += 1
        if last.kind == "run.ended":
            self.ended = True
        self.in_flight = None

    def recover(self, last: Event, events: Iterable[Event]) -> None:
        """Take the state from the events of the run in the store, after an interrupt within `moved_past`."""
        counts: defaultdict[str, int] = defaultdict(int)
        for event in events:
            counts[event.kind] += 1
        ended = last.kind == "run.ended"
        # One call in C: an interrupt comes before it or after it, never between two of these values.
        vars(self).update(seq=last.seq + 1, hash=last.hash, t_ns=last.t_ns, counts=counts, ended=ended, in_flight=None)

    def end(self, status: Status = "completed", *, error: str | None = None) -> None:
        """Write the run's last event; exchanges that are still open count as closed. Raises LogError.

        The first call decides about status and error. Later calls only write an ending that the first one could not write.
        """
        self.ending = self.ending or (status, error)
        if not self.ended:
            self.log.end(self, *self.ending)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.end()
        elif isinstance(error, Exception):
            self.end("failed", error=f"{type(error).__name__}: {error}")
        else:
            self.end("cancelled", error=type(error).__name__)


def ending(status: str, error: str | None, counts: dict[str, int]) -> bytes:
    """Return the payload of `run.ended`."""
    return encode({"status": status, "error": error, **counts})


def seal_all(writer: RunWriter, entries: Sequence[Entry]) -> Sealed:
    """Return the entries as the next events of the writer's run: numbered, timed, redacted and chained."""
    run, seq, before, t_ns = writer.run, writer.seq, writer.hash, writer.t_ns
    now_ns, wall_ns, recorded_ns = clock.monotonic_ns() - writer.started_ns, clock.wall_ns(), writer.recorded_ns
    redactor, events = writer.redactor, Sealed()
    events.before, labels = before, redactor.labels
    for kind, payload, step, task, exchange, at_ns in entries:
        if at_ns is None:
            at_ns = now_ns
        if at_ns > t_ns:  # times never go back, although several threads append
            t_ns = at_ns
        if recorded_ns is not None:
            wall_ns = recorded_ns + t_ns
        if exchange == OWN_SEQ:
            exchange = seq
        # Bodies were scrubbed frame by frame, across frames too (secrets/streams.py). Everything else is scrubbed here.
        if kind not in ("frame", "chunk"):
            payload = redactor.data(payload)
        step, task = labels[step], labels[task]
        digest = sha256(payload).digest()
        before = seal(before, SCHEMA, run, seq, t_ns, wall_ns, kind, exchange, step, task, digest)
        # Faster than `Event(…)`, which is a function in Python.
        events.append(
            tuple.__new__(Event, (run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, before, SCHEMA))
        )
        seq += 1
    return events
