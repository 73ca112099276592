"""Read the messages in lines of stream-json, as written by Claude Code, the Agent SDK or `retold show --json`.

A long session repeats a shape of line: an answer that is one text. Parsing it makes ten objects, of which a comparison uses two,
the text and the id of its message. So the shape of such a line becomes a regular expression that finds both in the next lines.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from ..formats.stream_json import unwrapped
from ..recorder.errors import InputError
from ..recorder.strict_json import scanned

Said = tuple[object, str]
"""An answer of the main conversation that is one text: the id of its message, or None, and the text."""

PIECE = 1 << 17
"""The number of characters that are read at once, up to the end of a line."""

ENOUGH = 100
"""The number of lines in a piece that are worth a new shape: to make one costs about as much as to parse them."""

LONGEST = 4_000
"""The largest number of characters that a shape has beside the text."""

_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<is_key>\s*:)?|(?P<number>-?[0-9][-+.0-9eE]*)|.', re.DOTALL)
_PLAIN = r'[^"\\\x00-\x1f]*'
_ESCAPED = rf'{_PLAIN}(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{{4}}){_PLAIN})*'
_NUMBER = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?"
_OTHER = "(.*\n|.+)"


def said_in(data: Mapping[str, Any]) -> Said | None:
    """Return the text of a complete answer of the main conversation that has nothing else, None for any other message."""
    if data.get("type") != "assistant" or data.get("parent_tool_use_id") or "isSidechain" in data or "incomplete" in data:
        return None
    inner: Any = data.get("message")
    content = inner.get("content") if isinstance(inner, dict) else None
    if not isinstance(content, list) or len(content) != 1 or not isinstance(block := content[0], dict) or len(block) != 2:
        return None
    text = block.get("text")
    return (inner.get("id"), text) if isinstance(text, str) and block.get("type") == "text" else None


def messages_in(lines: TextIO, name: str) -> Iterator[Mapping[str, Any] | Said]:
    """Yield the messages of stream-json in order; those that are only a text may come as a `Said`. Raise InputError."""
    shape, before = re.compile(f"()(){_OTHER}"), 0
    while piece := lines.read(PIECE):
        found, likely = shape.findall(piece + lines.readline()), []
        for number, (id_, text, line) in enumerate(found, before + 1):
            if not line:
                yield id_, text if "\\" not in text else scanned(f'"{text}"', 0)[0]
                continue
            for value in _messages_of(line, name, number):
                yield value
                if said_in(value) is not None:
                    likely.append(line)
        before += len(found)
        if len(likely) >= ENOUGH:
            shape = shape_of(likely[-1]) or shape


def _messages_of(line: str, name: str, number: int) -> Iterable[dict[str, Any]]:
    """Return the message of a line, or nothing if it has none. Raise InputError."""
    try:
        value, end = scanned(line, 0)
    except (ValueError, RecursionError, StopIteration):
        value, end = None, 0
    # The usual line: one object with a type, from the first character to the line's end.
    if isinstance(value, dict) and isinstance(value.get("type"), str) and line[end:] == "\n":
        return (value if "run" not in value else _of_show(value),)
    if not line.strip():
        return ()
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}:{number}: not a line of JSON: {error}.") from error
    if (value := unwrapped(value)) is None:
        return ()
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise InputError(f"{name}:{number}: not a message of stream-json: it has no `type`.")
    return (_of_show(value),)


def _of_show(value: dict[str, Any]) -> dict[str, Any]:
    """Return the message in a line of `retold show --json`, and any other line unchanged."""
    inner = value.get("message")
    return inner if isinstance(inner, dict) and "run" in value and "seq" in value else value


def shape_of(line: str) -> re.Pattern[str] | None:
    """Return a pattern whose matches are lines: (id, text, "") if a line is like `line`, and ("", "", line) for any other one.

    Each string and each number is replaced by another one. If the comparison then reads the same, any string or number fits
    there. All other characters must be the same, keys among them. Return None if `line` is no object with a text after an id.
    """
    found = _said(line)
    if found is None or len(line) - len(found[1]) > LONGEST:
        return None
    parts, groups = [], []
    for token in _TOKEN.finditer(line):
        before, raw, after = line[: token.start()], token[0], line[token.end() :]
        part = re.escape(raw)
        if token["text"] is not None and token["is_key"] is None:
            other = _said(f'{before}{raw[:-1]}."{after}')
            if other == found:
                part = f'"{_PLAIN}"'
            elif other is not None:
                groups.append("id" if other[1] == found[1] else "text")
                part = f'"({_PLAIN if groups[-1] == "id" else _ESCAPED})"'
        elif token["number"] is not None and all(_said(f"{before}{number}{after}") == found for number in (0, 1)):
            part = _NUMBER
        parts.append(part)
    return re.compile(f"{''.join(parts)}|{_OTHER}") if groups == ["id", "text"] else None


def _said(line: str) -> Said | None:
    try:
        value, end = scanned(line, 0)
    except (ValueError, RecursionError, StopIteration):
        return None
    return said_in(value) if line[end:] == "\n" and isinstance(value, dict) and "run" not in value else None
