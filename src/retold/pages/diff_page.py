"""The page of a comparison: two aligned columns with the changed words marked, and the totals."""

import re
from typing import Any

from ..comparing.compare import AlignedRow, Comparison
from ..comparing.conversations import Item
from ..comparing.text import amount, as_text, heading, noun, summary, total_name
from ..comparing.value_diff import weave
from ..recorder import strict_json
from .assemble import page

WHOLE = frozenset({"text", "thinking", "prompt", "history", "tool_result"})
"""Kinds whose whole text is compared word by word. Of other kinds the page shows the places that differ."""

MAX_WOVEN_CHARS = 2_000_000
"""Two texts that are longer together are not compared word by word."""


def diff_page(comparison: Comparison, *, home: str | None = None) -> str:
    """Return a comparison as one self-contained HTML file. `home` is the address of the server's list of runs."""
    data = diff_data(comparison) | ({} if home is None else {"home": home})
    return page("diff", title="A difference · retold", data=data, plain=as_text(comparison))


def page_of(comparison: Comparison, verdict: dict[str, Any], *, plain: str) -> str:
    """Return the page of a comparison with another verdict: the keys `same`, `summary` and `first` of its data."""
    return page("diff", title="A difference · retold", data=diff_data(comparison) | verdict, plain=plain)


def diff_data(comparison: Comparison) -> dict[str, Any]:
    """Return the data of the page: all rows of the alignment. An equal row contains its text once."""
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


def _row(row: AlignedRow) -> dict[str, Any]:
    """Return a row: its kind, the turn on either side, and the old and new text."""
    found: dict[str, Any] = {"k": row.kind, "of": row.item.kind, "name": noun(row.item.kind, row.item)}
    found |= {"a": row.a.turn} if row.a is not None else {}
    found |= {"b": row.b.turn} if row.b is not None else {}
    found |= {} if row.counts else {"ignored": True}
    if row.kind != "changed" or row.a is None or row.b is None:
        return found | {"text": shown(row.item)}
    if row.item.kind in WHOLE and len(row.a.text) + len(row.b.text) <= MAX_WOVEN_CHARS:
        found["woven"] = [list(stretch) for stretch in weave(row.a.text, row.b.text)]
        places = [change for change in row.changes if re.split(r"[\[.]", change.path)[0] not in ("text", "thinking", "content")]
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
    """Return the readable content of an item."""
    if item.kind in WHOLE:
        return item.text
    if item.kind == "answer":
        return ", ".join(f"{key} {_json(value)}" for key, value in item.value.items() if value is not None)
    return _json(item.value.get("input") if item.kind == "tool_use" else item.value)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else strict_json.dumps(value, indent=2)
