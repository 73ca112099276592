"""LogReader: the questions that a log answers, and the loop in which a reader follows a run that is still being written."""

import os
import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from weakref import WeakValueDictionary

from ..clock import monotonic_ns
from ..errors import LogError
from ..events import Event
from ..hints import not_a_run
from ..messages import Message
from .runs import EVERY_RUN, RunInfo, RunQuery, find_run
from .store import PAGE, Head, Part, Readings, open_runs

FIRST_PAGE = 20
"""Events of the first page: the beginning of a run does not wait for a page of long events."""

IS_ID = re.compile("[0-9a-f]{16}")
"""The form of the id of a run, as `EventLog.start` makes it."""

WAIT_S = 1.0
"""Seconds that a reader waits for the store. It only loses time if the store could not wake it, after an interrupt."""

GATHER_NS = 5_000_000
"""The least time between two reads of a follower, in nanoseconds.

A read costs as much as some appends, and the writer waits for the interpreter meanwhile. In a flood one read then gets all events
of that time; events with longer pauses are read at once.
"""


KEPT = 2 * PAGE
"""The largest number of events that followers share."""

KEPT_BYTES = 2_000_000
"""The largest number of bytes of payload that followers share, as long as no single read returns more."""

KEPT_NS = 50_000_000
"""Nanoseconds after which a follower reads events again, because they may have been erased meanwhile."""

_SEQ = attrgetter("seq")


