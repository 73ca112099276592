"""The shipper: copy the runs of a log to a shelf, page by page, each event once.

The shipper has no cursor of its own. The last page of a run on the shelf tells how far the run is there, so a shipper that was
killed goes on where it stopped, and two shippers of one log do not harm each other:

1. A page is put on the condition that the run's last page is the one that the shipper saw.
2. If that fails, or if no answer came, the shipper looks at the last page again before it puts anything.
3. If the shelf has an event that differs from the log's, or one more than a run that has ended, the two have forked. The run is
   named and left alone.
4. Some time after its last page was put, an ended run is looked at once more: a server can lose pages that it acknowledged.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ..recorder.events import Event
from ..recorder.log.erasure import ERASED, PRUNED, REDACTED
from ..recorder.log.log import EventLog
from ..recorder.log.store import Readings
from .pages import MAX_EVENTS, page_of
from .shelf import ErasableShelf, Full, PageConflict, Position, Refused, Shelf, Unreachable

POLL_S = 0.005
"""Seconds between two looks for new events in the log."""

LOOK_AT_FILE_S = 10.0
"""Seconds after which the log is opened anew."""

LOOK_AGAIN_S = 180.0
"""Seconds after which an ended run is looked at once more. A NATS server syncs its files to the disk every 120 s."""

AT_ONCE = 16
"""Runs that are shipped at the same time, each with one page on its way."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


@dataclass
class Shipped:
    """The totals of a shipper. `forked` gives the reason for each run that was left alone; `waiting` is the last trouble."""

    pages: int = 0
    events: int = 0
    bytes: int = 0
    conflicts: int = 0
    retries: int = 0
    forked: dict[str, str] = field(default_factory=dict)
    waiting: str | None = None


class _Forked(Exception):
    """The shelf and the log have different events of one run."""


