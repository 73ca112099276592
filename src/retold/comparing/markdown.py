"""A comparison as Markdown, made for comments on a change. Recorded text appears only inside fenced blocks."""

import re

from ..recorder.words import clean
from .compare import Comparison
from .text import LIMIT, DiffLine, heading, lines_of, repeated, summary, total_name, total_rows

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&:-])")


def as_markdown(comparison: Comparison, *, limit: int | None = LIMIT) -> str:
    """Return the comparison as GitHub-flavoured Markdown. With `limit` None it contains all differences."""
    parts = [f"### {plain(summary(comparison))}", f"A: {plain(comparison.a.title)}  \nB: {plain(comparison.b.title)}"]
    if comparison.first is not None:
        parts.append(f"First divergence: {plain(heading(comparison.first))}")
    found = [difference for difference in comparison.differences if difference.what != "totals"]
    grouped = list(repeated(found))
    for difference, more in grouped[:limit]:
        lines = [text for line in lines_of(difference) for text in _diff_lines(line)]
        again = f" (and {more:,} more like it)" if more else ""
        parts.append(f"**{plain(heading(difference))}**{again}\n\n{fenced(lines)}")
    if limit is not None and len(grouped) > limit:
        parts.append(f"… and {len(grouped) - limit:,} more.")
    if not comparison.same:
        rows = [f"| {name} | {a} | {b} | {how} |" for name, a, b, how in _totals(comparison)]
        parts.append("\n".join(["| totals | A | B | |", "|---|--:|--:|---|", *rows]))
    if comparison.not_compared:
        parts.append(f"Not compared, because only one side has it: {', '.join(comparison.not_compared)}.")
    return "\n\n".join(parts)


def _totals(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    return [(f"`{total_name(total)}`", plain(a), plain(b), plain(how)) for total, a, b, how in total_rows(comparison)]


def _diff_lines(line: DiffLine) -> list[str]:
    """Return a line in the form of a diff block: the old text after `-`, the new text after `+`."""
    before = "".join(text for tag, text in line.stretches if tag != "added")
    after = "".join(text for tag, text in line.stretches if tag != "removed")
    head = f"{line.path}: " if line.path else ""
    tags = {tag for tag, _ in line.stretches}
    if tags <= {"equal"}:
        return _signed("  ", head + after)
    return [
        *(_signed("- ", head + before) if "removed" in tags or "equal" in tags else []),
        *(_signed("+ ", head + after) if "added" in tags or "equal" in tags else []),
    ]


def _signed(sign: str, text: str) -> list[str]:
    return [sign + part for part in text.split("\n")]


def fenced(lines: list[str], language: str = "diff") -> str:
    """Return a block with a fence longer than any in it, so that none of its content is Markdown."""
    longest = max((len(ticks) for line in lines for ticks in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])


def plain(text: str) -> str:
    """Return text with the special characters of Markdown escaped."""
    return _SPECIAL.sub(r"\\\1", clean(text).replace("\n", " "))
