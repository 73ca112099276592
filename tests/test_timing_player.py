"""Recorded times become deadlines in a pure schedule, tested on a virtual clock, without a real sleep."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange, TimedPiece
from retold.replay.timing import timing as timing_module
from retold.replay.timing.timing import (
    GROUP_BYTES,
    INSTANT,
    ORIGINAL,
    Timeline,
    Timing,
    head_ns,
    parse_duration_ns,
    play,
    play_async,
    schedule,
    timeline_of,
    times_of,
)
from tests.exchanges import SSE, answer, exchange

MS = 1_000_000
S = 1_000 * MS
times = st.lists(st.integers(0, 10**13), min_size=1, max_size=20)
speeds = st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 10.0])


@pytest.mark.parametrize(
    ("text", "idle_limit", "timing"),
    [
        ("instant", None, Timing(None)),
        ("original", None, Timing(1.0)),
        ("2x", None, Timing(2.0)),
        ("0.5x", None, Timing(0.5)),
        ("10.25x", None, Timing(10.25)),
        ("original", "2s", Timing(1.0, 2 * S)),
        ("2x", "500ms", Timing(2.0, 500 * MS)),
        ("instant", "1", Timing(None, 1 * S)),
    ],
)
def test_a_timing_is_parsed(text: str, idle_limit: str | None, timing: Timing) -> None:
    """`2x` is twice as fast."""
    assert Timing.parse(text, idle_limit) == timing


@pytest.mark.parametrize(
    "text", ["", "fast", "2", "x", "x2", "-1x", "0x", "0.0x", "1.x", ".5x", "2x ", "2X", "1e3x", "infx", "nanx", "ORIGINAL"]
)
def test_an_unknown_timing_is_an_error_with_the_valid_ones(text: str) -> None:
    """A speed of zero, or an unknown word, is bad input."""
    with pytest.raises(InputError) as caught:
        Timing.parse(text)
    assert (
        str(caught.value) == f"unknown timing {text!r}: give instant, original, or a factor such as 2x (twice as fast) or 0.5x."
    )


@pytest.mark.parametrize(
    ("text", "ns"),
    [("2s", 2 * S), ("500ms", 500 * MS), ("1.5m", 90 * S), ("3", 3 * S), (" 2s ", 2 * S), ("0", 0), ("0.001ms", 1000)],
)
def test_a_duration_is_parsed(text: str, ns: int) -> None:
    """The units are milliseconds, seconds and minutes. The default is seconds."""
    assert parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "1h", "2 s", "1e3", "two", "1,5s"])
def test_an_unknown_duration_is_an_error_that_gives_an_example(text: str) -> None:
    """The idle limit of a timing raises it too."""
    for read in (lambda: parse_duration_ns(text), lambda: Timing.parse("original", text)):
        with pytest.raises(InputError, match=r"unknown duration .*: give for example 2s, 500ms or 1\.5m\."):
            read()


@pytest.mark.parametrize(
    ("timing", "text"), [(INSTANT, "instant"), (ORIGINAL, "original"), (Timing(2.0), "2x"), (Timing(0.5), "0.5x")]
)
def test_a_timing_prints_as_it_is_written(timing: Timing, text: str) -> None:
    """Its text is the text that it is parsed from."""
    assert str(timing) == text
    assert Timing.parse(text) == timing


# Timelines


@settings(deadline=None, max_examples=150)
@given(times, st.none() | speeds, st.none() | st.integers(0, 10**12))
def test_the_order_of_events_never_changes(recorded: list[int], speed: float | None, limit: int | None) -> None:
    """At any timing, an event recorded later is never replayed earlier, and no event before 0."""
    timeline = Timeline(recorded, Timing(speed, limit))
    retold = [timeline.at(at) for at in sorted(recorded)]
    assert sorted(retold) == retold
    assert retold[0] == 0


@settings(deadline=None, max_examples=50)
@given(times, st.none() | st.integers(0, 10**12))
def test_instant_timing_is_immediate(recorded: list[int], limit: int | None) -> None:
    """All times are 0, and so is the length."""
    timeline = Timeline(recorded, Timing(None, limit))
    assert {timeline.at(at) for at in recorded} | {timeline.length_ns} == {0}


@settings(deadline=None, max_examples=100)
@given(times)
def test_original_timing_keeps_the_recorded_times(recorded: list[int]) -> None:
    """Times equal the recorded ones to the nanosecond, relative to the first one."""
    timeline = Timeline(recorded, ORIGINAL)
    assert [timeline.at(at) for at in recorded] == [at - min(recorded) for at in recorded]
    assert timeline.length_ns == max(recorded) - min(recorded)


@settings(deadline=None, max_examples=100)
@given(times, speeds)
def test_a_factor_divides_every_time(recorded: list[int], speed: float) -> None:
    """`2x` ends in half the time."""
    timeline = Timeline(recorded, Timing(speed))
    assert [timeline.at(at) for at in recorded] == [round((at - min(recorded)) / speed) for at in recorded]


@pytest.mark.trap(11)
@settings(deadline=None, max_examples=150)
@given(times, st.integers(1, 10**12))
def test_the_idle_limit_shortens_only_longer_gaps(recorded: list[int], limit: int) -> None:
    """A longer gap becomes the limit, a shorter one stays, and the total is the sum of them."""
    timeline = Timeline(recorded, Timing(1.0, limit))
    ordered = sorted(set(recorded))
    gaps = [timeline.at(after) - timeline.at(before) for before, after in itertools.pairwise(ordered)]
    assert gaps == [min(after - before, limit) for before, after in itertools.pairwise(ordered)]
    assert timeline.length_ns == sum(gaps)


def test_the_idle_limit_applies_to_recorded_time() -> None:
    """At twice the speed a gap capped to 2 s takes 1 s."""
    assert Timeline([0, 10 * S, 11 * S], Timing(2.0, 2 * S)).length_ns == 1_500 * MS


def test_a_time_before_the_first_is_0_and_no_times_have_no_length() -> None:
    """No event is due before the replay begins."""
    assert Timeline([5, 6], ORIGINAL).at(3) == 0
    assert Timeline([], ORIGINAL).length_ns == 0


# Schedules


def recorded_at(*pieces: tuple[int, bytes], first_ns: int = 0, ended_ns: int | None = None, started_ns: int = 0) -> Exchange:
    """Return an exchange with pieces at these offsets."""
    response = replace(answer(headers=SSE), pieces=tuple(TimedPiece(at, data, True) for at, data in pieces), first_ns=first_ns)
    last_ns = pieces[-1][0] if ended_ns is None and pieces else ended_ns or first_ns
    return exchange(response, started_ns=started_ns, ended_ns=started_ns + last_ns)


def plan(recorded: Exchange, timing: Timing) -> list[tuple[int, bytes]]:
    return list(schedule(recorded, timeline_of(recorded, timing)))


def test_every_piece_has_its_own_deadline() -> None:
    """Deadlines count from the request, not from the beginning of the run."""
    recorded = recorded_at((2 * S, b"a"), (3 * S, b"b"), (5 * S, b"c"), first_ns=1 * S, started_ns=100 * S)
    assert list(times_of(recorded)) == [100 * S, 101 * S, 102 * S, 103 * S, 105 * S, 105 * S]
    assert plan(recorded, ORIGINAL) == [(2 * S, b"a"), (3 * S, b"b"), (5 * S, b"c")]
    assert head_ns(recorded, timeline_of(recorded, ORIGINAL)) == 1 * S
    assert plan(recorded, Timing(2.0, 1 * S)) == [(1000 * MS, b"a"), (1500 * MS, b"b"), (2000 * MS, b"c")]


def test_pieces_that_are_due_together_are_joined() -> None:
    """The pieces of one read of the socket form one. At instant timing all pieces do."""
    recorded = recorded_at((1, b"a"), (1, b"b"), (2, b"c"))
    assert plan(recorded, ORIGINAL) == [(1, b"ab"), (2, b"c")]
    assert plan(recorded, INSTANT) == [(0, b"abc")]


@pytest.mark.trap(12)
def test_joined_pieces_have_a_size_limit() -> None:
    """This is true even for a long stream at instant timing."""
    recorded = recorded_at(*[(1, b"x" * 1000)] * 1000)
    groups = [data for _, data in plan(recorded, INSTANT)]
    assert sum(map(len, groups)) == 1_000_000
    assert max(map(len, groups)) < GROUP_BYTES + 1000


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=5)), max_size=12), st.none() | speeds)
def test_a_schedule_keeps_every_byte_in_order(pieces: list[tuple[int, bytes]], speed: float | None) -> None:
    """This is true for joined pieces and for single ones."""
    recorded = recorded_at(*sorted(pieces, key=lambda piece: piece[0]))
    planned = plan(recorded, Timing(speed))
    assert recorded.response is not None
    assert b"".join(data for _, data in planned) == recorded.response.body
    assert [at for at, _ in planned] == sorted({at for at, _ in planned})


def test_an_exchange_without_a_response_has_no_schedule() -> None:
    """It has only an end."""
    lost = replace(exchange(), response=None, ended_ns=5)
    assert (plan(lost, ORIGINAL), head_ns(lost, timeline_of(lost, ORIGINAL))) == ([], 0)
    assert timeline_of(lost, ORIGINAL).length_ns == 5


# Playing, on a clock that advances only by sleeping


class VirtualClock:
    """Replaces the module `clock` and the alarm in the player. Each sleep ends a little late, like a real one."""

    def __init__(self, late_ns: int = 0) -> None:
        self.now_ns = 1_000 * S
        self.late_ns = late_ns
        self.sleeps = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.sleeps += 1
        self.now_ns += round(seconds * 1e9) + self.late_ns

    sleep: Any = wait


class AsyncVirtualClock(VirtualClock):
    async def sleep_until(self, deadline_ns: int) -> None:
        self.wait((deadline_ns - self.now_ns) / S)


def played(
    monkeypatch: pytest.MonkeyPatch, kind: str, recorded: Exchange, timing: Timing, clock: VirtualClock, work_ns: int = 0
) -> list[tuple[int, bytes]]:
    """Return the (time, piece) pairs of a consumer that needs `work_ns` for each piece. The last pair is the end."""
    monkeypatch.setattr(timing_module, "clock", clock)
    monkeypatch.setattr(timing_module, "sleep_until", getattr(clock, "sleep_until", None))
    began, timeline, got = clock.now_ns, timeline_of(recorded, timing), list[tuple[int, bytes]]()

    def take(data: bytes) -> None:
        got.append((clock.now_ns - began, data))
        clock.now_ns += work_ns

    async def consume() -> None:
        async for data in play_async(recorded, timeline, began):
            take(data)

    if kind == "async":
        asyncio.run(consume())
    else:
        for data in play(recorded, timeline, began):
            take(data)
    return [*got, (clock.now_ns - began, b"end")]


CLOCKS: dict[str, type[VirtualClock]] = {"sync": VirtualClock, "async": AsyncVirtualClock}


@pytest.fixture(params=CLOCKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_stream_is_played_at_its_deadlines(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Each piece comes when it is due, and the end at its recorded time."""
    recorded = recorded_at((2 * S, b"a"), (3 * S, b"b"), ended_ns=7 * S)
    assert played(monkeypatch, kind, recorded, Timing(2.0), CLOCKS[kind]()) == [
        (1 * S, b"a"),
        (1500 * MS, b"b"),
        (3500 * MS, b"end"),
    ]


