"""Receive the events of runs that other logs record, with the cursor that tells how far they were read.

A log trusts no one about these events. For each run it knows the newest event, and for each event that comes:

1. An event with a known number must have the known hash; else the run has forked, or the event is forged. If its payload was
   erased where it was recorded, the payload is replaced here too.
2. The next event must be sealed to the one before it, and its payload must fit its digest, unless it was erased.
3. An event after a gap is held back: the run is reported with the number that is missing, and is asked for again.
4. A run that this log records itself takes no event from elsewhere, and a received run only events of its own source.

A run with an event that breaks a rule is refused, with the reason, and passed over from then on; no other run waits for it. The
refusal is of the run as one source has it, so a source cannot block the runs of another one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, NamedTuple

from ..errors import LogError
from ..events import GENESIS, SCHEMA, Event, seal
from ..strict_json import object_in
from .erasure import ERASED, PRUNED, REDACTED, is_tombstone
from .reading import LogReader
from .runs import COUNTED, RunInfo, RunQuery
from .store import Batch, Conflict, Receiving


class Arrival(NamedTuple):
    """Consecutive events of one run, and the source (the name of the log that records them)."""

    source: str
    events: Sequence[Event]


@dataclass
class Received:
    """What came of some arrivals: how many events are new, how many were known, how many payloads were erased and runs removed.

    `gaps` has the number of the first missing event by run, `refused` the reason by run; `newer` are the refused runs that a
    newer retold can read. `again` are the runs with payloads that were replaced where they were recorded: their events must be
    received again, because the replacements may have come before the record of them.
    """

    events: int = 0
    known: int = 0
    erased: int = 0
    pruned: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    newer: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)

    @property
    def is_whole(self) -> bool:
        """Whether the reader may go on behind these arrivals, and need not ask for any of them again."""
        return not (self.gaps or self.again or self.newer)


@dataclass
class _End:
    """The newest event of a run as this log has it, and the number of its events by kind."""

    seq: int = -1
    hash: bytes = GENESIS
    ended: bool = False
    source: str | None = None
    info: RunInfo | None = None
    kinds: Counter[str] = field(default_factory=Counter)


class _Refusal(Exception):
    """A run broke a rule."""


class _Newer(_Refusal):
    """A run has an event that a newer retold wrote."""


class Receiver:
    """Receives events into one log. It remembers the end of each open run, so it is the only receiver of these runs."""

    def __init__(self, log: LogReader, store: Receiving) -> None:
        self._log = log
        self._store = store
        self._ends: dict[str, _End] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._replacements: dict[tuple[str, int], set[str]] | None = None

    def cursor(self, shelf: str) -> str | None:
        """Return the cursor that was kept last for the shelf. Raises LogError."""
        return self._store.cursor(shelf)

    def receive(self, shelf: str, arrivals: Iterable[Arrival], cursor: str | None = None) -> Received:
        """Keep the arrivals that follow what the log has, all in one transaction, with the cursor of the shelf.

        A cursor of None leaves the kept one. So does an answer that is not whole: ask for its runs again, and then give the
        cursor without arrivals. Raises LogError; then nothing was kept.
        """
        arrivals = list(arrivals)
        try:
            return self._receive(shelf, arrivals, cursor)
        except Conflict:  # another process received these runs too
            self._ends.clear()
            return self._receive(shelf, arrivals, cursor)

    def _receive(self, shelf: str, arrivals: Sequence[Arrival], cursor: str | None) -> Received:
        found, batch = Received(), Batch(shelf, cursor)
        try:
            for arrival in arrivals:
                self._take(arrival, batch, found)
            if not found.is_whole:
                batch.cursor = None
            self._store.receive(batch)
        except BaseException:
            self._ends.clear()  # they were moved past events that are not kept
            raise
        found.pruned = len(batch.pruned)
        for run in {arrival.events[0].run for arrival in arrivals if arrival.events}:
            if run in batch.pruned or (run in self._ends and self._ends[run].ended):
                self._ends.pop(run, None)
        return found

    def _take(self, arrival: Arrival, batch: Batch, found: Received) -> None:
        """Sort the events of one arrival into the batch."""
        if not arrival.events:
            return
        run, source = arrival.events[0].run, arrival.source
        if (run, source) in self._refused:
            found.refused[run] = self._refused[run, source]
            return
        end = self._end_of(run)
        known = [event for event in arrival.events if event.seq <= end.seq]
        try:
            found.erased += self._compare(known, batch, is_own=end.source == source)
            found.known += len(known)
            for event in arrival.events[len(known) :]:
                if event.seq != end.seq + 1:
                    found.gaps[run] = end.seq + 1
                    return
                self._check(event, end, source)
                found.again |= self._learn(event)
                self._note(event, end, source, batch)
                found.events += 1
            found.gaps.pop(run, None)
        except _Refusal as refusal:
            found.refused[run] = self._refused[run, source] = str(refusal)
            if isinstance(refusal, _Newer):
                found.newer.add(run)

    def _end_of(self, run: str) -> _End:
        if (end := self._ends.get(run)) is None:
            with self._log.reading() as log:
                last = log.last(run)
                if last is None:
                    end = _End()
                else:
                    (info,) = log.runs(RunQuery(run=run))
                    source = self._store.source_of(run)
                    kinds = self._store.count_kinds(run)
                    end = _End(last.seq, last.hash, last.kind == "run.ended", source, info, kinds)
            self._ends[run] = end
        return end

    def _compare(self, known: Sequence[Event], batch: Batch, *, is_own: bool) -> int:
        """Compare events with the ones that the log or the batch has; return how many payloads are erased here too.

        Only the run's own source can erase.
        """
        if not known:
            return 0
        run = known[0].run
        pending = {event.seq: at for at, event in enumerate(batch.events) if event.run == run}
        kept = {event.seq: event for event in self._log.events(run, after=known[0].seq - 1, until=known[-1].seq)}
        kept |= {seq: batch.events[at] for seq, at in pending.items()}
        erased = 0
        for event in known:
            own = kept.get(event.seq)
            if own is None or own.hash != event.hash:
                raise _Refusal(f"it has forked: event {event.seq} is another one than in this log")
            if is_own and own.payload != event.payload and self._is_replacement(event):
                if event.seq in pending:
                    batch.events[pending[event.seq]] = event
                else:
                    batch.erased.setdefault(run, {})[event.seq] = event.payload
                erased += 1
        return erased

    def _check(self, event: Event, end: _End, source: str) -> None:
        """Raise _Refusal unless the event may follow."""
        if event.schema > SCHEMA:
            raise _Newer(f"event {event.seq} was written by a newer retold (event schema {event.schema}); update this one")
        if end.seq >= 0 and end.source is None:
            raise _Refusal("this log records the run itself, and has no more of it")
        if end.source is not None and end.source != source:
            raise _Refusal(f"it comes from {source} and from {end.source}")
        if end.ended:
            raise _Refusal(f"it has ended with event {end.seq}, and goes on")
        if (event.seq == 0) != (event.kind == "run.started"):
            raise _Refusal(f"event {event.seq} is a {event.kind}")
        own = seal(
            end.hash, event.schema, event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.exchange, event.step,
            event.task, event.digest,
        )  # fmt: skip
        if own != event.hash:
            raise _Refusal(f"event {event.seq} is not sealed to the one before it: it was edited, or is of another run")
        if sha256(event.payload).digest() != event.digest and not self._is_replacement(event):
            raise _Refusal(f"the payload of event {event.seq} was edited")

    def _is_replacement(self, event: Event) -> bool:
        """Return whether the payload stands in the place of an erased or redacted one."""
        if is_tombstone(event.kind, event.payload):
            return True
        return sha256(event.payload).hexdigest() in self._recorded().get((event.run, event.seq), ())

    def _recorded(self) -> dict[tuple[str, int], set[str]]:
        """Return the digests of replacements that audit runs record, by run and number. They are read when first needed."""
        if self._replacements is None:
            self._replacements = {}
            for info in self._log.runs(RunQuery(mode="audit")):
                for record in self._log.events(info.run, kinds=(ERASED, REDACTED)):
                    self._learn(record)
        return self._replacements

    def _learn(self, record: Event) -> set[str]:
        """Note the replacements that an event records; return the run that they are of. Raises _Refusal if it is misshapen."""
        if record.kind not in (ERASED, REDACTED):
            return set()
        try:
            run = record.data["run"]
            for seq, digest in record.data["payloads"]:
                self._recorded().setdefault((run, seq), set()).add(digest)
        except (LogError, TypeError, ValueError) as error:
            raise _Refusal(f"event {record.seq} does not name the payloads that it records: {error}") from error
        for refused in [key for key in self._refused if key[0] == run]:
            del self._refused[refused]  # its replaced payloads may have looked edited before this record came
        return {run}

    def _note(self, event: Event, end: _End, source: str, batch: Batch) -> None:
        """Move the run past the event, and put the event into the batch."""
        data: dict[str, Any] = event.data if event.kind in ("run.started", "run.ended") else {}
        if event.seq == 0:
            name, mode = str(data.get("name", "")), str(data.get("mode", "live"))
            end.info = RunInfo(event.run, name, mode, "running", event.wall_ns, None, 0, 0, 0, None)
            end.source = batch.sources[event.run] = source
            batch.begun[event.run] = end.info
        end.kinds[event.kind] += 1
        if event.kind == "run.ended":
            assert end.info is not None
            counts: dict[str, Any] = {key: end.kinds[kind] for key, kind in COUNTED.items()}
            status, error = str(data["status"]), data.get("error")
            batch.ended[event.run] = replace(end.info, status=status, error=error, ended_ns=event.wall_ns, **counts)
            end.ended = True
        end.seq, end.hash = event.seq, event.hash
        batch.events.append(event)
        if event.kind == PRUNED:
            self._prune(event, source, batch)

    def _prune(self, record: Event, source: str, batch: Batch) -> None:
        """Remove a run that its own source removed. A source cannot remove the run of another one."""
        run = object_in(record.payload).get("run")
        if isinstance(run, str) and run not in batch.sources and self._store.source_of(run) == source:
            batch.pruned.add(run)
            self._refused[run, source] = "it was pruned where it was recorded"


def receiver(log: LogReader) -> Receiver:
    """Return a receiver for the log, which is made if necessary. Raises LogError if its store cannot receive."""
    if not isinstance(log.store, Receiving):
        raise LogError(f"the log {log.path} cannot receive the runs of other logs.")
    log.store.open()
    return Receiver(log, log.store)
