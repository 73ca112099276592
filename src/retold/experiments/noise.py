"""Noise or regression: learn from several baseline runs which items vary, and judge a run by it.

The first baseline run is the reference. The differences of the other baseline runs from it form the band. A difference of the
judged run from the reference is noise if the band allows it, else a regression. A text that varies in a turn may have any
wording there, but the turn may have no more and no fewer texts than the baseline runs have. Of any other item, only the paths
that varied may differ. An item may be absent or added only if a baseline run lacked or added the same one. Items of one kind
and turn may change places if the baseline runs ordered them differently. A total may lie between the smallest and the largest
one of the baseline.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..comparing.compare import Difference, compare_sides
from ..comparing.focus import EVERYTHING, Focus
from ..comparing.reading import Side
from ..recorder.errors import InputError
from ..recorder.words import clean, plural

_WORDING = ("text", "thinking")


@dataclass(frozen=True)
class Judgement:
    """The verdict on a run: the number of baseline runs, the differences outside the band, and those within it."""

    runs: int
    regressions: tuple[Difference, ...]
    noise: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether every difference lies within the band."""
        return not self.regressions

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON: `same`, `runs`, `regressions` and `noise`."""
        return {
            "same": self.same,
            "runs": self.runs,
            "regressions": [difference.as_dict() for difference in self.regressions],
            "noise": [difference.as_dict() for difference in self.noise],
        }

    def as_text(self, limit: int | None = None) -> str:
        """Return the verdict as lines of text, with at most `limit` regressions."""
        verdict = "no regression" if self.same else f"{len(self.regressions)} outside the baseline"
        lines = [f"{verdict}: judged by {self.runs} baseline runs, {plural(len(self.noise), 'difference')} within their band"]
        lines += [f"  {clean(repr(difference))}" for difference in self.regressions[:limit]]
        left = 0 if limit is None else len(self.regressions) - limit
        return "\n".join(lines + ([f"  … and {left} more; --limit 0 prints all"] if left > 0 else []))


def judge(baseline: Sequence[Side], run: Side, focus: Focus = EVERYTHING) -> Judgement:
    """Judge a run by two or more baseline runs. Raise InputError for fewer, because one run shows no variation."""
    if len(baseline) < 2:
        raise InputError("one baseline run shows no variation. Give two or more before the run.")
    reference, *others = baseline
    found = [compare_sides(reference, other, focus).differences for other in others]
    band = {key for differences in found for difference in differences for key in _keys(difference)}
    balances = [_balance(differences) for differences in found]
    noise: list[Difference] = []
    regressions: list[Difference] = []
    differences = compare_sides(reference, run, focus).differences
    balance = _balance(differences)
    for difference in differences:
        if difference.kind == "volatile":
            continue
        if difference.what == "totals":
            name = difference.changes[0].path
            known = [value for side in baseline if (value := side.totals.get(name)) is not None]
            total = run.totals.get(name)
            within = total is not None and bool(known) and min(known) <= total <= max(known)
        else:
            within = band.issuperset(_keys(difference))
        if (place := _place(difference)) in balance:
            known = [0, *(other[place] for other in balances)]
            within = within and min(known) <= balance[place] <= max(known)
        (noise if within else regressions).append(difference)
    return Judgement(len(baseline), tuple(regressions), tuple(noise))


def _place(difference: Difference) -> Hashable:
    item = difference.a or difference.b
    return None if item is None else (difference.stream, difference.what, item.turn)


def _balance(differences: Iterable[Difference]) -> Counter[Hashable]:
    """Return how many texts more than the reference each place has. Another wording is one text removed and one added."""
    balance = Counter[Hashable]()
    for difference in differences:
        if difference.what in _WORDING and difference.kind in ("added", "removed"):
            balance[_place(difference)] += 1 if difference.kind == "added" else -1
    return balance


def _keys(difference: Difference) -> Iterator[Hashable]:
    """Yield the allowances that a difference needs, or that it gives if a baseline run has it."""
    item = difference.a or difference.b
    if item is None or difference.kind == "volatile":
        return
    place = (difference.stream, difference.what, item.turn)
    if difference.kind == "moved":
        yield ("order", *place)
    elif difference.what in _WORDING and (
        difference.kind != "changed" or {c.path for c in difference.changes} == {difference.what}
    ):
        yield ("wording", *place)
    elif difference.kind == "changed":
        yield from (("path", *place, item.key, change.path) for change in difference.changes)
    else:
        yield (difference.kind, *place, item.key)
