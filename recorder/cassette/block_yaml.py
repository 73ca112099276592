"""Read the YAML of cassettes: with a YAML parser, or ten times as fast, if a text is in the part of YAML that recorders write.

The part is block style with plain keys, one value a line: plain and quoted scalars, literal blocks, `{}` and `[]`. `read_item`
returns the value that `CassetteLoader` gives for the same text, or raises NotPlain for a text outside of the part (anchors, tags,
comments after values, folded scalars, flow style). The caller then uses the YAML parser. `item_pattern` finds where one item of
a block sequence ends without reading it; it accepts a little more than `read_item`.

Why a place where the pattern ends is never inside a scalar:

1. Quoted scalars begin where a value begins. The pattern consumes each with its lines, and these are indented deeper than the
   items, so they hold no beginning of an item. A line on which a quote may open in another way is refused.
2. Flow collections other than `{}` and `[]`, anchors, aliases and tags other than `!!binary |` are refused.
3. The lines of a literal block are indented deeper than its key.
"""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

import yaml

from ..bounded_yaml import Loader

KEY = r"[A-Za-z_$][A-Za-z0-9_.$/-]{0,99}"
"""The pattern of a key without quotes."""

# A plain scalar begins with a letter, a digit, one of the marks `_/.(+$~^<=;` and the backslash, or a character or byte beyond
# ASCII. The class names all other characters, because one with a range up to U+10FFFF takes 5 ms to compile.
_PLAIN = r"[^\x00-#%-')*,\-:>-@\[\]`{-}\x7f][^\n:]*+(?::(?=[^ \n\t])[^\n:]*+)*+"
_MAX_LEVELS = 30
_SHORT = 64

# Characters that YAML takes for line breaks or refuses. U+FEFF is allowed inside a quoted scalar only.
_ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_USUAL = bytes(range(0x20, 0x7F)) + b"\t\n"
"""The characters of ASCII that are not odd."""

