"""The prefix of a request, as the API caches it: tools, then the system prompt, then messages, up to the last mark.

A mark is a `cache_control`. It ends a cached prefix and is no part of it, so a mark that moved changes nothing. A text and a list
with one block of that text are equal. The order of keys does not count, except in the input of a tool use and in the schema of a
tool, which the API takes as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..comparing.conversations import DEEPEST

PARTS = ("tools", "system", "messages")
"""The parts of a prefix, in the order in which the API caches them."""

LIFETIMES = {"5m": 300.0, "1h": 3600.0}
"""Seconds that a cached prefix lives after its last use, by the `ttl` of its mark."""

MESSAGE_SETTINGS = ("tool_choice", "thinking")
"""Settings of a request that are no part of the prefix. A change makes the cached messages unusable, but not tools and system."""

_FREE_FORM = ("input", "input_schema")
"""Objects in which the order of keys counts."""

Kind = Literal["changed", "added", "removed", "reordered"]


@dataclass(frozen=True, slots=True)
class Element:
    """One tool or one content block. `place` orders the elements of a part, `owner` is the name of a tool or a role."""

    path: str
    place: tuple[int, int]
    owner: str
    value: Any


@dataclass(frozen=True, slots=True)
class Departure:
    """The first place at which two prefixes differ. `tool` is the name of the tool that it belongs to, if any.

    `cached` is whether the earlier request had marked a prefix that contains the place.
    """

    part: str
    path: str
    kind: Kind
    tool: str
    cached: bool

    def __str__(self) -> str:
        named = f"{self.path} ({self.tool})" if self.tool else self.path
        return f"{named}: keys in another order" if self.kind == "reordered" else f"{named} {self.kind}"


class Prefix:
    """The elements of a request, its marks, and the settings beside the prefix."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self.parts: dict[str, list[Element]] = {part: [] for part in PARTS}
        self.lifetime_s: float | None = None
        """Seconds that the prefix up to the last mark lives; None without a mark."""
        self._marked: tuple[int, int] | None = None
        for number, part in enumerate(PARTS):
            for path, place, owner, value in _elements(part, body.get(part)):
                ttl = _mark_in(value)
                if ttl is not None:
                    self._marked, self.lifetime_s = (number, len(self.parts[part])), LIFETIMES.get(ttl)
                self.parts[part].append(Element(path, place, owner, _unmarked(value)))
        automatic = body.get("cache_control")
        if isinstance(automatic, Mapping):  # the API then marks the last block by itself
            last = max((n for n, part in enumerate(PARTS) if self.parts[part]), default=0)
            self._marked = last, max(len(self.parts[PARTS[last]]) - 1, 0)
            self.lifetime_s = LIFETIMES.get(str(automatic.get("ttl") or "5m"))
        self.settings = {key: body.get(key) for key in MESSAGE_SETTINGS}
        self.settings["images"] = any(_has_image(each.value) for each in self.parts["messages"])

    @property
    def is_marked(self) -> bool:
        """Whether the request asks the API to cache a prefix."""
        return self._marked is not None

    @property
    def has_marked_messages(self) -> bool:
        """Whether the marked prefix contains messages."""
        return self._marked is not None and self._marked[0] == PARTS.index("messages")

    def difference(self, other: "Prefix") -> Departure | None:
        """Return the first place at which a later request differs; None if it begins with all elements of this one."""
        for number, part in enumerate(PARTS):
            found = _first(self.parts[part], other.parts[part], may_grow=part == "messages")
            if found is not None:
                index, path, kind, tool = found
                cached = self._marked is not None and (number, index) <= self._marked
                return Departure(part, path, kind, tool if part == "tools" else "", cached)
        return None

    def changed_settings(self, other: "Prefix") -> list[str]:
        """Return the names of the settings that a later request has changed."""
        return [key for key, value in self.settings.items() if other.settings[key] != value]


