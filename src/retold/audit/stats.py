"""Statistics from the accounts of the index: a few thousand lines, however many events stand behind them."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .accounts import SUMS, percentile
from .index import from_json

SHARES = (0.5, 0.95, 0.99)


@dataclass(slots=True)
class StatsLine:
    """One line of statistics: the keys it stands for, what adds up, and percentiles (50, 95, 99) in milliseconds.

    `cost_usd` is None where no price of it is known, and `unpriced` says of how many exchanges none is: they are not in it.
    """

    keys: tuple[str, ...]
    runs: int = 0
    exchanges: int = 0
    messages: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cost_usd: float | None = None
    unpriced: int = 0
    errors: int = 0
    retries: int = 0
    first_token_ms: tuple[float | None, ...] = ()
    duration_ms: tuple[float | None, ...] = ()


def stats(
    index: sqlite3.Connection,
    by: Sequence[str],
    *,
    modes: Collection[str] = ("live", "import"),
    since_day: str | None = None,
    until_day: str | None = None,
) -> list[StatsLine]:
    """Lines by one dimension of accounts.DIMENSIONS, or by one and `day`, in the order of their keys.

    Mock runs retell what was counted when it was recorded: they are left out unless `modes` names them. Days are local and
    both ends belong to the span. A run counts once for each key, on the day it began.
    """
    dimension = next((each for each in by if each != "day"), "day")
    query = (
        f"SELECT key, day, {', '.join(SUMS)}, first, took FROM accounts WHERE dimension = ? AND day >= ? AND day <= ? "
        f"AND mode IN ({', '.join('?' * len(modes))})"
    )
    sums: dict[tuple[str, ...], Counter[str]] = {}
    first: dict[tuple[str, ...], list[str]] = {}
    took: dict[tuple[str, ...], list[str]] = {}
    for row in index.execute(query, (dimension, since_day or "", until_day or "9999-99-99", *modes)):
        keys = tuple(row[1] if each == "day" else row[0] for each in by)
        line = sums.setdefault(keys, Counter())
        for name, value in zip(SUMS, row[2:-2], strict=True):
            line[name] += value
        first.setdefault(keys, []).append(row[-2])
        took.setdefault(keys, []).append(row[-1])
    return [_line(keys, sums[keys], first[keys], took[keys]) for keys in sorted(sums)]


def _line(keys: tuple[str, ...], sums: Counter[str], first: list[str], took: list[str]) -> StatsLine:
    own = {name: sums[name] for name in SUMS if name not in ("cost_usd", "priced")}
    cost = round(float(sums["cost_usd"]), 6) if sums["priced"] or (not sums["unpriced"] and sums["exchanges"]) else None
    return StatsLine(keys, **own, cost_usd=cost, first_token_ms=_percentiles(first), duration_ms=_percentiles(took))


def _percentiles(stored: list[str]) -> tuple[float | None, ...]:
    buckets: Counter[int] = Counter()
    for each in stored:
        if each != "{}":
            buckets.update(from_json(each))
    return tuple(percentile(buckets, share) for share in SHARES)
