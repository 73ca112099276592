"""Wake a task of asyncio or trio at an exact moment of the real clock.

The timers of both event loops have two faults: tests can freeze the clocks that they follow, so that a wait never ends; and
asyncio's timers fire up to a millisecond late, because asyncio rounds up to the resolution of epoll. On Linux this module uses
a kernel timer instead (timerfd, https://man7.org/linux/man-pages/man2/timerfd_create.2.html), which an event loop reads like a
socket. All waits of one asyncio loop share a single timer, set to the nearest deadline. The timer is open only while a task
waits, so closing the loop leaks nothing. On other systems, and on a loop that cannot watch files, a thread waits.
"""

import asyncio
import contextlib
import functools
import heapq
import os
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from ...recorder import clock


async def sleep_until(deadline_ns: int) -> None:
    """Sleep until `clock.monotonic_ns` reaches `deadline_ns`, in a task of asyncio or of trio."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():  # before asyncio: in guest mode an asyncio loop runs too
        await _sleep_on_trio(trio, deadline_ns)
        return
    loop = asyncio.get_running_loop()
    alarm = _alarms.get(loop)
    if alarm is None:
        alarm = _alarms[loop] = _Alarm()
    await alarm.wait(loop, deadline_ns)


class _Alarm:
    """The waits of one loop. It keeps no reference to the loop, because the loop may be collected first."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._waiting = 0

    async def wait(self, loop: asyncio.AbstractEventLoop, deadline_ns: int) -> None:
        self._waiting += 1
        try:
            if self._fd is None and not self._open(loop):
                await _sleep_in_thread(loop, deadline_ns)
                return
            rung = loop.create_future()
            heapq.heappush(self._heap, (deadline_ns, next(self._order), rung))
            # Only a new nearest deadline moves the timer; the others wait in the heap.
            if self._heap[0][2] is rung:
                self._set(deadline_ns)
            await rung
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._close(loop)

    def _open(self, loop: asyncio.AbstractEventLoop) -> bool:
        timer = _timer()
        if timer is None:
            return False
        create, self._settime = timer
        fd = create()
        try:
            loop.add_reader(fd, self._ring)
        # A Proactor loop, and some loops of other libraries, cannot watch a file descriptor.
        except NotImplementedError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def _close(self, loop: asyncio.AbstractEventLoop) -> None:
        # Cancelled waits stay in the heap until they are due; after the last wait ends, no live one is left.
        self._heap.clear()
        if self._fd is not None:
            loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _set(self, deadline_ns: int) -> None:
        assert self._fd is not None
        self._settime(self._fd, deadline_ns)

    def _ring(self) -> None:
        """Wake the waits that are due and set the timer for the next one. Setting it also clears its expiry."""
        now_ns = clock.monotonic_ns()
        while self._heap and (self._heap[0][0] <= now_ns or self._heap[0][2].done()):
            rung = heapq.heappop(self._heap)[2]
            if not rung.done():  # cancelled
                rung.set_result(None)
        self._set(self._heap[0][0] if self._heap else 0)


async def _sleep_on_trio(trio: Any, deadline_ns: int) -> None:
    timer = _timer()
    if timer is None:
        seconds = max(0, deadline_ns - clock.monotonic_ns()) / 1e9
        await trio.to_thread.run_sync(clock.sleep, seconds, abandon_on_cancel=True)
        return
    create, settime = timer
    fd = create()
    try:
        settime(fd, deadline_ns)
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


async def _sleep_in_thread(loop: asyncio.AbstractEventLoop, deadline_ns: int) -> None:
    woken, left = loop.create_future(), threading.Event()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def wait() -> None:
        # The thread may wake early, so it checks the clock again.
        while (rest_ns := deadline_ns - clock.monotonic_ns()) > 0:
            if left.wait(rest_ns / 1e9):
                return
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(wake)

    threading.Thread(target=wait, daemon=True).start()
    try:
        await woken
    finally:
        left.set()


_alarms: WeakKeyDictionary[asyncio.AbstractEventLoop, _Alarm] = WeakKeyDictionary()

Timer = tuple[Callable[[], int], Callable[[int, int], Any]]
"""A function that creates a timer and returns its file descriptor, and a function that sets it to a moment of the monotonic
clock in nanoseconds (0 disarms it).
"""


@functools.cache
def _timer() -> Timer | None:
    if sys.platform != "linux":
        return None
    if sys.version_info >= (3, 13):
        flags = os.TFD_NONBLOCK | os.TFD_CLOEXEC
        return (
            lambda: os.timerfd_create(time.CLOCK_MONOTONIC, flags=flags),
            lambda fd, at_ns: os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns),
        )
    return _timer_of_libc()


def _timer_of_libc() -> Timer | None:
    """Return the timer functions of libc, for Python before 3.13. Return None if libc has none."""
    import ctypes

    class Spec(ctypes.Structure):
        """struct itimerspec: the interval and the first moment, each in seconds and nanoseconds."""

        _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timerfd_create"):
        return None

    def checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def create() -> int:
        return checked(libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))  # as TFD_NONBLOCK, TFD_CLOEXEC

    def settime(fd: int, at_ns: int) -> None:
        absolute = 1  # TFD_TIMER_ABSTIME
        checked(libc.timerfd_settime(fd, absolute, ctypes.byref(Spec(0, 0, *divmod(at_ns, 1_000_000_000))), None))

    return create, settime
