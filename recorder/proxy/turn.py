"""One turn of the event loop: the bodies that arrive in it from several APIs are recorded in one transaction, and then sent.

A commit costs as much as all other work on a frame. Without other streams a frame waits for nothing: its turn ends at once.
"""

import asyncio
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from ..errors import LogError
from ..http.capture import Capture, record_together

Then = Callable[[LogError | None], None]
"""Is called after the commit: with None, or with the error if the bytes were not recorded. It does not raise."""


class LoopTurn:
    """The bodies that have arrived in this turn of an event loop, and what follows after their commit."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: list[tuple[Capture, Sequence[bytes]]] = []
        self._then: list[Then] = []

    def __repr__(self) -> str:
        return f"<LoopTurn {len(self._arrived)} waiting>"

    def add(self, capture: Capture, pieces: Sequence[bytes], then: Then) -> None:
        """Record the pieces when all that has arrived by now has been read."""
        if not self._arrived:
            self._loop.call_soon(self.end)  # the loop calls it before anything that it reads later
        self._arrived.append((capture, pieces))
        self._then.append(then)

    def end(self) -> None:
        """Record everything that waits, and call what follows."""
        arrived, self._arrived = self._arrived, []
        then, self._then = self._then, []
        failure = None
        if arrived:
            try:
                record_together(arrived)
            except LogError as error:
                failure = error
        for follow in then:
            follow(failure)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopTurn] = WeakKeyDictionary()


def turn_of(loop: asyncio.AbstractEventLoop) -> LoopTurn:
    """Return the turn of an event loop. All relays of a loop share it."""
    if (found := _turns.get(loop)) is None:
        found = _turns[loop] = LoopTurn(loop)
    return found
