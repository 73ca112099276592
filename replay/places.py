"""Wildcards of places in JSON: `a.*.b`, `**.b`. Matching takes time linear in the place, however many wildcards there are."""

import re
from functools import lru_cache

_SPLIT = re.compile(r"(\*\*\.|\*\*|\*)")
_ENDS = ".["
_LOOP, _STAR, _BELOW = "**", "*", "**."

_Parts = tuple[str, ...]


@lru_cache(maxsize=1024)
def _parts(name: str) -> _Parts:
    """The characters of a name, with each wildcard as one part. `**.` stands for nothing too: an empty part is its entry."""
    parts: list[str] = []
    for number, part in enumerate(_SPLIT.split(name)):
        parts += part if number % 2 == 0 else ["", _BELOW] if part == _BELOW else [part]
    return tuple(parts)


def _entered(parts: _Parts, states: set[int]) -> set[int]:
    """Add the states that are reached without a character."""
    todo = list(states)
    while todo:
        state = todo.pop()
        part = parts[state] if state < len(parts) else "."
        reached = {state + 1, state + 2} if part == "" else {state + 1} if part in (_LOOP, _STAR) else set()
        todo += reached - states
        states |= reached
    return states


@lru_cache(maxsize=16_384)
def matches(name: str, place: str) -> bool:
    """Return whether a name with wildcards names the place or one above it.

    `*` stands for one key or index, `**` for any text, `**.` for nothing or for everything up to a dot or bracket.
    """
    if "*" not in name:
        return place == name or place.startswith((f"{name}.", f"{name}["))
    parts = _parts(name)
    end = len(parts)
    states = _entered(parts, {0})
    for char in place:
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
