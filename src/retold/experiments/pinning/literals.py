"""Values as Python source, in the layout of common formatters: one line if it fits, else one item a line."""

import re
from collections.abc import Iterable, Mapping
from textwrap import indent
from typing import Any

WIDTH = 100
"""The longest line of a written test, in columns."""

MARGIN = "    "
"""One level of indentation."""


class Code(str):
    """An expression of Python that stands in a literal as it is."""

    __slots__ = ()


def literal(value: Any, *, before: int = 0, after: int = 1) -> str:
    """Return a JSON value as source. `before` and `after` are the columns of its line that other source takes.

    Lines after the first are indented relative to the beginning of the line.
    """
    flat = _flat(value)
    if len(flat) + before + after <= WIDTH and not _has_lines(value):
        return flat
    if isinstance(value, Mapping) and value:
        return _exploded("{", (f"{_flat(key)}: " for key in value), value.values(), "}")
    if isinstance(value, list | tuple) and value:
        return _exploded("[", ("" for _ in value), value, "]")
    if isinstance(value, str) and not isinstance(value, Code):
        pieces = list(_pieces(value))
        if len(pieces) > 1:
            return f"(\n{indent(chr(10).join(map(_quoted, pieces)), MARGIN)}\n)"
    return flat


def assignment(name: str, source: str) -> str:
    """Return the statement that gives a name to the value of an expression."""
    return " = ".join((name, source))


def call(name: str, arguments: Mapping[str, Any], *positional: Any, before: int = 0) -> str:
    """Return the source of a call, with keyword arguments after the positional ones."""
    named = [("", value) for value in positional]
    named += [(f"{key}=", value) for key, value in arguments.items()]
    flat = f"{name}({', '.join(f'{key}{_flat(value)}' for key, value in named)})"
    if len(flat) + before <= WIDTH and not any(_has_lines(value) for _, value in named):
        return flat
    return name + _exploded("(", [key for key, _ in named], [value for _, value in named], ")")


def pattern(text: str) -> Code:
    """Return the source of a regular expression that matches a text."""
    escaped = re.sub(r"([.^$*+?{}\\[\]|()])", r"\\\1", text)
    is_raw = escaped != text and '"' not in text and "\n" not in text and not text.endswith("\\")
    return Code(f'r"{escaped}"' if is_raw else _quoted(escaped))


def _exploded(opening: str, names: Iterable[str], values: Iterable[Any], closing: str) -> str:
    items = (
        indent(f"{name}{literal(value, before=len(MARGIN) + len(name))},", MARGIN)
        for name, value in zip(names, values, strict=True)
    )
    return "\n".join([opening, *items, closing])


def _flat(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    """Return a text in double quotes, unless it holds more of them than of single ones."""
    source = repr(text)
    if source.startswith("'") and '"' not in text:
        return f'"{source[1:-1]}"'
    return source


SHORT = 60
"""A text with at most so many characters stays on one line, also if it holds line ends."""


def _has_lines(value: Any) -> bool:
    """Return whether a text inside has several lines, which are easier to read below each other."""
    if isinstance(value, Code):
        return False
    if isinstance(value, str):
        return len(value) > SHORT and "\n" in value.rstrip("\n")
    if isinstance(value, Mapping):
        return any(map(_has_lines, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_lines, value))


_ROOM = WIDTH - 30
"""The characters of one piece of a long text; an indented piece with escapes is longer."""


def _pieces(text: str) -> Iterable[str]:
    """Cut a text at its line ends, and long lines between words."""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        while len(line) > _ROOM:
            at = line.rfind(" ", 0, _ROOM) + 1 or _ROOM
            yield line[:at]
            line = line[at:]
        if line:
            yield line
