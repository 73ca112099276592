"""A shelf in memory, for tests. It can fail on purpose in each way that was observed with servers."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from .pages import Page
from .shelf import Full, PageConflict, Position, Shelved, Unreachable, check_follows

Mishap = Literal["put lost", "acknowledgement lost", "doubled", "full"]
"""What happens to the next page: it is not kept and nobody learns of it; it is kept, and the answer is lost; it is kept twice;
it is refused because the shelf is full."""


class _Kept:
    """The state that all views of one shelf share."""

    def __init__(self) -> None:
        self.arrived: list[tuple[str, Page] | None] = []
        self.made = 0
        self.mishaps: list[Mishap] = []
        self.reports: dict[str, bytes] = {}
        self.changed = threading.Condition(threading.RLock())


class MemoryShelf:
    """A shelf in memory. `mishaps` lists the failures of the next calls of `put`, in order. No entry means no failure."""

    remains = ""

    def __init__(self, source: str = "memory", kept: _Kept | None = None) -> None:
        self.name = "memory"
        self.source = source
        self._kept = kept or _Kept()

    @property
    def mishaps(self) -> list[Mishap]:
        """The failures of the next calls of `put`. Append to this list."""
        return self._kept.mishaps

    def of(self, source: str) -> "MemoryShelf":
        """Return a view of the same shelf for another source."""
        return MemoryShelf(source, self._kept)

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page."""
        with self._kept.changed:
            own = [
                Position(kept[1].last, kept[1].hash, number)
                for number, kept in enumerate(self._kept.arrived)
                if kept is not None and kept[0] == self.source and kept[1].run == run
            ]
        return max(own, key=lambda position: (position.seq, position.token), default=None)

    def put(self, page: Page, after: Position | None) -> Position:
        """Keep the page, or fail as the next mishap demands."""
        with self._kept.changed:
            mishap = self.mishaps.pop(0) if self.mishaps else None
            if mishap == "put lost":
                raise Unreachable("the shelf did not answer.")
            if mishap == "full":
                raise Full("the shelf is full.")
            check_follows(page, after)
            if self.last(page.run) != after:
                raise PageConflict(f"{page!r} does not follow the last page of its run.")
            self._kept.arrived += [(self.source, page)] * (2 if mishap == "doubled" else 1)
            self._kept.changed.notify_all()
            if mishap == "acknowledgement lost":
                raise Unreachable("the shelf did not answer.")
            return Position(page.last, page.hash, len(self._kept.arrived) - 1)

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield the pages after the cursor."""
        made, _, number = (after or f"{self._kept.made}:0").partition(":")
        at = int(number) if int(made) == self._kept.made and int(number) <= len(self._kept.arrived) else 0
        while arrived := self._after(at, wait_s):
            numbered = enumerate(arrived, at + 1)
            at += len(arrived)
            fitting = ((number, kept) for number, kept in numbered if kept is not None and run in (None, kept[1].run))
            pages = [Shelved(f"{self._kept.made}:{number}", *kept) for number, kept in fitting]
            if run is not None and after is None:
                pages.sort(key=lambda shelved: shelved.page.first)
            yield pages

    def _after(self, at: int, wait_s: float) -> list[tuple[str, Page] | None]:
        deadline = time.monotonic() + wait_s
        with self._kept.changed:
            while at >= len(self._kept.arrived) and (left := deadline - time.monotonic()) > 0:
                self._kept.changed.wait(left)
            return self._kept.arrived[at:]

    def replace(self, page: Page) -> None:
        """Replace the page with the same events, and list the new page again for readers that have the old one."""
        with self._kept.changed:
            self._forget(lambda kept: (kept.run, kept.first) == (page.run, page.first))
            self._kept.arrived.append((self.source, page))
            self._kept.changed.notify_all()

    def drop(self, run: str) -> None:
        """Remove all pages of a run."""
        with self._kept.changed:
            self._forget(lambda kept: kept.run == run)

    def _forget(self, is_gone: Callable[[Page], bool]) -> None:
        for number, kept in enumerate(self._kept.arrived):
            if kept is not None and kept[0] == self.source and is_gone(kept[1]):
                self._kept.arrived[number] = None

    def report(self, key: str, text: bytes) -> None:
        """Keep the text under the key."""
        self._kept.reports[key] = text

    def reports(self) -> dict[str, bytes]:
        """Return the newest text under each key."""
        return dict(self._kept.reports)

    def has_read(self, cursor: str, run: str) -> bool:
        """Return whether a reader with this cursor has read every page of a run of this source."""
        made, _, number = cursor.partition(":")
        arrived = [at for at, kept in enumerate(self._kept.arrived, 1) if kept and (kept[0], kept[1].run) == (self.source, run)]
        fits = made == str(self._kept.made) and number.isdecimal() and int(number) <= len(self._kept.arrived)
        return fits and bool(arrived) and arrived[-1] <= int(number)

    def lose(self, pages: int) -> None:
        """Lose the newest pages although they were acknowledged, as a server does that returned to an older state."""
        with self._kept.changed:
            del self._kept.arrived[len(self._kept.arrived) - pages :]
            self._kept.made += 1

    def close(self) -> None:
        """Do nothing."""
