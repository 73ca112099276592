"""Shelf: the interface to the place where pages are kept for other machines.

A shelf keeps the pages of each run in order, and lists all pages in the order of their arrival. It may lose acknowledged pages or
accept a page twice: the shipper looks at the shelf again later, and the receiver checks every number and every hash. If you write
a shelf, run the tests of `tests/contracts/shelf.py` on it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..recorder.errors import ShelfError
from .pages import Page


class Unreachable(ShelfError):
    """The shelf does not answer. The caller waits, and tries again."""


class Full(ShelfError):
    """The shelf has no room for the page. The caller waits for an operator to make room, and tries again."""


class Refused(ShelfError):
    """The credential, the address or the settings of the shelf forbid the page. The caller stops."""


class PageConflict(ShelfError):
    """The page does not follow the last page of its run: another shipper was faster. The caller reads the last page again."""


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
    """A page for a reader, with the source that put it, and the cursor behind it."""

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
        shelf may have the page: call `last`.
        """

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield lists of the pages that arrived after the cursor, of one run or of all.

        The iterator ends if no page arrives for `wait_s` seconds. Without a cursor, the pages of one run come in the order of
        its events.

        If the cursor no longer fits because the shelf was created again or lost pages, the pages begin earlier, so that none is
        left out and some arrive twice. Raises ShelfError.
        """

    def close(self) -> None:
        """Close the connections. The caller does not use the shelf afterwards."""


@runtime_checkable
class ErasableShelf(Shelf, Protocol):
    """A shelf whose pages can be erased. `remains` is a sentence about erased bytes that it cannot overwrite, or empty."""

    remains: str

    def replace(self, page: Page) -> None:
        """Keep this page instead of the page with the same events, and overwrite the bytes of the old one. Raises ShelfError."""

    def drop(self, run: str) -> None:
        """Remove all pages of a run, and overwrite their bytes. Raises ShelfError."""


@runtime_checkable
class AttendedShelf(Shelf, Protocol):
    """A shelf that also keeps the newest report of each source and each mirror (reports.py)."""

    def report(self, key: str, text: bytes) -> None:
        """Keep the text under the key, in the place of the one before. Raises ShelfError."""

    def reports(self) -> dict[str, bytes]:
        """Return the newest text under each key. Raises ShelfError."""

    def has_read(self, cursor: str, run: str) -> bool:
        """Return whether a reader with this cursor has read every page that the shelf has of a run of this source.

        Return False if the shelf has no page of the run, or the cursor does not fit the shelf. Raises ShelfError.
        """
