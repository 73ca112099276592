"""SIGTERM as a cancellation, so that a run ends as cancelled, and programs that were started end with it."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def sigterm_cancels() -> Iterator[None]:
    """Let SIGTERM cancel the current task. Outside of the main thread, where no signals arrive, do nothing."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
