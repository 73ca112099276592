"""The verdict on a run: the expectations that do not hold, as text with the run as a table, or as JSON."""

from dataclasses import dataclass
from typing import Any, Self

from .expectation import Expectation
from .facts import Facts
from .judging import Offence, judge
from .run_table import run_table


@dataclass(frozen=True)
class Verdict:
    """The failures of an expectation, none if everything holds."""

    facts: Facts
    wanted: Expectation
    failures: tuple[Offence, ...]

    @classmethod
    def on(cls, facts: Facts, wanted: Expectation) -> Self:
        """Return the verdict on the facts of a run."""
        return cls(facts, wanted, tuple(judge(wanted, facts)))

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    @property
    def first(self) -> Offence | None:
        """The failure that comes first in the run; those without a place come last."""
        return min(self.failures, key=lambda failure: failure.row, default=None)

    def as_text(self, *, width: int = 120, colour: bool = False) -> str:
        """Return the failures, and the run as a table with the first of them marked."""
        count = len(self.wanted.names)
        if self.first is None:
            return f"{self.facts.title}: {count} of {count} expectations hold"
        lines = [f"{self.facts.title}: {len({each.at for each in self.failures})} of {count} expectations failed"]
        lines += [f"  {failure.name}: {failure.message}" for failure in self.failures]
        return "\n".join([*lines, "", *run_table(self.facts.rows, self.first.row, width=width, colour=colour)])

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict and the trajectory as JSON."""
        found = self.facts
        return {
            "ok": self.ok,
            "title": found.title,
            "expectations": len(self.wanted.names),
            "failures": [failure.as_dict() | self._place(failure) for failure in self.failures],
            "turns": found.turns,
            "tokens": found.tokens,
            "cost_usd": found.cost_usd,
            "ended": list(found.ended),
            "calls": [call.as_dict() for call in found.calls],
        }

    def _place(self, failure: Offence) -> dict[str, Any]:
        rows = self.facts.rows
        row = rows[failure.row] if failure.row < len(rows) else None
        return {"conversation": row.place, "turn": row.turn, "seq": row.seq} if row is not None else {}
