"""Scrub a large log (scrubbing.py) in turns, so that no process waits longer for the write lock than one turn takes.

Each turn empties the WAL, takes the write lock and scrubs some pages. Other processes write between two turns, so the trees
change under the walk. Two facts make the result certain:

1. The remains of a deleted row stay in the pages in which they are. SQLite copies whole rows from page to page, and unused bytes
   only if a root is split; the roots come first, so they hold none by then. Each page that the file had at the beginning must
   therefore be scrubbed once, in whatever use it is then. A list of pages keeps count.
2. A turn continues the walk only if each page on its way, and each page that waits, is still below the same page. If one is not,
   the walk begins anew, and passes the leaves that were scrubbed already.

If pages are left after some walks, the caller scrubs the whole file in one turn.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...clock import monotonic_ns
from .scrubbing import PAUSE_S, DatabaseFile, WalInUse, empty_wal, exclusively, opened, roots_of

TURN_PAGES = 1024
"""The pages of the trees in one turn: 4 MB, some 50 ms."""

TURN_S = 0.1
"""A turn ends after this time, with the page at which it is: long rows have thousands of pages behind a few of the trees."""

MOST_WALKS = 100
"""The walk begins anew only if a page above its place changed, which is rare in a large file."""

_TRIES = 200


def scrub_in_turns(
    connection: sqlite3.Connection, path: Path, *, between: Callable[[], None] = lambda: time.sleep(PAUSE_S)
) -> bool:
    """Overwrite the unused parts of the log at `path`; call `between` after each turn, without the lock.

    `connection` is a new one, used for nothing else. Return False if some pages are left. Raises sqlite3.Error, OSError.
    """
    walk = _Walk(opened(path))
    while walk.goes_on:
        _turn(connection, path, walk)
        os.fsync(walk.handle)  # here, and not when the WAL is emptied: writers would wait for the disk
        between()
    empty_wal(connection)
    return walk.is_whole


def _turn(connection: sqlite3.Connection, path: Path, walk: "_Walk") -> None:
    for _ in range(_TRIES):
        empty_wal(connection)
        try:
            with exclusively(connection, path):
                walk.turn(roots_of(connection))
                return
        except WalInUse:  # another process wrote after the WAL was emptied
            time.sleep(PAUSE_S / 30)
    raise WalInUse("the WAL could not be emptied: another process keeps writing to it")


@dataclass(slots=True)
class _Step:
    """A page on the way of the walk, and the pages below it that wait. The page 0 stands for all roots."""

    page: int
    waiting: list[int]


@dataclass(slots=True)
class _Walk:
    """The walk over all pages that the file has at the first turn.

    `goes_on` is False if no page is left, or after too many beginnings.
    """

    handle: int
    goes_on: bool = True
    _is_left: bytearray = field(default_factory=bytearray)
    _count: int = -1
    _is_leaf: bytearray = field(default_factory=bytearray)
    _steps: list[_Step] = field(default_factory=list)
    _walks: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether each page was scrubbed."""
        return self._count == 0

    def turn(self, roots: list[int]) -> None:
        """Scrub the next pages. The caller holds the write lock, and the WAL is empty."""
        file = DatabaseFile(self.handle, self._seen)
        if self._count < 0:
            if file.moves_pages:  # its map of pages is in no tree
                self.goes_on = False
                return
            self._is_left, self._is_leaf = bytearray(b"\1") * (file.pages + 1), bytearray(file.pages + 1)
            self._count = file.pages
            self._seen(file.lock_page)
            for root in roots:
                file.scrub_tree(root)
        scrubbed = self._scrub_free(file)
        if scrubbed < TURN_PAGES:
            self._scrub_trees(file, roots, TURN_PAGES - scrubbed)

    def _seen(self, number: int) -> None:
        if number < len(self._is_left):  # later pages were added since the beginning
            self._count -= self._is_left[number]
            self._is_left[number] = 0

    def _scrub_free(self, file: DatabaseFile) -> int:
        scrubbed = 0
        for number in file.free_pages():
            if number < len(self._is_left) and self._is_left[number]:
                file.scrub_free(number)
                scrubbed += 1
                if scrubbed == TURN_PAGES:
                    break
        return scrubbed

    def _scrub_trees(self, file: DatabaseFile, roots: list[int], most: int) -> None:
        if not self._is_on_its_way(file, roots):
            self._steps = []
        if not self._steps:
            self._walks += 1
            if self._walks > MOST_WALKS:
                self.goes_on = False
                return
            self._steps = [_Step(0, list(roots))]
        due = monotonic_ns() + int(TURN_S * 1e9)
        while self._steps and most and monotonic_ns() < due:
            step = self._steps[-1]
            if not step.waiting:
                self._steps.pop()
                continue
            number = step.waiting.pop()
            if number < len(self._is_leaf) and self._is_leaf[number]:
                continue
            below = file.scrub_tree(number)
            most -= 1
            if below:
                self._steps.append(_Step(number, below))
            elif number < len(self._is_leaf):
                self._is_leaf[number] = 1
        if not self._steps:
            self.goes_on = self._count > 0

    def _is_on_its_way(self, file: DatabaseFile, roots: list[int]) -> bool:
        """Return whether each page of the walk, and each page that waits, is still where it was."""
        below = roots
        for number, step in enumerate(self._steps):
            if number:
                if step.page not in below:
                    return False
                below = file.below(step.page)
            if not {*step.waiting} <= {*below}:
                return False
        return True
