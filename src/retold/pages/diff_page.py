"""The page of a comparison: two columns that are aligned, the words that changed marked, and the totals."""

from typing import Any

from ..diff.lines import amount, heading, noun, summary, total_name
from ..diff.text import as_text
from ..recorder import strict_json
from ..replay.compare import Comparison, Row
from ..replay.items import Item
from ..replay.words import weave
from .assemble import page

WHOLE = frozenset({"text", "thinking", "prompt", "history", "tool_result"})
"""Kinds whose text is woven as a whole; of the others the places that differ are shown."""

MAX_WOVEN_CHARS = 2_000_000
"""Of two longer texts no words are compared."""


def diff_page(comparison: Comparison, *, home: str | None = None) -> str:
    """A comparison as one HTML file that needs nothing else; `home` is where a server lists its runs."""
    data = diff_data(comparison) | ({} if home is None else {"home": home})
    return page("diff", title="A difference · retold", data=data, plain=as_text(comparison))


def diff_data(comparison: Comparison) -> dict[str, Any]:
    """What the page shows: each row of the alignment, of equal ones the text once."""
    first = comparison.first
    return {
        "same": comparison.same,
        "summary": summary(comparison),
        "first": None if first is None else heading(first),
        "a": {"title": comparison.a.title},
        "b": {"title": comparison.b.title},
        "totals": [
            {"name": total_name(t), "a": amount(t.name, t.a), "b": amount(t.name, t.b), "differs": t.differs, "counts": t.counts}
            for t in comparison.totals
            if t.a is not None or t.b is not None
        ],
        "unknown": list(comparison.not_compared),
        "streams": [{"label": pair.label, "rows": [_row(row) for row in pair.rows]} for pair in comparison.pairs],
        "counted": [pair.counted for pair in comparison.pairs],
    }


def _row(row: Row) -> dict[str, Any]:
    """A row: what it is, the turn on either side, and what stood and stands there."""
    found: dict[str, Any] = {"k": row.kind, "of": row.item.kind, "name": noun(row.item.kind, row.item)}
    found |= {"a": row.a.turn} if row.a is not None else {}
    found |= {"b": row.b.turn} if row.b is not None else {}
    found |= {} if row.counts else {"ignored": True}
    if row.kind != "changed" or row.a is None or row.b is None:
        return found | {"text": shown(row.item)}
    if row.item.kind in WHOLE and len(row.a.text) + len(row.b.text) <= MAX_WOVEN_CHARS:
        found["woven"] = [list(stretch) for stretch in weave(row.a.text, row.b.text)]
        places = [change for change in row.changes if change.path not in ("text", "thinking", "content")]
    else:
        places = list(row.changes)
    found["places"] = [{"path": change.path, "woven": _woven(change.a, change.b, change.kind)} for change in places]
    return found


def _woven(a: Any, b: Any, kind: str) -> list[list[str]]:
    before, after = ("" if kind == "added" else _json(a)), ("" if kind == "removed" else _json(b))
    if len(before) + len(after) > MAX_WOVEN_CHARS:
        return [["removed", before], ["added", after]]
    return [list(stretch) for stretch in weave(before, after)]


def shown(item: Item) -> str:
    """All that a person may want to read of an item."""
    if item.kind in WHOLE:
        return item.text
    if item.kind == "answer":
        return ", ".join(f"{key} {_json(value)}" for key, value in item.value.items() if value is not None)
    return _json(item.value.get("input") if item.kind == "tool_use" else item.value)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else strict_json.dumps(value, indent=2)
