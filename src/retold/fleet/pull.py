"""Pull: copy the pages of a shelf into a log, the mirror.

The mirror keeps the cursor of the shelf in the transaction of the events, so a killed puller continues at its last page.
If a run has a gap or replaced payloads, the puller asks for the whole run again. If the gap stays, only this run waits, for its
next page. The cursor moves only after that. The mirror also keeps the names of the runs that a
newer retold wrote, so that it takes them after an update.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..recorder import strict_json
from ..recorder.errors import ShelfError
from ..recorder.events import Event
from ..recorder.log.log import EventLog
from ..recorder.log.receiving import Arrival, Received, receiver
from ..recorder.log.store import Erasable
from .pages import NewerPage
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
    transaction.
    """

    def __init__(
        self, log: EventLog, shelf: Shelf, *, only: str | None = None, since_ns: int | None = None,
        on_trouble: Callable[[str | None], None] | None = None, seen: Callable[[Pulled], None] | None = None,
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
        self._newer_kept = f"{shelf.name} newer"
        self._newer: set[str] = set(json.loads(self._receiver.cursor(self._newer_kept) or "[]"))

    def stop(self) -> None:
        """Let `run` return after its current transaction."""
        self._stopped.set()

    def run(self, *, follow: bool = False) -> Pulled:
        """Pull all pages of the shelf; with `follow`, wait for more until `stop` is called.

        Raises ShelfError if the shelf refuses for good or, without `follow`, if it does not answer. Raises LogError if the log
        cannot be written.
        """
        wait_s = _FIRST_WAIT_S
        newer = sorted(self._newer) if self._only is None else []
        while not self._stopped.is_set():
            try:
                while newer:
                    self._take_newer(newer[-1])
                    newer.pop()
                for batch in self.shelf.pages(self._cursor(), run=self._only, wait_s=WAIT_S if follow else 0):
                    self._receive(batch)
                    wait_s = _FIRST_WAIT_S
                    self._tell(None)
                    if self._stopped.is_set():
                        break
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

    def _take_newer(self, run: str) -> None:
        """Ask for a run that an older retold could not read."""
        self._newer.discard(run)
        self._ask_again(run)
        self._keep_newer()

    def _keep_newer(self) -> None:
        self._receiver.receive(self._newer_kept, [], strict_json.dumps(sorted(self._newer)))

    def _receive(self, batch: Sequence[Shelved]) -> None:
        """Ask again for the runs that need it, then write the pages and their cursor."""
        if not batch:
            return
        cursor = None if self._is_part() else batch[-1].cursor
        found = self._write(batch, cursor)
        self._at = batch[-1].cursor
        for run in sorted(found.gaps.keys() | found.again):
            self._ask_again(run)
        if found.newer:
            self._keep_newer()
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
        if (found.erased or found.pruned) and isinstance(self.log.store, Erasable):
            self.log.vacuum()
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
