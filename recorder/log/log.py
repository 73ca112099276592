"""EventLog and RunWriter: the one writer interface of retold. The log is the readers' way in, too.

Everything that happens goes through `EventLog.append`; everything else reads. An event is committed when `append` returns, so
it survives `kill -9` before the application or a handler sees it. Each run has one writer, which keeps the run's next number
and its last hash; several processes write one log, each its own runs.

The log numbers, redacts and seals events; a `Store` keeps them. Two things can separate a writer from its run: an interrupt in
the middle of an append (a signal handler that raises), and another program that changes the store. Before the next append
after an interrupt, the log asks the store whether the interrupted events were committed. If the run in the store is not the
writer's, the store raises Conflict.
"""

import os
import secrets
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast, get_args

from .. import clock
from ..errors import InputError, LogError, LogVersionError, RecordingLostWarning
from ..events import GENESIS, OWN_SEQ, SCHEMA, Ending, Entry, Event, Frames, as_event, encode, ending, seal
from ..hints import SHELF, not_a_log
from ..secrets.redactor import Redactor
from .reading import LogReader
from .runs import COUNTED, Mode, RunInfo, Status
from .sqlite.opening import Durability
from .sqlite.store import SqliteStore
from .store import Ended, Erasable, Sealed, SealedFrames, Store, erasable

DEFAULT_PATH = Path(".retold") / "log.db"

OnFailure = Literal["stop", "go_on"]
"""The fate of an application whose log cannot be written: a LogError stops it, or it goes on unrecorded."""


class _WithinWrite(LogError):
    """A write from within a write of the same thread."""


def default_path() -> Path:
    """Return `RETOLD_DB`, or `.retold/log.db` under the working directory."""
    return Path(os.environ.get("RETOLD_DB") or DEFAULT_PATH)


def default_on_failure() -> OnFailure:
    """Return `RETOLD_ON_LOG_FAILURE`, or `stop`. Raises InputError for any other word."""
    word = (os.environ.get("RETOLD_ON_LOG_FAILURE") or "stop").replace("-", "_")
    if word not in get_args(OnFailure):
        raise InputError(f"RETOLD_ON_LOG_FAILURE is {word!r}: set it to stop (the default) or go_on, or unset it.")
    return cast(OnFailure, word)


class Recorded(Protocol):
    """An exchange that is being recorded."""

    def end(self, ending: Ending, /) -> None:
        """Write its last event, if that is not written yet."""


