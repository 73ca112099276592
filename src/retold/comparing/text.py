"""A comparison as text for a terminal: removed text in [-…-], added text in {+…+}, in colour if the terminal has it.

Text and Markdown alike describe a difference in a few lines (`lines_of`), shortened to the parts that differ. Text from a model
is hostile input: control characters and marks that reorder text are made visible, and a single word of a megabyte is cut.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..recorder import strict_json
from ..recorder.words import clean, cut, indent, plural, seconds
from .compare import Comparison, Difference
from .conversations import Item
from .totals import TIMES, Total
from .value_diff import Change, Stretch, weave

CONTEXT = 40
"""The number of equal characters shown on either side of a change."""

LONGEST = 300
"""The number of characters shown of one change."""

MOST_PLACES = 20
"""The number of places shown of one item."""

MOST_STRETCHES = 24
"""The number of stretches shown of one text."""

NOUN = {
    "tool_use": "tool call",
    "tool_result": "tool result",
    "answer": "end of answer",
    "init": "session",
    "history": "earlier answer",
    "system": "system message",
}
"""Names of kinds of items, if they differ from the kind."""


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a difference: the place, and the stretches of its old and new text."""

    path: str
    stretches: tuple[Stretch, ...]


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


def heading(difference: Difference) -> str:
    """Return `turn 2, tool call Read, changed`, preceded by the stream."""
    if difference.what == "totals":
        return f"total {_name(difference.changes[0].path)}, changed"
    item = difference.a or difference.b
    parts = [clean(difference.stream)] if difference.stream else []
    if item is not None and item.turn:
        parts.append(f"turn {item.turn}")
    parts.append(noun(difference.what, item))
    if difference.kind == "moved" and difference.b is not None and item is not None and difference.b.turn != item.turn:
        return f"{', '.join(parts)}, moved to turn {difference.b.turn}"
    return f"{', '.join(parts)}, {'differs in volatile values' if difference.kind == 'volatile' else difference.kind}"


def noun(what: str, item: Item | None) -> str:
    """Return the name of an item, such as `tool call Read`."""
    name = item.value.get("name") if item is not None and what == "tool_use" else None
    return f"{NOUN.get(what, clean(what))}{' ' + cut(clean(str(name)), 60) if name else ''}"


def lines_of(difference: Difference) -> Iterator[DiffLine]:
    """Yield one line for each place that differs. An item that only one side has is one line."""
    if difference.kind in ("changed", "volatile"):
        for change in difference.changes[:MOST_PLACES]:
            yield _line(change)
        if len(difference.changes) > MOST_PLACES:
            yield DiffLine("", (Stretch("equal", f"… and {len(difference.changes) - MOST_PLACES:,} more places"),))
        return
    item = difference.a or difference.b
    if item is not None and difference.kind != "moved":
        tag = "removed" if difference.kind == "removed" else "added"
        yield DiffLine("", (Stretch("removed" if tag == "removed" else "added", _short(_summary(item))),))
    elif item is not None:
        yield DiffLine("", (Stretch("equal", _short(_summary(item), 2 * CONTEXT)),))


def summary_of(item: Item) -> str:
    """Return the content of an item as one line of limited length."""
    return _short(_summary(item))


def _summary(item: Item) -> str:
    """Return the part of an item that a person needs: the input of a call, the non-empty fields of an ending."""
    match item.kind:
        case "tool_use":
            return strict_json.dumps(item.value.get("input"))
        case "answer":
            return ", ".join(f"{key} {shown(value)}" for key, value in item.value.items() if value is not None)
    return item.text


def _line(change: Change) -> DiffLine:
    path = clean(change.path)
    if change.kind == "changed" and isinstance(change.a, str) and isinstance(change.b, str):
        return DiffLine("" if path in ("text", "thinking", "content") else path, tuple(shortened(weave(change.a, change.b))))
    removed = () if change.kind == "added" else (Stretch("removed", shown(change.a)),)
    added = () if change.kind == "removed" else (Stretch("added", shown(change.b)),)
    return DiffLine(path, (*removed, *added))


def shown(value: Any) -> str:
    """Return a JSON value as one line of limited length."""
    return _short(strict_json.dumps(value))


def _short(text: str, limit: int = LONGEST) -> str:
    if len(text) <= limit:
        return clean(text)
    return clean(f"{text[: limit - 50]}… ({len(text) - limit:,} more characters) …{text[-50:]}")


def shortened(stretches: list[Stretch]) -> Iterator[Stretch]:
    """Yield the stretches of a text, with equal stretches cut to CONTEXT characters next to a change."""
    last = len(stretches) - 1
    for number, (tag, text) in enumerate(stretches):
        if number >= MOST_STRETCHES:
            rest = sum(stretch.tag != "equal" for stretch in stretches[number:])
            if rest:
                yield Stretch("equal", f" … and {rest} more changes in this text")
            return
        if tag != "equal":
            yield Stretch(tag, _short(text))
            continue
        before = "" if number == 0 else text[:CONTEXT]
        after = "" if number == last else text[-CONTEXT:]
        yield Stretch(tag, clean(text if len(text) <= len(before) + len(after) + 10 else f"{before}…{after}"))


def total_rows(comparison: Comparison) -> list[tuple[Total, str, str, str]]:
    """Return the totals that at least one side has: (total, a, b, how they compare)."""
    return [
        (total, amount(total.name, total.a), amount(total.name, total.b), _compared(total))
        for total in comparison.totals
        if total.a is not None or total.b is not None
    ]


def amount(name: str, value: float | None) -> str:
    """Return a total in its own unit."""
    if value is None:
        return "unknown"
    if name == "cost_usd":
        digits = 6 if abs(value) >= 0.001 else 8
        return f"${value:.{digits}f}".rstrip("0").rstrip(".")
    if name in TIMES:
        return f"{value:,.0f} ms" if value < 1000 else seconds(round(value * 1e6))
    return f"{value:,.0f}"


def total_name(total: Total) -> str:
    """Return the name of a total without its unit, as a tolerance uses it."""
    return _name(total.name)


def _name(total: str) -> str:
    return total.removesuffix("_ms").removesuffix("_usd")


def _compared(total: Total) -> str:
    if total.a is None or total.b is None or total.a == total.b:
        return ""
    change = "" if not total.a else f"{(total.b - total.a) / total.a:+.1%}"
    return change if total.counts else f"{change} not counted".strip()


def summary(comparison: Comparison) -> str:
    """Return `3 differences: 2 changed, 1 added; 297 items the same`."""
    kinds = Counter(difference.kind for difference in comparison.differences if difference.kind != "volatile")
    equal = plural(sum(pair.counted["equal"] for pair in comparison.pairs), "item") + " the same"
    if not kinds:
        return f"no difference: {equal}"
    said = ", ".join(f"{kinds[kind]} {kind}" for kind in ("changed", "added", "removed", "moved") if kinds[kind])
    return f"{plural(kinds.total(), 'difference')}: {said}; {equal}"


def repeated(differences: list[Difference]) -> Iterator[tuple[Difference, int]]:
    """Yield each difference with the number of later turns in which the same change occurs."""
    times: dict[object, int] = {}
    firsts: dict[object, Difference] = {}
    for number, difference in enumerate(differences):
        key: object = number
        if difference.kind == "changed" and difference.what != "totals":
            key = (difference.what, difference.stream, repr(difference.changes))
        firsts.setdefault(key, difference)
        times[key] = times.get(key, -1) + 1
    yield from ((difference, times[key]) for key, difference in firsts.items())
