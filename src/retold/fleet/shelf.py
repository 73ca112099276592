"""Shelf: the interface to the place where pages are kept for other machines.

A shelf keeps the pages of each run in order, and lists all pages in the order in which they arrived. It need not be trusted to
keep what it acknowledged, or to refuse a page twice: the shipper looks again at what the shelf has, and the receiver checks every
number and every hash. A shelf of another author passes the tests of `tests/contracts/shelf.py`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..recorder.errors import ShelfError
from .pages import Page


class Unreachable(ShelfError):
    """The shelf does not answer. Wait, and try again."""


class Full(ShelfError):
    """The shelf has no room for the page. Wait until somebody makes room, and try again."""


class Refused(ShelfError):
    """The shelf will never take the page: the credential, the address or the shelf's own settings forbid it. Stop."""


class PageConflict(ShelfError):
    """The page does not follow the last page of its run: another shipper was faster. Look again at the last page."""


class Position(NamedTuple):
    """The last page of a run on a shelf: the number and hash of its last event, and the shelf's own token for it."""

    seq: int
    hash: bytes
    token: Any = None


def check_follows(page: Page, after: Position | None) -> None:
    """Raise PageConflict unless the page begins with the event after the position."""
    if page.first != (after.seq + 1 if after else 0):
        raise PageConflict(f"{page!r} does not follow the last page of its run.")


class Shelved(NamedTuple):
    """A page as a reader gets it: the source that put it there, and the cursor to go on from."""

    cursor: str
    source: str
    page: Page


class Shelf(Protocol):
    """The pages of many logs.

    `source` is the writer's own name on the shelf; each writer appends to its own runs only. `name` is the shelf's name in
    messages, without a credential.
    """

    name: str
    source: str

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page, or None if the shelf has no page of it. Raises ShelfError."""

    def put(self, page: Page, after: Position | None) -> Position:
        """Keep the page after the run's last page, and return its position.

        Raises PageConflict unless `after` is still the last page of the run, Full, Refused, Unreachable. After Unreachable the
        page may have been kept: ask for the last page.
        """

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield the pages that arrived after the cursor, of one run or of all, as many at once as are there.

        The iterator ends when no page comes for `wait_s` seconds. Without a cursor, the pages of one run come in the order of
        its events.

        A cursor that does not fit the shelf any more (the shelf was made anew, or lost pages) begins at a place from which no
        page is left out; then pages come twice. Raises ShelfError.
        """

    def close(self) -> None:
        """Let go of connections. The shelf is not used afterwards."""


@runtime_checkable
class ErasableShelf(Shelf, Protocol):
    """A shelf whose pages can be erased."""

    def replace(self, page: Page) -> None:
        """Put the page in the place of the page with the same events, whose bytes are overwritten. Raises ShelfError."""

    def drop(self, run: str) -> None:
        """Remove all pages of a run, and overwrite their bytes. Raises ShelfError."""
