"""Watch a workflow that runs from its recording: keys move the clock on which the recorded answers arrive."""

import asyncio
import heapq
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING

from ..recorder import clock
from ..recorder.words import clean
from ..replay.timing.timing import Until
from ..replay.timing.viewer import Viewer
from .watch import LOOK_S, RUNNING, Theatre

if TYPE_CHECKING:
    from ..replay.timing.timing import Timing
    from ..workflow.results import RunResult

Work = Callable[[Until, Theatre], Awaitable["RunResult"]]


def watch_run(work: Work, pace: "Timing") -> "RunResult":
    """Run work in an event loop, with keys, and return its result. The key `q` interrupts it, as Ctrl-C does."""
    with Theatre(Viewer(speed=pace.speed, keys=RUNNING), sys.stdout).opened() as theatre:

        async def main() -> "RunResult":
            keyed = _KeyedClock(theatre)
            try:
                return await work(keyed.until, theatre)
            finally:
                keyed.close()

        return asyncio.run(main())


def notes_of(theatre: Theatre) -> Callable[[str], None]:
    """Return a function that prints notes above the status line."""

    def tell(text: str) -> None:
        theatre.out.write(f"{clean(text)}\n")

    return tell


class _KeyedClock:
    """The clock of a run: recorded time that passes as the viewer wants. Any number of tasks wait for it."""

    def __init__(self, theatre: Theatre) -> None:
        self._viewer, self._keys, self._screen, self._press = theatre.viewer, theatre.keys, theatre.screen, theatre.press
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._has_begun = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._keys.woken, self._was_woken)
        self._loop.add_reader(self._keys.fd, self._pressed)
        self._turn()

    async def until(self, began_ns: int, after_ns: int) -> None:
        """Wait until the position is `after_ns`. The run began at `began_ns`."""
        if not self._has_begun:
            self._has_begun = True
            self._viewer.start(0, began_ns)
        reached = self._loop.create_future()
        heapq.heappush(self._waiting, (after_ns, next(self._order), reached))
        self._turn()
        await reached

    def close(self) -> None:
        """Take no more keys."""
        self._loop.remove_reader(self._keys.woken)
        self._loop.remove_reader(self._keys.fd)
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        """Wake the tasks that are due, and come back when the next one is, or after a second for the status line."""
        if self._timer is not None:
            self._timer.cancel()
        pause_s = LOOK_S
        while self._waiting:
            after_ns, _, reached = self._waiting[0]
            now_ns = clock.monotonic_ns()
            if not reached.done() and (wait_ns := self._viewer.wait_ns(after_ns, now_ns)) != 0:
                pause_s = LOOK_S if wait_ns is None else min(wait_ns / 1e9, LOOK_S)
                break
            heapq.heappop(self._waiting)
            if not reached.done():  # cancelled
                self._viewer.shown(after_ns, now_ns)
                reached.set_result(None)
        self._screen.refresh()
        self._timer = self._loop.call_later(pause_s, self._turn)

    def _pressed(self) -> None:
        if not self._keys.has_keys:  # the process is in the background, where a read would stop it
            self._loop.remove_reader(self._keys.fd)
            return
        self._press(self._keys.read())
        if self._viewer.has_quit:
            self._loop.remove_reader(self._keys.fd)
            signal.raise_signal(signal.SIGINT)
        self._turn()

    def _was_woken(self) -> None:
        self._keys.was_woken()
        if self._keys.has_keys:
            self._loop.add_reader(self._keys.fd, self._pressed)
        self._turn()
