"""Format text for handlers: times, lengths, and foreign text made harmless for a terminal."""

import math
import re
import time
from typing import Any

from ..recorder import strict_json


def clock(wall_ns: int) -> str:
    """Return nanoseconds since the epoch as the local time of day, `HH:MM:SS`."""
    return time.strftime("%H:%M:%S", time.localtime(wall_ns / 1e9))


def seconds(duration_ns: int) -> str:
    """Return a duration in nanoseconds as `3.2s`, or from a minute on as `2m 05s`."""
    if duration_ns < 60_000_000_000:
        return f"{duration_ns / 1e9:.1f}s"
    minutes, rest = divmod(round(duration_ns / 1e9), 60)
    return f"{minutes}m {rest:02d}s"


def dollars(cost: float) -> str:
    """Return `$0.0123`. A cost below a hundredth of a cent gets as many digits as it takes to show one."""
    return f"${cost:.{4 if cost == 0 or cost >= 0.00005 else -math.floor(math.log10(cost))}f}"


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters, followed by `...` if there are more."""
    return text if len(text) <= limit else text[:limit] + "..."


VALUE_CHARS = 60
"""A value of a tool's input is cut to this many characters."""

INPUT_CHARS = 160
"""The whole input of a tool is cut to this many characters."""

_PLAIN = re.compile(r'[^\s"=]+')


def arguments(given: Any) -> str:
    """Return the input of a tool as `path=notes.txt limit=3`. A text with spaces is quoted; long values are cut."""
    if not isinstance(given, dict):
        return cut(strict_json.dumps(given), INPUT_CHARS)
    return cut(" ".join(f"{key}={_value(value)}" for key, value in given.items()), INPUT_CHARS)


def _value(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return cut(value, VALUE_CHARS)
    return cut(strict_json.dumps(value), VALUE_CHARS)


def indent(text: str, width: int) -> str:
    """Return the text with all lines after the first indented."""
    return text.replace("\n", "\n" + " " * width)


LABELS = (
    "ASSISTANT:", "TOOL USE:", "TOOL RESULT:", "USER:", "THINKING:", "STEP:", "ERROR:", "RETRY:", "===", "✓ ", "✗ ", "0 of ",
    "Messages  ", "Tokens  ", "Cost  ", "Duration  ", "Average per message  ", "Time to first message  ", "retold:",
)  # fmt: skip
"""The beginnings of retold's own lines, after their time."""

_LIKE_OWN = re.compile(rf"\n(?=(?:\[\d\d:\d\d:\d\d\] )?(?:{'|'.join(map(re.escape, LABELS))}))")


def under(text: str, width: int) -> str:
    """Return text with further lines that cannot be mistaken for retold's own.

    Under a head of `width` characters all further lines are indented by `width`. Without a head, only lines that begin like
    retold's own are indented, by 2.
    """
    return indent(text, width) if width else _LIKE_OWN.sub("\n  ", text)
