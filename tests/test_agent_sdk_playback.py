"""A recorded session replaces a transport, on a clock that only waiting advances. No test needs the SDK."""

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from retold.agent_sdk import playback
from retold.agent_sdk.playback import PATIENCE_NS, PlayedWire
from retold.recorder.agent_wire import AgentSession, WireLine
from retold.recorder.errors import MissError, RecordingEnded
from retold.replay.timing.timing import Timing
from tests.test_agent_sdk_files import session
from tests.test_timing_player import AsyncVirtualClock

MS = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncVirtualClock:
    made = AsyncVirtualClock()
    monkeypatch.setattr(playback, "clock", made)
    monkeypatch.setattr(playback, "sleep_until", made.sleep_until)
    return made


def wire(recorded: AgentSession, timing: str, idle_limit: str | None = None) -> PlayedWire:
    return PlayedWire(
        [recorded], Timing.parse(timing, idle_limit), claim=lambda _: True, miss=lambda text, kind: kind(text),
        again=lambda error: RuntimeError(error["message"]),
    )  # fmt: skip


async def read(played: PlayedWire, recorded: AgentSession, clock: AsyncVirtualClock, *, unwritten: int = 0) -> list[int]:
    """Write the recorded lines of the program at once, except the last ones. Return the times of the received lines."""
    await played.connect()
    for line in [line for line in recorded.lines if line.is_sent][: -unwritten or None]:
        await (played.end_input() if line.data["type"] == "end_input" else played.write(json.dumps(line.data) + "\n"))
    return [clock.now_ns async for _ in played.read_messages()]


def gaps(recorded: AgentSession) -> list[int]:
    """Return the recorded pauses between two received lines without a line of the program between them."""
    pairs = pairwise(recorded.lines)
    return [later.offset_ns - line.offset_ns for line, later in pairs if not line.is_sent and not later.is_sent]


@pytest.mark.parametrize(("timing", "speed"), [("original", 1), ("2x", 2), ("0.5x", 0.5)])
def test_lines_keep_their_recorded_pauses(timing: str, speed: float, clock: AsyncVirtualClock) -> None:
    recorded = session("iter")
    times = asyncio.run(read(wire(recorded, timing), recorded, clock))
    received = [at for at, line in enumerate(recorded.lines) if not line.is_sent]
    played = [
        later - at for (one, other), (at, later) in zip(pairwise(received), pairwise(times), strict=True) if other == one + 1
    ]
    assert played == pytest.approx([gap / speed for gap in gaps(recorded)], abs=len(times))
    assert sum(played) > 100 * MS


def test_a_limit_shortens_only_long_pauses(clock: AsyncVirtualClock) -> None:
    lines = [WireLine(at * MS, False, {"type": "system", "n": at}) for at in (0, 5, 9_000, 9_007)]
    recorded = replace(session("iter"), lines=tuple(lines), ended_ns=session("iter").started_ns + 9_010 * MS)
    times = asyncio.run(read(wire(recorded, "original", "100ms"), recorded, clock, unwritten=0))
    assert [later - at for at, later in pairwise(times)] == [5 * MS, 100 * MS, 7 * MS]


def test_an_instant_replay_waits_for_nothing(clock: AsyncVirtualClock) -> None:
    recorded = session("iter")
    began = clock.now_ns
    assert set(asyncio.run(read(wire(recorded, "instant"), recorded, clock))) == {began}
    assert clock.sleeps == 0


def test_a_missing_line_of_the_program_is_a_miss_after_the_patience(clock: AsyncVirtualClock) -> None:
    """The line is missing within a turn: the recorded program interrupted the turn here."""
    interrupt = {"type": "control_request", "request_id": "req_9", "request": {"subtype": "interrupt"}}
    user = {"type": "user", "message": {"role": "user", "content": "Go"}}
    lines: list[tuple[bool, dict[str, Any]]] = [
        (True, user), (False, {"type": "system"}), (True, interrupt), (False, {"type": "result"}),
    ]  # fmt: skip
    recorded = replace(session("iter"), lines=tuple(WireLine(at * MS, *line) for at, line in enumerate(lines)))
    began = clock.now_ns
    with pytest.raises(MissError, match=r"line 3, the request interrupt: recorded, and this program does not send it"):
        asyncio.run(read(wire(recorded, "instant"), recorded, clock, unwritten=1))
    assert clock.now_ns - began == pytest.approx(PATIENCE_NS, abs=10)


def test_reading_on_after_a_session_closed_within_a_turn_is_an_error(clock: AsyncVirtualClock) -> None:
    lines = (WireLine(0, True, {"type": "user", "message": {"content": "Go"}}), WireLine(MS, False, {"type": "system"}))
    recorded = replace(session("iter"), ending="closed", lines=lines)
    with pytest.raises(RecordingEnded, match="closed the session here, and this one reads on"):
        asyncio.run(read(wire(recorded, "instant"), recorded, clock))


def test_a_recorded_error_is_raised_at_its_time(clock: AsyncVirtualClock) -> None:
    made: dict[str, Any] = {"type": "ProcessError", "message": "Command failed", "exit_code": 3}
    line = WireLine(5 * MS, False, {"type": "system"})
    base = session("iter")
    recorded = replace(base, lines=(line,), ending="failed", error=made, ended_ns=base.started_ns + 40 * MS)
    began = clock.now_ns
    with pytest.raises(RuntimeError, match="Command failed"):
        asyncio.run(read(wire(recorded, "original"), recorded, clock))
    assert clock.now_ns - began == pytest.approx(40 * MS, abs=10)
