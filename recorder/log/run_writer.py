"""RunWriter: what one process knows about a run it writes, and how entries become the next events of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from .. import clock
from ..events import GENESIS, OWN_SEQ, SCHEMA, Ending, Entry, Event, encode, seal
from ..secrets.redactor import Redactor

Mode = Literal["live", "mock", "import", "audit"]
"""`audit`: a run that says what was done to the log itself: erased, redacted, pruned."""

Status = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class Log(Protocol):
    """What a writer asks of the log it belongs to (`EventLog`); all of it may raise LogError."""

    def has(self, run: str, exchange: int, kind: str, /) -> bool:
        """Whether an exchange of a run has an event of that kind."""

    def append(self, writer: "RunWriter", entries: Sequence[Entry], /) -> list[Event]:
        """Commit the entries as the next events of the writer's run."""

    def end(self, writer: "RunWriter", status: Status, error: str | None, /) -> None:
        """Write the last event of the writer's run."""

    def defer(self, write: Callable[[], None], /) -> None:
        """Have something written before the next event is."""


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
        self.counts: Counter[str] = Counter()
        self.ending: tuple[Status, str | None] | None = None
        self.ended = False
        self.lost = False
        self.open: dict[int, Recorded] = {}
        self.in_flight: Sequence[Event] | None = None
        self.opened = 0

    def __repr__(self) -> str:
        return f"<RunWriter {self.run} {self.name!r} {self.seq} events{' ended' if self.ended else ''}>"

    def now_ns(self) -> int:
        """Nanoseconds since the run began, on the monotonic clock that stamps its events."""
        return clock.monotonic_ns() - self.started_ns

    def append(self, *entries: Entry) -> list[Event]:
        """Append in one transaction; they are committed when this returns. Raises LogError."""
        return self.log.append(self, entries)

    def note(self, kind: str, data: Any, *, step: str = "", task: str = "", exchange: int | None = None) -> Event:
        """Append one event with a JSON payload."""
        return self.append(Entry(kind, encode(data), step, task, exchange))[0]

    def has(self, exchange: int, kind: str) -> bool:
        """Whether an exchange of the run has an event of that kind. Raises LogError."""
        return self.log.has(self.run, exchange, kind)

    def moved_past(self, events: Sequence[Event]) -> None:
        """Take committed events as the newest ones. A failed append is not told here, so it leaves no gap."""
        last = events[-1]
        self.seq, self.hash, self.t_ns = last.seq + 1, last.hash, last.t_ns
        self.counts.update([event.kind for event in events])
        self.in_flight = None

    def caught_up(self, last: Event, kinds: Counter[str], opened: int) -> None:
        """Take the state of the run from the store: its last event, its events by kind, and the opening it was read in."""
        self.seq, self.hash, self.t_ns, self.counts = last.seq + 1, last.hash, last.t_ns, kinds
        self.ended, self.opened = last.kind == "run.ended", opened
        self.in_flight = None

    def end(self, status: Status = "completed", *, error: str | None = None) -> None:
        """Write the run's last event; exchanges still open count as closed. The first call decides, later ones only write
        what it could not. Raises LogError."""
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


def seal_all(writer: RunWriter, entries: Sequence[Entry]) -> list[Event]:
    """The entries as the next events of the writer's run: numbered, timed, chained."""
    run, seq, before, t_ns = writer.run, writer.seq, writer.hash, writer.t_ns
    now_ns, wall_ns, recorded_ns = writer.now_ns(), clock.wall_ns(), writer.recorded_ns
    redactor, events = writer.redactor, []
    for kind, payload, step, task, exchange, at_ns in entries:
        t_ns = max(t_ns, now_ns if at_ns is None else at_ns)
        if recorded_ns is not None:
            wall_ns = recorded_ns + t_ns
        if exchange == OWN_SEQ:
            exchange = seq
        # Bodies were scrubbed frame by frame, across frames too (secrets/streams.py). Everything else is scrubbed here.
        if kind not in ("frame", "chunk"):
            payload = redactor.data(payload)
        step, task = redactor.label(step), redactor.label(task)
        digest = sha256(payload).digest()
        before = seal(before, SCHEMA, run, seq, t_ns, wall_ns, kind, exchange, step, task, digest)
        events.append(Event(run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, before))
        seq += 1
    return events
