"""The aligner: which messages of one stream are those of another. Pure, on keys that are equal where messages mean the same.

Two nearly equal streams are walked: what is equal is skipped, and after an edit the streams are in step again where a long
enough run of keys is equal. This costs little more than comparing them. From where no step is found nearby, keys that stand
exactly once on either side anchor the rest (patience: the longest chain of them that keeps its order), and each gap between
anchors is treated in the same way. Where every key of a gap repeats, short runs of keys are taken together
until some are unique. What is left is small as a rule, and Myers' algorithm finds its shortest script; where it is not (two
unlike streams of few keys) a budget bounds time and memory, and the script is good instead of the shortest.

`align(b, a)` is `align(a, b)` mirrored: both look at the pair in the same order.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

IN_STEP = 8
"""So many equal keys after an edit say that two streams are in step again."""

NEAR = 80
"""How many keys of both sides together an edit may span for that."""

SMALL = 64
"""A gap of at most this many keys goes to Myers at once."""

LONGEST_RUN = 64
"""How many keys are at most taken together as one anchor."""

MAX_SCRIPT = 512
"""How far Myers looks before it settles for the best way so far; its memory is the square of this."""

BUDGET = 1_000_000
"""How many steps Myers may take in one alignment before the rest of a gap counts as rewritten."""

MAX_SCORES = 50_000
"""How many pairs of a changed region are scored at most; of a larger one only those near its diagonal."""

Tag = Literal["equal", "replace", "delete", "insert"]


class Block(NamedTuple):
    """`size` keys from `a` on in one stream equal those from `b` on in the other."""

    a: int
    b: int
    size: int


class Op(NamedTuple):
    """A step of the script that turns one stream into the other: `a_from:a_to` becomes `b_from:b_to`."""

    tag: Tag
    a_from: int
    a_to: int
    b_from: int
    b_to: int


class _Region(NamedTuple):
    """A stretch of both streams still to be aligned."""

    a_from: int
    a_to: int
    b_from: int
    b_to: int


def align(a: Sequence[Any], b: Sequence[Any]) -> list[Block]:
    """The blocks two sequences of keys have in common, in order. Keys are hashable and ordered (digests, words)."""
    a, b = list(a), list(b)
    if (len(b), b) < (len(a), a):
        return [Block(one, other, size) for other, one, size in _align(b, a)]
    return _align(a, b)


def script(a: Sequence[Any], b: Sequence[Any]) -> list[Op]:
    """What turns `a` into `b`: every key of both is in exactly one step."""
    steps: list[Op] = []
    at_a = at_b = 0
    for block in [*align(a, b), Block(len(a), len(b), 0)]:
        if at_a < block.a or at_b < block.b:
            tag: Tag = "delete" if at_b == block.b else "insert" if at_a == block.a else "replace"
            steps.append(Op(tag, at_a, block.a, at_b, block.b))
        at_a, at_b = block.a + block.size, block.b + block.size
        if block.size:
            steps.append(Op("equal", block.a, at_a, block.b, at_b))
    return steps


def _align(a: list[Any], b: list[Any]) -> list[Block]:
    found: list[Block] = []
    myers = _Myers(BUDGET)
    todo = _walked(a, b)[::-1]
    while todo:  # popped from the left end of what is left, so that blocks are found in order
        item = todo.pop()
        if isinstance(item, Block):
            _add(found, item)
        else:
            todo.extend(reversed(_split(a, b, item, myers)))
    return found


def _walked(a: list[Any], b: list[Any]) -> list[_Region | Block]:
    """Blocks and the edits between them, as far as the streams come into step again; then one region with the rest."""
    parts: list[_Region | Block] = []
    i = j = 0
    while i < len(a) and j < len(b) and len(a) + len(b) > SMALL:
        size = _equal_from(a, i, b, j)
        parts.append(Block(i, j, size))
        i, j = i + size, j + size
        step = _next_step(a, i, b, j)
        if step is None:
            break
        parts.append(_Region(i, step[0], j, step[1]))
        i, j = step
    return [*parts, _Region(i, len(a), j, len(b))]


def _equal_from(a: list[Any], i: int, b: list[Any], j: int) -> int:
    """How many keys from there on are equal; whole slices are compared, for that is fast."""
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
    """The nearest place from which on the streams are equal for a while, or None."""
    for span in range(1, NEAR + 1):
        for x, y in zip(range(i, i + span + 1), range(j + span, j - 1, -1), strict=True):
            if x < len(a) and y < len(b) and a[x] == b[y]:
                run = a[x : x + IN_STEP]
                if len(run) == IN_STEP and run == b[y : y + IN_STEP]:
                    return x, y
    return None


def _add(found: list[Block], block: Block) -> None:
    if found and (found[-1].a + found[-1].size, found[-1].b + found[-1].size) == (block.a, block.b):
        block = Block(found[-1].a, found[-1].b, found.pop().size + block.size)
    if block.size:
        found.append(block)


def _split(a: list[Any], b: list[Any], region: _Region, myers: "_Myers") -> list[_Region | Block]:
    """A region as blocks and smaller regions, in order."""
    a_from, a_to, b_from, b_to = region
    while a_from < a_to and b_from < b_to and a[a_from] == b[b_from]:
        a_from, b_from = a_from + 1, b_from + 1
    end = 0
    while a_from < a_to - end and b_from < b_to - end and a[a_to - end - 1] == b[b_to - end - 1]:
        end += 1
    a_to, b_to = a_to - end, b_to - end
    parts: list[_Region | Block] = [Block(region.a_from, region.b_from, a_from - region.a_from)]
    if a_from < a_to and b_from < b_to:
        parts += _inside(a, b, _Region(a_from, a_to, b_from, b_to), myers)
    return [*parts, Block(a_to, b_to, end)]


def _inside(a: list[Any], b: list[Any], region: _Region, myers: "_Myers") -> list[_Region | Block]:
    """A region whose ends differ."""
    a_from, a_to, b_from, b_to = region
    in_a, in_b = a[a_from:a_to], b[b_from:b_to]
    if len(in_a) + len(in_b) > SMALL and (anchors := _anchors(in_a, in_b)):
        return _between(a, b, [(a_from + i, b_from + j) for i, j in anchors], region)
    # Only what stands on both sides can be aligned; without the rest, runs of keys are longer.
    both = set(in_a) & set(in_b)
    a_places = [i for i, key in enumerate(in_a) if key in both]
    b_places = [j for j, key in enumerate(in_b) if key in both]
    if len(a_places) + len(b_places) > SMALL:
        pairs = _run_anchors([in_a[i] for i in a_places], [in_b[j] for j in b_places])
        if pairs:
            return _between(a, b, [(a_from + a_places[i], b_from + b_places[j]) for i, j in pairs], region)
    pairs = myers.pairs([in_a[i] for i in a_places], [in_b[j] for j in b_places])
    return [Block(a_from + a_places[i], b_from + b_places[j], 1) for i, j in pairs]


def _between(a: list[Any], b: list[Any], anchors: list[tuple[int, int]], region: _Region) -> list[_Region | Block]:
    """Anchors as blocks, each grown over the equal keys that follow it, and what is between the blocks as regions."""
    parts: list[_Region | Block] = []
    start_a, start_b = at_a, at_b = region.a_from, region.b_from
    for i, j in [*anchors, (region.a_to, region.b_to)]:
        if at_a < i or at_b < j:
            if at_a > start_a:
                while at_a < i and at_b < j and a[at_a] == b[at_b]:
                    at_a, at_b = at_a + 1, at_b + 1
            if at_a < i or at_b < j:
                parts += [Block(start_a, start_b, at_a - start_a), _Region(at_a, i, at_b, j)]
                start_a, start_b = i, j
        at_a, at_b = i + 1, j + 1
    parts.append(Block(start_a, start_b, region.a_to - start_a))
    return parts


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Places of keys that stand once in each, as far as they keep their order."""
    times_a, times_b = Counter(a), Counter(b)
    place = dict(zip(b, range(len(b)), strict=True))
    unique = [(i, place[key]) for i, key in enumerate(a) if times_a[key] == 1 and times_b.get(key) == 1]
    return _longest_rising(unique)


