"""JSON as RFC 8259 defines it. Python writes and reads NaN and Infinity, which other parsers refuse.

A number that JSON cannot hold (NaN in an imported line, `1e999`) is written as null, as JSON.stringify writes it. Frames
are never written through this module, because they keep their bytes.
"""

import json
import math
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any


def dumps(
    value: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False,
    ensure_ascii: bool = False, default: Any = None,
) -> str:  # fmt: skip
    """Return a value as JSON text. Raise TypeError and RecursionError like json.dumps."""
    write = _writer(indent, separators, sort_keys, ensure_ascii, default)
    try:
        return write(value)
    except ValueError:
        return write(finite(value))


@lru_cache(maxsize=32)
def _writer(
    indent: int | None, separators: tuple[str, str] | None, sort_keys: bool, ensure_ascii: bool, default: Any
) -> Callable[[Any], str]:  # fmt: skip
    """Return the encoder of some options. `json.dumps` makes a new one each time, a fourth of its time for a message."""
    return json.JSONEncoder(
        indent=indent, separators=separators, sort_keys=sort_keys, ensure_ascii=ensure_ascii, default=default, allow_nan=False
    ).encode


scanned: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""Returns the JSON value at a place of a text, and its end. Raises ValueError, RecursionError, or StopIteration at the end."""


canonical = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode
"""Returns the one text of a JSON value with finite numbers: compact, with the keys in order. Raises ValueError for NaN."""


def quoted(text: str) -> str:
    """Return a text as a JSON string, as `dumps` writes it; for lines of a fixed shape, which need no encoder of their own."""
    return encode_basestring(text)


def loads(text: str | bytes) -> Any:
    """Return the JSON value in a text. Raise as `json.loads` does, which takes twice as long for a short text."""
    try:
        whole = text.decode("utf-8", "surrogatepass") if isinstance(text, bytes) else text
        if isinstance(whole, str):
            value, end = scanned(whole, 0)
            if end == len(whole):
                return value
    except (ValueError, StopIteration):  # another encoding, space before the value, or no value
        pass
    return json.loads(text)


def object_or_empty(value: Any) -> dict[str, Any]:
    """Return a JSON object unchanged, and an empty one for any other value: data from outside may have another shape."""
    return value if isinstance(value, dict) else {}


def object_in(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a text, and an empty one if the text is not JSON or holds another value.

    A cell of a changed log may hold another type than text; that gives an empty object, too.
    """
    try:
        return object_or_empty(loads(text))
    except (ValueError, TypeError, RecursionError):
        return {}


def finite(value: Any) -> Any:
    """Return a JSON value with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {finite_key(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def finite_key(key: Any) -> Any:
    """Return a key of a JSON object; a number that is not finite becomes its name, because keys are text."""
    return str(key) if isinstance(key, float) and not math.isfinite(key) else key
