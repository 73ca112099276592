"""Noise or regression: learn from several baseline runs what varies, and judge a run by it.

All baseline runs are judged by alike: their conversations are paired with those of the runs before, and the items of a
conversation get a band (band.py). A total may exceed the baseline runs by as much as they differ among themselves, because a sum
of varying texts has no sharp bounds; the number of turns may not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..comparing.compare import (
    Comparison,
    Difference,
    Pair,
    compare_sides,
    has_exchanges,
    paired,
    unknown_kinds,
    unknown_of_exchanges,
)
from ..comparing.conversations import KINDS, Stream
from ..comparing.focus import EVERYTHING, Focus
from ..comparing.reading import Side
from ..comparing.text import NOUN, amount, summary_of
from ..comparing.totals import TIMES, TOTALS
from ..recorder.errors import InputError
from ..recorder.words import clean, plural
from .band import Band, Deviation

SHARP = ("turns",)
"""Totals that may not exceed the baseline runs."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on a run: the number of baseline runs, and the deviations from their band.

    `noise` are the differences from the first baseline run that lie within the band. `comparison` compares the run with the
    first baseline run; only its rows with a regression count.
    """

    runs: int
    regressions: tuple[Deviation, ...]
    noise: tuple[Difference, ...]
    comparison: Comparison
    conversations: tuple[str, ...]
    not_compared: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether every deviation lies within the band."""
        return not self.regressions

    @property
    def verdict(self) -> str:
        """The verdict in one line, with the number of runs."""
        found = plural(len(self.regressions), "regression") if self.regressions else "no regression"
        return f"{found}: judged by {self.runs} baseline runs, {plural(len(self.noise), 'difference')} within their band"

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON: `same`, `runs`, `regressions`, `noise` and `not_compared`."""
        return {
            "same": self.same,
            "runs": self.runs,
            "regressions": [deviation.as_dict() for deviation in self.regressions],
            "noise": [difference.as_dict() for difference in self.noise],
            "not_compared": list(self.not_compared),
        }

    def as_text(self, limit: int | None = None) -> str:
        """Return the verdict as lines of text, with at most `limit` regressions."""
        lines = [self.verdict]
        for deviation in self.regressions[:limit]:
            lines += ["", place_of(deviation), *(f"    {line}" for line in lines_of(deviation))]
        left = 0 if limit is None else len(self.regressions) - limit
        lines += ["", f"  … and {left} more; --limit 0 prints all"] if left > 0 else []
        if self.not_compared:
            lines += ["", f"not compared, because only some of the runs have it: {', '.join(self.not_compared)}"]
        return "\n".join(lines)


def place_of(deviation: Deviation) -> str:
    """Return the place of a deviation in words: `turn 2, tool call Read, input.path`."""
    if deviation.what == "totals":
        return f"total {deviation.name.removesuffix('_ms').removesuffix('_usd')}"
    what = {"tool_result error": "failed calls of"}.get(deviation.what, NOUN.get(deviation.what, deviation.what))
    parts = [deviation.stream, f"turn {deviation.turn}" if deviation.turn else "", f"{what} {deviation.name}".strip()]
    return clean(", ".join(filter(None, [*parts, deviation.path])))


def lines_of(deviation: Deviation) -> Iterator[str]:
    """Yield the difference, and the content of an item that is missing or new."""
    yield clean(deviation.message)
    if deviation.item is not None and deviation.kind in ("missing", "added"):
        yield summary_of(deviation.item)


def judge(baseline: Sequence[Side], run: Side, focus: Focus = EVERYTHING) -> Judgement:
    """Judge a run by two or more baseline runs. Raise InputError for fewer, because one run shows no variation."""
    if len(baseline) < 2:
        raise InputError("one baseline run shows no variation. Give two or more before the run.")
    sides = [*baseline, run]
    unknown = frozenset(kind for side in sides for kind in unknown_kinds(sides[0], side))
    of_exchanges = frozenset(kind for side in sides for kind in unknown_of_exchanges(sides[0], side))
    found: list[Deviation] = []
    conversations = list(_conversations(sides))
    for label, streams in conversations:
        left_out = unknown | of_exchanges if all(has_exchanges(stream) for stream in streams if stream) else unknown
        items = [[item for item in stream.items if item.kind not in left_out] if stream else [] for stream in streams]
        found += Band(label, items[:-1], focus).judge(items[-1])
    found += _totals(baseline, run, focus)
    compared = compare_sides(baseline[0], run, focus)
    outside = {id(deviation.item) for deviation in found if deviation.item is not None}
    totals = {deviation.name for deviation in found if deviation.what == "totals"}
    noise = tuple(
        difference
        for difference in compared.differences
        if not outside & {id(difference.a), id(difference.b)}
        and not (difference.what == "totals" and difference.changes[0].path in totals)
    )
    pairs = tuple(
        Pair(pair.label, tuple(row._replace(counts=bool(outside & {id(row.a), id(row.b)})) for row in pair.rows))
        for pair in compared.pairs
    )
    compared = replace(compared, pairs=pairs)
    labels = tuple(label for label, _ in conversations)
    not_compared = tuple(kind for kind in KINDS if kind in unknown | of_exchanges)
    return Judgement(len(baseline), tuple(found), noise, compared, labels, not_compared)


def _conversations(sides: Sequence[Side]) -> Iterator[tuple[str, list[Stream | None]]]:
    """Yield the conversations of all sides: a name, and the stream of each side, None if it has none."""
    known: list[list[Stream | None]] = []
    labels: list[str] = []
    for number, side in enumerate(sides):
        heads = [next(filter(None, streams)) for streams in known]
        places = {id(head): at for at, head in enumerate(heads)}
        for label, head, stream in paired(heads, side.streams):
            if head is None:
                labels.append(label)
                known.append([None] * number)
            at = len(known) - 1 if head is None else places[id(head)]
            known[at].append(stream)
        for streams in known:
            streams += [None] * (number + 1 - len(streams))
    yield from zip(labels, known, strict=True)


def _totals(baseline: Sequence[Side], run: Side, focus: Focus) -> Iterator[Deviation]:
    """Yield the totals outside of the band. A total that the run or every baseline run lacks is not compared."""
    for name in TOTALS:
        value = run.totals.get(name)
        known = [total for side in baseline if (total := side.totals.get(name)) is not None]
        tolerance = focus.tolerance.get(name)
        if value is None or not known or not focus.counts("totals", name) or (name in TIMES and tolerance is None):
            continue
        low, high = min(known), max(known)
        spread = 0 if name in SHARP else high - low
        nearest = min(max(value, low), high)
        within = low - spread <= value <= high + spread or (tolerance is not None and tolerance.allows(value, nearest))
        band = amount(name, low) + (f" to {amount(name, high)}" if high != low else "")
        if not within:
            yield Deviation("total", "totals", "", 0, name, "", f"{amount(name, value)}; the baseline runs have {band}")
