"""Statistics from the accounts of the index: a few thousand lines for any number of events."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .accounts import SUMS, Account, percentile
from .index import Index

SHARES = (0.5, 0.95, 0.99)


@dataclass(slots=True)
class StatsLine:
    """One line of statistics: its keys, sums, and percentiles (50, 95, 99) in milliseconds.

    `cost_usd` is None without any known price. `unpriced` counts the exchanges that are missing in it because their price is
    unknown.
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
    index: Index,
    by: Sequence[str],
    *,
    modes: Collection[str] = ("live", "import"),
    since_day: str | None = None,
    until_day: str | None = None,
) -> list[StatsLine]:
    """Return lines by one dimension of accounts.DIMENSIONS, or by one and `day`, in the order of their keys.

    Mock runs repeat exchanges that were counted when they were recorded, so they are left out unless `modes` contains `mock`.
    Days are local, and both ends belong to the span. A run counts once for each key, on the day on which it began.
    """
    dimension = next((each for each in by if each != "day"), "day")
    found: dict[tuple[str, ...], Account] = {}
    for (_, key, day), account in index.accounts(dimension, modes, since_day, until_day):
        keys = tuple(day if each == "day" else key for each in by)
        found.setdefault(keys, Account()).add(account)
    return [_line(keys, found[keys]) for keys in sorted(found)]


def _line(keys: tuple[str, ...], account: Account) -> StatsLine:
    sums = account.sums
    own = {name: sums[name] for name in SUMS if name not in ("cost_usd", "priced")}
    is_known = sums["priced"] or (not sums["unpriced"] and sums["exchanges"])
    return StatsLine(
        keys,
        **own,
        cost_usd=round(float(sums["cost_usd"]), 6) if is_known else None,
        first_token_ms=_percentiles(account.first),
        duration_ms=_percentiles(account.took),
    )


def _percentiles(buckets: Counter[int]) -> tuple[float | None, ...]:
    return tuple(percentile(buckets, share) for share in SHARES)
