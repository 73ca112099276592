"""Format text for handlers: times, lengths, and foreign text made harmless for a terminal."""

import re
from typing import Any

from ..recorder import strict_json
from ..recorder.messages import Message
from ..recorder.words import cut, indent

VALUE_CHARS = 60
"""A value of a tool's input is cut to this many characters."""

INPUT_CHARS = 160
"""The whole input of a tool is cut to this many characters."""

PROMPT_CHARS = 1000
"""A prompt is cut to this many characters."""

INCOMPLETE = " [incomplete]"
"""The mark of a text that its stream did not finish."""

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


def trouble_in(message: Message) -> str | None:
    """Return the failure that a message reports while its stream continues: a failed task, or an attempt to be repeated.

    The footer reports the failure of a whole stream.
    """
    data = message.data
    if message.type == "result" and message.task and data.get("is_error"):
        return f"ERROR: {next(iter(data.get('errors') or ()), data.get('subtype'))}"
    if message.type == "system" and message.subtype == "step_retry":
        attempt = f"attempt {int(data['attempt']) + 1} of {int(data['max_retries']) + 1}"
        return f"RETRY: {attempt} in {int(data['retry_delay_ms']) / 1000:g}s, after {data['error']}"
    return None
