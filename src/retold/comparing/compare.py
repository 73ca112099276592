"""Compare two recordings: align their streams by meaning and list the differences.

Streams are paired by their labels (step, task, subagent); if several share a label, by their first message, then in order. Two
streams are aligned by the parts of their items that count (align.py). Inside a changed region, and only there, similar items
become one changed item instead of one removed and one added. An item with another position and the same content has moved. If
one form of recording cannot hold a kind of item (stream-json has no requests), that kind is not compared.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from operator import attrgetter
from typing import Any, Literal, NamedTuple, cast

from .align import pair_up, script
from .conversations import KINDS, Item, Label, Stream
from .focus import EVERYTHING, Focus
from .reading import Side
from .totals import TIMES, TOTALS, Total
from .value_diff import Change, likeness, words_of

DifferenceKind = Literal["added", "removed", "changed", "moved", "volatile"]

ALIKE = 0.35
"""The share of common words (0 to 1) from which two items count as one changed item."""

STRUCTURE = frozenset({"request", "answer", "init", "result"})
"""Kinds that occur once a turn. Two such items count as one changed item, even if they have little in common."""


class AlignedRow(NamedTuple):
    """One line of the alignment: two equal or changed items, or an item that only one side has.

    `counts` is False if the user excluded all of it.
    """

    a: Item | None
    b: Item | None
    moved: bool = False
    changes: tuple[Change, ...] = ()
    counts: bool = True

    @property
    def kind(self) -> Literal["equal", "changed", "added", "removed", "moved"]:
        """How the two sides of the row relate."""
        if self.moved:
            return "moved"
        if self.a is None:
            return "added"
        if self.b is None:
            return "removed"
        return "changed" if self.changes else "equal"

    @property
    def item(self) -> Item:
        """The item of A, or of B if A has none."""
        item = self.a or self.b
        assert item is not None
        return item


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: the kind of item (`totals` for totals), its stream, and the places that differ.

    `changes` lists the places of a changed item. For an added, removed or moved item, `a` or `b` is the whole item.
    """

    kind: DifferenceKind
    what: str
    stream: str
    a: Item | None
    b: Item | None
    changes: tuple[Change, ...] = ()

    def __repr__(self) -> str:
        item = self.a or self.b
        turn = "" if item is None else f" turn {item.turn}"
        return f"<Difference{turn} {self.what} {self.kind} {', '.join(change.path for change in self.changes[:3])}".rstrip() + ">"

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as JSON."""
        found: dict[str, Any] = {"kind": self.kind, "what": self.what, "stream": self.stream}
        for side, item in (("a", self.a), ("b", self.b)):
            if item is not None:
                found[side] = {"turn": item.turn, "seq": item.seq}
                if self.kind in ("added", "removed", "moved"):
                    found[side]["value"] = item.value
        return found | {"changes": [change.as_dict() for change in self.changes]}


@dataclass(frozen=True)
class Pair:
    """Two aligned streams. Every item of both is in exactly one row; a moved item is in two."""

    label: str
    rows: tuple[AlignedRow, ...]

    @cached_property
    def differing(self) -> tuple[AlignedRow, ...]:
        """The rows that are not equal; those of a long recording are few."""
        return tuple(row for row in self.rows if row.changes or row.a is None or row.b is None or row.moved)

    @cached_property
    def counted(self) -> dict[str, int]:
        """The number of rows of each kind; `ignored` counts the rows that the user excluded."""
        found = Counter[str](row.kind for row in self.differing if row.counts)
        found["ignored"] = sum(not row.counts for row in self.rows)
        found["equal"] = len(self.rows) - found.total()
        return {kind: found[kind] for kind in ("equal", "changed", "added", "removed", "moved", "ignored")}


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`. Test it with `assert retold.compare(run, golden).same`."""

    a: Side
    b: Side
    pairs: tuple[Pair, ...]
    totals: tuple[Total, ...]
    differences: tuple[Difference, ...]
    not_compared: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counting = [difference for difference in self.differences if difference.kind != "volatile"]
        if self.first is None:
            return f"<Comparison of {self.a.title} with {self.b.title}: the same>"
        return f"<Comparison of {self.a.title} with {self.b.title}: {len(counting)} differences, first {self.first!r}>"

    @property
    def same(self) -> bool:
        """Whether the recordings agree in everything that counts. Volatile differences do not count."""
        return self.first is None

    @property
    def first(self) -> Difference | None:
        """The first difference that counts, in the order of streams and items; totals come last. None if there is none."""
        return next((difference for difference in self.differences if difference.kind != "volatile"), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON: `same`, `first`, `differences`, `streams` (counts of rows), `totals`, `not_compared`."""
        return {
            "same": self.same,
            "a": {"title": self.a.title, "source": self.a.source},
            "b": {"title": self.b.title, "source": self.b.source},
            "first": None if self.first is None else self.first.as_dict(),
            "differences": [difference.as_dict() for difference in self.differences],
            "streams": [{"stream": pair.label, **pair.counted} for pair in self.pairs],
            "totals": [total.as_dict() for total in self.totals],
            "not_compared": list(self.not_compared),
        }


def compare_sides(a: Side, b: Side, focus: Focus = EVERYTHING) -> Comparison:
    """Compare two recordings that were read. A fork is compared with its parent from the fork on."""
    unknown, of_exchanges = unknown_kinds(a, b), unknown_of_exchanges(a, b)

    def rows(one: Stream | None, other: Stream | None) -> list[AlignedRow]:
        both = all(has_exchanges(stream) for stream in (one, other) if stream is not None)
        left_out = unknown | of_exchanges if both else unknown
        return _rows(_known(one, left_out), _known(other, left_out), focus)

    found = paired(a.streams, b.streams)
    pairs = _since_fork(a, b, tuple(Pair(label, tuple(rows(one, other))) for label, one, other in found))
    unknown |= of_exchanges
    totals = tuple(_total(name, a.totals.get(name), b.totals.get(name), focus) for name in TOTALS)
    differences = [difference for pair in pairs for difference in _differences(pair, focus)]
    differences += [
        Difference("changed", "totals", "", None, None, (Change(total.name, "changed", total.a, total.b),))
        for total in totals
        if total.differs
    ]
    return Comparison(a, b, pairs, totals, tuple(differences), tuple(kind for kind in KINDS if kind in unknown))


def _since_fork(a: Side, b: Side, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Return the rows after the fork if one side is a fork of the other, else all rows."""
    fork = next((side for side, other in ((b, a), (a, b)) if side.fork and side.fork[0].parent == other.run), None)
    if fork is None or fork.fork is None:
        return pairs
    before, live_from = fork.fork[0].seq, fork.fork[1]

    def is_shared(row: AlignedRow) -> bool:
        # The place in the parent decides, because a fork may write the shared part in another order.
        parents, own = (row.a, row.b) if fork is b else (row.b, row.a)
        if parents is not None:
            return parents.seq is not None and parents.seq <= before
        return own is not None and own.seq is not None and own.seq < live_from

    kept = (replace(pair, rows=tuple(row for row in pair.rows if not is_shared(row))) for pair in pairs)
    return tuple(pair for pair in kept if pair.rows)


def unknown_kinds(a: Side, b: Side) -> frozenset[str]:
    """Return the kinds that only one side's form of recording can hold. They are not compared.

    Stream-json, for example, has no requests, and a cassette has no result.
    """
    if not a.streams or not b.streams:
        return frozenset()
    found = _lacking(a.kinds, b.kinds)
    if ("request" in a.kinds) != ("request" in b.kinds):  # only one side has exchanges
        found |= {"request", "prompt", "history", "answer"}
    if ("session" in a.kinds) != ("session" in b.kinds):  # only one side is a session of the Agent SDK
        found |= {"session", "prompt"}
    return frozenset(found)


def _lacking(a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
    """Return the kinds of messages of a recorder that only one of two sets has."""
    return (a ^ b) & {"init", "result", "system"}


def unknown_of_exchanges(a: Side, b: Side) -> frozenset[str]:
    """Return the kinds that only one side has in its conversations of exchanges.

    A cassette has no result of these, and if it holds sessions beside them, it has those of the sessions.
    """
    found = [frozenset[str]().union(*(each.kinds for each in side.streams if has_exchanges(each))) for side in (a, b)]
    return _lacking(*found) if all(found) else frozenset()


def _known(stream: Stream | None, unknown: frozenset[str]) -> Sequence[Item]:
    if stream is None or not stream.kinds & unknown:
        return () if stream is None else stream.items
    return [item for item in stream.items if item.kind not in unknown]


def has_exchanges(stream: Stream) -> bool:
    """Return whether a conversation was recorded as exchanges."""
    return "request" in stream.kinds


# Which streams belong together


def paired(a: Sequence[Stream], b: Sequence[Stream]) -> list[tuple[str, Stream | None, Stream | None]]:
    """Return the streams in pairs, in the order of A; streams that only B has come last."""
    partner: dict[int, int] = {}
    left = dict(enumerate(b))

    def match(same: Any) -> None:
        waiting = defaultdict(deque)  # type: defaultdict[Any, deque[int]]
        for number, stream in left.items():
            waiting[same(stream)].append(number)
        for number, stream in enumerate(a):
            if number not in partner and waiting[same(stream)]:
                partner[number] = waiting[same(stream)].popleft()
                del left[partner[number]]

    # From the strictest rule to the loosest: equal streams, equal beginnings, equal labels, then the streams whose labels have
    # no counterpart, in order.
    if len(a) > 1 or len(b) > 1:  # two streams are a pair by the next rules, too
        match(lambda stream: (stream.label, stream.root, tuple(item.key for item in stream.items)))
    match(lambda stream: (stream.label, stream.root))
    match(lambda stream: stream.label)
    labels = {stream.label for stream in a} & {stream.label for stream in b}
    match(lambda stream: stream.label if stream.label in labels else None)
    labels_of = _labels([*a, *left.values()])
    found: list[tuple[str, Stream | None, Stream | None]] = []
    for number, stream in enumerate(a):
        other = b[partner[number]] if number in partner else None
        renamed = f" | {other.label}" if other is not None and str(other.label) not in ("", str(stream.label)) else ""
        found.append((labels_of[number] + renamed, stream, other))
    return found + [(labels_of[len(a) + at], None, stream) for at, stream in enumerate(left.values())]


def _labels(streams: Sequence[Stream]) -> list[str]:
    """Return the names of the streams. Streams of one label are numbered."""
    times = Counter(stream.label for stream in streams)
    seen: Counter[Label] = Counter()
    found = []
    for stream in streams:
        seen[stream.label] += 1
        number = f"#{seen[stream.label]}" if times[stream.label] > 1 else ""
        found.append(" ".join(filter(None, (str(stream.label), number))))
    return found


# The alignment of two streams

_KEY = attrgetter("key")


def _rows(a: Sequence[Item], b: Sequence[Item], focus: Focus) -> list[AlignedRow]:
    rows: list[AlignedRow] = []
    alone: list[int] = []
    for op in script([*map(_KEY, a)], [*map(_KEY, b)]):
        if op.tag == "equal":
            rows += _equal_rows(a[op.a_from : op.a_to], b[op.b_from : op.b_to])
        else:
            changed = _changed_region(a[op.a_from : op.a_to], b[op.b_from : op.b_to], focus)
            alone += [number for number, row in enumerate(changed, len(rows)) if row.a is None or row.b is None]
            rows += changed
    # An item that is removed in one place and added in another, with the same key, has moved.
    removed, added = Counter[str](), Counter[str]()
    for number in alone:
        (added if rows[number].a is None else removed)[rows[number].item.key] += 1
    moved = removed & added
    left = {"a": Counter(moved), "b": Counter(moved)}
    for number in alone:
        row = rows[number]
        side = "b" if row.a is None else "a"
        if left[side][row.item.key] > 0:
            left[side][row.item.key] -= 1
            rows[number] = AlignedRow(row.a, row.b, moved=True, counts=focus.counts_moved(row.item.kind))
    return rows


def _equal_rows(a: Sequence[Item], b: Sequence[Item]) -> Iterable[AlignedRow]:
    """Return `AlignedRow(one, other)` for the items of two equal regions. `map` over the class would call Python for each row."""
    rows = map(tuple.__new__, repeat(AlignedRow), zip(a, b, repeat(False), repeat(()), repeat(True), strict=False))
    return cast(Iterable[AlignedRow], rows)


def _changed_region(a: Sequence[Item], b: Sequence[Item], focus: Focus) -> list[AlignedRow]:
    """Return the rows of a region in which no item of one side equals one of the other. Similar items are paired."""
    rows: list[AlignedRow] = []
    at_a = at_b = 0
    for i, j in [*_alike(a, b), (len(a), len(b))]:
        rows += _unpaired(a[at_a:i], b[at_b:j], focus)
        if i < len(a):
            rows.append(AlignedRow(a[i], b[j], changes=focus.part(a[i].kind, a[i].value, b[j].value)))
        at_a, at_b = i + 1, j + 1
    return rows


def _alike(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[int, int]]:
    if not a or not b:
        return []
    if (len(b), [item.key for item in b]) < (len(a), [item.key for item in a]):  # a mirrored call returns mirrored rows
        return [(i, j) for j, i in _alike(b, a)]
    alone = Counter(item.kind for item in a), Counter(item.kind for item in b)
    words_a, words_b = [words_of(item.text) for item in a], [words_of(item.text) for item in b]

    def score(i: int, j: int) -> float:
        kind = a[i].kind
        if kind != b[j].kind:
            return 0.0
        found = likeness(words_a[i], words_b[j])
        # The only items of their kind in the region are one changed item, however different.
        if kind in STRUCTURE or alone[0][kind] == alone[1][kind] == 1:
            return max(found, ALIKE)
        return found if found >= ALIKE else 0.0

    return pair_up(len(a), len(b), score)


def _unpaired(a: Sequence[Item], b: Sequence[Item], focus: Focus) -> list[AlignedRow]:
    """Return the rows of items without a partner. Two of them still form a pair if they differ only in ignored parts."""
    if not focus.chooses:
        return [*(AlignedRow(item, None) for item in a), *(AlignedRow(None, item) for item in b)]
    rows: list[AlignedRow] = []
    for op in script([focus.key(item.kind, item.value) for item in a], [focus.key(item.kind, item.value) for item in b]):
        one, other = a[op.a_from : op.a_to], b[op.b_from : op.b_to]
        if op.tag == "equal":
            rows += [AlignedRow(i, j) for i, j in zip(one, other, strict=True)]
        else:
            rows += [AlignedRow(item, None, counts=focus.counts_whole(item.kind, item.value)) for item in one]
            rows += [AlignedRow(None, item, counts=focus.counts_whole(item.kind, item.value)) for item in other]
    return rows


# What differs


def _differences(pair: Pair, focus: Focus) -> Iterator[Difference]:
    moved_uses = {row.item.volatile.get("id") for row in pair.differing if row.moved and row.item.kind == "tool_use"}
    places = defaultdict(deque)  # type: defaultdict[str, deque[Item]]
    for row in pair.differing:
        if row.moved and row.a is None:
            places[row.item.key].append(row.item)
    for row in pair.rows if focus.volatile else pair.differing:
        what = row.item.kind
        if row.moved:
            # A tool result moves with its tool use, which is reported already.
            follows = what == "tool_result" and row.item.volatile.get("tool_use_id") in moved_uses
            if row.b is None and row.counts and not follows:  # reported once, at the old position
                yield Difference("moved", what, pair.label, row.a, places[row.item.key].popleft())
        elif row.a is None or row.b is None:
            if row.counts:
                yield Difference("added" if row.a is None else "removed", what, pair.label, row.a, row.b)
        else:
            if row.changes:
                yield Difference("changed", what, pair.label, row.a, row.b, row.changes)
            if focus.volatile and (found := tuple(focus.part(what, row.a.volatile, row.b.volatile))):
                yield Difference("volatile", what, pair.label, row.a, row.b, found)


def _total(name: str, a: float | None, b: float | None, focus: Focus) -> Total:
    counts = a is not None and b is not None and focus.counts("totals", name) and (name not in TIMES or name in focus.tolerance)
    if a is None or b is None or not counts:
        return Total(name, a, b, False, False)
    tolerance = focus.tolerance.get(name)
    return Total(name, a, b, True, a != b if tolerance is None else not tolerance.allows(a, b))