ODD_BREAKS = (b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
"""Line breaks of YAML 1.1 other than LF, in UTF-8."""


Path = tuple[str | None, ...]
"""The keys that lead to a value; None for an item of a sequence."""

_MESSAGES = ((None, "request"), (None, "response"))
"""The mappings in an interaction that have headers."""


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


class NotPlain(Exception):
    """The text is outside of the part of YAML, or of JSON, that is read without a parser for all of it."""


def _line(column: int) -> str:
    """Return the pattern of one line, with the further lines of its value, that is indented by at least `column` spaces."""
    deep = f"\\n+(?= {{{column}}})"
    return (
        rf"(?P<indent> {{{column},}})(?:"
        # A literal block ends at the column of its key. After `- ` that is another column than the line's: left to the parser.
        rf"(?P<block>{KEY}): (?P<mark>(?:!!binary )?\|[-+]?)"
        r"(?P<literal>\n+(?P<pad>(?P=indent) +)[^ \t\n][^\n]*\n(?:(?P=pad)[^\n]*\n| *\n)*+)"
        rf"|(?P<dash>- )?(?:(?P<key>{KEY}):(?=[ \n]) ?|(?<=- ))(?:"
        r"(?P<empty>\n)"
        r"|'(?P<single>(?:[^'\n]|'')*+)'\n"
        rf"|(?P<plain>{_PLAIN})\n"
        rf"|(?P<quoted>\"(?:[^\"\\\n]|\\[^\n]|\\?{deep})*+\"|'(?:[^'\n]|''|{deep})*+')\n"
        r"|(?P<flow>\{\}|\[\])\n"
        rf")|(?P<more>{_PLAIN})\n)"
        r"|(?P<blank> *(?:#[^\n]*)?\n)"
    )


@cache
def item_pattern(column: int) -> re.Pattern[bytes]:
    """Return the pattern of one whole item of a block sequence whose dashes are in `column`. The item is a mapping."""
    line = _line(column + 1)
    return re.compile(rf"(?<![^\n]) {{{column}}}- {KEY}:\n(?:{line})*".encode())


_LINE = re.compile(_line(0))


class _Line(NamedTuple):
    column: int
    is_item: bool
    key: str | None
    kind: str
    value: str


def _has_odd(text: str) -> bool:
    # Deleting the usual characters takes a tenth of the time of a search for the others.
    return bool(text.encode().translate(None, _USUAL)) if text.isascii() else _ODD.search(text) is not None


def read_item(text: str) -> dict[str, Any]:
    """Return the mapping that is the one item of a block sequence. Raise NotPlain."""
    if _has_odd(text):
        raise NotPlain
    lines = list(_lines(text))
    if not lines or not lines[0].is_item:
        raise NotPlain
    items, end = _sequence(lines, 0, (), False)
    if end != len(lines) or len(items) != 1:
        raise NotPlain
    item: dict[str, Any] = items[0]
    return item


def read_mapping(text: str) -> dict[str, Any]:
    """Return a block mapping, or an empty one of a text without lines. Raise NotPlain."""
    if _has_odd(text):
        raise NotPlain
    lines = list(_lines(text))
    found, end = _mapping(lines, 0, (), False) if lines else ({}, 0)
    if end != len(lines):
        raise NotPlain
    return found


def _lines(text: str) -> Iterator[_Line]:
    at = 0
    while at < len(text):
        match = _LINE.match(text, at)
        if match is None:
            raise NotPlain
        at = match.end()
        kind = match.lastgroup
        if kind == "blank":
            continue
        if kind is None or kind == "more" or (kind == "literal" and match["mark"][0] != "|"):
            raise NotPlain
        value = _literal(match) if kind == "literal" else match[kind]
        is_item = match["dash"] is not None
        yield _Line(len(match["indent"]), is_item, match["block"] or match["key"], kind, value)


def _literal(match: re.Match[str]) -> str:
    """Return the text of a literal block: without its indentation, its last line breaks kept as its mark demands."""
    pad, block = match["pad"], match["literal"][1:]
    if len(pad) < 2 or (" \n" in block and re.search(rf"\n {{1,{len(pad) - 1}}}\n", block) is not None):
        raise NotPlain
    text = block.replace("\n" + pad, "\n").removeprefix(pad)
    match match["mark"]:
        case "|-":
            return text.rstrip("\n")
        case "|+":
            return text
    return text.rstrip("\n") + "\n"


def _sequence(lines: list[_Line], at: int, path: Path, as_text: bool) -> tuple[list[Any], int]:
    """Return the block sequence that begins at a line, and the number of the line after it. `path` leads to it."""
    if len(path) > _MAX_LEVELS:
        raise NotPlain
    column = lines[at].column
    items: list[Any] = []
    while at < len(lines) and lines[at].is_item and lines[at].column == column:
        line = lines[at]
        if line.key is None:
            items.append(_scalar(line, as_text))
            at += 1
        else:
            # `- key: value` begins a mapping in the column of its key.
            lines[at] = line._replace(column=column + 2, is_item=False)
            item, at = _mapping(lines, at, (*path, None), False)
            items.append(item)
        if at < len(lines) and lines[at].column > column:
            raise NotPlain
    return items, at


def _mapping(lines: list[_Line], at: int, path: Path, as_text: bool) -> tuple[dict[str, Any], int]:
    """The same of a block mapping. `as_text` is true within headers."""
    if len(path) > _MAX_LEVELS:
        raise NotPlain
    column = lines[at].column
    found: dict[str, Any] = {}
    while at < len(lines) and not lines[at].is_item and lines[at].column == column:
        line, at = lines[at], at + 1
        assert line.key is not None
        name = plain(line.key, as_text)
        if not isinstance(name, str):
            raise NotPlain
        after = lines[at] if line.kind == "empty" and at < len(lines) else None
        inner, is_text = (*path, name), as_text or (path in _MESSAGES and name == "headers")
        if after is not None and after.is_item and after.column >= column:
            found[name], at = _sequence(lines, at, inner, is_text)
        elif after is not None and after.column > column:
            found[name], at = _mapping(lines, at, inner, is_text)
        else:
            found[name] = _scalar(line, as_text)
        if at < len(lines) and lines[at].column > column:
            raise NotPlain
    return found, at


def _scalar(line: _Line, as_text: bool) -> Any:
    match line.kind:
        case "plain":
            return plain(line.value, as_text)
        case "single":
            return line.value.replace("''", "'")
        case "quoted":
            return _parsed(line.value)
        case "empty":
            return "" if as_text else None
        case "flow":
            return {} if line.value == "{}" else []
    return line.value


def plain(text: str, as_text: bool) -> Any:
    """Return the value of a plain scalar; `as_text` is the rule of headers. Raise NotPlain for one that needs the parser."""
    if " #" in text or "\t" in text or text[-1] == " ":
        raise NotPlain
    if len(text) > _SHORT:
        if _is_typed(text):
            raise NotPlain
        return text
    return text if as_text and not _is_special(text) else _short(text)


_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?")


@lru_cache(4096)
def _short(text: str) -> Any:
    if (number := _NUMBER.fullmatch(text)) is not None:
        return int(text) if number[1] is None else float(text)
    return _parsed(text) if _is_typed(text) else text


def _is_typed(text: str) -> bool:
    """Return whether YAML 1.1 takes a plain scalar for another type than text."""
    resolvers = CassetteLoader.yaml_implicit_resolvers
    return any(pattern.match(text) for _, pattern in (*resolvers.get(text[0], ()), *resolvers.get(None, ())))


def _is_special(text: str) -> bool:
    """Return whether a plain scalar is more than a value, such as `=`: a header does not take it as text."""
    return text in ("=", "<<")


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, Loader=CassetteLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotPlain from error
