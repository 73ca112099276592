"""The counts of a pytest session, and the beginning and end of a test's cassette; both kinds of marks use them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..recorder.clock import wall_ns
from ..recorder.http.exchange import timestamp
from ..recorder.words import dollars

if TYPE_CHECKING:
    from .used import UsedCassette

PASSED = pytest.StashKey[bool]()
IN_USE = pytest.StashKey["list[tuple[Any, UsedCassette]]"]()
STATS = pytest.StashKey["Stats"]()
SINCE = pytest.StashKey[str]()
"""The time at which the session began, in the form of `recorded_at`; the same in each worker of pytest-xdist."""


@dataclass
class Stats:
    """The counts of a session, summed over its tests and workers."""

    replayed: int = 0
    recorded: int = 0
    misses: int = 0
    unplayed: dict[str, list[int]] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    usage: dict[str, dict[str, int]] = field(default_factory=dict)
    known_usd: float = 0.0
    orphans: list[str] = field(default_factory=list)
    marked: int = 0
    live: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    # For pruning: cassettes of mode refresh, the tests of each cassette, those that passed, cassettes that other tests may use,
    # and the outcome.
    refreshed: list[str] = field(default_factory=list)
    users: dict[str, int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    uncertain: list[str] = field(default_factory=list)
    pruned: dict[str, str] = field(default_factory=dict)

    def add(self, other: dict[str, Any]) -> None:
        """Add another worker's numbers, which come as plain data."""
        self.replayed += other["replayed"]
        self.recorded += other["recorded"]
        self.misses += other["misses"]
        self.marked += other["marked"]
        for path, left in other["unplayed"].items():
            self.leave(path, left)
        self.drift += other["drift"]
        self.known_usd += other["known_usd"]
        self.orphans = sorted({*self.orphans, *other["orphans"]})
        self.users |= other["users"]  # each worker collects all tests
        self.uncertain = sorted({*self.uncertain, *other["uncertain"]})
        self.refreshed = sorted({*self.refreshed, *other["refreshed"]})
        for path, times in other["passed"].items():
            self.passed[path] = self.passed.get(path, 0) + times
        for model, usage in other["usage"].items():
            self.spend(model, usage)
        for mine, theirs in ((self.live, other["live"]), (self.refused, other["refused"])):
            for request, times in theirs.items():
                mine[request] = mine.get(request, 0) + times

    def leave(self, path: str, left: list[int]) -> None:
        """Note the recordings that a test did not play. In a shared cassette, those that any test played count as played."""
        before = self.unplayed.get(path)
        self.unplayed[path] = left if before is None else [number for number in left if number in before]

    def spend(self, model: str, usage: dict[str, int]) -> None:
        """Add the tokens that a model's answers were recorded with."""
        total = self.usage.setdefault(model, {})
        for key, value in usage.items():
            total[key] = total.get(key, 0) + value


def began(config: pytest.Config) -> str:
    """Return the time at which the session began. A worker gets it from the controller."""
    since: str = getattr(config, "workerinput", {}).get("retold_since") or timestamp(wall_ns())
    return since


def tell_worker(node: Any) -> None:
    """Send the time at which the session began to a new worker of pytest-xdist."""
    node.workerinput["retold_since"] = node.config.stash[SINCE]


def begin(item: pytest.Item, using: Any) -> "UsedCassette":
    """Enter a test's cassette. `finish` leaves it after the whole teardown of the test."""
    cassette: UsedCassette = using.__enter__()
    item.stash.setdefault(IN_USE, []).append((using, cassette))
    item.config.stash[STATS].marked += 1
    return cassette


def finish(item: pytest.Item, *, passed: bool) -> None:
    """Leave a test's cassettes and count them. A cassette is replaced only if the test and its teardown passed."""
    while uses := item.stash.get(IN_USE, []):
        using, cassette = uses.pop()
        error = None if passed else RuntimeError("the test did not pass")
        using.__exit__(None if error is None else type(error), error, None)
        count(item.config.stash[STATS], cassette, failed=not passed)


def log_path(config: pytest.Config) -> Path:
    """Return the path of the log for the recordings of this session."""
    named = config.getini("retold_log")
    return config.rootpath / (named or ".retold/log.db")


def count(stats: Stats, cassette: "UsedCassette", *, failed: bool) -> None:
    """Add the counts of one test."""
    from ..recorder.http.refold import refold_exchange

    stats.replayed += cassette.play_count
    stats.recorded += cassette.recorded
    stats.misses += len(cassette.misses)
    stats.drift += cassette.drift
    if not failed and cassette.record_mode in ("none", "once", "new_episodes", "refresh"):
        own = len(cassette.exchanges)  # further cassettes are not the test's own
        left = [number for number in cassette.unplayed_numbers if number < own]
        # Sessions of the Agent SDK are counted downwards, beside the exchanges.
        left += [-1 - number for number in cassette.unplayed_session_numbers]
        stats.leave(str(cassette.path), left)
        if cassette.record_mode == "refresh":
            stats.refreshed = sorted({*stats.refreshed, str(cassette.path)})
        if not cassette.misses:
            stats.passed[str(cassette.path)] = stats.passed.get(str(cassette.path), 0) + 1
    for exchange in cassette.played:
        fold = refold_exchange(exchange)
        if exchange.cost_usd is not None:
            stats.known_usd += exchange.cost_usd
        usage = {key: value for key, value in fold.usage.items() if isinstance(value, int)}
        model = str(fold.message.get("model", "")) if exchange.cost_usd is None else ""
        if usage:
            stats.spend(model, usage)


def saved(stats: Stats) -> str:
    """Return a line with the tokens and the money that replays saved, and the models without a known price."""
    from ..workflow.pricing import price

    tokens = sum(usage.get(key, 0) for usage in stats.usage.values() for key in ("input_tokens", "output_tokens"))
    total, unknown = stats.known_usd, []
    for model, usage in stats.usage.items():
        if model:
            cost = price(model, usage)
            if cost is None:
                unknown.append(model)
            else:
                total += cost
    note = f" (price of {', '.join(sorted(unknown))} not known)" if unknown else ""
    return f"{tokens} tokens and {dollars(total)} not spent{note}"
