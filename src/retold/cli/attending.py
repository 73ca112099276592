"""Work that goes on until a signal: progress on a terminal, troubles when they begin and end, and an end that is clean."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from .common import note
from .terminal import progress

LOOK_S = 0.1
"""Seconds between two looks at the work."""


LEAVE_S = 0.5
"""Seconds after a signal in which the work may end without a word."""


class Attendant:
    """Attends work in another thread, from the main thread. The work calls `tell` with lines about its troubles.

    The first SIGINT or SIGTERM calls `leave`; a second one, or the end of `bound_s` seconds after the first, calls `stop`.
    `leaving` is printed if the work goes on after the first.
    """

    def __init__(self, verb: str, *, bound_s: float, leaving: str) -> None:
        self._verb = verb
        self._bound_s = bound_s
        self._leaving = leaving
        self._lines = SimpleQueue[str]()

    def tell(self, line: str) -> None:
        """Print a line on stderr as soon as the main thread can."""
        self._lines.put(line)

    def attend(
        self, join: Callable[[float], bool], count: Callable[[], int], *, leave: Callable[[], None], stop: Callable[[], None],
    ) -> None:  # fmt: skip
        """Return when the work has ended, as `join` reports. `count` is the number of its events so far."""
        signals, leaves_at = deque[int](), None
        with _signals(signals.append):
            while not self._wait(join, count, signals, leaves_at):
                if signals and leaves_at is None:
                    signals.clear()
                    leaves_at = time.monotonic() + self._bound_s
                    leave()
                    if self._bound_s > LEAVE_S and not join(LEAVE_S):
                        note(f"retold: {self._leaving} for at most {self._bound_s:g} s; a second signal ends it at once")
                elif signals or (leaves_at is not None and time.monotonic() >= leaves_at):
                    stop()
                    join(self._bound_s)
                    break
                self._print()
        self._print()

    def _wait(
        self, join: Callable[[float], bool], count: Callable[[], int], signals: deque[int], leaves_at: float | None
    ) -> bool:
        """Show the progress until there is a signal, a line or the end of the bound; return whether the work has ended."""
        with progress(self._verb, "events") as shown:
            while not (ended := join(LOOK_S)) and not signals and self._lines.empty():
                shown(count())
                if leaves_at is not None and time.monotonic() >= leaves_at:
                    break
        return ended

    def _print(self) -> None:
        while not self._lines.empty():
            note(f"retold: {self._lines.get()}")


@contextmanager
def _signals(take: Callable[[int], Any]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to a function instead of ending the process."""
    before = {number: signal.signal(number, lambda given, _: take(given)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
