"""The shapes that readers rely on: the types of a row's columns, and of the known fields of a payload.

Writers keep to them. A changed log or an imported file may not. Both are checked here, so that one error names the event, and
readers need not check fields. Unknown kinds and unknown fields pass through.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

_LEAST, _MOST = -(2**63), 2**63 - 1
_INTEGERS = range(_LEAST, _MOST + 1)

_TEXT, _NUMBER, _OPTIONAL_TEXT = (str,), (int,), (str, type(None))

_FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "run.started": {"name": _TEXT, "mode": _TEXT},
    "run.ended": {"status": _TEXT},
    "step.ended": {"status": _TEXT},
    "exchange.started": {
        "method": _TEXT, "uri": _TEXT, "headers": (list,), "body": (str, dict), "call": _NUMBER, "attempt": _NUMBER,
        "stamped": _TEXT, "variables": (dict,), "recorded_at": _TEXT,
    },
    "response.started": {"status": _NUMBER, "reason": _TEXT, "headers": (list,)},
    "exchange.ended": {"ending": _TEXT},
    "session.started": {"wire": _TEXT, "sdk": _TEXT, "cwd": _TEXT, "home": _TEXT},
    "session.ended": {"ending": _TEXT},
    "payloads.erased": {"run": _TEXT, "payloads": (list,)},
    "payloads.redacted": {"run": _TEXT, "payloads": (list,)},
}  # fmt: skip
"""Required fields, by kind."""

_OPTIONAL: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "run.started": {"fork": (dict,)},
    "run.ended": {"error": _OPTIONAL_TEXT},
    "step.started": {"name": _TEXT, "type": _TEXT},
    "exchange.ended": {"error": (dict, type(None)), "status": (int, type(None)), "usage": (dict, type(None)),
                       "cost_usd": (int, float, type(None)), "api_error": (dict, type(None)), "call": _NUMBER,
                       "attempt": _NUMBER},
    "session.started": {"argv": (list, type(None)), "recorded_at": _TEXT},
    "session.ended": {"error": (dict, type(None)), "exit_code": (int, type(None)), "unread": (list, type(None))},
    "message": {"type": _TEXT, "subtype": _OPTIONAL_TEXT, "usage": (dict, type(None))},
}  # fmt: skip
"""Optional fields by kind, and their types."""

KNOWN = _FIELDS.keys() | _OPTIONAL.keys()
"""The kinds whose payloads have a shape."""

STATUSES = frozenset({"completed", "failed", "cancelled", "interrupted"})
"""The possible endings of a run."""


def fault_in_row(values: tuple[Any, ...]) -> str | None:
    """Return the name of the first column in an event's row with a type or a size that is never written, or None.

    The order is that of `Event`; a payload is text or bytes.
    """
    if tuple(map(type, values)) in _ROWS:
        _, seq, t_ns, wall_ns, _, _, _, exchange, _, _, _, schema = values
        few = _LEAST <= seq <= _MOST and _LEAST <= (exchange or 0) <= _MOST and _LEAST <= schema <= _MOST
        if few and _LEAST <= t_ns <= _MOST and _LEAST <= wall_ns <= _MOST:
            return None
    for column, value in zip(_COLUMNS, values, strict=True):
        if type(value) not in _COLUMNS[column] or (isinstance(value, int) and value not in _INTEGERS):
            return column
    return None


_COLUMNS: Mapping[str, tuple[type, ...]] = {
    "run": _TEXT, "seq": _NUMBER, "t_ns": _NUMBER, "wall_ns": _NUMBER, "kind": _TEXT, "step": _TEXT, "task": _TEXT,
    "exchange": (int, type(None)), "payload": (str, bytes), "digest": (bytes,), "hash": (bytes,), "schema": _NUMBER,
}  # fmt: skip


_ROWS = frozenset(product(*_COLUMNS.values()))
"""The types of all columns, for each row that is written: a look into this set is faster than one at each column."""


def fault_in_payload(kind: str, data: Any) -> str | None:
    """Return the fault of a payload as a sentence without a subject, or None if the payload has its shape."""
    if not isinstance(data, dict):
        return "is not a JSON object"
    for field, types in _FIELDS.get(kind, {}).items():
        if not _fits(data.get(field), types):
            return f"has no usable {field!r}"
    for field, types in _OPTIONAL.get(kind, {}).items():
        if field in data and not _fits(data[field], types):
            return f"has no usable {field!r}"
    if kind == "message":
        return _fault_in_message(data)
    if kind == "run.ended" and data["status"] not in STATUSES:
        return f"ends with no known status: {data['status'][:40]!r}"
    if not all(_is_pair(pair) for pair in data.get("headers", ()) if kind in ("exchange.started", "response.started")):
        return "has headers that are not pairs of texts"
    if kind == "exchange.ended" and data.get("error") and not _fits_failure(data["error"]):
        return "has an error without type and message"
    if kind == "exchange.started" and isinstance(data["body"], dict) and not isinstance(data["body"].get("base64"), str):
        return "has no usable 'body'"
    return None


def _fault_in_message(data: dict[str, Any]) -> str | None:
    if data.get("type") not in ("assistant", "user"):
        return None
    inner = data.get("message", {})
    if not isinstance(inner, dict):
        return "is a message whose 'message' is not an object"
    content = inner.get("content", [])
    if isinstance(content, str):
        return None
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        return "is a message whose content is neither text nor a list of content blocks"
    return None


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    return type(value) in types


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)


def _fits_failure(error: dict[str, Any]) -> bool:
    return error.keys() == {"type", "message"} and all(isinstance(value, str) for value in error.values())
