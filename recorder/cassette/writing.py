"""The YAML of cassettes: write values, and read headers.

A text of several lines is a literal block. A text that YAML 1.1 or 1.2 could take for another type is quoted. When a file is
read, header names and values are text as written, even if YAML takes them for another type.
"""

import re
from typing import IO, Any

import yaml

from ..bounded_yaml import Loader

_TYPES = frozenset(f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null", "timestamp"))


class CassetteLoader(Loader):
    """The bounded loader; names and values of headers are text as written (`no`, `0123`, `12:30:45`, `~`)."""

    def get_single_node(self) -> Any:
        """Return the root node, with its headers as text. Raise YAMLError."""
        root = super().get_single_node()
        for entries in _values(root, "interactions"):
            for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
                for message in (*_values(entry, "request"), *_values(entry, "response")):
                    for headers in _values(message, "headers"):
                        if not isinstance(headers, yaml.ScalarNode):
                            self._as_text(headers)
        return root

    def _as_text(self, node: Any) -> None:
        """Turn the scalars of a header mapping (names, values, lists of values) into text. Written tags stay."""
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _TYPES and node.tag == self.resolve(yaml.ScalarNode, node.value, (True, False)):
                node.tag = "tag:yaml.org,2002:str"
        elif isinstance(node, yaml.SequenceNode):
            for inner in node.value:
                if not isinstance(inner, yaml.MappingNode):
                    self._as_text(inner)
        else:
            for key, value in node.value:
                self._as_text(key)
                self._as_text(value)


def _values(node: Any, name: str) -> list[Any]:
    return [value for key, value in node.value if key.value == name] if isinstance(node, yaml.MappingNode) else []


# YAML normalises these inside a literal block, or cannot hold them there.
_NOT_LITERAL = re.compile(r"[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[ \t]\n")


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
    if _NOT_LITERAL.search(text) is None and "\n" in text.rstrip("\n") and not text.startswith((" ", "\n", "\t")):
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


def _has_astral(value: Any) -> bool:
    if isinstance(value, str):
        return not value.isascii() and max(value) > "\uffff"
    if isinstance(value, dict):
        return any(map(_has_astral, value.values()))
    return isinstance(value, list) and any(map(_has_astral, value))
