"""A terminal with text that grows, and below it one line about the state of the player.

The text is written as if the line were not there, so it scrolls, wraps and stays in the terminal's history. The line is erased
before each piece of text and drawn again after it, relative to the cursor: the place of the cursor is never computed. A dumb
terminal has no such line.
"""

import os
import shutil
import threading
from collections.abc import Callable
from typing import TextIO

from ..recorder.colour import in_colour

_BELOW = "\x1b7\r\x1b[B"
"""Save the cursor and go to the beginning of the next line."""

_BACK = "\x1b8"
_ERASE = f"{_BELOW}\x1b[J{_BACK}"
_ROOM = "\x1bD\x1b[A"
"""Make sure that there is a line below: the terminal scrolls if the cursor is in the last one."""

_CLEAR = "\x1b[H\x1b[2J"


class Screen:
    """The part of a text file that handlers use, over a terminal. `status` returns the line. Threads may share a screen."""

    def __init__(self, out: TextIO, status: Callable[[], str]) -> None:
        self._out = out
        self._status = status
        self._is_dumb = os.environ.get("TERM", "dumb") == "dumb"
        self._is_dim = in_colour(out)
        self._lock = threading.RLock()
        self._drawn = ""
        self._is_open = True
        self._has_begun_line = False
        self._held: list[str] | None = None
        self.written = 0

    @property
    def encoding(self) -> str:
        """The encoding of the terminal."""
        return self._out.encoding

    def isatty(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor of the terminal."""
        return self._out.fileno()

    def flush(self) -> None:
        """Do nothing: each write is flushed."""

    def write(self, text: str) -> int:
        """Write text above the status line."""
        with self._lock:
            self.written += len(text)
            if self._held is not None:
                self._held.append(text)
            elif text:
                self._has_begun_line = not text.endswith("\n")
                self._put(text)
        return len(text)

    def refresh(self) -> None:
        """Draw the status line again if it has changed."""
        with self._lock:
            if self._held is None and self._line() != self._drawn:
                self._put("")

    def hold(self) -> None:
        """Keep the text that follows, until `release`."""
        with self._lock:
            self._held = []

    def release(self) -> None:
        """Show the end of the text that was kept, as much as the terminal has lines, in the place of everything before."""
        with self._lock:
            if self._held is None:
                return
            lines, self._held = "".join(self._held).split("\n"), None
            text = "\n".join(lines[-shutil.get_terminal_size().lines :])
            self._has_begun_line = not text.endswith("\n") and text != ""
            self._put(f"\n--- again from here ---\n{text}" if self._is_dumb else f"{_CLEAR}{text}")

    def leave(self) -> None:
        """Erase the status line, because the terminal passes to another program. `enter` draws it again."""
        with self._lock:
            self._is_open = False
            self._put("")

    def enter(self) -> None:
        """Draw the status line again."""
        with self._lock:
            self._is_open = True
            self._put("")

    def close(self) -> None:
        """Erase the status line and end a line of text that has begun. Text may follow, without a status line."""
        with self._lock:
            self.release()
            self._is_open = False
            self._put("\n" if self._has_begun_line else "")
            self._has_begun_line = False

    def _put(self, text: str) -> None:
        erased, self._drawn = _ERASE if self._drawn else "", self._line()
        line = f"\x1b[2m{self._drawn}\x1b[0m" if self._is_dim else self._drawn
        drawn = f"{_ROOM}{_BELOW}{line}{_BACK}" if self._drawn else ""
        self._out.write(erased + text + drawn)
        self._out.flush()

    def _line(self) -> str:
        if not self._is_open or self._is_dumb:
            return ""
        return self._status()[: max(0, shutil.get_terminal_size().columns - 1)]