class Shipper:
    """Ships the runs that a log recorded itself to a shelf, until it is stopped.

    `told` is called with the text of a trouble when it begins, and with None when it is over.
    """

    def __init__(
        self, log: EventLog, shelf: Shelf, *, told: Callable[[str | None], None] | None = None,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:  # fmt: skip
        self.log = log
        self.shelf = shelf
        self.shipped = Shipped()
        self._told = told or (lambda _: None)
        self._look_again_s = look_again_s
        self._stopped = threading.Event()
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._at: dict[str, Position | None] = {}
        self._shelved: dict[str, int] = {}
        self._open: set[str] = set()
        self._put: set[str] = set()
        self._again: dict[str, float] = {}
        self._entered = 0

    def stop(self) -> None:
        """Let `run` return after the pages that are on their way."""
        self._stopped.set()

    def leave(self) -> None:
        """Let `run` return as soon as the events that the log has now are on the shelf, ended runs or not."""
        self._leaving.set()

    def left(self) -> dict[str, int]:
        """Return the number of events by run that are not on the shelf, as far as this shipper knows. Raises LogError.

        Ask after `run` has returned. Of a run whose place on the shelf is unknown, all events count.
        """
        found: dict[str, int] = {}
        if self.log.exists():
            with self.log.store.reading() as store:
                self._find_runs(store)
                for run in sorted(self._open):
                    for last in store.read(run, newest_first=True, limit=1):
                        if last.seq > self._shelved.get(run, -1):
                            found[run] = last.seq - self._shelved.get(run, -1)
        return found

    def run(self, *, until_done: bool = False) -> Shipped:
        """Ship until `stop` is called, or, with `until_done`, until every run has ended and is on the shelf.

        Raises ShelfError if the shelf refuses the pages for good, and LogError if the log cannot be read.
        """
        while not self.log.exists():  # a program that has recorded nothing yet
            if until_done or self._leaving.is_set() or self._stopped.wait(POLL_S):
                return self.shipped
        tasks = dict[str, Future[None]]()
        with ThreadPoolExecutor(AT_ONCE, "retold-ship") as pool:
            try:
                while not self._stopped.is_set():
                    if until_done:  # a run that a killed program left open ends when the log is opened
                        self.log.open()
                        self.log.close()
                    if self._watch(pool, tasks, until_done=until_done):
                        break
            finally:
                self._stopped.set()
        return self.shipped

    def _watch(self, pool: ThreadPoolExecutor, tasks: dict[str, Future[None]], *, until_done: bool) -> bool:
        """Watch the log for some seconds and ship what is new; return whether everything is done. Raises LogError, ShelfError."""
        until, version, changed = time.monotonic() + LOOK_AT_FILE_S, -1, set[str]()
        # A log that was moved or replaced is seen when it is opened the next time.
        with self.log.store.reading() as store:
            while not self._stopped.is_set() and time.monotonic() < until:
                is_leaving = self._leaving.is_set()  # asked before the log is looked at
                if (now := store.version()) != version:
                    version = now
                    self._find_runs(store)
                    changed |= self._open
                changed |= self._due_again()
                for run in [run for run, task in tasks.items() if task.done()]:
                    tasks.pop(run).result()
                # A run that changes while its task goes on gets another task: the first may have read its end already.
                for run in changed - tasks.keys():
                    changed.discard(run)
                    tasks[run] = pool.submit(self._ship, run)
                if not (tasks or changed) and (is_leaving or (until_done and not self._open)):
                    return True
                self._stopped.wait(POLL_S)
        return False

    def _find_runs(self, store: Readings) -> None:
        """Note the runs that began since the last look, but those of other logs."""
        for entry in store.entries(after=self._entered):
            self._entered = entry.n
            if entry.what == "started" and store.source_of(entry.run) is None:
                self._open.add(entry.run)

    def _due_again(self) -> set[str]:
        """Return the ended runs whose second look is due."""
        due = {run for run, at in self._again.items() if at <= time.monotonic()}
        for run in due:
            del self._again[run]
            self._at.pop(run, None)
            self._open.add(run)
        return due

    def _ship(self, run: str) -> None:
        """Ship the events of a run that the shelf does not have."""
        wait_s = _FIRST_WAIT_S
        while not self._stopped.is_set():
            try:
                if run not in self._at:
                    self._at[run] = self._look(run)
                if not self._ship_page(run):
                    return
                wait_s = _FIRST_WAIT_S
                self._tell(None)
            except PageConflict:
                self._at.pop(run, None)
                self._count(conflicts=1)
            except (Unreachable, Full) as error:
                self._at.pop(run, None)
                self._count(retries=1)
                self._tell(str(error))
                self._stopped.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            except _Forked as error:
                with self._lock:
                    self.shipped.forked[run] = str(error)
                self._done(run)
                return

    def _look(self, run: str) -> Position | None:
        """Return the position of the run on the shelf, if the log has the same event there. Raises ShelfError, _Forked."""
        position = self.shelf.last(run)
        if position is None:
            return None
        self._shelved[run] = position.seq
        same = self.log.store.read(run, after=position.seq - 1, until=position.seq)
        if not same:
            last = self.log.last(run)
            if last is not None and last.kind == "run.ended":
                raise _Forked(f"it ended here with event {last.seq}, and goes on to event {position.seq} on the shelf")
        elif same[0].hash != position.hash:
            raise _Forked(f"event {position.seq} on the shelf is another one than here")
        return position

    def _ship_page(self, run: str) -> bool:
        """Put the next page; return False if there is none. Raises ShelfError."""
        at = self._at[run]
        events = self.log.store.read(run, after=-1 if at is None else at.seq, limit=MAX_EVENTS)
        if not events:
            self._ended(run, at)
            return False
        self._erase(events)
        page = page_of(events)
        self._at[run] = self.shelf.put(page, at)
        self._shelved[run] = page.last
        self._put.add(run)
        self._count(pages=1, events=page.last - page.first + 1, bytes=len(page.body))
        return True

    def _erase(self, events: Sequence[Event]) -> None:
        """Erase on the shelf what these events record as erased here, before any mirror reads the record. Raises ShelfError."""
        for event in events:
            if event.kind == PRUNED:
                self._erasable().drop(event.data["run"])
            elif event.kind in (ERASED, REDACTED):
                self._replace_pages(event.data["run"], {seq for seq, _ in event.data["payloads"]})

    def _replace_pages(self, run: str, erased: set[int]) -> None:
        """Put the pages of a run that hold these events once more, as the log has them now."""
        pages = [shelved.page for batch in self.shelf.pages(run=run) for shelved in batch if shelved.source == self.shelf.source]
        for page in pages:
            if not erased.isdisjoint(range(page.first, page.last + 1)):
                now = page_of(self.log.events(run, after=page.first - 1, until=page.last), limited=False)
                if now != page:
                    self._erasable().replace(now)

    def _erasable(self) -> ErasableShelf:
        if not isinstance(self.shelf, ErasableShelf):
            raise Refused(f"{self.shelf.name} cannot erase pages, and this log records an erasure.")
        return self.shelf

    def _ended(self, run: str, at: Position | None) -> None:
        """If the last page holds the run's last event, look at the run once more some time later."""
        last = self.log.store.read(run, after=-1 if at is None else at.seq - 1, limit=1)
        if not last and self.log.last(run) is None:  # it was pruned; the record of that takes its pages from the shelf
            self._at.pop(run, None)
            self._done(run)
        elif last and at is not None and last[0].kind == "run.ended":
            self._done(run)
            if run in self._put:
                self._put.discard(run)
                self._again[run] = time.monotonic() + self._look_again_s
            else:
                self._at.pop(run, None)

    def _done(self, run: str) -> None:
        self._open.discard(run)
        self._shelved.pop(run, None)

    def _count(self, **numbers: int) -> None:
        with self._lock:
            for name, number in numbers.items():
                setattr(self.shipped, name, getattr(self.shipped, name) + number)

    def _tell(self, trouble: str | None) -> None:
        with self._lock:
            is_new, self.shipped.waiting = trouble != self.shipped.waiting, trouble
        if is_new:
            self._told(trouble)
