"""Statistics from the accounts of the index: a few thousand lines, however many events stand behind them."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .accounts import SUMS, Account, percentile
from .index import Index

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
    index: Index,
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
