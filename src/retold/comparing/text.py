"""A comparison as text for a terminal: removed text in [-…-], added text in {+…+}, in colour if the terminal has it."""

from collections.abc import Iterator

from ..handlers.text import indent
from ..recorder.words import clean
from .compare import Comparison
from .lines import DiffLine, heading, lines_of, repeated, summary, total_name, total_rows
from .word_diff import Stretch

LIMIT = 50
"""The number of differences written by default."""

_COLOURS = {"removed": "\x1b[31m", "added": "\x1b[32m"}
_MARKS = {"removed": ("[-", "-]"), "added": ("{+", "+}"), "equal": ("", "")}


def as_text(comparison: Comparison, *, colour: bool = False, limit: int | None = LIMIT) -> str:
    """Return the comparison for a person. With `limit` None it contains all differences."""
    lines = [f"A  {clean(comparison.a.title)}", f"B  {clean(comparison.b.title)}"]
    lines += _differences(comparison, colour, limit)
    if not comparison.same or any(difference.kind == "volatile" for difference in comparison.differences):
        lines += _totals(comparison)
    if comparison.not_compared:
        lines += ["", f"not compared, because only one side has it: {', '.join(comparison.not_compared)}"]
    return "\n".join([*lines, "", summary(comparison)])


def _differences(comparison: Comparison, colour: bool, limit: int | None) -> Iterator[str]:
    found = [difference for difference in comparison.differences if difference.what != "totals"]
    if comparison.first is not None:
        yield ""
        yield f"first divergence: {heading(comparison.first)}"
    grouped = list(repeated(found))
    for difference, more in grouped[:limit]:
        yield ""
        yield _bold(heading(difference), colour)
        for line in lines_of(difference):
            yield f"    {indent(_woven(line, colour), 4)}"
        if more:
            yield f"    (and {more:,} more like it)"
    if limit is not None and len(grouped) > limit:
        yield ""
        yield f"… and {len(grouped) - limit:,} more; --limit 0 writes out all, --format json too"


def marked(line: DiffLine) -> str:
    """Return a line with removed text in [-…-] and added text in {+…+}."""
    return _woven(line, colour=False)


def _woven(line: DiffLine, colour: bool) -> str:
    text = "".join(_marked(stretch, colour) for stretch in line.stretches)
    return f"{line.path}: {text}" if line.path else text


def _marked(stretch: Stretch, colour: bool) -> str:
    before, after = _MARKS[stretch.tag]
    text = f"{before}{stretch.text}{after}"
    return f"{_COLOURS[stretch.tag]}{text}\x1b[0m" if colour and stretch.tag in _COLOURS else text


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text


def _totals(comparison: Comparison) -> Iterator[str]:
    rows = [("totals", "A", "B", ""), *((total_name(total), a, b, how) for total, a, b, how in total_rows(comparison))]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    yield ""
    for name, a, b, how in rows:
        yield f"{name:{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}  {how}".rstrip()
