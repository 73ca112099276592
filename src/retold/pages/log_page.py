"""The page of a log: costs and tokens by day and model, errors and retries, and how long answers took, drawn as bars.

Each bar leads to the runs that it counts.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..audit.accounts import TOKENS, Account, day_of
from ..audit.buckets import bucket_ms
from ..audit.index import Index
from ..audit.runs import Found
from .assemble import page

RUNS = 2000
"""The number of runs that a page names."""

COUNTED = ("exchanges", *TOKENS, "errors", "retries")
"""The sums that the page shows."""


def log_page(data: dict[str, Any], *, home: str | None = None) -> str:
    """Return the page for `log_data`. `home` is the address of the server's list of runs."""
    return page("log", title="A log · retold", data=data if home is None else data | {"home": home}, live=home is not None)


def log_data(
    index: Index, runs: Iterable[Found], *, name: str, modes: tuple[str, ...] = ("live", "import"), since_day: str | None = None,
    until_day: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the data of the page: sums by day and model, times by model, and the runs that they count, newest first.

    `name` names the log. Times are [milliseconds, count] pairs, within 1 %.
    """
    lines, times = [], dict[str, Account]()
    for (_, model, day), account in index.accounts("model", modes, since_day, until_day):
        if not any(account.sums[each] for each in COUNTED):
            continue
        sums = account.sums
        known = sums["priced"] or not sums["unpriced"]
        counted = {each: sums[each] for each in COUNTED} | {"unpriced": sums["unpriced"]}
        lines.append({"day": day, "model": model, "cost": round(float(sums["cost_usd"]), 6) if known else None} | counted)
        times.setdefault(model, Account()).add(account)
    shown = [each for each in runs if each.info.mode in modes][: RUNS + 1]
    return {
        "log": name,
        "lines": sorted(lines, key=lambda line: (line["day"], line["model"])),
        "times": {model: {"first": _pairs(each.first), "took": _pairs(each.took)} for model, each in sorted(times.items())},
        "runs": [_run(each) for each in shown[:RUNS]],
        "cut": len(shown) > RUNS,
    }


def _pairs(buckets: Counter[int]) -> list[list[float]]:
    return [[round(bucket_ms(number), 3), count] for number, count in sorted(buckets.items())]


def _run(found: Found) -> dict[str, Any]:
    facts = found.facts
    listed: dict[str, Any] = {"run": found.info.run, "name": found.info.name, "outcome": found.outcome}
    listed |= {"status": found.info.status, "day": day_of(found.info.started_ns)}
    if facts is not None:
        listed |= {"models": facts.models, "cost": facts.cost_usd, "errors": facts.errors, "days": facts.days}
        listed |= {"first": [round(bucket_ms(n)) for n in facts.first], "took": [round(bucket_ms(n)) for n in facts.took]}
    return listed
