"""The slots of several runs: the items that belong together, one of each run at most.

A slot is a place for an item: its conversation, turn and kind, and the tool of a call or of its result. Items of one place are
put into slots by equal content first, then by the most common words, and other kinds of items in their order.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..comparing.conversations import DEEPEST, Item
from ..comparing.value_diff import likeness, words_of

CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")

MAX_PAIRS = 250_000
"""Items of one place are compared with each other up to this number of pairs, and paired in their order beyond it."""


class SlotPlace(NamedTuple):
    """The place of a slot in its conversation. `name` is the tool of a call or a result, else empty."""

    turn: int
    what: str
    name: str


@dataclass(eq=False, slots=True)
class Slot:
    """One slot: its items by the number of their run. `call` is the slot of the call that a result answers."""

    place: SlotPlace
    items: dict[int, Item] = field(default_factory=dict)
    call: "Slot | None" = None

    @property
    def some(self) -> Item:
        """The item of the first run that has one."""
        return self.items[min(self.items)]


class Slots:
    """The slots of one conversation."""

    def __init__(self) -> None:
        self.all: list[Slot] = []
        self._at: dict[SlotPlace, list[Slot]] = defaultdict(list)

    def add(self, run: int, items: Sequence[Item]) -> list[Slot]:
        """Put the items of the next run into slots, new ones if there is none; return the slot of each."""
        found = list(self.fitting(items))
        for number, item in enumerate(items):
            slot, place, call = found[number]
            if slot is None:
                slot = Slot(place, call=None if call is None else found[call].slot)
                found[number] = found[number]._replace(slot=slot)
                self.all.append(slot)
                self._at[place].append(slot)
            slot.items[run] = item
        return [each.slot for each in found if each.slot is not None]

    def fitting(self, items: Sequence[Item]) -> Iterator["Fitting"]:
        """Yield the slot of each item, None if no slot is left for it."""
        uses = {item.volatile.get("id"): n for n, item in enumerate(items) if item.kind in CALLS}
        calls = [uses.get(item.volatile.get("tool_use_id")) if item.kind == "tool_result" else None for item in items]
        places = [_place(item, None if call is None else items[call]) for item, call in zip(items, calls, strict=True)]
        waiting: dict[SlotPlace, list[int]] = defaultdict(list)
        for number, place in enumerate(places):
            waiting[place].append(number)
        taken: dict[int, Slot] = {}
        for place in sorted(waiting, key=lambda each: each.what == "tool_result"):  # a result follows its call
            numbers, free = waiting[place], list(self._at.get(place, ()))
            if place.what == "tool_result":
                self._results(numbers, calls, free, taken)
            used = {taken[n] for n in numbers if n in taken}
            self._pair(items, [n for n in numbers if n not in taken], [slot for slot in free if slot not in used], taken)
        yield from (Fitting(taken.get(n), places[n], calls[n]) for n in range(len(items)))

    def _results(
        self, numbers: Sequence[int], calls: Sequence[int | None], free: Sequence[Slot], taken: dict[int, Slot]
    ) -> None:  # fmt: skip
        """Put each result into the slot that belongs to the slot of its call."""
        of_call = {slot.call: slot for slot in free if slot.call is not None}
        for number in numbers:
            call = calls[number]
            slot = None if call is None or call not in taken else of_call.get(taken[call])
            if slot is not None:
                taken[number] = slot

    def _pair(self, items: Sequence[Item], numbers: list[int], free: list[Slot], taken: dict[int, Slot]) -> None:
        by_key: dict[str, list[Slot]] = defaultdict(list)
        for slot in free:
            for key in {item.key for item in slot.items.values()}:
                by_key[key].append(slot)
        used: set[Slot] = set()
        for number in numbers:
            equal = next((slot for slot in by_key.get(items[number].key, ()) if slot not in used), None)
            if equal is not None:
                taken[number] = equal
                used.add(equal)
        left, free = [n for n in numbers if n not in taken], [slot for slot in free if slot not in used]
        taken.update(_likest(items, left, free))


class Fitting(NamedTuple):
    """The slot of an item, the place of the item, and the number of the item that calls the tool of a result."""

    slot: Slot | None
    place: SlotPlace
    call: int | None


def _place(item: Item, call: Item | None) -> SlotPlace:
    named = item if item.kind in CALLS else call
    return SlotPlace(item.turn, item.kind, "" if named is None else str(named.value.get("name", "")))


def _likest(items: Sequence[Item], numbers: Sequence[int], free: Sequence[Slot]) -> Iterator[tuple[int, Slot]]:
    """Yield pairs of items and slots, those with the most common words first; equally like ones in their order."""
    if len(numbers) <= 1 >= len(free) or len(numbers) * len(free) > MAX_PAIRS:
        yield from zip(numbers, free, strict=False)
        return
    words = {number: words_of(items[number].text) for number in numbers}
    known = [words_of(slot.some.text) for slot in free]
    pairs = sorted(
        (-likeness(words[number], known[m]), abs(n - m), n, m) for n, number in enumerate(numbers) for m in range(len(free))
    )
    used: tuple[set[int], set[int]] = (set(), set())
    for _, _, n, m in pairs:
        if n not in used[0] and m not in used[1]:
            used[0].add(n)
            used[1].add(m)
            yield numbers[n], free[m]


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each leaf of a JSON value. An empty list or mapping is a leaf."""
    if isinstance(value, Mapping) and value and depth < DEEPEST:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and value and depth < DEEPEST:
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]", depth + 1)
    else:
        yield path, value
