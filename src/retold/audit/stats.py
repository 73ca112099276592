"""Statistics from the accounts of the index: a few thousand lines for any number of events."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .accounts import SUMS, TOKENS, Account
from .buckets import percentile
from .index import Index

SHARES = (0.5, 0.95, 0.99)

TOKENIZERS_DIFFER = 1.35
"""The most by which the counts of tokens of one text differ between two models of the API."""

_FEW = 1000
"""Tokens of a request that is short in each table of prices."""

Price = Callable[[str, dict[str, int]], float | None]
"""Returns the cost in US dollars of a usage of a model; None if it is unknown."""


@dataclass(slots=True)
class StatsLine:
    """One line of statistics: its keys, sums, and percentiles (50, 95, 99) in milliseconds.

    `cost_usd` is None without any known price. `unpriced` counts the exchanges that are missing in it because their price is
    unknown, `without_usage` those of which no tokens are known.
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
    without_usage: int = 0
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

    `name` is another word for `workflow`: the names of runs.

    Mock runs repeat exchanges that were counted when they were recorded, so they are left out unless `modes` contains `mock`.
    Days are local, and both ends belong to the span. A run counts once for each key, on the day on which it began.
    """
    dimension = _dimension(by)
    found: dict[tuple[str, ...], Account] = {}
    for (_, key, day), account in index.accounts(dimension, modes, since_day, until_day):
        keys = tuple(day if each == "day" else key for each in by)
        found.setdefault(keys, Account()).add(account)
    return [_line(keys, found[keys]) for keys in sorted(found)]


def total(
    index: Index, by: Sequence[str], *, modes: Collection[str] = ("live", "import"),
    since_day: str | None = None, until_day: str | None = None,
) -> StatsLine:  # fmt: skip
    """Return the sums and percentiles of all that `stats` counted for the same arguments: a run of two models counts once.

    Its first key is `TOTAL`. The total of tools has 0 runs, because the accounts of tools do not show which runs they share.
    """
    dimension = _dimension(by)
    keys = ("TOTAL", *[""] * (len(by) - 1))
    whole = Account()
    # Every run and exchange has exactly one day, but may have several models or steps.
    for _, account in index.accounts("tool" if dimension == "tool" else "day", modes, since_day, until_day):
        whole.add(account)
    if dimension == "tool":
        whole.sums["runs"] = 0
    return _line(keys, whole)


def _dimension(by: Sequence[str]) -> str:
    dimension = next((each for each in by if each != "day"), "day")
    return "workflow" if dimension == "name" else dimension


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


@dataclass(frozen=True, slots=True)
class Repriced:
    """The cost of a line's traffic with another model, in US dollars. Both ends are None if none of its tokens is known.

    `without_usage` counts the exchanges that are missing in it because their answers have no usage.
    """

    low_usd: float | None
    high_usd: float | None
    without_usage: int


def repriced(line: StatsLine, model: str, price: Price, *, is_same_model: bool = False) -> Repriced:
    """Return the range of the cost that a line's tokens have with a model that the table of prices has.

    1. Another model counts other tokens for the same text: the low end divides by TOKENIZERS_DIFFER, the high end multiplies.
    2. The sums do not hold the lifetimes of cached prefixes: the low end writes them for 5 minutes, the high end for 1 hour.
    3. Some prices rise with the length of a request: the low end takes the lowest price, the high end that of one long request.
    """
    counts = {name: getattr(line, name) for name in TOKENS}
    if not any(counts.values()):
        return Repriced(None, None, line.without_usage)
    written = counts["cache_creation_input_tokens"]
    for_an_hour = {**counts, "cache_creation": {"ephemeral_1h_input_tokens": written}} if written else counts
    # The price of few tokens is that of a short request, and is the same for each of them.
    units = [price(model, {**dict.fromkeys(TOKENS, 0), name: _FEW}) for name, count in counts.items() if count]
    low = sum(unit * count / _FEW for unit, count in zip(units, filter(None, counts.values()), strict=True) if unit is not None)
    highs = [cost for usage in (counts, for_an_hour) if (cost := price(model, usage)) is not None]
    if not highs or None in units:
        return Repriced(None, None, line.without_usage)
    factor = 1.0 if is_same_model else TOKENIZERS_DIFFER
    return Repriced(round(low / factor, 6), round(max(*highs, low) * factor, 6), line.without_usage)
