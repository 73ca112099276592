"""Output for a person at a terminal: the pager of long output, and the progress of work that takes more than a second.

The pager works as git's does: on a terminal only, and its program ends by itself if the output fits on one screen. `RETOLD_PAGER`
or `PAGER` names the program, by default `less`. `cat` or an empty value means none, as does `--no-pager`. Notes on stderr go
into the pager too, because they would draw over its screen. Progress is one temporary line on stderr, on a terminal only.
"""

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TextIO

import typer

from .common import note

LESS = "FRX"
"""The options of less if `LESS` does not set others: end on one screen, pass colours on, leave the text on the screen."""

_is_wanted = True


def want(wanted: bool) -> None:
    """Set whether this process may use a pager: `--no-pager` turns it off."""
    global _is_wanted
    _is_wanted = wanted


def program(environment: Mapping[str, str]) -> str | None:
    """Return the command line of the pager, or None if there is none."""
    asked = next((value for name in ("RETOLD_PAGER", "PAGER") if (value := environment.get(name)) is not None), "less")
    return None if asked.strip() in ("", "cat") else asked


@contextlib.contextmanager
def paged() -> Iterator[None]:
    """Show what the block prints in the pager, if stdout is a terminal. The pager starts with the first output.

    If the user leaves the pager early, end the command with exit code 0. After Ctrl-C the pager stays until the user leaves it.
    """
    command = program(os.environ)
    if not (_is_wanted and command and sys.stdout.isatty()):
        yield
        return
    page = _Page(sys.stdout, command)
    out, err = sys.stdout, sys.stderr
    sys.stdout = page
    try:
        yield
        page.flush()
    except BrokenPipeError:
        if not page.is_left:
            raise
        raise typer.Exit from None
    finally:
        sys.stdout, sys.stderr = out, err
        page.end()


class _Page(io.TextIOBase):
    """Standard output that starts the pager with the first text. Like the terminal behind it, it is a terminal."""

    def __init__(self, out: TextIO, command: str) -> None:
        self._out = out
        self._command = command
        self._pager: subprocess.Popen[str] | None = None
        self._target: IO[str] | None = None
        self.is_left = False

    @property
    def encoding(self) -> str:  # type: ignore[override] # of an open stream it never changes
        """The encoding of the terminal."""
        return self._out.encoding

    def isatty(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._out.fileno()

    def write(self, text: str) -> int:
        target = self._target or self._start()
        with self._noting():
            return target.write(text)

    def flush(self) -> None:
        if self._target is not None:
            with self._noting():
                self._target.flush()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Note that the user left the pager, if that is the reason why its pipe is broken."""
        try:
            yield
        except BrokenPipeError:
            self.is_left = self._pager is not None
            raise

    def _start(self) -> IO[str]:
        self._target = self._out
        words = shlex.split(self._command, comments=False) if not set(self._command) & set("|&;<>()$`\\\"'*?[#~%") else None
        if words is not None and shutil.which(words[0]) is None:
            if words != ["less"]:  # not the user's choice: print without a pager and without a note
                note(f"retold: cannot run the pager {self._command!r}; see RETOLD_PAGER and PAGER")
            return self._out
        self._pager = subprocess.Popen(
            words or self._command, shell=words is None, stdin=subprocess.PIPE, text=True, encoding=self._out.encoding,
            errors="backslashreplace", env={"LESS": LESS, "LV": "-c", **os.environ},
        )  # fmt: skip
        assert self._pager.stdin is not None
        self._target = self._pager.stdin
        if sys.stderr.isatty():
            sys.stderr = self
        return self._target

    def end(self) -> None:
        """Wait until the user leaves the pager. Ctrl-C belongs to the pager meanwhile."""
        if self._pager is None or self._pager.stdin is None:
            return
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with contextlib.suppress(BrokenPipeError):
                self._pager.stdin.close()
            self._pager.wait()
        finally:
            signal.signal(signal.SIGINT, before)


AFTER_S = 1.0
EVERY_S = 0.1


@contextmanager
def progress(verb: str, noun: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the current count, prints `checked 12,000 events`, and clears the line at the end."""
    err = sys.stderr  # this one, even if a pager takes its place before the end
    if not err.isatty():
        yield lambda _: None
        return
    due = time.monotonic() + AFTER_S
    shown = False

    def tell(count: int) -> None:
        nonlocal due, shown
        if time.monotonic() >= due:
            err.write(f"\r\x1b[K{verb} {count:,} {noun}")
            err.flush()
            due, shown = time.monotonic() + EVERY_S, True

    try:
        yield tell
    finally:
        if shown:
            err.write("\r\x1b[K")
            err.flush()
