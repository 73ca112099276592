"""Where two JSON values differ, one line a place, for the report of a miss."""

from typing import Any

from ...recorder import strict_json
from .redacted import fits

_SHOWN_CHARS = 60


def differences(recorded: Any, wanted: Any, path: str = "") -> list[str]:
    """Return where two JSON values differ, one line a place: `messages[0].content: recorded "…", now "…"`."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        found = []
        for key in [*recorded, *(key for key in wanted if key not in recorded)]:
            inner = key if path in ("", "body") else f"{path}.{key}"
            if key not in wanted:
                found.append(f"{inner}: recorded {_shown(recorded[key])}, now missing")
            elif key not in recorded:
                found.append(f"{inner}: not recorded, now {_shown(wanted[key])}")
            else:
                found += differences(recorded[key], wanted[key], inner)
        return found
    if isinstance(recorded, list) and isinstance(wanted, list):
        found = []
        for number, (one, other) in enumerate(zip(recorded, wanted, strict=False)):
            found += differences(one, other, f"{path}[{number}]")
        for number in range(len(wanted), len(recorded)):
            found.append(f"{path}[{number}]: recorded {_shown(recorded[number])}, now missing")
        for number in range(len(recorded), len(wanted)):
            found.append(f"{path}[{number}]: not recorded, now {_shown(wanted[number])}")
        return found
    if recorded == wanted and isinstance(recorded, bool) == isinstance(wanted, bool):
        return []
    if isinstance(recorded, str) and isinstance(wanted, str):
        if fits(recorded, wanted):
            return []
        start = _common(recorded, wanted)
        return [f"{path}: recorded {_shown(recorded, start)}, now {_shown(wanted, start)}"]
    return [f"{path}: recorded {_shown(recorded)}, now {_shown(wanted)}"]


def _common(one: str, other: str) -> int:
    """Return the length of the common prefix, by bisection: comparing slices is a hundred times as fast as comparing
    characters.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _shown(value: Any, start: int = 0) -> str:
    """Return a value as one short line. Of a long text it shows the part around the first difference."""
    text = value if isinstance(value, str) else strict_json.dumps(value)
    begin = max(0, start - 20)
    part = text[begin : begin + _SHOWN_CHARS]
    part = ("…" if begin else "") + part + ("…" if begin + _SHOWN_CHARS < len(text) else "")
    return strict_json.dumps(part) if isinstance(value, str) else part
