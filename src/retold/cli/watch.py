"""Watch a recording on a terminal: keys move a viewer, and a status line shows where it is."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import Queue
from typing import TextIO, cast

from ..handlers.base import Reader
from ..recorder import clock
from ..recorder.events import Event
from ..replay.timing.viewer import Key, Viewer
from .keyboard import Keyboard, keyboard
from .screen import Screen
from .viewing import break_off, closing, feed

FOLLOWING: tuple[Key, ...] = ("pause", "step", "quit", "help")
"""The keys of a run in progress, which has no later part yet."""

RUNNING: tuple[Key, ...] = ("pause", "step", "forward", "faster", "slower", "quit", "help")
"""The keys of a workflow that runs, which cannot run backwards."""

LOOK_S = 1.0
"""The status line shows seconds."""

AHEAD = 1000
"""The number of events that are read before a viewer gets to them."""

Readers = Callable[[TextIO], Sequence[Reader]]
"""Returns new readers whose handlers write to the screen."""


class Theatre:
    """One terminal, one viewer. `length_ns` is the position of the last event, if it is known; `now` returns nanoseconds."""

    def __init__(
        self, viewer: Viewer, out: TextIO, length_ns: int | None = None, *, now: Callable[[], int] = clock.monotonic_ns
    ) -> None:  # fmt: skip
        self.viewer = viewer
        self.screen = Screen(out, lambda: viewer.status(now(), length_ns))
        self._now = now
        self.keys: Keyboard
        self._seen = -1

    @property
    def out(self) -> TextIO:
        """The screen, for handlers."""
        return cast("TextIO", self.screen)

    @contextlib.contextmanager
    def opened(self) -> Iterator["Theatre"]:
        """Take the terminal during the block."""
        try:
            with keyboard(self._leave, self._enter) as self.keys:
                yield self
        finally:
            self.screen.close()

    def _leave(self) -> None:
        self.viewer.hold(self._now())
        self.screen.leave()

    def _enter(self) -> None:
        self.viewer.resume(self._now())
        self.screen.enter()

    def press(self, keys: Iterable[Key]) -> None:
        """Give keys to the viewer."""
        for key in keys:
            self.viewer.press(key, self._now())

    def is_due(self, event: Event) -> bool:
        """Wait until the event is due. Return False if keys ended the wait: the viewer quits, or goes back."""
        viewer, is_first = self.viewer, True
        while True:
            self.press(self.keys.wait(0 if is_first else self._wait_s(event)))
            is_first = False
            if viewer.has_quit or viewer.is_rewound:
                return False
            if viewer.wait_ns(event.t_ns, self._now()) == 0:
                return True
            self.screen.release()
            self.screen.refresh()

    def _wait_s(self, event: Event) -> float:
        wait_ns = self.viewer.wait_ns(event.t_ns, self._now())
        return LOOK_S if wait_ns is None else min(wait_ns / 1e9, LOOK_S)

    def play(self, events: Callable[[], Iterable[Event]], readers: Readers, *, why: Callable[[], str]) -> None:
        """Show the events of a recording. `events` returns them from the beginning, again and again. `why` returns the reason if
        the recording has no end.

        A handler that writes elsewhere gets each event once.
        """
        elsewhere = [reader for reader in readers(self.out) if reader.handler.silent]
        self._seen = -1
        for event in islice(events(), 1):
            self.viewer.start(event.t_ns, self._now())
        with closing(elsewhere):
            while True:
                shown = [reader for reader in readers(self.out) if not reader.handler.silent]
                with closing(shown):
                    if self._play_once(events(), shown, elsewhere):
                        break_off([*shown, *elsewhere], why)
                if not self.viewer.take_rewind():
                    return
                self.screen.hold()

    def _play_once(self, events: Iterable[Event], shown: Sequence[Reader], elsewhere: Sequence[Reader]) -> bool:
        """Show the events up to the last one, and return True; or up to a key that quits or goes back."""
        for event in events:
            self.viewer.comes(event.t_ns, self._now())
            if not self.is_due(event):
                return False
            before = self.screen.written
            feed(event, shown)
            if event.seq > self._seen:
                self._seen = event.seq
                feed(event, elsewhere)
            self.viewer.shown(event.t_ns, self._now(), is_visible=self.screen.written > before)
        return True

    def follow(self, events: Iterator[Event], readers: Sequence[Reader]) -> None:
        """Show the events of a run in progress as they come, until it ends or the viewer quits. A thread waits for them."""
        coming, viewer = Queue[Event | BaseException | None](AHEAD), self.viewer

        def read() -> None:
            end: BaseException | None = None
            try:
                for event in events:
                    coming.put(event)
                    self.keys.wake()
            except BaseException as error:  # the main thread raises it
                end = error
            coming.put(end)
            self.keys.wake()

        threading.Thread(target=read, name="retold-follower", daemon=True).start()
        while not viewer.has_quit:
            is_due = viewer.wait_ns(0, self._now()) == 0
            self.press(self.keys.wait(0 if is_due and not coming.empty() else LOOK_S))
            self.screen.refresh()
            if not is_due or coming.empty():
                continue
            event = coming.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                return
            before = self.screen.written
            feed(event, readers)
            viewer.shown(event.t_ns, self._now(), is_visible=self.screen.written > before)
