"""The totals of a recording: tokens, cost, turns and times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
TOTALS = (*TOKENS, "cost_usd", "turns", "duration_ms", "ttft_ms")
"""The totals of a recording. `ttft_ms` is the time to the first token of the first answer."""

TIMES = frozenset({"duration_ms", "ttft_ms"})
"""Totals that differ in every run. They are compared only if a tolerance names them."""


@dataclass(frozen=True, slots=True)
class Total:
    """One total of both sides. `counts` is False if it is not compared; `differs` is True if it counts and exceeds its
    tolerance.
    """

    name: str
    a: float | None
    b: float | None
    counts: bool
    differs: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the total as JSON."""
        return {"name": self.name, "a": self.a, "b": self.b, "counts": self.counts, "differs": self.differs}


@dataclass(slots=True)
class Sums:
    """Totals under construction: of exchanges, and of session results, which have fewer fields but exist in every recording."""

    exchanges: dict[str, float] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    costs: list[float | None] = field(default_factory=list)

    def turn(self, ending: str) -> None:
        """Count an exchange that ended. One without an answer is no turn."""
        self.exchanges["turns"] = self.exchanges.get("turns", 0) + (ending not in ("http_error", "no_response"))

    def spent(self, ended: Mapping[str, Any]) -> None:
        """Add the usage and the cost of an exchange."""
        if ended.get("usage"):
            _add(ended["usage"], self.exchanges)
            self.costs.append(ended.get("cost_usd"))

    def result(self, data: Mapping[str, Any]) -> None:
        """Add the result of a session."""
        sums = self.results
        _add(data.get("usage"), sums)
        for key, name in (("total_cost_usd", "cost_usd"), ("num_turns", "turns"), ("duration_ms", "duration_ms")):
            if isinstance(data.get(key), int | float):
                sums[name] = round(sums.get(name, 0) + data[key], 10)  # sums of Claude Code have the noise of floats

    def totals(self, *, prompts: int) -> dict[str, float | None]:
        """Return the totals, None for one that is unknown. `prompts` is the number of prompts of sessions; each is a turn."""
        # Exchanges take precedence over session results.
        found: dict[str, float | None] = dict.fromkeys(TOTALS)
        found |= self.results | self.exchanges
        if prompts:
            found["turns"] = (found["turns"] or 0) + prompts
        if self.costs:
            known = [cost for cost in self.costs if cost is not None]
            found["cost_usd"] = round(sum(known), 10) if len(known) == len(self.costs) else None
        return found


def _add(usage: Any, into: dict[str, float]) -> None:
    for key in TOKENS:
        value = usage.get(key) if isinstance(usage, Mapping) else None
        if isinstance(value, int):
            into[key] = into.get(key, 0) + value
