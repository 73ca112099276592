"""Ship: copy the runs of a log to a shelf, page by page, each event once.

The shipper has no cursor of its own: it continues after the last page of the run on the shelf. So a killed shipper loses nothing,
and two shippers of one log do not harm each other:

1. The shipper puts a page on the condition that the run's last page is the one that it saw.
2. If that fails, or if no answer arrives, the shipper looks at the last page again before it puts another page.
3. If the shelf has an event that differs from the log's, or an event that the log lacks, the two have forked. The shipper reports
   the run and leaves it alone.
4. Some time after the last page of an ended run, the shipper looks at the run once more, because a server can lose acknowledged
   pages.
5. If a mirror reports missing events that the shelf has lost from the middle of a run, the shipper puts their page once more.
6. While the shipper erases events of a run on the shelf, no page of the run is on its way, because such a page could bring the
   erased text back.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ..recorder.errors import LogError
from ..recorder.events import Event
from ..recorder.log.erasure import ERASED, PRUNED, REDACTED
from ..recorder.log.log import EventLog
from ..recorder.log.reading import LogReader
from ..recorder.log.store import Entered, Readings
from .pages import MAX_EVENTS, page_of
from .shelf import ErasableShelf, Full, PageConflict, Position, Refused, Shelf, Unreachable

POLL_S = 0.005
"""Seconds between two checks for new events in the log."""

IDLE_POLL_S, IDLE_AFTER_S = 0.03, 1.0
"""The same in a log without a change for so many seconds, which costs a sixth."""

LOOK_AT_FILE_S = 10.0
"""Seconds after which the shipper opens the log again."""

LOOK_AGAIN_S = 180.0
"""Seconds after which the shipper looks at an ended run once more. A NATS server syncs its files to the disk every 120 s."""

AT_ONCE = 16
"""The number of runs that are shipped at the same time, each with one page on its way."""

_TASKS = 4 * AT_ONCE
"""The number of runs with a task. The others wait in a dictionary, which costs less than a task."""

_RECORDS = (ERASED, REDACTED, PRUNED)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


@dataclass
class Shipped:
    """The totals of a shipper. `forked` maps each run that it left alone to the reason; `waiting` is its present trouble."""

    pages: int = 0
    events: int = 0
    bytes: int = 0
    erasures: int = 0
    conflicts: int = 0
    retries: int = 0
    forked: dict[str, str] = field(default_factory=dict)
    waiting: str | None = None


class _Forked(Exception):
    """The shelf and the log have different events of one run."""


def gaps_of(shelf: Shelf, run: str) -> list[tuple[int, int]]:
    """Return the first and last number of the events that the shelf lacks between pages of a run of its source."""
    pages = [got.page for batch in shelf.pages(run=run) for got in batch if got.source == shelf.source]
    found, seq = [], 0
    for page in sorted(pages, key=lambda page: page.first):
        if page.first > seq:
            found.append((seq, page.first - 1))
        seq = max(seq, page.last + 1)
    return found


class Shipper:
    """Ships the runs of a log to a shelf, but not the runs that the log received from other logs.

    The shipper calls `on_trouble` with a text when the shelf fails for a first run, and with None when it works for every run.
    """

    def __init__(
        self, log: EventLog, shelf: Shelf, *, on_trouble: Callable[[str | None], None] | None = None,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:  # fmt: skip
        self.log = log
        self.shelf = shelf
        self.shipped = Shipped()
        self._on_trouble = on_trouble or (lambda _: None)
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
        """Let `run` return after all events that the log has now, of ended runs or not, are on the shelf."""
        self._leaving.set()

    def left(self) -> dict[str, int]:
        """Return the number of events of each run that this shipper has not seen on the shelf. Raises LogError.

        Call it after `run` has returned. If the shipper never saw the run's last page, all events of the run count.
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

    def waiting(self) -> int:
        """Return the number of events that wait for the shelf now, of the runs that this shipper knows. Raises LogError."""
        found = 0
        if self.log.exists():
            with self.log.store.reading() as store:
                for run in sorted(self._open):
                    last = store.read(run, newest_first=True, limit=1)
                    found += last[0].seq - self._shelved.get(run, -1) if last else 0
        return max(found, 0)

    def mend(self, runs: Iterable[str]) -> None:
        """Ship the pages of these runs anew that the shelf lost from between others. Raises ShelfError, LogError."""
        with self.log.store.reading() as store:
            for run in runs:
                if store.source_of(run) is None and store.read(run, limit=1):
                    with self._no_erasing(run):
                        for first, last in gaps_of(self.shelf, run):
                            self._fill(store, run, first, last)

    def _fill(self, store: Readings, run: str, first: int, last: int) -> None:
        while first <= last:
            page = page_of(store.read(run, after=first - 1, until=last, limit=MAX_EVENTS))
            self._erasable().replace(page)
            self._count(pages=1, events=page.last - page.first + 1, bytes=len(page.body))
            first = page.last + 1

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
        """Watch the log for some seconds and ship new events. Return whether everything is done. Raises LogError, ShelfError."""
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
        """Begin again if the file holds another log than before."""
        if self._entered is None or store.entries(after=self._entered.n - 1)[:1] == [self._entered]:
            return
        self._entered = None
        for kept in (self._at, self._shelved, self._open, self._put, self._again):
            kept.clear()

    def _find_runs(self, store: Readings) -> None:
        """Note the runs that began since the last look, without the runs of other logs."""
        for entry in store.entries(after=self._entered.n if self._entered is not None else 0):
            self._entered = entry
            if entry.what == "started" and store.source_of(entry.run) is None:
                self._open.add(entry.run)

    def _has_news(self, store: Readings, run: str) -> bool:
        """Return whether the log has an event of the run after the last position that the shipper knows."""
        at = self._at.get(run)
        return at is None or bool(store.read(run, after=at.seq, limit=1))

    def _due_again(self) -> set[str]:
        """Return the ended runs that are due for their second look."""
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
        """Put the next page. Return False if there is none. Raises ShelfError, _Forked."""
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
        """Return the lock of the run, for reading and putting a page, and for erasing the run on the shelf."""
        return self._erasing[hash(run) % len(self._erasing)]

    def _erase(self, store: Readings, events: Sequence[Event]) -> None:
        """Erase on the shelf the payloads that these events record as erased, before a mirror reads them. Raises ShelfError."""
        for event in events:
            if event.kind not in _RECORDS:
                continue
            run = event.data["run"]
            with self._no_erasing(run):
                if event.kind == PRUNED:
                    self._erasable().drop(run)
                else:
                    self._replace_pages(store, run, {seq for seq, _ in event.data["payloads"]})
            self._count(erasures=1)

    def _replace_pages(self, store: Readings, run: str, erased: set[int]) -> None:
        """Replace the pages of a run that hold these events with pages of the events in the log.

        If the shelf has a page twice, a killed shipper replaced it, and did not remove the old one. Replace it again.
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
        """If the last page holds the run's last event, plan a second look at the run. Forget a pruned run."""
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
        """Note whether the shelf fails for a run. Report the first run with a trouble, and the end of the last trouble."""
        with self._lock:
            had = bool(self._troubled)
            (self._troubled.discard if trouble is None else self._troubled.add)(run)
            is_new = had != bool(self._troubled)
            if is_new:
                self.shipped.waiting = trouble
        if is_new:
            self._on_trouble(trouble)
