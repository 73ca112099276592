"""The band of one conversation: which of its items vary among the baseline runs, and how.

Presence  An item that every baseline run has must be there. No item may be there that none has.
Value     A leaf of an item may have a value that it has in a baseline run, or a number between the smallest and the largest. If
          there are three or more different numbers, another one may exceed them by as much as they differ among themselves.
Wording   A text of the model that varies may have any wording. Another text that is different in each of three or more runs
          may have a new wording that shares as many words with one of them as they share with each other.
Order     Items of one turn may change places if the baseline runs ordered them differently, directly or through others, or if
          fewer than three of them have both.
Count     A tool may be called, and may fail, as often in the conversation as in the baseline runs, and so may texts occur.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..comparing.conversations import Item, key_of
from ..comparing.focus import Focus
from ..comparing.text import shown
from ..comparing.value_diff import likeness, words_of
from ..recorder.words import clean
from .slots import CALLS, Slot, SlotPlace, Slots, leaves

FREE = ("text", "thinking")
"""Kinds whose text may have any wording if it varies."""

WORDED = (*CALLS, "tool_result", "prompt", "history", *FREE)
"""Kinds in which a text may have a new wording. The texts of other kinds are words of the API."""

ORDERED = ("request", "prompt", "history", "tool_result", "answer", "init", "result", "session", "system")
"""Kinds whose order is fixed, or follows that of others."""

ENOUGH = 3
"""The number of observations that show more than chance: of different values, or of the order of two items."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A place at which a run lies outside of the band of the baseline runs.

    kind     missing, added, value, order, count or total
    what     the kind of the item, or `totals`
    name     the tool, or the name of the total
    path     the place in the item
    message  the difference, and the band
    item     the item of the run, or the missing one of a baseline run
    """

    kind: str
    what: str
    stream: str
    turn: int
    name: str
    path: str
    message: str
    item: Item | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the deviation as JSON."""
        found = {
            "kind": self.kind,
            "what": self.what,
            "stream": self.stream,
            "turn": self.turn or None,
            "name": self.name or None,
        }
        return found | {"path": self.path or None, "message": self.message, "seq": None if self.item is None else self.item.seq}


class Band:
    """What the baseline runs show about one conversation. A run without the conversation has no items in it."""

    def __init__(self, stream: str, runs: Sequence[Sequence[Item]], focus: Focus) -> None:
        self.stream = stream
        self._runs = len(runs)
        self._focus = focus
        self._slots = Slots()
        orders = [self._slots.add(number, items) for number, items in enumerate(runs)]
        self._counts = [_counted(items) for items in runs]
        self._order = _Order(orders)

    def judge(self, items: Sequence[Item]) -> Iterator[Deviation]:
        """Yield the deviations of a run from the band."""
        fitting = list(self._slots.fitting(items))
        found = [each.slot for each in fitting]
        reported: set[tuple[str, str]] = set()
        for slot in self._missing(set(found)):
            reported.add((slot.place.what, slot.place.name))
            said = f"missing; each of the {self._runs} baseline runs has it"
            yield self._deviation("missing", slot.place, said, slot.some)
        for item, (own, place, call) in zip(items, fitting, strict=True):
            if own is not None:
                for deviation in self._values(item, own):
                    reported |= {("tool_result error", place.name)} if deviation.path == "is_error" else set()
                    yield deviation
            elif self._counts_whole(item) and (call is None or found[call] is not None):  # a result follows its call
                reported.add((place.what, place.name))
                yield self._deviation("added", place, "new; no baseline run has it", item)
        yield from self._in_order(items, found)
        for (what, name), count, low, high in self._outside(items):
            if (what, name) not in reported:
                said = f"{count} in this conversation; the baseline runs have {_range(low, high)}"
                yield Deviation("count", what, self.stream, 0, name, "", said)

    def _missing(self, present: set[Slot | None]) -> Iterator[Slot]:
        """Yield the slots that each baseline run fills and the run does not. The result of a missing call follows it."""
        for slot in self._slots.all:
            if slot not in present and len(slot.items) == self._runs and self._counts_whole(slot.some):
                call = slot.call
                if call is None or call in present or len(call.items) < self._runs:
                    yield slot

    def _counts_whole(self, item: Item) -> bool:
        return self._focus.counts_whole(item.kind, item.value)

    def _deviation(self, kind: str, place: SlotPlace, said: str, item: Item, path: str = "") -> Deviation:
        return Deviation(kind, place.what, self.stream, place.turn, place.name, path, said, item)

    def _values(self, item: Item, slot: Slot) -> Iterator[Deviation]:
        """Yield the leaves of an item that no baseline run has."""
        if any(item.key == known.key for known in slot.items.values()):
            return
        known = [dict(leaves(each.value)) for each in slot.items.values()]
        mine = dict(leaves(item.value))
        for path in dict.fromkeys([*mine, *(path for each in known for path in each)]):
            values = [each[path] for each in known if path in each]
            if not self._focus.counts(item.kind, path) or (path not in mine and len(values) < len(known)):
                continue
            if path not in mine:
                yield self._deviation("value", slot.place, "missing; each baseline run has it", item, path)
            elif not values:
                yield self._deviation("value", slot.place, f"{shown(mine[path])}; no baseline run has it", item, path)
            elif key_of("", mine[path]) not in {key_of("", value) for value in values}:
                band = _band(item.kind, path, mine[path], values)
                if band is not None:
                    yield self._deviation("value", slot.place, f"{shown(mine[path])}; {band}", item, path)

    def _in_order(self, items: Sequence[Item], found: Sequence[Slot | None]) -> Iterator[Deviation]:
        turns = defaultdict(list)  # type: defaultdict[int, list[tuple[Item, Slot]]]
        for item, slot in zip(items, found, strict=True):
            if slot is not None and item.kind not in ORDERED and self._focus.counts_moved(item.kind):
                turns[item.turn].append((item, slot))
        for placed in turns.values():
            for (_, before), (item, after) in combinations(placed, 2):
                if self._order.is_reversed(before, after):
                    said = f"after {_named(before)}; in each baseline run that has both it comes before"
                    yield self._deviation("order", after.place, said, item)
                    break

    def _outside(self, items: Sequence[Item]) -> Iterator[tuple[tuple[str, str], int, int, int]]:
        mine = _counted(items)
        for key in dict.fromkeys([*mine, *(key for counts in self._counts for key in counts)]):
            low, high = min(counts[key] for counts in self._counts), max(counts[key] for counts in self._counts)
            if not low <= mine[key] <= high and self._focus.counts(key[0].removesuffix(" error")):
                yield key, mine[key], low, high


