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


LEADS_MS = (20, 200, 2_000, 20_000)
"""The delay of the first deadline, one per attempt. On a busy machine a deadline may pass before all tasks sleep."""


def test_sleepers_wake_in_order_and_never_early() -> None:
    """The nearest deadline comes first, in any order of the calls."""

    async def woken(lead_ms: int) -> list[int]:
        """Return the tasks in the order of their waking, or nothing if the loop was so late that two of them were due at once."""
        order: list[int] = []
        late: list[int] = []
        step_ns = lead_ms * MS // 4

        async def sleeper(deadline_ns: int, number: int) -> None:
            await sleep_until(deadline_ns)
            now_ns = clock.monotonic_ns()
            assert now_ns >= deadline_ns
            order.append(number)
            if now_ns >= deadline_ns + step_ns:
                late.append(number)

        first_ns = clock.monotonic_ns() + lead_ms * MS
        await asyncio.gather(*(sleeper(first_ns + step_ns * number, number) for number in (3, 1, 4, 2, 0)))
        return [] if late else order

    assert next(filter(None, (asyncio.run(woken(lead_ms)) for lead_ms in LEADS_MS))) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cancel", [[0], [1], [2], [0, 1], [1, 2]])
def test_a_cancelled_sleeper_does_not_affect_others(cancel: list[int]) -> None:
    """The other tasks wake, whether their deadlines are nearer or farther."""

    async def results(lead_ms: int) -> list[object]:
        """Return the result of each task, or nothing if a deadline had passed before the tasks were cancelled."""
        first_ns = clock.monotonic_ns() + lead_ms * MS
        tasks = [asyncio.create_task(sleep_until(first_ns + 5 * number * MS)) for number in range(3)]
        await asyncio.sleep(0)
        for cancelled in cancel:
            tasks[cancelled].cancel()
        is_late = clock.monotonic_ns() >= first_ns
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return [] if is_late else list(found)

    found = next(filter(None, (asyncio.run(results(lead_ms)) for lead_ms in LEADS_MS)))
    assert [isinstance(result, asyncio.CancelledError) for result in found] == [number in cancel for number in range(3)]


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
