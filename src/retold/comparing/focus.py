"""The user's choice of the differences that count: `ignore`, `only` and `tolerance`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..recorder.errors import InputError
from ..recorder.words import nearest, sentence
from ..replay.matching.places import matches
from .conversations import DEEPEST, KINDS, key_of
from .totals import TOKENS, TOTALS
from .value_diff import Change, changes

WORDS = (*KINDS, "totals", "order")
"""The names that `ignore` and `only` accept. `order` selects items that only moved."""

_OTHER_BLOCK = re.compile(r"\w+_tool_(use|result)|\w+_tool_result_error|image|document|container_upload|compaction")
"""Further block types of the API, which are kinds too. New types follow the same naming pattern."""

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|ms|s|m)?")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a total may differ: by a share of the greater value, or by an amount in the unit of the total."""

    share: float = 0.0
    amount: float = 0.0

    def allows(self, a: float, b: float) -> bool:
        """Return True if two values are near enough."""
        return abs(a - b) <= max(self.amount, self.share * max(abs(a), abs(b)))

    def __str__(self) -> str:
        return f"{self.share:.4%}".rstrip("0%").rstrip(".") + "%" if self.share else f"{self.amount:g}"


_TOTAL_NAMES = {"duration": ("duration_ms",), "ttft": ("ttft_ms",), "cost": ("cost_usd",), "tokens": TOKENS} | {
    name: (name,) for name in TOTALS
}


def parse_tolerances(texts: Iterable[str]) -> dict[str, Tolerance]:
    """Parse `duration=20%`, `ttft=200ms`, `cost=0.01`, `tokens=5%` into tolerances by the name of the total. Raise InputError."""
    found: dict[str, Tolerance] = {}
    for text in texts:
        name, _, amount = text.partition("=")
        match = _AMOUNT.fullmatch(amount.strip())
        if name not in _TOTAL_NAMES:
            raise InputError(sentence(f"unknown total {name!r} in the tolerance {text!r}{nearest(name, list(_TOTAL_NAMES))}"))
        if match is None or (match[2] in ("ms", "s", "m") and name not in ("duration", "ttft", "duration_ms", "ttft_ms")):
            raise InputError(f"cannot read the tolerance {text!r}: give for example duration=20%, ttft=200ms or cost=0.01.")
        value = float(match[1])
        in_ms = _in_ms(amount) if match[2] in ("ms", "s", "m") else value
        tolerance = Tolerance(share=value / 100) if match[2] == "%" else Tolerance(amount=in_ms)
        found |= dict.fromkeys(_TOTAL_NAMES[name], tolerance)
    return found


def _in_ms(duration: str) -> float:
    from ..replay.timing.timing import parse_duration_ns  # with an event loop, which no other part of a comparison needs

    return parse_duration_ns(duration) / 1e6


@dataclass(frozen=True)
class Focus:
    """Which differences of a comparison count. `ignore` and `only` name kinds of items or places in them.

    A name is a word (`text`, `tool_use`, `request`, `totals`, `order` …), a word with a path (`request.tools[0]`,
    `tool_use.input.path`), or a path with wildcards (`**.timestamp`; `*` matches one name or index). A path includes the places
    below it. `tolerance` sets how far totals may differ; duration and time to first token count only if it names them.
    `volatile` also lists ids, times and signatures, which never count.

    Raise InputError for a name that no kind of item has.
    """

    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    tolerance: Mapping[str, Tolerance] = field(default_factory=dict)
    volatile: bool = False

    def __post_init__(self) -> None:
        for name in (*self.ignore, *self.only):
            word = re.split(r"[.\[]", name, maxsplit=1)[0]
            if word not in WORDS and "*" not in word and not _OTHER_BLOCK.fullmatch(word):
                raise InputError(sentence(f"unknown item or place {name!r}{nearest(word, list(WORDS))}"))

    def counts(self, what: str, path: str = "") -> bool:
        """Return True if a difference at this place counts."""
        place = f"{what}.{path}" if path else what
        if any(matches(name, place) for name in self.ignore):
            return False
        return not self.only or any(matches(name, place) for name in self.only)

    @property
    def chooses(self) -> bool:
        """Whether some differences are excluded."""
        return bool(self.ignore or self.only)

    def counts_whole(self, what: str, value: Any) -> bool:
        """Return True if an item that only one side has counts, at least in part."""
        return bool(self.part(what, {}, value)) if value else self.counts(what)

    def counts_moved(self, what: str) -> bool:
        """Return True if a changed position counts for this kind: neither the kind nor `order` is excluded."""
        left_out = any(matches(name, word) for name in self.ignore for word in ("order", what))
        return not left_out and (not self.only or "order" in self.only or self.counts(what))

    def part(self, what: str, a: Any, b: Any) -> tuple[Change, ...]:
        """Return the changes between two values of a kind that count."""
        return tuple(change for found in changes(a, b) for change in self._narrowed(what, found))

    def _narrowed(self, what: str, change: Change, depth: int = 0) -> Iterator[Change]:
        """Yield the parts of a change that count. A change of a whole object counts as far as its parts do."""
        if not self.chooses:
            yield change
            return
        value = change.a if change.kind == "removed" else change.b
        whole = change.kind == "changed" or not isinstance(value, Mapping | list) or not value or depth == DEEPEST
        if not whole and self._looks_below(what, change.path):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, item in inner:
                path = f"{change.path}[{key}]" if isinstance(value, list) else f"{change.path}.{key}"
                sides = (item, None) if change.kind == "removed" else (None, item)
                yield from self._narrowed(what, Change(path, change.kind, *sides), depth + 1)
        elif self.counts(what, change.path):
            yield change

    def _looks_below(self, what: str, path: str) -> bool:
        """Return True if some name may select a part of this place."""
        place = f"{what}.{path}"
        # A name with wildcards can select a part if the place agrees with the text before its first wildcard.
        starts = [(name, name.partition("*")) for name in (*self.ignore, *self.only)]
        wild = (place.startswith(fixed) or fixed.startswith(place) for _, (fixed, star, _) in starts if star)
        return any(wild) or any(name.startswith((f"{place}.", f"{place}[")) for name, _ in starts)

    def key(self, what: str, value: Any) -> str:
        """Return a digest of the parts of a value that count."""
        leaves = [(change.path, change.b) for change in self._narrowed_leaves(what, value)]
        return key_of(what, leaves)

    def _narrowed_leaves(self, what: str, value: Any) -> Iterator[Change]:
        for found in changes({}, value):
            yield from self._narrowed(what, found)


EVERYTHING = Focus()
