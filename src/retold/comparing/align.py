"""Align two streams: find the messages that they have in common. Pure functions over keys; equal keys mean equal messages.

1. Walk both streams. Skip equal keys. After an edit, look nearby for a run of IN_STEP equal keys and go on from there. For two
   nearly equal streams this costs little more than comparing them.
2. If the walk cannot resynchronise, align the remainder with patience diff: keys unique on both sides are anchors, and the
   longest chain of anchors that keeps its order splits the remainder into gaps. Each gap is split in the same way.
3. If every key of a gap repeats, combine 2, 4, 8, … consecutive keys into one until some of the combined keys are unique.
4. Give what remains, usually a few keys, to Myers' algorithm, which finds a shortest script. A budget bounds its time and
   memory: for two unlike streams with few distinct keys, the script is good but not always the shortest.

`align(b, a)` is `align(a, b)` mirrored, because both calls process the pair in the same order.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

IN_STEP = 8
"""The walk resumes after an edit if this many keys are equal."""

NEAR = 80
"""The largest edit that the walk skips, in keys of both sides together."""

SMALL = 64
"""The largest gap, in keys of both sides together, that goes to Myers at once."""

LONGEST_RUN = 64
"""The largest number of consecutive keys that are combined into one anchor."""

MAX_SCRIPT = 512
"""The largest number of edits that one search of Myers tries; its memory grows with the square."""

BUDGET = 1_000_000
"""The number of steps that Myers may take in one alignment. After that, the rest of a gap counts as rewritten."""

MAX_SCORES = 50_000
"""The largest number of pairs of a changed region that are scored. In a larger region, only pairs near the diagonal are."""

Tag = Literal["equal", "replace", "delete", "insert"]


class EqualRun(NamedTuple):
    """A run of equal keys: `size` keys from `a` in one stream and from `b` in the other."""

    a: int
    b: int
    size: int


class Op(NamedTuple):
    """One step of the script that turns one stream into the other: `a_from:a_to` becomes `b_from:b_to`."""

    tag: Tag
    a_from: int
    a_to: int
    b_from: int
    b_to: int


class _Region(NamedTuple):
    """A range of both streams that is not aligned yet."""

    a_from: int
    a_to: int
    b_from: int
    b_to: int


def align(a: Sequence[Any], b: Sequence[Any]) -> list[EqualRun]:
    """Return the blocks that two sequences of keys have in common, in order. Keys are hashable and ordered (digests, words)."""
    a, b = list(a), list(b)
    # Mirrored calls process the same pair, so they return mirrored blocks.
    if (len(b), b) < (len(a), a):
        return [EqualRun(one, other, size) for other, one, size in _align(b, a)]
    return _align(a, b)


def script(a: Sequence[Any], b: Sequence[Any]) -> list[Op]:
    """Return the steps that turn `a` into `b`. Every key of both sequences is in exactly one step."""
    steps: list[Op] = []
    at_a = at_b = 0
    for block in [*align(a, b), EqualRun(len(a), len(b), 0)]:
        if at_a < block.a or at_b < block.b:
            tag: Tag = "replace"
            if at_b == block.b:
                tag = "delete"
            elif at_a == block.a:
                tag = "insert"
            steps.append(Op(tag, at_a, block.a, at_b, block.b))
        at_a, at_b = block.a + block.size, block.b + block.size
        if block.size:
            steps.append(Op("equal", block.a, at_a, block.b, at_b))
    return steps


def _align(a: list[Any], b: list[Any]) -> list[EqualRun]:
    found: list[EqualRun] = []
    myers = _Myers(BUDGET)
    todo = _walked(a, b)[::-1]
    while todo:  # a stack whose top is the leftmost part, so that blocks are found in order
        item = todo.pop()
        if isinstance(item, EqualRun):
            _add(found, item)
        else:
            todo.extend(reversed(_split(a, b, item, myers)))
    return found


def _walked(a: list[Any], b: list[Any]) -> list[_Region | EqualRun]:
    """Walk both streams and return the equal blocks with the edits between them, then one region with the unaligned rest."""
    parts: list[_Region | EqualRun] = []
    i = j = 0
    while i < len(a) and j < len(b) and len(a) + len(b) > SMALL:
        size = _equal_from(a, i, b, j)
        parts.append(EqualRun(i, j, size))
        i, j = i + size, j + size
        step = _next_step(a, i, b, j)
        # A large edit: the anchors of _inside handle the rest.
        if step is None:
            break
        parts.append(_Region(i, step[0], j, step[1]))
        i, j = step
    return [*parts, _Region(i, len(a), j, len(b))]


def _equal_from(a: list[Any], i: int, b: list[Any], j: int) -> int:
    """Return how many keys are equal from `a[i]` and `b[j]` on. It compares whole slices, because that is fast."""
    start, size = i, 64
    while True:
        part_a, part_b = a[i : i + size], b[j : j + size]
        if part_a != part_b or not part_a:
            same = next(
                (at for at, (x, y) in enumerate(zip(part_a, part_b, strict=False)) if x != y), min(len(part_a), len(part_b))
            )
            return i + same - start
        i, j, size = i + size, j + size, min(size * 2, 2048)
        if i >= len(a):
            return len(a) - start


def _next_step(a: list[Any], i: int, b: list[Any], j: int) -> tuple[int, int] | None:
    """Return the nearest place where the streams are equal for IN_STEP keys again, or None."""
    for span in range(1, NEAR + 1):
        # All places at this distance: x - i keys removed and y - j added, span in sum.
        for x, y in zip(range(i, i + span + 1), range(j + span, j - 1, -1), strict=True):
            if x < len(a) and y < len(b) and a[x] == b[y]:
                run = a[x : x + IN_STEP]
                if len(run) == IN_STEP and run == b[y : y + IN_STEP]:
                    return x, y
    return None


def _add(found: list[EqualRun], block: EqualRun) -> None:
    if found and (found[-1].a + found[-1].size, found[-1].b + found[-1].size) == (block.a, block.b):
        # It touches the last block, so the two become one.
        block = EqualRun(found[-1].a, found[-1].b, found.pop().size + block.size)
    if block.size:
        found.append(block)


def _split(a: list[Any], b: list[Any], region: _Region, myers: "_Myers") -> list[_Region | EqualRun]:
    """Return a region as blocks and smaller regions, in order. Equal keys at both ends become blocks."""
    a_from, a_to, b_from, b_to = region
    while a_from < a_to and b_from < b_to and a[a_from] == b[b_from]:
        a_from, b_from = a_from + 1, b_from + 1
    end = 0
    while a_from < a_to - end and b_from < b_to - end and a[a_to - end - 1] == b[b_to - end - 1]:
        end += 1
    a_to, b_to = a_to - end, b_to - end
    parts: list[_Region | EqualRun] = [EqualRun(region.a_from, region.b_from, a_from - region.a_from)]
    if a_from < a_to and b_from < b_to:
        parts += _inside(a, b, _Region(a_from, a_to, b_from, b_to), myers)
    return [*parts, EqualRun(a_to, b_to, end)]


def _inside(a: list[Any], b: list[Any], region: _Region, myers: "_Myers") -> list[_Region | EqualRun]:
    """Return the blocks and regions of a region that begins and ends with a difference."""
    a_from, a_to, b_from, b_to = region
    in_a, in_b = a[a_from:a_to], b[b_from:b_to]
    if len(in_a) + len(in_b) > SMALL and (anchors := _anchors(in_a, in_b)):
        return _between(a, b, [(a_from + i, b_from + j) for i, j in anchors], region)
    # Only keys of both sides can be aligned. Dropping the others makes the runs of shared keys longer.
    both = set(in_a) & set(in_b)
    a_places = [i for i, key in enumerate(in_a) if key in both]
    b_places = [j for j, key in enumerate(in_b) if key in both]
    if len(a_places) + len(b_places) > SMALL:
        pairs = _run_anchors([in_a[i] for i in a_places], [in_b[j] for j in b_places])
        if pairs:
            return _between(a, b, [(a_from + a_places[i], b_from + b_places[j]) for i, j in pairs], region)
    pairs = myers.pairs([in_a[i] for i in a_places], [in_b[j] for j in b_places])
    return [EqualRun(a_from + a_places[i], b_from + b_places[j], 1) for i, j in pairs]


def _between(a: list[Any], b: list[Any], anchors: list[tuple[int, int]], region: _Region) -> list[_Region | EqualRun]:
    """Return the anchors as blocks, with the ranges between them as regions. Each anchor grows over the equal keys after it."""
    parts: list[_Region | EqualRun] = []
    start_a, start_b = at_a, at_b = region.a_from, region.b_from
    for i, j in [*anchors, (region.a_to, region.b_to)]:
        if at_a < i or at_b < j:
            if at_a > start_a:
                while at_a < i and at_b < j and a[at_a] == b[at_b]:
                    at_a, at_b = at_a + 1, at_b + 1
            if at_a < i or at_b < j:
                parts += [EqualRun(start_a, start_b, at_a - start_a), _Region(at_a, i, at_b, j)]
                start_a, start_b = i, j
        at_a, at_b = i + 1, j + 1
    parts.append(EqualRun(start_a, start_b, region.a_to - start_a))
    return parts


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return the places of keys that are unique on both sides: the longest chain that rises on both."""
    times_a, times_b = Counter(a), Counter(b)
    place = dict(zip(b, range(len(b)), strict=True))
    unique = [(i, place[key]) for i, key in enumerate(a) if times_a[key] == 1 and times_b.get(key) == 1]
    return _longest_rising(unique)


