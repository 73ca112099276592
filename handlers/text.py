"""Format text for handlers: times, lengths, and foreign text made harmless for a terminal."""

import re
from typing import Any

from ..recorder import strict_json
from ..recorder.words import cut, indent

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
