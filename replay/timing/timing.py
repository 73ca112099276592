"""Timing: map recorded times to a schedule of absolute deadlines, without clocks and without sleeping.

Deadlines are absolute so that errors do not add up: sleeping gap by gap drifts by 9 % if 10,000 frames come close together.
"""

import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from ...recorder import clock
from ...recorder.errors import InputError
from ...recorder.http.exchange import Exchange
from .precise_sleep import sleep_until

_FACTOR = re.compile(r"(\d+(?:\.\d+)?)x")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)?")
_UNIT_NS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, None: 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast to replay: `speed` 2.0 is twice as fast and None is instant; `idle_limit_ns` shortens longer gaps to that
    length.
    """

    speed: float | None = None
    idle_limit_ns: int | None = None

    @property
    def is_instant(self) -> bool:
        """Whether the replay never waits."""
        return self.speed is None

    @classmethod
    def parse(cls, text: str, idle_limit: str | None = None) -> "Timing":
        """Parse `instant`, `original` or a factor such as `2x`, and `idle_limit` such as `2s` or `500ms`. Raise InputError."""
        limit_ns = None if idle_limit is None else parse_duration_ns(idle_limit)
        if text == "instant":
            return cls(None, limit_ns)
        if text == "original":
            return cls(1.0, limit_ns)
        match = _FACTOR.fullmatch(text)
        if match is None or float(match[1]) == 0:
            raise InputError(f"unknown timing {text!r}: give instant, original, or a factor such as 2x (twice as fast) or 0.5x.")
        return cls(float(match[1]), limit_ns)

    def __str__(self) -> str:
        if self.speed is None:
            return "instant"
        return "original" if self.speed == 1 else f"{self.speed:g}x"


INSTANT = Timing()
ORIGINAL = Timing(1.0)


def parse_duration_ns(text: str) -> int:
    """Return `2s`, `500ms`, `1.5m`, or seconds without a unit, in nanoseconds. Raise InputError."""
    match = _SECONDS.fullmatch(text.strip())
    if match is None:
        raise InputError(f"unknown duration {text!r}: give for example 2s, 500ms or 1.5m.")
    return round(float(match[1]) * _UNIT_NS[match[2]])


class Timeline:
    """Maps recorded times to times of replay, both in nanoseconds from the first recorded time.

    `times_ns` are all recorded times of the replay, in any order. Gaps longer than the idle limit are shortened to it, then
    everything is divided by the speed. With instant timing every time is 0.
    """

    def __init__(self, times_ns: Iterable[int], timing: Timing) -> None:
        self._speed = timing.speed
        self._limit_ns = timing.idle_limit_ns
        self.is_instant = timing.is_instant
        self._recorded = [0] if self.is_instant else sorted(set(times_ns)) or [0]
        # _saved[i] is the time that the idle limit removes before recorded time i.
        self._saved = [0]
        for before, after in zip(self._recorded, self._recorded[1:], strict=False):
            over = 0 if timing.idle_limit_ns is None else max(0, after - before - timing.idle_limit_ns)
            self._saved.append(self._saved[-1] + over)

    def at(self, recorded_ns: int) -> int:
        """Return when to replay an event recorded at `recorded_ns`. A time before the first one is 0."""
        if self._speed is None:
            return 0
        index = max(0, bisect_right(self._recorded, recorded_ns) - 1)
        since_ns = recorded_ns - self._recorded[index]
        # A time between two recorded ones can itself lie in a shortened gap.
        if self._limit_ns is not None:
            since_ns = min(since_ns, self._limit_ns)
        return max(0, round((self._recorded[index] - self._recorded[0] - self._saved[index] + since_ns) / self._speed))

    @property
    def length_ns(self) -> int:
        """The duration of the replay."""
        return self.at(self._recorded[-1])


AT_ONCE = Timeline((), INSTANT)
"""The timeline of every instant replay."""


GROUP_BYTES = 64 * 1024
"""Pieces that are due at the same moment are joined, up to this size."""

MAX_HOLD_S = 600.0
"""The longest time that an exchange is kept open for its client to close it."""


def times_of(exchange: Exchange) -> Iterator[int]:
    """Yield the recorded times of an exchange, in nanoseconds since its run began: start, head, every piece, end."""
    yield exchange.started_ns
    if exchange.response is not None:
        yield exchange.started_ns + exchange.response.first_ns
        for piece in exchange.response.pieces:
            yield exchange.started_ns + piece.offset_ns
    yield exchange.ended_ns


def timeline_of(exchange: Exchange, timing: Timing) -> Timeline:
    """Return the timeline of one exchange alone. It begins with the request."""
    if timing.speed is None:
        return AT_ONCE
    return Timeline(times_of(exchange), timing)


def schedule(exchange: Exchange, timeline: Timeline) -> Iterator[tuple[int, bytes]]:
    """Yield (deadline_ns, bytes) of the body, in order. Pieces that are due at the same moment are joined."""
    response = exchange.response
    if timeline.is_instant and response is not None:  # the whole body, without visiting its pieces
        body = response.body
        yield from ((0, body[at : at + GROUP_BYTES]) for at in range(0, len(body), GROUP_BYTES))
        return
    due, group, size = 0, [], 0  # type: int, list[bytes], int
    for piece in () if response is None else response.pieces:
        deadline = timeline.at(exchange.started_ns + piece.offset_ns)
        if group and (deadline != due or size >= GROUP_BYTES):
            yield due, b"".join(group)
            group, size = [], 0
        due = deadline
        group.append(piece.data)
        size += len(piece.data)
    if group:
        yield due, b"".join(group)


def hold_ns(exchange: Exchange, grace_s: float) -> int:
    """Return how long an exchange that the recorded client closed is kept open after its request, in nanoseconds.

    The client needs at most the recorded time, at any timing, because its own timeouts run in real time. `grace_s` is added for
    a slower start, or for a person. MAX_HOLD_S is the limit.
    """
    return min(exchange.ended_ns - exchange.started_ns + int(grace_s * 1e9), int(MAX_HOLD_S * 1e9))


def head_ns(exchange: Exchange, timeline: Timeline) -> int:
    """Return when the head of the response is due, in nanoseconds after the request."""
    first_ns = 0 if exchange.response is None else exchange.response.first_ns
    return timeline.at(exchange.started_ns + first_ns)


def play(exchange: Exchange, timeline: Timeline, began_ns: int) -> Iterator[bytes]:
    """Yield the body at its pace. Deadlines count from `began_ns` of the monotonic clock. The caller produces the ending."""
    for deadline, data in schedule(exchange, timeline):
        if deadline:
            wait_until(began_ns + deadline)
        yield data
    if not timeline.is_instant:
        wait_until(began_ns + timeline.at(exchange.ended_ns))


Until = Callable[[int, int], Awaitable[None]]
"""Waits in an event loop until the time of replay reaches (the monotonic time of its beginning, nanoseconds after it)."""


async def until_async(began_ns: int, after_ns: int) -> None:
    """Wait on the real clock."""
    await wait_until_async(began_ns + after_ns)


async def play_async(
    exchange: Exchange, timeline: Timeline, began_ns: int, until: Until = until_async
) -> AsyncIterator[bytes]:  # fmt: skip
    """`play` in an event loop. `until` is its clock."""
    for deadline, data in schedule(exchange, timeline):
        await until(began_ns, deadline)
        yield data
    await until(began_ns, timeline.at(exchange.ended_ns))


def wait_until(deadline_ns: int) -> None:
    """Sleep until the monotonic clock reaches `deadline_ns`. Return at once if it already has."""
    left_ns = deadline_ns - clock.monotonic_ns()
    if left_ns > 0:
        clock.sleep(left_ns / 1e9)


async def wait_until_async(deadline_ns: int) -> None:
    """`wait_until` in an event loop."""
    if deadline_ns > clock.monotonic_ns():
        await sleep_until(deadline_ns)