class RunWriter:
    """The writer of one run; as a context manager it ends the run, as failed if an exception passes through."""

    def __init__(
        self, log: "EventLog", run: str, name: str, redactor: Redactor | None = None, *, recorded_ns: int | None = None
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

    def append(self, *entries: Entry) -> Sequence[Event]:
        """Append in one transaction, and return the committed events. Raises LogError."""
        return self.log.append(self, entries)

    def append_frames(self, frames: Frames) -> Sequence[Event]:
        """Append frames in one transaction, and return the committed events. Raises LogError."""
        return self.log.append(self, frames)

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
        if type(events) is SealedFrames:
            self.counts["frame"] += len(events.payloads)
        else:
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


def seal_all(writer: RunWriter, entries: Sequence[Entry] | Frames) -> Sealed | SealedFrames:
    """Return the entries as the next events of the writer's run: numbered, timed, redacted and chained."""
    run, seq, before, t_ns = writer.run, writer.seq, writer.hash, writer.t_ns
    now_ns, wall_ns, recorded_ns = clock.monotonic_ns() - writer.started_ns, clock.wall_ns(), writer.recorded_ns
    redactor, labels = writer.redactor, writer.redactor.labels
    if isinstance(entries, Frames):
        if len(entries.payloads) > 1:
            t_ns = max(t_ns, now_ns if entries.t_ns is None else entries.t_ns)
            wall_ns = wall_ns if recorded_ns is None else recorded_ns + t_ns
            payloads, exchanges, step, task, _ = entries
            return SealedFrames(before, run, seq, t_ns, wall_ns, labels[step], labels[task], exchanges, payloads)
        entries = entries.entries()
    events = Sealed()
    events.before = before
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
        events.append(as_event((run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, before, SCHEMA)))
        seq += 1
    return events


class EventLog(LogReader):
    """The append-only log of events, in the SQLite file at `path` (default: `RETOLD_DB` or `.retold/log.db`).

    The file is opened, and made, by the first write; reading needs no write access. `durability="power"` syncs every commit to
    the disk. Opening for writing ends the runs of writers that died. Instead of a path you can give a `store` that keeps the
    events. Raises LogError, LogVersionError.

    `on_failure` decides about the application if the log cannot be written, because its disk is full, for instance: `stop`
    raises LogError in it (an unrecorded event is never shown), `go_on` warns once and lets it run on unrecorded: the run
    ends in the log where it stopped, as interrupted. The default is `RETOLD_ON_LOG_FAILURE`, or `stop`.
    """

    store: Store

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: Durability = "process",
        on_failure: OnFailure | None = None, store: Store | None = None,
    ) -> None:  # fmt: skip
        if path is not None and store is not None:
            raise InputError("a log has a path or a store, not both.")
        if store is None and (shelf := SHELF.match(os.fspath(path or default_path()))) is not None:
            raise InputError(not_a_log(shelf))
        super().__init__(store or SqliteStore(Path(path) if path is not None else default_path(), durability=durability))
        self.on_failure = on_failure or default_on_failure()
        self._is_writing = False
        self._deferred: deque[Callable[[], None]] = deque()
        self._unended: list[RunWriter] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the store for writing now, or make it, instead of at the first write. Raises LogError, LogVersionError."""
        self.store.open()

    def close(self) -> None:
        """Close the store, after deferred writes; the next write opens it again."""
        self._do_deferred()
        self._write_endings()
        self.store.close()

    def reopened(self) -> "EventLog":
        """Return a log over the same events that shares no connection with this one, for a forked child."""
        return EventLog(store=self.store.reopened(), on_failure=self.on_failure)

    # Writing

    def start(
        self, *, name: str, mode: Mode, data: dict[str, Any] | None = None, redactor: Redactor | None = None,
        recorded_ns: int | None = None,
    ) -> RunWriter:  # fmt: skip
        """Begin a run and return its writer. `data` is kept in the run's first event beside its name and mode.

        `redactor` removes secrets from every appended event; by default those that the environment holds. `recorded_ns` is
        the time at which an imported run began, since the epoch: its events are stamped with the time at which they happened.
        """
        self._do_deferred()
        self._write_endings()
        writer = RunWriter(self, secrets.token_hex(8), name, redactor, recorded_ns=recorded_ns)
        first = Entry("run.started", encode({"name": writer.name, "mode": mode, **(data or {})}), t_ns=0)

        def begin(events: Sequence[Event]) -> None:
            shown = events[0].data["name"]
            writer.info = RunInfo(writer.run, shown, mode, "running", events[0].wall_ns, None, 0, 0, 0, None)
            self.store.begin(writer.info, events[0])

        try:
            self._commit(writer, [first], begin)
        except LogError as error:
            self._lose(writer, error)
            writer.moved_past(seal_all(writer, [first]))
        except BaseException as error:
            self.store.note_ending(writer.run, "cancelled", type(error).__name__)
            self.store.leave(writer.run)
            raise
        return writer

    def append(self, writer: RunWriter, entries: Sequence[Entry] | Frames) -> Sequence[Event]:
        """Append to the writer's run, all or nothing, and commit. Raises LogError; then nothing was appended."""
        if self._deferred:
            self._do_deferred()
        if not entries:
            return []
        try:
            return self._commit(writer, entries, self.store.append)
        except LogError as error:
            if writer.ended or isinstance(error, _WithinWrite):
                raise
            self._lose(writer, error)
            return self.append(writer, entries)

    def end(self, writer: RunWriter, status: Status, error: str | None) -> None:
        """Write the last event of a run and its line in the listing, once.

        The store notes an ending that cannot be written, and it is written as soon as possible: by the next call, by `start`
        or `close`, or by the process that opens the log next.
        """
        self._do_deferred()
        error = None if error is None else writer.redactor.text(error)
        try:
            for exchange in list(writer.open.values()):
                exchange.end("closed")
            with self.store.lock:
                self._settle(writer)
                if not writer.ended and not writer.lost:
                    counts = {key: writer.counts[kind] for key, kind in COUNTED.items()}

                    def finish(events: Sequence[Event]) -> None:
                        assert writer.info is not None
                        ended: dict[str, Any] = {"status": status, "error": error, "ended_ns": events[0].wall_ns, **counts}
                        self.store.end(events[0], replace(writer.info, **ended))

                    self._commit(writer, [Entry("run.ended", ending(status, error, counts))], finish)
                writer.ended = True
        except LogError as failure:
            if not writer.ended:  # else an interrupted call had written it
                self.store.note_ending(writer.run, status, error)
                if writer not in self._unended:
                    self._unended.append(writer)
                self._lose(writer, failure)
                writer.ended = True
        if writer in self._unended:
            self._unended.remove(writer)
        self.store.leave(writer.run)

    def amend(self, writer: RunWriter, entry: Entry, change: Callable[[Erasable, Event], None]) -> None:
        """Append an event about a change of the log itself: `change` gives it to the store together with the change.

        Raises LogError.
        """
        store = erasable(self.store)
        self._commit(writer, [entry], lambda events: change(store, events[0]))

    def defer(self, write: Callable[[], None]) -> None:
        """Call `write` before the next event is written, for callers that cannot write now (a garbage collector)."""
        self._deferred.append(write)

    def _do_deferred(self) -> None:
        while self._deferred:
            with suppress(LogError):  # an exchange that cannot be ended now is ended with its run
                self._deferred.popleft()()

    def _write_endings(self) -> None:
        """Write the endings of runs that could not be written when they ended."""
        for writer in list(self._unended):
            with suppress(LogError):
                writer.end()

    def _commit(
        self, writer: RunWriter, entries: Sequence[Entry] | Frames, keep: Callable[[Sequence[Event]], None]
    ) -> Sequence[Event]:  # fmt: skip
        """Seal entries as the next events of the writer's run, and give them to the store with `keep`. Raises LogError."""
        with self.store.lock:
            if self._is_writing:
                raise _WithinWrite(
                    f"run {writer.run} was written to from within a write to the log {self.path}, by a signal handler or a "
                    "finalizer. Let it raise or set a flag, and write when it has returned."
                )
            try:
                self._is_writing = True
                if writer.in_flight is not None:
                    self._settle(writer)
                if writer.ended and not writer.lost:
                    raise LogError(f"run {writer.run} has ended; nothing can be appended to it.")
                events = seal_all(writer, entries)
                if not writer.lost:
                    writer.in_flight = events
                    keep(events)
                writer.moved_past(events)
                return events
            except Ended:
                writer.ended = True
                raise
            finally:
                self._is_writing = False

    def _settle(self, writer: RunWriter) -> None:
        """After an append that did not return, ask the store whether its events were committed. Raises LogError."""
        flying = writer.in_flight
        if flying is None or writer.lost:
            return
        try:
            last = self.last(writer.run)
        except LogError as error:
            raise LogError(f"{error} Name another log with --db FILE to go on recording.") from error
        if last is None or last.hash != flying[-1].hash:
            writer.in_flight = None
        elif writer.seq <= last.seq:
            writer.moved_past(flying)
        else:
            writer.recover(last, self.events(writer.run))

    def _lose(self, writer: RunWriter, error: LogError) -> None:
        """Raise the error in the application, or stop recording this run, as `on_failure` demands."""
        if self.on_failure == "stop" or isinstance(error, LogVersionError):
            raise error
        if not writer.lost:
            writer.lost = True
            if writer not in self._unended:
                self.store.note_ending(writer.run, "interrupted", f"the log could not be written: {error.__cause__ or error}")
            self.store.leave(writer.run)  # readers that follow the run need not wait for more of it
            warnings.warn(f"run {writer.run} is not recorded any further: {error}", RecordingLostWarning, stacklevel=4)
