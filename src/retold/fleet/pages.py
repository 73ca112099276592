"""Pages: consecutive events of one run as one message, in the lines of `retold export --format jsonl`.

A page holds up to `MAX_EVENTS` events and `MAX_BYTES` bytes, but always at least one event, of any length. If the shipper keeps
up with the recording, a page holds only the newest event.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from ..recorder.errors import ShelfError
from ..recorder.event_lines import events_of, line_of
from ..recorder.events import SCHEMA, Event

MAX_EVENTS = 200
MAX_BYTES = 256 * 1024


class NewerPage(ShelfError):
    """A newer retold wrote the page, and this one cannot read it."""


class Page(NamedTuple):
    """Consecutive events of one run: the numbers of the first and the last, the hash of the last, and the lines of all."""

    run: str
    first: int
    last: int
    hash: bytes
    body: bytes

    def __repr__(self) -> str:
        return f"<Page {self.run[:6]}#{self.first}-{self.last} {len(self.body)} bytes>"

    def events(self) -> list[Event]:
        """Return the events of the page.

        Raises ShelfError if a line is damaged or the lines do not fit the header, NewerPage if only a newer retold can read it.
        """
        try:
            events = events_of(self.body)
        except ValueError as error:
            if self._is_newer():
                raise NewerPage(f"{self!r} was written by a newer retold; update this one.") from error
            raise ShelfError(f"{self!r} is damaged: {error}.") from error
        if [(event.run, event.seq) for event in events] != [(self.run, seq) for seq in range(self.first, self.last + 1)]:
            raise ShelfError(f"{self!r} is damaged: it does not hold the events that it names.")
        return events

    def _is_newer(self) -> bool:
        """Return whether a line names an event schema that this version does not read."""
        for line in self.body.split(b"\n"):
            with suppress(ValueError, RecursionError, TypeError, KeyError):
                if int(json.loads(line)["schema"]) > SCHEMA:
                    return True
        return False


def page_of(events: Iterable[Event], *, limited: bool = True) -> Page:
    """Return a page of the first events of these, all of one run, up to the limits of a page.

    Without `limited`, the page holds all of them.
    """
    lines: list[bytes] = []
    size, first, last = 0, None, None
    for event in events:
        line = line_of(event)
        if limited and lines and (size + len(line) > MAX_BYTES or len(lines) == MAX_EVENTS):
            break
        lines.append(line)
        size += len(line)
        first, last = first or event, event
    if first is None or last is None:
        raise ValueError("a page holds at least one event")
    return Page(first.run, first.seq, last.seq, last.hash, b"".join(lines))
