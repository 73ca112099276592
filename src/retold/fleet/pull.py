"""Pull: copy the pages of a shelf into a log, the mirror.

The mirror keeps the cursor of the shelf in the transaction of the events, so a killed puller continues at its last page.
If a run has a gap or replaced payloads, the puller asks for the whole run again. If the gap stays, only this run waits, for its
next page. The cursor moves only after that. The mirror also keeps the names of the runs that wait for an event, and of those that
a newer retold wrote: the next pull asks for them again.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..recorder import strict_json
from ..recorder.errors import ShelfError
from ..recorder.events import Event
from ..recorder.log.log import EventLog
from ..recorder.log.receiving import Arrival, Received, receiver
from ..recorder.log.store import Erasable
from .pages import NewerPage
from .presence import Presence
from .reports import HEARTBEAT_S
from .shelf import Shelf, Shelved, Unreachable

WAIT_S = 1.0
"""Seconds for which a puller waits for a page before it checks whether `stop` was called."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


@dataclass
class Pulled:
    """The totals of a puller. `held` maps runs to the number of their first missing event, `refused` maps runs to a reason."""

    pages: int = 0
    events: int = 0
    known: int = 0
    erased: int = 0
    held: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    waiting: str | None = None


class Puller:
    """Pulls pages of a shelf into a log: of all runs, of the run `only`, or of the runs that began since a time.

    With `only` or `since_ns` (nanoseconds since 1970), the puller reads the shelf from its beginning, and does not move the
    cursor of the mirror.

    The puller calls `on_trouble` with a text when the shelf fails and with None when the shelf works again, and `seen` after each
    transaction. With a `name`, the puller reports to the shelf; `fault` is the reason if it cannot.
    """

    def __init__(
        self, log: EventLog, shelf: Shelf, *, only: str | None = None, since_ns: int | None = None,
        on_trouble: Callable[[str | None], None] | None = None, seen: Callable[[Pulled], None] | None = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        self.log = log
        self.shelf = shelf
        self.pulled = Pulled()
        self._only = only
        self._since_ns = since_ns
        self._chosen: dict[str, bool] = {}
        self._at: str | None = None
        self._on_trouble = on_trouble or (lambda _: None)
        self._seen = seen or (lambda _: None)
        self._stopped = threading.Event()
        self._receiver = receiver(log)
        self._presence = None if name is None else Presence(shelf, name, self._receiver)
        self._reports_at_s = 0.0
        self._waiting_kept = f"{shelf.name} newer"
        self._kept_waiting: set[str] = set(json.loads(self._receiver.cursor(self._waiting_kept) or "[]"))
        self._unasked = set(self._kept_waiting)
        self._newer = set[str]()

    def stop(self) -> None:
        """Let `run` return after its current transaction."""
        self._stopped.set()

    @property
    def fault(self) -> str | None:
        """The reason for which the puller cannot report to the shelf, or None."""
        return None if self._presence is None else self._presence.fault

    def run(self, *, follow: bool = False) -> Pulled:
        """Pull all pages of the shelf; with `follow`, wait for more until `stop` is called.

        Raises ShelfError if the shelf refuses for good or, without `follow`, if it does not answer. Raises LogError if the log
        cannot be written.
        """
        wait_s = _FIRST_WAIT_S
        while not self._stopped.is_set():
            try:
                while self._unasked and self._only is None:
                    self._ask_again(run := min(self._unasked))
                    self._unasked.discard(run)
                self._keep_waiting()
                is_due = not follow or self._is_due()  # then it does not wait, so that it comes to the shelf's end
                for batch in self.shelf.pages(self._cursor(), run=self._only, wait_s=0 if is_due else WAIT_S):
                    self._receive(batch)
                    wait_s = _FIRST_WAIT_S
                    self._tell(None)
                    if self._stopped.is_set() or (not is_due and self._is_due()):
                        break
                else:
                    self._report(is_due=is_due)
                if not follow:
                    break
            except Unreachable as error:
                if not follow:
                    raise
                self._tell(str(error))
                self._stopped.wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return self.pulled

    def _cursor(self) -> str | None:
        return self._at if self._is_part() else self._receiver.cursor(self.shelf.name)

    def _is_part(self) -> bool:
        return self._only is not None or self._since_ns is not None

    def _is_due(self) -> bool:
        return self._presence is not None and time.monotonic() >= self._reports_at_s

    def _report(self, *, is_due: bool) -> None:
        """Report to the shelf, whose end was reached."""
        if is_due and self._presence is not None:
            self._presence.exchange(self.pulled.held, len(self.pulled.refused))
            self._reports_at_s = time.monotonic() + HEARTBEAT_S

    def _keep_waiting(self) -> None:
        """Keep the names of the runs that the next pull asks for again."""
        if (waiting := self._unasked | self._newer | self.pulled.held.keys()) != self._kept_waiting:
            self._receiver.receive(self._waiting_kept, [], strict_json.dumps(sorted(waiting)))
            self._kept_waiting = waiting

    def _receive(self, batch: Sequence[Shelved]) -> None:
        """Ask again for the runs that need it, then write the pages and their cursor."""
        if not batch:
            return
        cursor = None if self._is_part() else batch[-1].cursor
        # A page may have come that a run waited for; the pages behind it were passed over.
        filled = self.pulled.held.keys() & {shelved.page.run for shelved in batch}
        found = self._write(batch, cursor)
        self._at = batch[-1].cursor
        for run in sorted(found.gaps.keys() | found.again | filled):
            self._ask_again(run)
        self._keep_waiting()
        if cursor is not None and not found.is_whole:
            self._receiver.receive(self.shelf.name, [], cursor)
        self._seen(self.pulled)

    def _ask_again(self, run: str) -> None:
        """Write all pages of one run, in the order of its events."""
        for pages in self.shelf.pages(run=run):
            found = self._write(pages, None)
            if run in found.gaps:
                self.pulled.held[run] = found.gaps[run]

    def _write(self, batch: Sequence[Shelved], cursor: str | None) -> Received:
        """Write pages in one transaction, with the cursor if no run of them needs a second request."""
        arrivals, newer, damaged = [], set[str](), dict[str, str]()
        for shelved in batch:
            try:
                events = shelved.page.events()
                if self._is_chosen(events):
                    arrivals.append(Arrival(shelved.source, events))
            except ShelfError as error:
                damaged[shelved.page.run] = str(error)
                if isinstance(error, NewerPage):
                    newer.add(shelved.page.run)
        found = self._receiver.receive(self.shelf.name, arrivals, None if newer else cursor)
        found.newer |= newer
        self._newer |= found.newer
        self.pulled.pages += len(batch)
        self.pulled.events += found.events
        self.pulled.known += found.known
        self.pulled.erased += found.erased
        if found.erased or found.pruned:
            self._reports_at_s = 0  # the source of an erasure waits for the report
            if isinstance(self.log.store, Erasable):
                self.log.store.vacuum()
        for run in {arrival.events[0].run for arrival in arrivals}:
            self.pulled.held.pop(run, None)
            self.pulled.refused.pop(run, None)
        self.pulled.refused |= found.refused | damaged
        return found

    def _is_chosen(self, events: Sequence[Event]) -> bool:
        """Return whether to pull a run. Its first event decides; until that arrives, its pages are a gap and arrive again."""
        if self._since_ns is None or not events:
            return True
        if events[0].seq == 0:
            self._chosen[events[0].run] = events[0].wall_ns >= self._since_ns
        return self._chosen.get(events[0].run, True)

    def _tell(self, trouble: str | None) -> None:
        is_new, self.pulled.waiting = (trouble is None) != (self.pulled.waiting is None), trouble
        if is_new:
            self._on_trouble(trouble)
