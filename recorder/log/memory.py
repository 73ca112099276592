"""MemoryStore: events in the memory of the process, for recordings that are read once and not kept."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from ..events import Event
from .runs import RunInfo, RunQuery
from .store import PAGE, Batch, Conflict, Entered, Store, Tip, What, next_entry


class MemoryStore(Store):
    """A store in memory. It is gone with its last reference."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._events: dict[str, list[Event]] = {}
        self._of_exchange: dict[tuple[str, int], list[Event]] = {}
        self._runs: dict[str, RunInfo] = {}
        self._entries: list[Entered] = []
        self._endings: dict[str, tuple[str, str | None]] = {}
        self._sources: dict[str, str] = {}
        self._cursors: dict[str, str] = {}
        self._commits = 0

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._runs)} runs>"

    @property
    def name(self) -> str:
        """The name of the store in messages."""
        return ":memory:"

    def open(self) -> None:
        """Do nothing: the store is open."""

    def close(self) -> None:
        """Do nothing: the events stay."""

    def begin(self, run: RunInfo, first: Event) -> None:
        """Keep the first event of a run. Raises Conflict."""
        with self._changed:
            if first.run in self._events or run.run != first.run:
                raise Conflict(f"run {first.run} has begun already.")
            Tip().check(first.run, [first])
            self._enter("started", first)
            self._runs[run.run] = run
            self._keep([first])

    def append(self, events: Sequence[Event]) -> None:
        """Keep events of one run, all or none. Raises Conflict."""
        with self._changed:
            if not events:
                return
            held = self._events.get(events[0].run)
            if held is None:
                raise Conflict(f"run {events[0].run} has not begun.")
            Tip.after(held[-1]).check(events[0].run, events)
            self._keep(events)

    def end(self, last: Event, run: RunInfo) -> None:
        """Keep the last event of a run. Raises Conflict."""
        with self._changed:
            if run.run != last.run:
                raise Conflict(f"the last event of run {run.run} is one of run {last.run}.")
            self.append([last])
            self._enter("ended", last)
            self._runs[run.run] = run

    def note_ending(self, run: str, status: str, error: str | None) -> None:
        """Keep the ending of a run until its writer leaves it."""
        self._endings[run] = (status, error)

    def leave(self, run: str) -> None:
        """Take the writer of a run for gone; a run without a last event gets the ending that was noted, or is interrupted."""
        with self._changed:
            status, error = self._endings.pop(run, ("interrupted", None))
            if self.is_alive(run):
                self._runs[run] = replace(self._runs[run], status=status, error=error)
                self._changed.notify_all()

    def read(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None, newest_first: bool = False, limit: int = PAGE,
    ) -> Sequence[Event]:  # fmt: skip
        """Return the events of a run that fit the values."""
        with self._changed:
            held = self._events.get(run, [])
            stop = len(held) if until is None else min(until + 1, len(held))
            if exchange is None:
                numbers = range(after + 1, stop)
                events = (held[number] for number in (reversed(numbers) if newest_first else numbers))
            else:
                part = self._of_exchange.get((run, exchange), [])
                ordered = reversed(part) if newest_first else iter(part)
                events = (event for event in ordered if after < event.seq < stop)
            fitting = (
                event for event in events
                if (kinds is None or event.kind in kinds) and (step is None or event.step == step)
            )  # fmt: skip
            return list(islice(fitting, limit))

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]:
        """Return the runs that fit the query, newest first."""
        with self._changed:
            fitting = (info for info in reversed(self._runs.values()) if query.fits(info))
            return list(islice(fitting, skip, None if limit is None else skip + limit))

    def entries(self, after: int = 0) -> Sequence[Entered]:
        """Return the entries of the ledger with a number above `after`."""
        with self._changed:
            return self._entries[after:]

    def wait(self, run: str, after: int, seconds: float) -> None:
        """Return when the run holds an event after `after`, has ended, or so many seconds have passed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events.get(run, ())) > after + 1 or not self.is_alive(run), seconds)

    def is_alive(self, run: str) -> bool:
        """Return whether the run has begun and not ended."""
        info = self._runs.get(run)
        return info is not None and info.status == "running"

    def version(self) -> int:
        """Return the number of commits."""
        return self._commits

    def receive(self, batch: Batch) -> None:
        """Keep a batch of events that other logs record. Raises Conflict."""
        with self._changed:
            tips: dict[str, Tip] = {}
            for event in batch.events:
                held = self._events.get(event.run)
                tip = tips.get(event.run) or (Tip.after(held[-1]) if held else Tip())
                tip.check(event.run, [event])
                tips[event.run] = Tip.after(event)
            self._runs |= batch.begun | batch.ended
            self._sources |= batch.sources
            for event in batch.events:
                if event.seq == 0:
                    self._enter("started", event)
                if event.kind == "run.ended":
                    self._enter("ended", event)
                self._keep([event])
            for run, payloads in batch.erased.items():
                for seq, payload in payloads.items():
                    self._events[run][seq] = self._events[run][seq]._replace(payload=payload)
            for run in batch.pruned:
                del self._events[run], self._runs[run], self._sources[run]
            if batch.cursor is not None:
                self._cursors[batch.shelf] = batch.cursor

    def cursor(self, shelf: str) -> str | None:
        """Return the cursor that was kept last for the shelf."""
        return self._cursors.get(shelf)

    def cursors(self) -> dict[str, str]:
        """Return all kept cursors by shelf."""
        return dict(self._cursors)

    def source_of(self, run: str) -> str | None:
        """Return the source of a received run, or None for any other run."""
        return self._sources.get(run)

    def count_kinds(self, run: str) -> Counter[str]:
        """Return the number of events of each kind that a run holds now."""
        with self._changed:
            return Counter(event.kind for event in self._events.get(run, ()))

    def _keep(self, events: Sequence[Event]) -> None:
        self._commits += 1
        for event in events:
            self._events.setdefault(event.run, []).append(event)
            if event.exchange is not None:
                self._of_exchange.setdefault((event.run, event.exchange), []).append(event)
        self._changed.notify_all()

    def _enter(self, what: What, event: Event) -> None:
        before = self._entries[-1] if self._entries else None
        self._entries.append(next_entry(before, event.run, what, event.seq, event.hash))
