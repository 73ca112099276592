"""The real clocks, even while a test freezes or moves the others.

freezegun replaces `time.time`, `time.monotonic` and similar functions in every loaded module; time-machine changes CLOCK_REALTIME
inside the interpreter. Neither changes `clock_gettime_ns(CLOCK_MONOTONIC)` or `sleep`. Both are bound here on import, so that
a test that replaces an attribute of `time` does not change them either.
"""

import contextlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime_ns, sleep

__all__ = ("monotonic_ns", "now", "sleep", "wall_ns")


monotonic_ns: Callable[[], int] = partial(clock_gettime_ns, CLOCK_MONOTONIC)
"""Returns nanoseconds of a clock that never goes back. Only differences are meaningful."""


def wall_ns() -> int:
    """Return nanoseconds since the epoch."""
    if (machine := sys.modules.get("time_machine")) is None:
        return clock_gettime_ns(CLOCK_REALTIME)
    hatch = getattr(machine, "escape_hatch", None)
    if hatch is not None and hatch.is_travelling():
        with contextlib.suppress(ValueError):  # another thread has just ended the time travel
            real: int = hatch.time.clock_gettime_ns(CLOCK_REALTIME)
            return real
    return clock_gettime_ns(CLOCK_REALTIME)


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.fromtimestamp(wall_ns() / 1e9, UTC)
