"""The size of a comparison: the number of differences of each kind, by stream and kind of item, as `git diff --stat` has it."""

from collections import Counter
from typing import Any, NamedTuple

from ..recorder.words import clean
from .compare import Comparison
from .text import noun

MARKS = {"changed": "~", "added": "+", "removed": "-", "moved": ">"}
"""The sign of each kind of difference in a bar."""

LONGEST_BAR = 30


class StatLine(NamedTuple):
    """The differences of one kind of item in one stream."""

    stream: str
    what: str
    changed: int
    added: int
    removed: int
    moved: int

    def as_dict(self) -> dict[str, Any]:
        """Return the line as JSON."""
        return self._asdict()

    @property
    def total(self) -> int:
        """The number of differences."""
        return self.changed + self.added + self.removed + self.moved


def stat(comparison: Comparison) -> list[StatLine]:
    """Return a line for each stream and kind of item that differs, in their order. Volatile values do not count."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    for difference in comparison.differences:
        if difference.kind != "volatile":
            counted.setdefault((difference.stream, difference.what), Counter())[difference.kind] += 1
    return [StatLine(*place, *(kinds[kind] for kind in MARKS)) for place, kinds in counted.items()]


def bars(lines: list[StatLine]) -> list[str]:
    """Return the bar of each line: a sign for each difference, or fewer if the longest bar would be too long."""
    longest = max((line.total for line in lines), default=0)
    scale = min(1.0, LONGEST_BAR / longest) if longest else 1.0
    return ["".join(mark * _scaled(getattr(line, kind), scale) for kind, mark in MARKS.items()) for line in lines]


def _scaled(count: int, scale: float) -> int:
    return max(round(count * scale), 1) if count else 0


def rows(lines: list[StatLine]) -> list[tuple[str, ...]]:
    """Return the table of the lines, its header first. Without named streams there is no column for them."""
    has_streams = any(line.stream for line in lines)
    table: list[tuple[str, ...]] = [(*(("STREAM",) if has_streams else ()), "ITEM", *(kind.upper() for kind in MARKS), "")]
    for line, bar in zip(lines, bars(lines), strict=True):
        numbers = (str(getattr(line, kind)) for kind in MARKS)
        table.append((*((clean(line.stream),) if has_streams else ()), noun(line.what, None), *numbers, bar))
    return table
