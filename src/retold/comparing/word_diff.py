"""Compare texts by their words: how similar they are, and which words only one of them has."""

import re
from typing import Literal, NamedTuple

from .align import script

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
