"""Sketches of requests: one digest for each part, so that a miss finds the nearest recorded request without reading all of
them.

The parts of a request are its method, path and query, the keys of its JSON body, and each element of a list under such a key
(messages, tools, system). A sketch takes 8 bytes a part; comparing two sketches costs about as much as comparing two lists of
numbers. Only the best candidates are then compared in depth.
"""

from array import array
from collections.abc import Mapping
from operator import ne
from sys import intern
from typing import Any

Sketch = dict[str, "array[int]"]


def sketch_of(meaning: Mapping[str, Any]) -> Sketch:
    """Return the digests of the parts of a request."""
    sketch: Sketch = {}
    for rule, part in meaning.items():
        inner = (
            {intern(f"body.{key}"): value for key, value in part.items()}
            if rule == "body" and isinstance(part, dict)
            else {rule: part}
        )
        for place, value in inner.items():
            sketch[place] = array("q", map(_digest, value if isinstance(value, list) else [value]))
    return sketch


def _digest(value: Any) -> int:
    """Return a number for a JSON value, independent of the order of keys. 1, 1.0 and true share one; at worst that causes a
    tie.
    """
    if isinstance(value, dict):
        return hash(frozenset([(key, _digest(item)) for key, item in value.items()]))
    return hash(tuple(map(_digest, value))) if isinstance(value, list) else hash(value)


def distance(one: Sketch, other: Sketch) -> int:
    """Return how many parts of two requests differ. A part that only one of them has counts once, a list by its elements."""
    differing = len(one.keys() ^ other.keys())
    for place in one.keys() & other.keys():
        a, b = one[place], other[place]
        shared = min(len(a), len(b))
        differing += max(len(a), len(b)) - shared + _unequal(a[:shared], b[:shared])
    return differing


def _unequal(a: "array[int]", b: "array[int]") -> int:
    """Return how many numbers differ. Most of a growing conversation is equal, and one comparison skips an equal half."""
    if a == b:
        return 0
    if len(a) <= _PIECE:
        return sum(map(ne, a, b))
    middle = len(a) // 2
    return _unequal(a[:middle], b[:middle]) + _unequal(a[middle:], b[middle:])


_PIECE = 64
"""Shorter pieces are compared number by number."""
