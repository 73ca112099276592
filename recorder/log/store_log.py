"""StoreLog: an EventLog over any store, for instance one in memory."""

import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import LogError
from ..events import Entry, Event, encode
from ..secrets.redactor import Redactor
from .log import EventLog
from .memory import MemoryStore
from .run_writer import Mode, RunWriter, Status, seal_all
from .runs import COUNTED, EVERY_RUN, RunInfo, RunQuery, find_run
from .store import Store

WAIT_S = 1.0
"""Seconds for which a reader waits for the store before it looks again."""


class StoreLog(EventLog):
    """A log whose events a store keeps: by default a store in memory, which is gone with the log."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = store or MemoryStore()
        super().__init__(Path(self.store.name), on_failure="stop")

    def open(self) -> None:
        """Do nothing: the store is open."""

    def start(
        self, *, name: str, mode: Mode, data: dict[str, Any] | None = None, redactor: Redactor | None = None,
        recorded_ns: int | None = None,
    ) -> RunWriter:  # fmt: skip
        """Begin a run and return its writer, as `EventLog.start` does. Raises LogError."""
        self._do_deferred()
        writer = RunWriter(self, secrets.token_hex(8), name, redactor, recorded_ns=recorded_ns)
        first = Entry("run.started", encode({"name": writer.name, "mode": mode, **(data or {})}), t_ns=0)
        with self.lock:
            events = seal_all(writer, [first])
            began_ns = events[0].wall_ns
            info = RunInfo(writer.run, events[0].data["name"], mode, "running", began_ns, None, 0, 0, 0, None)
            self.store.begin(info, events[0])
            writer.moved_past(events)
        return writer

    def append(self, writer: RunWriter, entries: Sequence[Entry]) -> list[Event]:
        """Append to the writer's run, all or nothing. Raises LogError; then nothing was appended."""
        self._do_deferred()
        if not entries:
            return []
        with self.lock:
            if writer.ended:
                raise LogError(f"run {writer.run} has ended; nothing can be appended to it.")
            events = seal_all(writer, entries)
            self.store.append(events)
            writer.moved_past(events)
        return events

    def end(self, writer: RunWriter, status: Status, error: str | None) -> None:
        """Write the last event of a run and its line in the listing, once. Raises LogError."""
        self._do_deferred()
        error = None if error is None else writer.redactor.text(error)
        for exchange in list(writer.open.values()):
            exchange.end("closed")
        with self.lock:
            if writer.ended:
                return
            counts: dict[str, Any] = {key: writer.counts[kind] for key, kind in COUNTED.items()}
            events = seal_all(writer, [Entry("run.ended", encode({"status": status, "error": error, **counts}))])
            (info,) = self.store.runs(RunQuery(run=writer.run))
            self.store.end(events[0], replace(info, status=status, error=error, ended_ns=events[0].wall_ns, **counts))
            writer.moved_past(events)
            writer.ended = True

    def runs(self, query: RunQuery = EVERY_RUN, *, limit: int | None = None, skip: int = 0) -> list[RunInfo]:
        """Return the runs that fit the query, newest first. Raises LogError."""
        return list(self.store.runs(query, limit=limit, skip=skip))

    def find(self, ref: str) -> RunInfo:
        """The run that `ref` names, as `EventLog.find` reads it. Raises InputError, LogError."""
        return find_run(self.store.runs, self.path, ref)

    def events(
        self, run: str, *, after: int = -1, kinds: Sequence[str] | None = None, exchange: int | None = None,
        step: str | None = None,
    ) -> Iterator[Event]:  # fmt: skip
        """The events of a run in order, from the one after `after`. Raises LogError."""
        while page := self.store.read(run, after=after, kinds=kinds, exchange=exchange, step=step):
            yield from page
            after = page[-1].seq

    def follow(
        self, run: str, *, after: int = -1, kinds: Sequence[str] | None = None, until: Callable[[Event], bool] | None = None
    ) -> Iterator[Event]:
        """Like `events`, but waits for more until the run ends, its writer is gone, or `until` is true of an event."""
        wanted = None if kinds is None else (*kinds, "run.ended")
        while True:
            alive = self.store.is_alive(run)
            seen = max((event.seq for event in self.store.read(run, after=after, newest_first=True, limit=1)), default=after)
            page = self.store.read(run, after=after, until=max(seen, 0), kinds=wanted)
            for event in page:
                if event.kind != "run.ended" or kinds is None or "run.ended" in kinds:
                    yield event
                if event.kind == "run.ended" or (until is not None and until(event)):
                    return
                after = event.seq
            if not page:
                if not alive:
                    return
                after = seen  # all of these events are of other kinds
                self.store.wait(run, after, WAIT_S)

    def reader(self) -> sqlite3.Connection:
        """Raise LogError: no file is behind this log."""
        raise LogError(f"the log {self.path} is not kept in a file.")

    def _writable(self, *, make: bool = True) -> sqlite3.Connection:  # noqa: ARG002
        return self.reader()
