"""Progress of work that takes more than a second: one temporary line on stderr, on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