class _Recent:
    """The newest events of one run and of the same kinds, so that followers at nearly the same place read each event once.

    The handlers of a step are such followers. A read releases the interpreter's lock for each row, for which the writer waits.
    The events are all those after `_after` up to the last one. A follower that lags further behind reads on its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._bytes = self._after = self._since_ns = 0

    def read(self, store: Readings, run: str, after: int, kinds: Sequence[str] | None) -> Sequence[Event]:
        """Return the next events after `after`, or an empty list if the store has none. Raises LogError."""
        with self._lock:
            now_ns = monotonic_ns()
            if now_ns - self._since_ns > KEPT_NS:
                self._events = []
            last = self._events[-1].seq if self._events else None
            if last is not None and self._after <= after < last:
                return self._events[bisect_right(self._events, after, key=_SEQ) :]
            page = store.read(run, after=after, kinds=kinds)
            size = sum(len(event.payload) for event in page)
            if after == last and len(self._events) + len(page) <= KEPT and self._bytes + size <= KEPT_BYTES:
                self._events += page
                self._bytes += size
            elif page and (last is None or page[-1].seq > last):
                self._events, self._bytes, self._after, self._since_ns = list(page), size, after, now_ns
            return page


class LogReader:
    """The reading half of `EventLog`, over any store."""

    def __init__(self, store: Readings) -> None:
        self.store = store
        self._recent: WeakValueDictionary[tuple[int, str, tuple[str, ...] | None], _Recent] = WeakValueDictionary()

    @property
    def path(self) -> Path:
        """The place of the log, for messages; the log of a file has the path as it was given."""
        return Path(self.store.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    @contextmanager
    def reading(self) -> "Iterator[LogReader]":
        """Answer several questions at the cost of one: a log in a file is opened once for all of them. Raises LogError."""
        with self.store.reading() as store:
            yield LogReader(store)

    def exists(self) -> bool:
        """Return whether the log has been made; the first write makes it. An unmade log cannot be read."""
        return self.store.exists()

    def runs(self, query: RunQuery = EVERY_RUN, *, limit: int | None = None, skip: int = 0) -> list[RunInfo]:
        """Return the runs that fit the query, newest first. Raises LogError.

        If its writer died without ending it, a run has the status `interrupted`.
        """
        return list(self.store.runs(query, limit=limit, skip=skip))

    def find(self, ref: str) -> RunInfo:
        """Return the run that `ref` names: an id, a unique prefix of one, a name (its newest run), `last` or `last~N`.

        Raises InputError, LogError.
        """
        if not self.exists() and (hint := not_a_run(ref)):
            raise LogError(hint)
        with self.store.reading() as store:
            return find_run(store.runs, self.path, ref)

    def events(
        self, run: str, *, after: int = -1, until: int | None = None, kinds: Sequence[str] | None = None,
        exchange: int | None = None, step: str | None = None,
    ) -> Iterator[Event]:  # fmt: skip
        """Yield the events of a run in order, from the one after `after` to `until`, in flat memory.

        `run` is an id, or names a run as in `find`. Raises InputError, LogError.
        """
        limit = FIRST_PAGE
        run = self._id(run)
        with self.store.reading() as store:
            while page := store.read(run, after=after, until=until, kinds=kinds, exchange=exchange, step=step, limit=limit):
                yield from page
                after, limit = page[-1].seq, PAGE

    def parts(self, run: str, exchange: int, *, until: int | None = None) -> Iterator[Part]:
        """Yield the frames and chunks of an exchange in order, in flat memory. Raises LogError."""
        after = exchange
        with self.store.reading() as store:
            while page := store.parts(run, exchange, after=after, until=until):
                yield from page
                after = page[-1][0]

    def _id(self, run: str) -> str:
        """Return the id of a run that is named by its id, or as in `find`."""
        return run if IS_ID.fullmatch(run) else self.find(run).run

    def last(self, run: str) -> Event | None:
        """Return the newest event of a run, or None if it has none. Raises LogError."""
        return next(iter(self.store.read(run, newest_first=True, limit=1)), None)

    def has(self, run: str, exchange: int, kind: str) -> bool:
        """Return whether an exchange of a run has an event of that kind; `run` is as in `events`. Raises InputError, LogError."""
        return bool(self.store.read(self._id(run), exchange=exchange, kinds=(kind,), limit=1))

    def messages(self, run: str, *, after: int = -1, step: str | None = None) -> Iterator[Message]:
        """Yield the complete messages of a run in order; `run` is as in `events`. Raises InputError, LogError."""
        for event in self.events(run, after=after, kinds=("message",), step=step):
            yield Message.of(event)

    def follow(
        self, run: str, *, after: int = -1, kinds: Sequence[str] | None = None, until: Callable[[Event], bool] | None = None
    ) -> Iterator[Event]:
        """Like `events`, but wait for more until the run ends, its writer is gone, or `until` is true of an event.

        With `kinds`, the events for which `until` is true must be among them; `run.ended` always ends the loop.
        """
        wanted = None if kinds is None else (*kinds, "run.ended")
        waited = False
        run = self._id(run)
        read_ns = 0
        recent = self._recent.setdefault((os.getpid(), run, wanted), _Recent())  # a fork may copy a lock that is held
        with self.store.reading() as store:
            while True:
                if (early_ns := read_ns + GATHER_NS - monotonic_ns()) > 0:
                    time.sleep(early_ns / 1e9)
                read_ns = monotonic_ns()
                # Only after a wait without news is the writer looked for, and before the log is read for its last events.
                alive, seen = not waited or store.is_alive(run), after
                if wanted is not None and waited:  # events of other kinds must not wake the reader again
                    seen = max((event.seq for event in store.read(run, after=after, newest_first=True, limit=1)), default=after)
                page = recent.read(store, run, after, wanted)
                for event in page:
                    if event.kind != "run.ended" or kinds is None or "run.ended" in kinds:
                        yield event
                    if event.kind == "run.ended" or (until is not None and until(event)):
                        return
                    after = event.seq
                is_first_without_news, waited = not waited and wanted is not None, not page
                if page or is_first_without_news:
                    continue
                if not alive:
                    return
                after = seen
                store.wait(run, after, WAIT_S)

    def head(self) -> Head:
        """Return the head of the log. Raises LogError if the ledger or an open run cannot be read or was changed."""
        with self.store.reading() as store:
            while True:
                entries = store.entries()
                if not all(entry.is_whole for entry in entries):
                    raise LogError("the ledger of the log is not as it was written; `retold verify` names the entry.")
                ends = [event for run in open_runs(entries) for event in store.read(run, newest_first=True, limit=1)]
                if not store.entries(after=len(entries)):  # else a run began or ended meanwhile
                    return Head.of(entries, tuple((event.run, event.seq, event.hash) for event in ends))
