"""Write the YAML of cassettes.

A text of several lines is a literal block. A text that YAML 1.1 or 1.2 could take for another type is quoted.
"""

import base64
import re
from typing import IO, Any

import yaml

# YAML normalises these inside a literal block, or cannot hold them there.
_NOT_LITERAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|[ \t]\n")

_NO_BEGINNING = (" ", "\n", "\t")


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


def _represent_text(dumper: Any, text: str) -> Any:
    if _NOT_LITERAL.search(text) is None and "\n" in text.rstrip("\n") and not text.startswith(_NO_BEGINNING):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    style = "'" if _AMBIGUOUS.fullmatch(text) else None
    if _NOT_LITERAL.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_FastDumper.add_representer(str, _represent_text)


def dump(data: Any, file: IO[str]) -> None:
    """Write a value as YAML. Further values may follow in the file."""
    dumper = _Dumper if _has_astral(data) else _FastDumper
    text: str = yaml.dump(data, Dumper=dumper, allow_unicode=True, sort_keys=False, width=2**31 - 1)
    file.write(text.removesuffix("...\n"))  # PyYAML ends a literal block with this mark, but more may follow here


def is_literal(piece: bytes, *, first: bool) -> bool:
    """Return whether a piece of a text, which ends with a line, can be in a literal block; `first` if the text begins with it."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return _NOT_LITERAL.search(text) is None and not (first and text.startswith(_NO_BEGINNING))


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
