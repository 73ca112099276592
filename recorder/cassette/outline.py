"""The outline of a cassette: where each interaction begins and ends, found without reading them.

A long cassette is read one interaction at a time. `outline` cuts a file into its interactions only if the cuts are certain; it
returns None for any other file, and the caller reads it whole.

YAML: the lines of the whole file are checked against the part of YAML that recorders write (block_yaml.py), 3 ms a MB.

JSON: a newline is never inside a string of JSON, so each line that closes a brace in the column of the interactions may end one.
`JsonOutline.entry` reads all entries before the one that is asked for. A text that is a whole value of JSON has one end only, so
if each piece from the beginning on is a whole value, the cuts are those that a parser of the whole file finds.
"""

import json
import re
from typing import Any, Protocol

import yaml

from .block_yaml import KEY, ODD_BREAKS, CassetteLoader, NotPlain, item_pattern, read_item

Span = tuple[int, int]


class Outline(Protocol):
    """The interactions of a file. `document` is all of the file but these."""

    document: dict[str, Any]

    def __len__(self) -> int: ...

    def entry(self, number: int) -> Any:
        """Return an interaction as the parser of the whole file returns it.

        Raise NotPlain if only that parser can read it, and IndexError.
        """

    def mentions(self, key: str) -> bool:
        """Return False if no interaction has a key of that name."""


def outline(data: bytes, suffix: str) -> "Outline | None":
    """Return the outline of a cassette, or None for a file that only the parser of the whole file can read."""
    if suffix == ".toml":
        return None
    try:
        return JsonOutline(data) if suffix == ".json" else YamlOutline(data)
    except NotPlain:
        return None


_LIST = re.compile(rb"(?<![^\n])interactions:\n(?=( *)- )")
_AROUND = rf"(?: *{KEY}:(?: [A-Za-z0-9_.+-]+)?\n|#[^\n]*\n|\n)*+"
"""The lines before and after the interactions: keys with a plain value of one word, and comments."""
_SESSIONS = r"(?:sessions:\n(?:(?: |- )[^\n]*\n|\n)*+)?"
"""The sessions after the interactions. They are parsed with the rest of the document."""
_HEAD = re.compile(f"(?:---\n)?{_AROUND}".encode())
_TAIL = re.compile(rf"(?! ){_AROUND}{_SESSIONS}{_AROUND}(?:\.\.\.\n)?".encode())


class YamlOutline:
    """The interactions of a YAML cassette. Raise NotPlain if they cannot be told apart by their lines."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        found = _LIST.search(data)
        if found is None or any(mark[:1] in data and mark in data for mark in ODD_BREAKS):
            raise NotPlain
        self._column = len(found[1])
        pattern = item_pattern(self._column)
        at = found.end()
        self._spans: list[Span] = []
        # Each item ends where the next one begins, or at the end of the list.
        while (item := pattern.match(data, at)) is not None:
            at = item.end()
            self._spans.append(item.span())
        head, tail = data[: found.start()], data[at:]
        if _HEAD.fullmatch(head) is None or _TAIL.fullmatch(tail) is None:
            raise NotPlain
        self.document = _rest(lambda: yaml.load(head + b"interactions: []\n" + tail, Loader=CassetteLoader), head + tail)

    def __len__(self) -> int:
        return len(self._spans)

    def mentions(self, key: str) -> bool:
        return f" {key}:".encode() in self._data

    def entry(self, number: int) -> Any:
        text = self._text(number)
        try:
            return read_item(text)
        except NotPlain:
            return self._parsed(text)

    def _text(self, number: int) -> str:
        start, end = self._spans[number]
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError as error:
            raise NotPlain from error

    def _parsed(self, text: str) -> Any:
        try:
            (entry,) = yaml.load("interactions:\n" + text, Loader=CassetteLoader)["interactions"]
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise NotPlain from error
        return entry


_LIST_OF_JSON = re.compile(rb'"interactions": \[\n( *)(?=\{\n)')


class JsonOutline:
    """The interactions of an indented JSON cassette. Raise NotPlain if the file is not indented.

    The number of interactions is certain as soon as the last one was read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        found = _LIST_OF_JSON.search(data)
        if found is None:
            raise NotPlain
        opening, closing = b"\n" + found[1] + b"{\n", b"\n" + found[1] + b"}"
        self._spans: list[Span] = []
        self._sure = 0
        at = end = found.end() - len(opening) + 2
        while data.startswith(opening, at):
            end = data.find(closing, at) + len(closing)
            if end < len(closing):
                raise NotPlain
            self._spans.append((at, end))
            at = end + 1 if data.startswith(b",", end) else len(data)
        head, tail = data[: found.start()], data[end:]
        self.document = _rest(lambda: json.loads(head + b'"interactions": [' + tail), head + tail)

    def __len__(self) -> int:
        if self._sure < len(self._spans):
            self.entry(len(self._spans) - 1)
        return len(self._spans)

    def mentions(self, key: str) -> bool:
        return f'"{key}":'.encode() in self._data

    def entry(self, number: int) -> Any:
        value = None
        for each in range(min(self._sure, number), number + 1):  # those before it are read once
            start, end = self._spans[each]
            try:
                value = json.loads(self._data[start:end])
            except (ValueError, RecursionError) as error:
                raise NotPlain from error
            self._sure = max(self._sure, each + 1)
        return value


def _rest(read: Any, around: bytes) -> dict[str, Any]:
    """Return the value of a file without its interactions. Raise NotPlain unless it is a mapping with one list of them."""
    try:
        document = read()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotPlain from error
    if not isinstance(document, dict) or document.get("interactions") != [] or b"interactions" in around:
        raise NotPlain
    return document
