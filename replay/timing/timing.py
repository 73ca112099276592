"""Timing: map recorded times to a schedule of absolute deadlines, without clocks and without sleeping.

Deadlines are absolute so that errors do not add up: sleeping gap by gap drifts by 9 % if 10,000 frames come close together.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from ...recorder.errors import InputError

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
