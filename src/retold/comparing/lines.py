"""Describe a difference in a few lines, for text and Markdown alike, shortened to the parts that differ.

Text from a model is hostile input: control characters and marks that reorder text are made visible, and a single word of a
megabyte is cut.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..handlers.text import cut, seconds
from ..recorder import strict_json
from ..recorder.words import clean, plural
from .compare import TIMES, Comparison, Difference, Total
from .conversations import Item
from .json_diff import Change
from .word_diff import Stretch, weave

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
        return f"${value:.6f}".rstrip("0").rstrip(".") if value else "$0"
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
