"""A limit on the time that a regular expression of a user may take."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from .errors import InputError

LIMIT_S = 2.0


@contextlib.contextmanager
def patience(pattern: str) -> Iterator[None]:
    """Limit a search with `pattern` in one text to two seconds of CPU time. Raises InputError.

    Python's `re` lets signal handlers run while it searches, and calls them in the main thread alone: in other threads, there
    is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise InputError(
            f"the pattern {pattern[:80]!r} takes more than {LIMIT_S:g} s for one text. Write it without a repetition in a "
            "repetition, such as (a+)+, and without alternatives that match the same text."
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)