def _run_anchors(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return anchors made of 2, 4, 8, … consecutive keys, or an empty list."""
    numbers: dict[Any, int] = {}
    length = 1
    while length < LONGEST_RUN and length * 2 <= min(len(a), len(b)):
        # A run is a number: the number of its pair of halves. So each round compares numbers, not runs.
        a, b = ([numbers.setdefault(pair, len(numbers)) for pair in zip(x, x[length:], strict=False)] for x in (a, b))
        length *= 2
        if set(a).isdisjoint(b):
            return []
        if anchors := _anchors(a, b):
            return anchors
        numbers = {}
    return []


def _longest_rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest chain of pairs in which both numbers rise (patience sorting)."""
    if all(one[1] < other[1] for one, other in pairwise(pairs)):
        return pairs
    from bisect import bisect_left

    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        at = len(tops) if not tops or j > tops[-1] else bisect_left(tops, j)
        before.append(ends[at - 1] if at else -1)
        if at == len(tops):
            tops.append(j)
            ends.append(number)
        else:
            tops[at], ends[at] = j, number
    chain = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]


class _Myers:
    """Myers' greedy algorithm with a budget of steps that all regions of one alignment share."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def pairs(self, a: list[Any], b: list[Any]) -> list[tuple[int, int]]:
        """Return the places of equal keys, in order.

        They follow a shortest script. If that script has more than MAX_SCRIPT edits, they follow several partial ones.
        """
        found: list[tuple[int, int]] = []
        at_a = at_b = 0
        while at_a < len(a) and at_b < len(b) and self.budget > 0:
            part = self._stretch(a[at_a:], b[at_b:])
            found += [(at_a + i, at_b + j) for i, j in part.pairs]
            at_a, at_b = at_a + part.a, at_b + part.b
        return found

    def _stretch(self, a: list[Any], b: list[Any]) -> "_Stretch":
        reach = {1: 0}
        history: list[dict[int, int]] = []
        n, m = len(a), len(b)
        # reach[k] is the largest x reached on diagonal k = x - y with this many edits.
        for edits in range(min(MAX_SCRIPT, n + m) + 1):
            history.append(reach.copy())
            self.budget -= edits + 1
            for k in range(-edits, edits + 1, 2):
                down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
                x = reach[k + 1] if down else reach[k - 1] + 1
                while x < n and 0 <= x - k < m and a[x] == b[x - k]:
                    x += 1
                reach[k] = x
                if x >= n and x - k >= m:
                    return _Stretch(_path(history, n, k), n, m)
        # No complete path within MAX_SCRIPT edits: keep the path that consumed the most keys, and let `pairs` go on from its
        # end.
        k = max(reach, key=lambda k: (min(reach[k], n) + min(reach[k] - k, m), -abs(k)))
        x = min(reach[k], n)
        return _Stretch(_path(history, reach[k], k), x, min(max(reach[k] - k, 0), m))


class _Stretch(NamedTuple):
    """The pairs that one search found, and the number of keys of each side that it consumed."""

    pairs: list[tuple[int, int]]
    a: int
    b: int


def _path(history: list[dict[int, int]], x: int, k: int) -> list[tuple[int, int]]:
    """Return the diagonal steps of the path to (x, x - k), traced backwards and then reversed."""
    pairs: list[tuple[int, int]] = []
    for edits in range(len(history) - 1, -1, -1):
        # Repeat the choice of the forward search, then undo the diagonal steps that followed it.
        reach = history[edits]
        down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
        start = reach[k + 1] if down else reach[k - 1] + 1
        while x > start:
            x -= 1
            pairs.append((x, x - k))
        k, x = (k + 1, start) if down else (k - 1, start - 1)
    return pairs[::-1]


def pair_up(count_a: int, count_b: int, score: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Return pairs (i, j), both rising, with the greatest sum of scores. Things with a score of 0 are never paired.

    Use it for a changed region, in which no two things are equal: `score(i, j)` returns how similar two of them are. It is
    called at most about MAX_SCORES times (or five times a thing); in a large region, only for pairs near the diagonal.
    """
    if count_a > count_b:
        return [(i, j) for j, i in pair_up(count_b, count_a, lambda j, i: score(i, j))]
    if not count_a:
        return []
    # A band of this half-width around the diagonal keeps the number of scores bounded.
    width = count_b if count_a * count_b <= MAX_SCORES else max(2, MAX_SCORES // count_a // 2)
    # best[i][j - bands[i].start] is the greatest sum for the first i things of one side and the first j of the other.
    bands = [range(1)]
    best = [[0.0]]
    scores: list[dict[int, float]] = []
    for i in range(count_a):
        middle = i * count_b // count_a
        band = range(max(0, middle - width), min(count_b, middle + width + 1) + 1)
        scores.append({j: score(i, j) for j in band[:-1]})
        row: list[float] = []
        for j in band:
            paired = scores[i].get(j - 1, 0.0)
            reached = _sum_at(bands[i], best[i], j - 1) + paired if paired > 0 else 0.0
            row.append(max(_sum_at(bands[i], best[i], j), row[-1] if row else 0.0, reached))
        bands.append(band)
        best.append(row)
    # Trace the choices back from the last cell.
    pairs = []
    i, j = count_a, count_b
    while i and j:
        here, paired = _sum_at(bands[i], best[i], j), scores[i - 1].get(j - 1, 0.0)
        if paired > 0 and here == _sum_at(bands[i - 1], best[i - 1], j - 1) + paired:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif here == _sum_at(bands[i - 1], best[i - 1], j):
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _sum_at(band: range, row: list[float], j: int) -> float:
    """Return the sum at column `j` of a row of `best`: 0 left of its band, the last sum right of it."""
    return 0.0 if j < band.start else row[min(j - band.start, len(row) - 1)]
