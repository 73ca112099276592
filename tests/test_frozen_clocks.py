"""Frozen and moved clocks of tests change neither the pace of a replay nor the times of a recording."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import freezegun
import httpx2
import pytest
import time_machine
import trio

import retold
from retold.recorder import clock
from retold.recorder.http.exchange import Exchange
from retold.replay.timing import precise_sleep as alarm
from tests.clients import ASKING, NOWHERE, Ask, answer_text_async, client_async, record, serve

CASSETTE = Path("c.yaml")
MS = 1_000_000
LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)


@contextlib.contextmanager
def _both() -> Iterator[None]:
    with time_machine.travel(LONG_AGO, tick=False), freezegun.freeze_time(LONG_AGO):
        yield


FROZEN: dict[str, Callable[[], Any]] = {
    "freezegun": lambda: freezegun.freeze_time(LONG_AGO),
    "time-machine": lambda: time_machine.travel(LONG_AGO, tick=False),
    "both": _both,
}


@pytest.fixture(params=FROZEN)
def frozen(request: pytest.FixtureRequest) -> Any:
    return FROZEN[request.param]()


async def ask_on_trio(prompt: str, url: str = NOWHERE) -> str:
    async with client_async(url) as asking:
        return await answer_text_async(asking, prompt)


def slow(path: Path, *, pause_ns: int) -> Path:
    """Return a cassette with an answer that takes `pause_ns` until its head, and as much again until its end."""
    (recorded,) = retold.read_cassette(record(path)).exchanges

    def later(exchange: Exchange) -> Exchange:
        assert exchange.response is not None
        pieces = tuple(piece._replace(offset_ns=2 * pause_ns) for piece in exchange.response.pieces)
        response = replace(exchange.response, first_ns=pause_ns, pieces=pieces)
        return replace(exchange, response=response, ended_ns=exchange.started_ns + 2 * pause_ns)

    retold.write_cassette(path, [later(recorded)])
    return path


def test_the_clocks_are_real_while_time_is_frozen(frozen: Any) -> None:
    """They advance, and agree with their values before."""
    before, wall = clock.monotonic_ns(), clock.wall_ns()
    with frozen:
        clock.sleep(0.001)
        assert 0 < clock.monotonic_ns() - before < 3600 * 1000 * MS
        assert 0 < clock.wall_ns() - wall < 3600 * 1000 * MS
        assert clock.now().year > LONG_AGO.year
        assert datetime.now(UTC).year == LONG_AGO.year


@pytest.mark.parametrize("kind", ["sync", "async", "trio"])
def test_a_replay_keeps_its_pace_while_time_is_frozen(frozen: Any, kind: str) -> None:
    slow(CASSETTE, pause_ns=10 * MS)
    asking: dict[str, Ask] = {**ASKING, "trio": lambda prompt: trio.run(ask_on_trio, prompt)}
    with frozen, retold.use_cassette(CASSETTE, timing="original"):
        began = clock.monotonic_ns()
        assert asking[kind]("hi") == "You said hi."
        assert clock.monotonic_ns() - began >= 20 * MS


@pytest.mark.parametrize("kind", ASKING)
def test_a_recording_has_real_times_while_time_is_frozen(frozen: Any, kind: str) -> None:
    before = datetime.now(UTC)
    with serve() as server, frozen, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        ASKING[kind]("hi", server.url)
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert abs((datetime.fromisoformat(exchange.recorded_at) - before).total_seconds()) < 3600
    events = list(retold.EventLog().events(cassette.run or ""))
    assert all(abs(event.wall_ns / 1e9 - before.timestamp()) < 3600 for event in events)
    assert 0 < events[-1].t_ns < 3600 * 1000 * MS


def test_the_age_of_a_cassette_is_real_while_time_is_frozen(frozen: Any) -> None:
    (recorded,) = retold.read_cassette(record(CASSETTE)).exchanges
    retold.write_cassette(CASSETTE, [replace(recorded, recorded_at="2026-01-01T00:00:00.000Z")])
    with frozen, pytest.warns(retold.ExpiredWarning), retold.use_cassette(CASSETTE, max_age="1d"):
        pass


def test_retold_can_be_imported_while_time_is_frozen(environment: dict[str, str]) -> None:
    """A function that a module binds at import may already be frozen."""
    script = """
import freezegun, datetime
with freezegun.freeze_time("2001-02-03"):
    from retold.recorder import clock
    assert clock.now().year > 2001
    began = clock.monotonic_ns()
    clock.sleep(0.001)
    assert clock.monotonic_ns() - began >= 1_000_000
"""
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


# trio


@pytest.mark.parametrize("timer", ["kernel timer", "thread"])
def test_a_replay_on_trio_keeps_its_pace(monkeypatch: pytest.MonkeyPatch, timer: str) -> None:
    """It works without a kernel timer too, and with tasks that ask at once."""
    if timer == "thread":
        monkeypatch.setattr(alarm, "_timer", lambda: None)
    slow(CASSETTE, pause_ns=10 * MS)

    async def several() -> list[str]:
        answers: list[str] = []

        async def one() -> None:
            answers.append(await ask_on_trio("hi"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        return answers

    with retold.use_cassette(CASSETTE, timing="original", allow_playback_repeats=True):
        began = clock.monotonic_ns()
        assert trio.run(several) == ["You said hi."] * 3
        assert clock.monotonic_ns() - began >= 20 * MS


@pytest.mark.parametrize("timer", ["kernel timer", "thread"])
def test_a_cancelled_wait_on_trio_ends_at_once(monkeypatch: pytest.MonkeyPatch, timer: str) -> None:
    if timer == "thread":
        monkeypatch.setattr(alarm, "_timer", lambda: None)

    async def main() -> bool:
        with trio.move_on_after(0) as scope:
            await alarm.sleep_until(clock.monotonic_ns() + 200 * MS)
        return scope.cancelled_caught

    began = clock.monotonic_ns()
    assert trio.run(main)
    assert clock.monotonic_ns() > began


def test_faults_happen_on_trio_as_on_asyncio() -> None:
    """A stall waits, and a cut ends the stream."""
    record(CASSETTE)

    async def broken() -> str:
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask_on_trio("hi")
        return "cut"

    runs: list[Callable[[], str]] = [lambda: trio.run(broken), lambda: asyncio.run(broken())]
    for run in runs:
        with retold.use_cassette(CASSETTE, faults=["stall=10ms@frame=2", "cut@frame=3"]):
            began = clock.monotonic_ns()
            assert run() == "cut"
            assert clock.monotonic_ns() - began >= 10 * MS


def test_a_task_of_trio_in_guest_mode_is_recognised() -> None:
    """The waiting task belongs to trio, although an asyncio loop runs in the same thread."""

    async def host() -> str:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        trio.lowlevel.start_guest_run(
            alarm.sleep_until, clock.monotonic_ns() + MS, run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
        )  # fmt: skip
        return str((await done).unwrap())

    assert asyncio.run(host()) == "None"