def _run_anchors(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The same for runs of 2, 4, 8, … keys. A run is a number: that of the pair of its halves."""
    numbers: dict[Any, int] = {}
    length = 1
    while length < LONGEST_RUN and length * 2 <= min(len(a), len(b)):
        a, b = ([numbers.setdefault(pair, len(numbers)) for pair in zip(x, x[length:], strict=False)] for x in (a, b))
        length *= 2
        if set(a).isdisjoint(b):
            return []
        if anchors := _anchors(a, b):
            return anchors
        numbers = {}
    return []


def _longest_rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest chain of pairs whose second number rises as the first does (patience sorting)."""
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
        """Places of equal keys, in order, by a shortest script, or by stretches of one where that is too long."""
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
        k = max(reach, key=lambda k: (min(reach[k], n) + min(reach[k] - k, m), -abs(k)))
        x = min(reach[k], n)
        return _Stretch(_path(history, reach[k], k), x, min(max(reach[k] - k, 0), m))


class _Stretch(NamedTuple):
    """The pairs found, and how far into each side they reach."""

    pairs: list[tuple[int, int]]
    a: int
    b: int


def _path(history: list[dict[int, int]], x: int, k: int) -> list[tuple[int, int]]:
    """The diagonal steps of the way to (x, x - k), found backwards."""
    pairs: list[tuple[int, int]] = []
    for edits in range(len(history) - 1, -1, -1):
        reach = history[edits]
        down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
        start = reach[k + 1] if down else reach[k - 1] + 1
        while x > start:
            x -= 1
            pairs.append((x, x - k))
        k, x = (k + 1, start) if down else (k - 1, start - 1)
    return pairs[::-1]


def pair_up(count_a: int, count_b: int, score: Callable[[int, int], float]) -> list[tuple[int, int]]:
    """Pairs (i, j), both rising, with the greatest sum of scores; a score of 0 is no pair.

    For a changed region: nothing in it is equal, and the score says how alike two things are. `score(i, j)` is asked for at
    most about MAX_SCORES pairs (or five for each thing), in a large region those near the diagonal.
    """
    if count_a > count_b:
        return [(i, j) for j, i in pair_up(count_b, count_a, lambda j, i: score(i, j))]
    if not count_a:
        return []
    width = count_b if count_a * count_b <= MAX_SCORES else max(2, MAX_SCORES // count_a // 2)
    # best[i][j - bands[i].start] is the greatest sum for the first i and j things; left of a band it is 0, right of it the last.
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
    return 0.0 if j < band.start else row[min(j - band.start, len(row) - 1)]
