"""Match places in JSON against names with wildcards, such as `a.*.b` or `**.b`.

Matching takes time linear in the place, with any number of wildcards: the name is a state machine, and a state is an index
into its parts.
"""

import re
from functools import lru_cache

_SPLIT = re.compile(r"(\*\*\.|\*\*|\*)")
_ENDS = ".["
_LOOP, _STAR, _BELOW = "**", "*", "**."

_Parts = tuple[str, ...]


@lru_cache(maxsize=1024)
def _parts(name: str) -> _Parts:
    """Return the characters of a name, with each wildcard as one part.

    `**.` may match no text, so it is preceded by an empty part from which `_entered` can skip it.
    """
    parts: list[str] = []
    for number, part in enumerate(_SPLIT.split(name)):
        if number % 2 == 0:  # text between wildcards: one part for each character
            parts += part
        else:
            parts += ["", _BELOW] if part == _BELOW else [part]
    return tuple(parts)


def _entered(parts: _Parts, states: set[int]) -> set[int]:
    """Add the states that are reached without a character."""
    todo = list(states)
    while todo:
        state = todo.pop()
        part = parts[state] if state < len(parts) else "."
        reached: set[int] = set()
        if part == "":
            reached = {state + 1, state + 2}
        elif part in (_LOOP, _STAR):
            reached = {state + 1}
        todo += reached - states
        states |= reached
    return states


@lru_cache(maxsize=16_384)
def matches(name: str, place: str) -> bool:
    """Return True if a name with wildcards matches the place or one above it.

    `*` matches one key or index, `**` any text, `**.` no text or everything up to a dot or bracket.
    """
    if "*" not in name:
        return place == name or place.startswith((f"{name}.", f"{name}["))
    parts = _parts(name)
    end = len(parts)
    states = _entered(parts, {0})
    for char in place:
        # The name matched a place above this one.
        if end in states and char in _ENDS:
            return True
        following = set()
        for state in states - {end}:
            part = parts[state]
            if part in (_LOOP, _BELOW) or (part == _STAR and char not in ".[]"):
                following.add(state)
            if part == char != "*" or (part == _BELOW and char in ".]"):
                following.add(state + 1)
        if not following:
            return False
        states = _entered(parts, following)
    return end in states
