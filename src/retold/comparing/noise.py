"""Noise or regression: learn from several baseline runs which items vary, and judge a run by it.

The first baseline run is the reference. The differences of the other baseline runs from it form the band. A difference of the
judged run from the reference is noise if the band allows it, else a regression. A text that varies in a turn may have any
wording there. Of any other item, only the paths that varied may differ. An item may be absent or added only if a baseline run
lacked or added the same one. Items of one kind and turn may change places if the baseline runs ordered them differently. A
total may lie between the smallest and the largest one of the baseline.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..recorder.errors import InputError
from ..recorder.words import clean, plural
from .compare import Difference, compare_sides
from .focus import EVERYTHING, Focus
from .reading import Side

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

    def as_text(self) -> str:
        """Return the verdict as lines of text."""
        verdict = "no regression" if self.same else f"{len(self.regressions)} outside the baseline"
        lines = [f"{verdict}: judged by {self.runs} baseline runs, {plural(len(self.noise), 'difference')} within their band"]
        return "\n".join([*lines, *(f"  {clean(repr(difference))}" for difference in self.regressions)])


def judge(baseline: Sequence[Side], run: Side, focus: Focus = EVERYTHING) -> Judgement:
    """Judge a run by two or more baseline runs. Raise InputError for fewer, because one run shows no variation."""
    if len(baseline) < 2:
        raise InputError("one baseline run shows no variation. Give two or more before the run.")
    reference, *others = baseline
    found = [compare_sides(reference, other, focus).differences for other in others]
    band = {key for differences in found for difference in differences for key in _keys(difference)}
    noise: list[Difference] = []
    regressions: list[Difference] = []
    for difference in compare_sides(reference, run, focus).differences:
        if difference.kind == "volatile":
            continue
        if difference.what == "totals":
            name = difference.changes[0].path
            known = [value for side in baseline if (value := side.totals.get(name)) is not None]
            total = run.totals.get(name)
            within = total is not None and bool(known) and min(known) <= total <= max(known)
        else:
            within = band.issuperset(_keys(difference))
        (noise if within else regressions).append(difference)
    return Judgement(len(baseline), tuple(regressions), tuple(noise))


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
