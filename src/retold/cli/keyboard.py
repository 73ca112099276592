"""Single keys from a terminal, read beside other work. The terminal is always given back as it was."""

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ..replay.timing.viewer import Key

_KEYS: dict[bytes, Key] = {
    b" ": "pause", b".": "step", b"+": "faster", b"=": "faster", b"-": "slower", b"_": "slower", b"?": "help", b"q": "quit",
}  # fmt: skip
_ARROWS: dict[bytes, Key] = {b"A": "faster", b"B": "slower", b"C": "forward", b"D": "back"}
"""The last byte of an escape sequence."""

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;]*([@-~])|O([@-~])|[^\[O])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;]*|O)")


class KeyParser:
    """Cuts the bytes of a terminal into keys. Other keys and other escape sequences are dropped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Key]:
        """Return the keys that are complete. A sequence may be cut anywhere but after its first byte, the Escape key."""
        data, self._rest, keys, at = self._rest + data, b"", list[Key](), 0
        while at < len(data):
            if (sequence := _SEQUENCE.match(data, at)) is not None:
                at, key = sequence.end(), _ARROWS.get(sequence[1] or sequence[2] or b"")
            elif _UNFINISHED.fullmatch(data, at):
                self._rest = data[at:]
                break
            else:
                at, key = at + 1, _KEYS.get(data[at : at + 1])
            keys += [] if key is None else [key]
        return keys


class Keyboard:
    """The keys of the terminal on stdin. `leave` is called before the process stops (Ctrl-Z), `enter` when it continues.

    A process in the background does not touch the terminal, because the system would stop it.
    """

    def __init__(self, leave: Callable[[], None], enter: Callable[[], None]) -> None:
        self.fd = sys.stdin.fileno()
        self._before: list[int | list[bytes | int]] | None = None
        self._leave = leave
        self._enter = enter
        self._parser = KeyParser()
        self._is_closed = False
        self._stops = self._continues = False
        self.woken, self._waker = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(self._waker, False)

    def wait(self, seconds: float | None) -> list[Key]:
        """Return the keys that are pressed, after at most this time; none if the time is over or `wake` was called."""
        watched = [self.woken, *([self.fd] if self.has_keys else [])]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self.woken in ready:
            self.was_woken()
        return self.read() if self.fd in ready else []

    def was_woken(self) -> None:
        """Empty `woken`, and obey the signals that came."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.woken, 4096)
        self.attend()

    def read(self) -> list[Key]:
        """Return the keys that have been pressed, without waiting; call it when `fd` has some."""
        if not self.has_keys:
            return []
        try:
            data = os.read(self.fd, 1024)
        except OSError:  # the terminal is gone
            data = b""
        self._is_closed = not data
        return self._parser.feed(data)

    def wake(self) -> None:
        """Let `wait` return. Any thread may call this."""
        if self._waker >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._waker, b".")

    @property
    def has_keys(self) -> bool:
        """Whether the terminal gives its keys to this process now."""
        return not self._is_closed and self._before is not None

    def take(self) -> None:
        """Let keys come one by one and without an echo, unless the process is in the background. Ctrl-C stays a signal."""
        if self._before is not None or not _in_foreground(self.fd):
            return
        self._before = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)

    def give_back(self) -> None:
        """Restore the terminal."""
        if self._before is not None:
            before, self._before = self._before, None
            if _in_foreground(self.fd):
                with contextlib.suppress(termios.error):  # the terminal is gone
                    termios.tcsetattr(self.fd, termios.TCSADRAIN, before)

    def attend(self) -> None:
        """Stop the process if the terminal asked for it (Ctrl-Z), and take the terminal again after the stop."""
        if self._stops:
            self._stops = False
            self._leave()
            self.give_back()
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self.stopped)
            self._continues = True
        if self._continues:
            self._continues = False
            self.take()
            self._enter()

    # Signal handlers: they may run inside a write to the terminal, so they write nothing.

    def stopped(self, *_: object) -> None:
        """Note a request to stop; `attend` obeys it."""
        self._stops = True
        self.wake()

    def continued(self, *_: object) -> None:
        """Note that the process continues after a stop that it did not see coming."""
        self._continues = True
        self.wake()

    def killed(self, number: int, _: FrameType | None) -> None:
        """Restore the terminal, and let the signal end the process."""
        self.give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def close(self) -> None:
        """Restore the terminal for good."""
        self.give_back()
        waker, self._waker = self._waker, -1
        os.close(waker)
        os.close(self.woken)


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def can_take_keys() -> bool:
    """Return whether a person can press keys and see their effect: stdin and stdout are terminals, in the main thread."""
    here = threading.current_thread() is threading.main_thread()
    return here and sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


@contextlib.contextmanager
def keyboard(leave: Callable[[], None], enter: Callable[[], None]) -> Iterator[Keyboard]:
    """Take keys during the block. Signals that stop, continue or kill the process find the terminal as it was before."""
    keys = Keyboard(leave, enter)
    own: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTSTP: keys.stopped, signal.SIGCONT: keys.continued, signal.SIGQUIT: keys.killed, signal.SIGHUP: keys.killed,
    }  # fmt: skip
    own = {number: handler for number, handler in own.items() if signal.getsignal(number) == signal.SIG_DFL}
    for number, handler in own.items():
        signal.signal(number, handler)
    try:
        keys.take()
        yield keys
    finally:
        keys.close()
        for number in own:
            signal.signal(number, signal.SIG_DFL)
