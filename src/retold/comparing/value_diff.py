"""Find the differences of two values: of JSON by path, of texts by their words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from .align import Op, align, script
from .conversations import DEEPEST, key_of

ChangeKind = Literal["changed", "added", "removed"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `path` is empty if the whole value differs; `a` or `b` is None if that side lacks the place.

    Elements of lists have the index they have in A; elements that only B has, the index in B.
    """

    path: str
    kind: ChangeKind
    a: Any
    b: Any

    def as_dict(self) -> dict[str, Any]:
        """Return the change as JSON. A side that lacks the place has no key."""
        sides = {"a": self.a, "b": self.b}
        missing = {"added": "a", "removed": "b"}.get(self.kind)
        return {"path": self.path, "kind": self.kind} | {side: value for side, value in sides.items() if side != missing}


def changes(a: Any, b: Any, path: str = "", depth: int = 0) -> Iterator[Change]:
    """Yield the differences of two JSON values, with paths such as `input.files[2].name`.

    Values nested deeper than DEEPEST levels are compared as a whole.
    """
    if depth == DEEPEST:
        if key_of("", a) != key_of("", b):
            yield Change(path, "changed", a, b)
    elif isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in b:
                yield Change(inner, "removed", a[key], None)
            elif key not in a:
                yield Change(inner, "added", None, b[key])
            else:
                yield from changes(a[key], b[key], inner, depth + 1)
    elif isinstance(a, list) and isinstance(b, list):
        for i, j in _paired(a, b):
            if j is None:
                yield Change(f"{path}[{i}]", "removed", a[i], None)  # type: ignore[index] # at least one of a pair is an index
            elif i is None:
                yield Change(f"{path}[{j}]", "added", None, b[j])
            else:
                yield from changes(a[i], b[j], f"{path}[{i}]", depth + 1)
    # In Python True == 1, in JSON it does not.
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield Change(path, "changed", a, b)


def _paired(a: list[Any], b: list[Any]) -> Iterator[tuple[int | None, int | None]]:
    """Yield pairs of indexes that belong together: equal elements, then those of one name, then those at the same place.

    So one tool added at the beginning is one difference, and does not change every tool after it.
    """
    for tag, a_from, a_to, b_from, b_to in _steps(a, b):
        if tag == "equal":
            continue
        at_a, at_b = a_from, b_from
        same = [(a_from + i, b_from + j) for i, j in _of_one_name(a[a_from:a_to], b[b_from:b_to])]
        # Between two elements of one name, pair by place; surplus elements have no partner.
        for i, j in [*same, (a_to, b_to)]:
            rest = min(i - at_a, j - at_b)
            yield from ((at_a + n, at_b + n) for n in range(rest))
            yield from ((n, None) for n in range(at_a + rest, i))
            yield from ((None, n) for n in range(at_b + rest, j))
            if i < a_to:
                yield i, j
            at_a, at_b = i + 1, j + 1


def _steps(a: list[Any], b: list[Any]) -> list[Op]:
    return script([key_of("", value) for value in a], [key_of("", value) for value in b])


def _of_one_name(a: list[Any], b: list[Any]) -> list[tuple[int, int]]:
    names = [[str(value.get("name", "")) if isinstance(value, Mapping) else "" for value in values] for values in (a, b)]
    blocks = align(*names)
    return [(i + n, j + n) for i, j, size in blocks for n in range(size) if names[0][i + n]]


_IDEOGRAPH = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: each is a word
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+|\s+|[^\w\s]")
_SAID = re.compile(rf"[{_IDEOGRAPH}]|[^\W{_IDEOGRAPH}]+")

MAX_LOOKED_AT_CHARS = 4_000
"""The number of characters that are examined to find how similar two texts are."""

UNLIKE = 0.25
"""Texts with a smaller share of common words are shown one after the other, not word by word."""


class Stretch(NamedTuple):
    """Part of two texts: `text` is in both, only in the first (`removed`), or only in the second (`added`)."""

    tag: Literal["equal", "removed", "added"]
    text: str


def words_of(text: str) -> frozenset[str]:
    """Return the words that occur in the first MAX_LOOKED_AT_CHARS characters of a text."""
    return frozenset(_SAID.findall(text[:MAX_LOOKED_AT_CHARS]))


def likeness(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of words that two texts have in common, 0 to 1."""
    size = len(a) + len(b)
    return 2 * len(a & b) / size if size else 1.0


def weave(a: str, b: str) -> list[Stretch]:
    """Return the words of two texts in one sequence. Without the removed ones it is `b`, without the added ones `a`."""
    words_a, words_b = _WORD.findall(a), _WORD.findall(b)
    steps = script(words_a, words_b)
    shared = sum(len("".join(words_a[op.a_from : op.a_to]).strip()) for op in steps if op.tag == "equal")
    if a and b and 2 * shared < UNLIKE * (len(a) + len(b)):
        return [Stretch("removed", a), Stretch("added", b)]
    found: list[Stretch] = []
    for op in steps:
        removed, added = "".join(words_a[op.a_from : op.a_to]), "".join(words_b[op.b_from : op.b_to])
        if op.tag == "equal" and not (removed.isspace() and found and found[-1].tag != "equal"):
            found.append(Stretch("equal", removed))
            continue
        # A space between two changes belongs to them: "one two" -> "three four" is one change, not two.
        _extend(found, removed, added)
    return found


def _extend(found: list[Stretch], removed: str, added: str) -> None:
    """Add to the last change in `found`, or begin one. Removed text comes before added text."""
    parts: dict[Literal["equal", "removed", "added"], str] = {"removed": "", "added": ""}
    while found and found[-1].tag != "equal":
        last = found.pop()
        parts[last.tag] = last.text + parts[last.tag]
    parts["removed"] += removed
    parts["added"] += added
    found += [Stretch(tag, text) for tag, text in parts.items() if text]
