"""An alarm wakes the tasks of an event loop at exact moments, never early, in their order, and leaves nothing open."""

import asyncio
import os
from pathlib import Path

import pytest

from retold.recorder import clock
from retold.replay.timing import precise_sleep as alarm
from retold.replay.timing.precise_sleep import sleep_until

MS = 1_000_000


@pytest.fixture(params=["kernel timer", "asyncio"], autouse=True)
def timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the kernel timer, or asyncio's timer as on a system without one."""
    if request.param == "asyncio":
        monkeypatch.setattr(alarm, "_timer", lambda: None)


def test_a_sleeper_is_never_woken_early_and_each_in_its_turn() -> None:
    """The nearest deadline comes first, in any order of the calls."""
    woken: list[int] = []

    async def sleeper(deadline_ns: int, number: int) -> None:
        await sleep_until(deadline_ns)
        assert clock.monotonic_ns() >= deadline_ns
        woken.append(number)

    async def main() -> None:
        first_ns = clock.monotonic_ns() + 200 * MS  # a deadline that has passed when a task begins has no turn
        await asyncio.gather(*(sleeper(first_ns + 5 * number * MS, number) for number in (3, 1, 4, 2, 0)))

    asyncio.run(main())
    assert woken == [0, 1, 2, 3, 4]


def test_a_cancelled_sleeper_does_not_affect_others() -> None:
    """The other tasks wake, with nearer and with farther deadlines."""

    async def main() -> list[object]:
        now_ns = clock.monotonic_ns()
        tasks = [asyncio.create_task(sleep_until(now_ns + ms * MS)) for ms in (5, 10, 15)]
        await asyncio.sleep(0)
        for cancelled in cancel:
            tasks[cancelled].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for cancel in ([0], [1], [2], [0, 1], [1, 2]):
        results = asyncio.run(main())
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [number in cancel for number in range(3)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are listed in /proc")
def test_nothing_stays_open_without_sleepers() -> None:
    """No file descriptor stays open after the last task wakes or is cancelled, or if a loop is closed while a task sleeps."""

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> None:
        before = open_files()
        await sleep_until(clock.monotonic_ns() + MS)
        task = asyncio.create_task(sleep_until(clock.monotonic_ns() + 3600 * 1000 * MS))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_files() == before

    asyncio.run(main())
    before = open_files()
    loop = asyncio.new_event_loop()
    sleeping = sleep_until(clock.monotonic_ns() + 3600 * 1000 * MS)
    loop.call_soon(sleeping.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    sleeping.close()
    assert open_files() == before
