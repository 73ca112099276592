"""Counted times: each bucket is 2 % wider than the one before, so percentiles over any set of them are right within 1 %."""

import math
from collections import Counter

_WIDTH = math.log(1.02)


def bucket(ms: float) -> int:
    """Return the bucket of a time in milliseconds. A time below a microsecond counts as one microsecond."""
    return math.ceil(math.log(max(ms, 0.001)) / _WIDTH)


def bucket_ms(number: int) -> float:
    """Return the time in milliseconds that stands for a bucket, within 1 % of each of its times."""
    return math.exp(number * _WIDTH) * 2 / (math.exp(_WIDTH) + 1)


def percentile(buckets: Counter[int], share: float) -> float | None:
    """Return the time in milliseconds that `share` of the counted times do not exceed, within 1 %; None without any time."""
    due = share * buckets.total()
    for number in sorted(buckets):
        due -= buckets[number]
        if due <= 0:
            return bucket_ms(number)
    return None


def measure(duration_ns: int, *counts: Counter[int]) -> None:
    """Count a time in each of the counts. A time of 0 was not measured: the cassettes of other recorders have no times."""
    if duration_ns > 0:
        number = bucket(duration_ns / 1e6)
        for count in counts:
            count[number] += 1
