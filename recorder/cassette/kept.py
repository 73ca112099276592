"""Rules of matching that a cassette keeps, and the first event of a run: they take out the parts of a request that vary.

In a cassette they are in the key `retold` at the top: `ignore`, paths in JSON bodies, and `mask`, regular expressions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Kept(NamedTuple):
    """The rules that a recording keeps. Both are empty in most recordings."""

    ignore: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()

    @classmethod
    def of(cls, value: Any) -> "Kept":
        """Return the rules in a JSON object, which may have other keys. Raise ValueError if one is no list of texts."""
        found = value if isinstance(value, Mapping) else {}
        return cls(*(_texts(name, found.get(name) or ()) for name in cls._fields))

    def with_(self, other: "Kept") -> "Kept":
        """Return the rules of both, each once."""
        return Kept(*(tuple(dict.fromkeys((*mine, *its))) for mine, its in zip(self, other, strict=True)))

    def as_dict(self) -> dict[str, list[str]]:
        """Return the rules that there are, by name."""
        return {name: list(values) for name, values in self._asdict().items() if values}


NOTHING_KEPT = Kept()


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"`{name}` should hold a list of texts")
    return tuple(value)
