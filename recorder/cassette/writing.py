"""Write the YAML of cassettes.

A text of several lines is a literal block. A text that YAML 1.1 or 1.2 could take for another type is quoted.

A writer of YAML looks at each character of a text several times. A long literal block needs only its indent, so a mark takes its
place for the writer, and then the block the place of the mark.
"""

import base64
import re
from itertools import pairwise
from secrets import token_hex
from typing import IO, Any

import yaml

# YAML normalises these inside a literal block, or its writers do not put them there.
_NOT_LITERAL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff\U0010ffff]| \n")

_PLAIN = bytes(range(0x20, 0x7F)) + b"\n"

_NO_BEGINNING = (" ", "\n", "\t")

LONG = 1000
"""Characters of a literal block that is put into the file past the writer of YAML."""


# Header values and other text that a formatter would write without quotes, and a YAML 1.1 or 1.2 reader would take for a value
# of another type.
_AMBIGUOUS = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|[-+.]?[0-9][0-9a-fox_:.,eE+-]*|[-+]?\.(?:inf|nan)|[0-9]{4}-[0-9]{1,2}-.*", re.IGNORECASE
)


class _Dumper(yaml.SafeDumper):
    """Writes strings of several lines as literal blocks, and no anchors for shared values."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML calls it so
        return True


class _FastDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # known when it runs
    """The same in C, ten times faster. It cannot put characters beyond the BMP (emoji) into a literal block; `_Dumper` can."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML calls it so
        return True


class _Mark(str):
    """Takes the place of a long text until the YAML is written, with the line ends at the end of that text."""


def _represent_text(dumper: Any, text: str) -> Any:
    if _is_block(text):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    style = "'" if _AMBIGUOUS.fullmatch(text) else None
    if _NOT_LITERAL.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_mark(dumper: Any, mark: _Mark) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(mark), style="|")


for _each in (_Dumper, _FastDumper):
    _each.add_representer(str, _represent_text)
    _each.add_representer(_Mark, _represent_mark)


def dump(data: Any, file: IO[str]) -> None:
    """Write a value as YAML. Further values may follow in the file."""
    mark, blocks = token_hex(16), list[str]()
    data = _marked(data, mark, blocks)
    dumper = _Dumper if _has_astral(data) else _FastDumper
    text: str = yaml.dump(data, Dumper=dumper, allow_unicode=True, sort_keys=False, width=2**31 - 1)
    # PyYAML ends a literal block with `...`, but more may follow here.
    parts = text.removesuffix("...\n").split(mark)
    file.write(parts[0])
    for block, (before, after) in zip(blocks, pairwise(parts), strict=True):
        file.write(_indented(block, before[before.rindex("\n") :]))
        file.write(after)


def _marked(value: Any, mark: str, blocks: list[str]) -> Any:
    """Return a value with marks in the places of long literal blocks, which `blocks` gets without their last line ends."""
    if isinstance(value, str):
        if len(value) < LONG or not _is_block(value) or value.endswith(" "):
            return value
        blocks.append(block := value.rstrip("\n"))
        return _Mark(mark + value[len(block) :])
    if isinstance(value, dict):
        return {key: _marked(item, mark, blocks) for key, item in value.items()}
    return [_marked(item, mark, blocks) for item in value] if isinstance(value, list) else value


def _indented(block: str, line: str) -> str:
    """Return a block with `line`, a line end and the indent, before each line with text but the first, which has its indent."""
    block = block.replace("\n", line)
    while (empty := line + "\n") in block:  # at most two times
        block = block.replace(empty, "\n\n")
    return block


def _is_block(text: str) -> bool:
    """Return whether a text has several lines and can be a literal block."""
    return "\n" in text.rstrip("\n") and not text.startswith(_NO_BEGINNING) and _holds_literal(text)


def _holds_literal(text: str) -> bool:
    """Return whether a literal block holds each character of a text."""
    # All printable characters are allowed. These looks are 5 and 15 times faster than the search, which knows the other ones.
    if not text.encode().translate(None, _PLAIN) if text.isascii() else text.replace("\n", "").isprintable():
        return " \n" not in text
    return _NOT_LITERAL.search(text) is None


def is_literal(piece: bytes, *, first: bool) -> bool:
    """Return whether a piece of a text, which ends with a line, can be in a literal block; `first` if the text begins with it."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return _holds_literal(text) and not (first and text.startswith(_NO_BEGINNING))


def _has_astral(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and max(value) > "\uffff"
    if isinstance(value, dict):
        return any(map(_has_astral, value.values()))
    return isinstance(value, list) and any(map(_has_astral, value))


def as_text(data: bytes) -> str | bytes:
    """Return bytes as text if they are UTF-8, else unchanged: they are written as `!!binary`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def for_json(value: Any) -> Any:
    """Return a value of an entry as JSON can hold it: bytes become `{base64_string: …}`."""
    if isinstance(value, dict):
        if isinstance(value.get("string"), bytes):
            return {"base64_string": base64.b64encode(value["string"]).decode()}
        return {key: for_json(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return {"base64_string": base64.b64encode(value).decode()}
    return [for_json(item) for item in value] if isinstance(value, list) else value
