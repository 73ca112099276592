"""Lay out JSON bodies over many lines, so that a line-based diff shows the changed part.

`lay_out` returns the indented text and the name of the layout that restores the exact bytes. It returns None for a body that
no layout restores (other spacing, repeated keys, numbers or escapes in another spelling), and for a body that fits on one line.
"""

import json
from typing import Any

LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"separators": (", ", ": "), "ensure_ascii": True},
    "compact-ascii": {"separators": (",", ":"), "ensure_ascii": True},
    "spaced-unicode": {"separators": (", ", ": "), "ensure_ascii": False},
}
"""Names of layouts, and the options of `json.dumps` that produce them."""

SHORT = 80
"""Characters of the longest body that stays on one line."""

_ERRORS = (ValueError, RecursionError)


def lay_out(body: bytes, *, short: int = SHORT) -> tuple[str, str] | None:
    """Return the indented text of a JSON body and the name of its layout; None if the bytes cannot be restored from it."""
    if len(body) <= short or body[:1] not in (b"{", b"["):
        return None
    try:
        value = json.loads(body.decode())
        for name, options in LAYOUTS.items():
            if json.dumps(value, **options).encode("utf-8", "surrogatepass") == body:
                text = json.dumps(value, indent=1, ensure_ascii=options["ensure_ascii"] and _has_surrogate(value))
                return (text, name) if restore(text, name) == body else None
    except _ERRORS:
        return None
    return None


def _has_surrogate(value: Any) -> bool:
    """Return whether a value holds half of a surrogate pair, which only an escape can spell."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def restore(text: str, layout: str) -> bytes:
    """Return the original bytes of a laid-out body. Raise ValueError for text that is not JSON, or for an unknown layout."""
    options = LAYOUTS.get(layout)
    if options is None:
        raise ValueError(f"unknown body_layout {layout!r}; one of {', '.join(LAYOUTS)}")
    return json.dumps(json.loads(text), **options).encode()