class _Order:
    """The order of the slots of a turn in the baseline runs. Slots that two runs order differently are one group."""

    def __init__(self, orders: Sequence[Sequence[Slot]]) -> None:
        self._before = Counter[tuple[Slot, Slot]]()
        self._enough = min(ENOUGH, len(orders))
        self._group: dict[Slot, Slot] = {}
        for order in orders:
            turns: dict[int, list[Slot]] = defaultdict(list)
            for slot in order:
                if slot.place.what not in ORDERED:
                    turns[slot.place.turn].append(slot)
            self._before.update(pair for slots in turns.values() for pair in combinations(slots, 2))
        for one, other in list(self._before):
            if (other, one) in self._before and self._of(one) is not self._of(other):
                self._group[self._of(one)] = self._of(other)

    def _of(self, slot: Slot) -> Slot:
        while slot in self._group:
            slot = self._group[slot]
        return slot

    def is_reversed(self, one: Slot, other: Slot) -> bool:
        """Return whether `one` before `other` contradicts all baseline runs that have both, which are enough."""
        seen = self._before[other, one] >= self._enough and not self._before[one, other]
        return seen and self._of(one) is not self._of(other)


def _band(what: str, path: str, value: Any, values: Sequence[Any]) -> str | None:
    """Return the band of a leaf in words if a value is outside of it. `values` are those of the baseline runs."""
    if all(_is_number(each) for each in [value, *values]):
        low, high = min(values), max(values)
        spread = high - low if len(set(values)) >= ENOUGH else 0
        if low - spread <= value <= high + spread:
            return None
        return f"the baseline runs have {shown(low)}" + (f" to {shown(high)}" if high != low else "")
    distinct = {key_of("", each): each for each in values}
    if len(distinct) > 1 and what in WORDED and all(isinstance(each, str) for each in [value, *values]):
        if what in FREE and path == what:
            return None
        if len(distinct) == len(values) >= ENOUGH:
            words = [words_of(each) for each in values]
            least = min(likeness(a, b) for a, b in combinations(words, 2))
            if max(likeness(words_of(value), each) for each in words) >= least:
                return None
    few = [shown(each) for each in distinct.values()]
    return f"the baseline runs have {', '.join(few[:3])}" + (f" and {len(few) - 3} more" if len(few) > 3 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counted(items: Iterable[Item]) -> Counter[tuple[str, str]]:
    """Return how often each tool is called and fails, and how many texts there are."""
    found = Counter[tuple[str, str]]()
    names: Mapping[Any, str] = {}
    items = list(items)
    names = {item.volatile.get("id"): str(item.value.get("name", "")) for item in items if item.kind in CALLS}
    for item in items:
        if item.kind in CALLS:
            found[item.kind, str(item.value.get("name", ""))] += 1
        elif item.kind == "text":
            found["text", ""] += 1
        elif item.kind == "tool_result" and item.value.get("is_error"):
            found["tool_result error", names.get(item.volatile.get("tool_use_id"), "")] += 1
    return found


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _named(slot: Slot) -> str:
    return clean(f"{slot.place.what} {slot.place.name}".strip())