@pytest.mark.trap(11)
def test_instant_timing_never_sleeps(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """It does not sleep for a duration of 0 either."""
    clock = CLOCKS[kind]()
    recorded = recorded_at((2 * S, b"a"), (3 * S, b"b"), ended_ns=7 * S)
    assert played(monkeypatch, kind, recorded, INSTANT, clock) == [(0, b"ab"), (0, b"end")]
    assert clock.sleeps == 0


@pytest.mark.trap(11)
def test_late_sleeps_do_not_add_up(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """10,000 frames, each sleep of 10 ms one millisecond late: the end comes within 1 % of the recorded total."""
    recorded = recorded_at(*((number * 10 * MS, b"x") for number in range(10_000)))
    end_ns = played(monkeypatch, kind, recorded, ORIGINAL, CLOCKS[kind](late_ns=1 * MS))[-1][0]
    assert recorded.ended_ns <= end_ns <= recorded.ended_ns * 1.01


@pytest.mark.trap(12)
def test_a_slow_consumer_does_not_shift_the_timeline(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """When it asks again, it gets overdue pieces at once. Later pieces are still on time."""
    recorded = recorded_at((1 * S, b"a"), (2 * S, b"b"), (3 * S, b"c"), (10 * S, b"d"))
    got = played(monkeypatch, kind, recorded, ORIGINAL, CLOCKS[kind](), work_ns=3 * S)
    assert got == [(1 * S, b"a"), (4 * S, b"b"), (7 * S, b"c"), (10 * S, b"d"), (13 * S, b"end")]