def by_meaning(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with each message as blocks without marks, so that its conversation is found wherever its marks are."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return dict(body)
    plain = [
        {**each, "content": [_unmarked(block) for block in _blocks(each.get("content"))]} if isinstance(each, Mapping) else each
        for each in messages
    ]
    return {**body, "messages": plain}


def _elements(part: str, value: Any) -> Iterator[tuple[str, tuple[int, int], str, Any]]:
    if part != "messages":
        for number, each in enumerate(_blocks(value)):
            path = part if isinstance(value, str) else f"{part}[{number}]"
            owner = str(each.get("name", "")) if part == "tools" and isinstance(each, Mapping) else ""
            yield path, (number, 0), owner, each
        return
    for number, message in enumerate(value if isinstance(value, list) else []):
        if isinstance(message, Mapping):
            content = message.get("content")
            for at, block in enumerate(_blocks(content)):
                path = f"messages[{number}].content" + ("" if isinstance(content, str) else f"[{at}]")
                yield path, (number, at), str(message.get("role")), block


def _blocks(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [{"type": "text", "text": value}]
    return value if isinstance(value, list) else []


def _mark_in(value: Any) -> str | None:
    """Return the lifetime that a mark on an element, or on a block in a tool result, asks for."""
    if not isinstance(value, Mapping):
        return None
    mark = value.get("cache_control")
    if isinstance(mark, Mapping):
        return str(mark.get("ttl") or "5m")
    inner = value.get("content")
    return next((ttl for each in reversed(inner) if (ttl := _mark_in(each))), None) if isinstance(inner, list) else None


def _unmarked(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {key: item for key, item in value.items() if key != "cache_control"}
    if value.get("type") == "tool_result":
        kept["content"] = [_unmarked(each) for each in _blocks(kept.get("content"))]
    return kept


def _has_image(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    inner = value.get("content")
    return value.get("type") == "image" or (isinstance(inner, list) and any(map(_has_image, inner)))


def _first(
    before: list[Element], after: list[Element], *, may_grow: bool
) -> tuple[int, str, Kind, str] | None:  # fmt: skip
    """Return the index, path, kind and owner of the first difference of two parts; messages may only grow at the end."""
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        if new.place < old.place:  # a further block in an earlier message
            return index, new.path, "added", new.owner
        if new.place > old.place:
            return index, old.path, "removed", old.owner
        if old.owner != new.owner:
            return index, old.path, "changed", old.owner
        if found := _inside(old.value, new.value, old.path):
            # A content that is one text has no blocks, so its path ends there.
            return index, *(found if old.path.endswith("]") else (old.path, found[1])), old.owner
    if len(before) > len(after):
        return len(after), before[len(after)].path, "removed", before[len(after)].owner
    if len(after) > len(before) and not may_grow:
        return len(before), after[len(before)].path, "added", after[len(before)].owner
    return None


def _inside(a: Any, b: Any, path: str, *, ordered: bool = False, depth: int = 0) -> tuple[str, Kind] | None:
    """Return the path and the kind of the first difference of two JSON values."""
    if depth < DEEPEST and isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.get("type") != b.get("type"):
            return path, "changed"
        for key in (*a, *(key for key in b if key not in a)):
            inner = f"{path}.{key}"
            if key not in a or key not in b:
                return inner, "added" if key not in a else "removed"
            if found := _inside(a[key], b[key], inner, ordered=ordered or key in _FREE_FORM, depth=depth + 1):
                return found
        return (path, "reordered") if ordered and list(a) != list(b) else None
    if depth < DEEPEST and isinstance(a, list) and isinstance(b, list):
        for number, (one, other) in enumerate(zip(a, b, strict=False)):
            if found := _inside(one, other, f"{path}[{number}]", ordered=ordered, depth=depth + 1):
                return found
        if len(a) != len(b):
            return f"{path}[{min(len(a), len(b))}]", "added" if len(a) < len(b) else "removed"
        return None
    # In Python True == 1, in JSON it does not.
    return (path, "changed") if a != b or isinstance(a, bool) != isinstance(b, bool) else None
