"""The shipper: copy the runs of a log to a shelf, page by page, each event once.

The shipper has no cursor of its own. The last page of a run on the shelf tells how far the run is there, so a shipper that was
killed goes on where it stopped, and two shippers of one log do not harm each other:

1. A page is put on the condition that the run's last page is the one that the shipper saw.
2. If that fails, or if no answer came, the shipper looks at the last page again before it puts anything.
3. If the shelf has an event that differs from the log's, or one that the log does not have, the two have forked. The run is
   named and left alone.
4. Some time after its last page was put, an ended run is looked at once more: a server can lose pages that it acknowledged.
5. No page of a run is on its way while events of the run are erased on the shelf, else its text could arrive afterwards.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ..recorder.errors import LogError
from ..recorder.events import Event
from ..recorder.log.erasure import ERASED, PRUNED, REDACTED
from ..recorder.log.ledger import Entered
from ..recorder.log.log import EventLog
from ..recorder.log.reading import LogReader
from ..recorder.log.store import Readings
from .pages import MAX_EVENTS, page_of
from .shelf import ErasableShelf, Full, PageConflict, Position, Refused, Shelf, Unreachable

POLL_S = 0.005
"""Seconds between two looks for new events in the log."""

IDLE_POLL_S, IDLE_AFTER_S = 0.02, 1.0
"""The same in a log without a change for so many seconds, which costs a quarter."""

LOOK_AT_FILE_S = 10.0
"""Seconds after which the log is opened anew."""

LOOK_AGAIN_S = 180.0
"""Seconds after which an ended run is looked at once more. A NATS server syncs its files to the disk every 120 s."""

AT_ONCE = 16
"""Runs that are shipped at the same time, each with one page on its way."""

_TASKS = 4 * AT_ONCE
"""Runs with a task: the others wait in a dictionary, which costs less than a task."""

_RECORDS = (ERASED, REDACTED, PRUNED)
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

    `told` is called with the text of a trouble when it begins, and with None when no run has one any more.
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
        self._entered: Entered | None = None
        self._troubled: set[str] = set()
        self._erasing = [threading.RLock() for _ in range(_TASKS)]

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
        tasks = dict[str, Future[None]]()
        with ThreadPoolExecutor(AT_ONCE, "retold-ship") as pool:
            try:
                while not self._stopped.is_set():
                    if not self.log.exists():  # nothing is recorded yet, or the file was moved away
                        if until_done or self._leaving.is_set() or self._stopped.wait(POLL_S):
                            break
                        continue
                    try:
                        if until_done:  # a run that a killed program left open ends when the log is opened
                            self.log.open()
                            self.log.close()
                        if self._watch(pool, tasks, until_done=until_done):
                            break
                    except LogError:
                        if self.log.exists():
                            raise
            finally:
                self._stopped.set()
        for task in tasks.values():  # with a shelf that refused the last pages, it did not stop in order
            task.result()
        return self.shipped

    def _watch(self, pool: ThreadPoolExecutor, tasks: dict[str, Future[None]], *, until_done: bool) -> bool:
        """Watch the log for some seconds and ship what is new; return whether everything is done. Raises LogError, ShelfError."""
        began_s = busy_s = time.monotonic()
        version, changed = -1, dict[str, None]()
        # A log that was moved or replaced is seen when it is opened the next time.
        with self.log.store.reading() as store:
            self._forget_other_log(store)
            while not self._stopped.is_set() and (now_s := time.monotonic()) < began_s + LOOK_AT_FILE_S:
                is_leaving = self._leaving.is_set()  # asked before the log is looked at
                if (now := store.version()) != version:
                    version = now
                    self._find_runs(store)
                    changed |= dict.fromkeys(self._open)
                changed |= dict.fromkeys(self._due_again())
                for run in [run for run, task in tasks.items() if task.done()]:
                    tasks.pop(run).result()
                # A run that changes while its task goes on gets another task: the first may have read its end already.
                for run in [run for run in changed if run not in tasks]:
                    if len(tasks) == _TASKS:
                        break
                    del changed[run]
                    if self._has_news(store, run):
                        tasks[run] = pool.submit(self._ship, run)
                if not (tasks or changed) and (is_leaving or (until_done and not self._open)):
                    return True
                busy_s = now_s if tasks or changed else busy_s
                self._stopped.wait(POLL_S if now_s < busy_s + IDLE_AFTER_S else IDLE_POLL_S)
        return False

    def _forget_other_log(self, store: Readings) -> None:
        """Begin anew if another log stands in the place of the one that was read before."""
        if self._entered is None or store.entries(after=self._entered.n - 1)[:1] == [self._entered]:
            return
        self._entered = None
        for kept in (self._at, self._shelved, self._open, self._put, self._again):
            kept.clear()

    def _find_runs(self, store: Readings) -> None:
        """Note the runs that began since the last look, but those of other logs."""
        for entry in store.entries(after=self._entered.n if self._entered is not None else 0):
            self._entered = entry
            if entry.what == "started" and store.source_of(entry.run) is None:
                self._open.add(entry.run)

    def _has_news(self, store: Readings, run: str) -> bool:
        """Return whether the log has an event of the run that was not shipped, as far as is known without asking the shelf."""
        at = self._at.get(run)
        return at is None or bool(store.read(run, after=at.seq, limit=1))

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
                with self.log.store.reading() as store:
                    while not self._stopped.is_set() and self._ship_page(store, run):
                        wait_s = _FIRST_WAIT_S
                        self._tell(run, None)
                break
            except PageConflict:
                self._at.pop(run, None)
                self._count(conflicts=1)
                self._stopped.wait(POLL_S)
            except (Unreachable, Full) as error:
                self._at.pop(run, None)
                self._count(retries=1)
                self._tell(run, str(error))
                self._stopped.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            except _Forked as error:
                with self._lock:
                    self.shipped.forked[run] = str(error)
                self._done(run)
                break
        if not self._stopped.is_set():
            self._tell(run, None)

    def _look(self, store: Readings, run: str) -> Position | None:
        """Return the position of the run on the shelf, if the log has the same event there. Raises ShelfError, _Forked."""
        position = self.shelf.last(run)
        if position is None:
            return None
        self._shelved[run] = position.seq
        last = store.read(run, newest_first=True, limit=1)
        if not last:
            return position  # it was pruned here, and will be there
        if last[0].seq < position.seq:
            ended = "ended" if last[0].kind == "run.ended" else "stopped"
            raise _Forked(f"it {ended} here with event {last[0].seq}, and goes on to event {position.seq} on the shelf")
        (same,) = store.read(run, after=position.seq - 1, until=position.seq)
        if same.hash != position.hash:
            raise _Forked(f"event {position.seq} on the shelf is another one than here")
        return position

    def _ship_page(self, store: Readings, run: str) -> bool:
        """Put the next page; return False if there is none. Raises ShelfError, _Forked."""
        if run not in self._at:
            self._at[run] = self._look(store, run)
        at = self._at[run]
        with self._no_erasing(run):
            events = store.read(run, after=-1 if at is None else at.seq, limit=MAX_EVENTS)
            if events and not any(event.kind in _RECORDS for event in events):
                return self._put_page(run, events, at)
        if not events:
            self._ended(store, run, at)
            return False
        self._erase(store, events)
        return self._put_page(run, events, at)

    def _put_page(self, run: str, events: Sequence[Event], at: Position | None) -> bool:
        page = page_of(events)
        self._at[run] = self.shelf.put(page, at)
        self._shelved[run] = page.last
        self._put.add(run)
        self._count(pages=1, events=page.last - page.first + 1, bytes=len(page.body))
        return True

    def _no_erasing(self, run: str) -> threading.RLock:
        """Return the lock that is held while a page of the run is read and put, and while the run is erased on the shelf."""
        return self._erasing[hash(run) % len(self._erasing)]

    def _erase(self, store: Readings, events: Sequence[Event]) -> None:
        """Erase on the shelf what these events record as erased here, before any mirror reads the record. Raises ShelfError."""
        for event in events:
            if event.kind not in _RECORDS:
                continue
            run = event.data["run"]
            with self._no_erasing(run):
                if event.kind == PRUNED:
                    self._erasable().drop(run)
                else:
                    self._replace_pages(store, run, {seq for seq, _ in event.data["payloads"]})

    def _replace_pages(self, store: Readings, run: str, erased: set[int]) -> None:
        """Put the pages of a run that hold these events once more, as the log has them now.

        A page that is there twice was replaced by a shipper that was killed before it removed the first one.
        """
        pages = [shelved.page for batch in self.shelf.pages(run=run) for shelved in batch if shelved.source == self.shelf.source]
        times = Counter(page.first for page in pages)
        for page in {page.first: page for page in pages}.values():
            if not erased.isdisjoint(range(page.first, page.last + 1)):
                events = list(LogReader(store).events(run, after=page.first - 1, until=page.last))
                if events and ((now := page_of(events, limited=False)) != page or times[page.first] > 1):
                    self._erasable().replace(now)

    def _erasable(self) -> ErasableShelf:
        if not isinstance(self.shelf, ErasableShelf):
            raise Refused(f"{self.shelf.name} cannot erase pages, and this log records an erasure.")
        return self.shelf

    def _ended(self, store: Readings, run: str, at: Position | None) -> None:
        """If the last page holds the run's last event, look at the run once more some time later. Forget a pruned run."""
        last = store.read(run, newest_first=True, limit=1)
        if last and (last[0].kind != "run.ended" or at is None or at.seq != last[0].seq):
            return
        self._done(run)
        if last and run in self._put:
            self._put.discard(run)
            self._again[run] = time.monotonic() + self._look_again_s
        else:
            self._put.discard(run)
            self._at.pop(run, None)

    def _done(self, run: str) -> None:
        self._open.discard(run)
        self._shelved.pop(run, None)

    def _count(self, **numbers: int) -> None:
        with self._lock:
            for name, number in numbers.items():
                setattr(self.shipped, name, getattr(self.shipped, name) + number)

    def _tell(self, run: str, trouble: str | None) -> None:
        """Note that a run has a trouble or none; pass it on with the first run that has one, and with the last."""
        with self._lock:
            had = bool(self._troubled)
            (self._troubled.discard if trouble is None else self._troubled.add)(run)
            is_new = had != bool(self._troubled)
            if is_new:
                self.shipped.waiting = trouble
        if is_new:
            self._told(trouble)
