"""MemoryStore: events in the memory of the process, for recordings that are read once and not kept."""

import threading
from collections.abc import Sequence
from itertools import islice

from ..events import GENESIS, Event, seal
from .ledger import Entered, What, chained
from .runs import RunInfo, RunQuery
from .store import PAGE, Conflict


class MemoryStore:
    """A store in memory. It is gone with its last reference."""

    name = ":memory:"

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._events: dict[str, list[Event]] = {}
        self._of_exchange: dict[tuple[str, int], list[Event]] = {}
        self._runs: dict[str, RunInfo] = {}
        self._entries: list[Entered] = []

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._runs)} runs>"

    def begin(self, run: RunInfo, first: Event) -> None:
        """Keep the first event of a run. Raises Conflict."""
        with self._changed:
            if first.run in self._events or run.run != first.run:
                raise Conflict(f"run {first.run} has begun already.")
            self._check([first])
            self._keep([first])
            self._enter("started", first)
            self._runs[run.run] = run

    def append(self, events: Sequence[Event]) -> None:
        """Keep events of one run, all or none. Raises Conflict."""
        with self._changed:
            if any(event.run not in self._events for event in events):
                raise Conflict("an event belongs to a run that has not begun.")
            self._check(events)
            self._keep(events)

    def end(self, last: Event, run: RunInfo) -> None:
        """Keep the last event of a run. Raises Conflict."""
        with self._changed:
            if run.run != last.run:
                raise Conflict(f"the last event of run {run.run} is one of run {last.run}.")
            self.append([last])
            self._enter("ended", last)
            self._runs[run.run] = run

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

    def _check(self, events: Sequence[Event]) -> None:
        """Raise Conflict unless the events are the next ones of one run that is open."""
        if not events:
            return
        run = events[0].run
        held = self._events.get(run, [])
        if held and held[-1].kind == "run.ended":
            raise Conflict(f"run {run} has ended; nothing can be appended to it.")
        before = held[-1].hash if held else GENESIS
        for seq, event in enumerate(events, len(held)):
            fields = (event.t_ns, event.wall_ns, event.kind, event.exchange, event.step, event.task, event.digest)
            if event.run != run or event.seq != seq or event.hash != seal(before, event.schema, run, seq, *fields):
                raise Conflict(f"event {event.seq} of run {event.run} is not the next one of run {run}, which is event {seq}.")
            before = event.hash

    def _keep(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.setdefault(event.run, []).append(event)
            if event.exchange is not None:
                self._of_exchange.setdefault((event.run, event.exchange), []).append(event)
        self._changed.notify_all()

    def _enter(self, what: What, event: Event) -> None:
        n, before = (self._entries[-1].n, self._entries[-1].chain) if self._entries else (0, GENESIS)
        chain = chained(before, n + 1, event.run, what, event.seq, event.hash)
        self._entries.append(Entered(n + 1, event.run, what, event.seq, event.hash, chain))
