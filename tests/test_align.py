"""The aligner returns a correct script for any two sequences, at a low cost for similar, unlike and repetitive ones."""

import hashlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.comparing import align as aligner
from retold.comparing.align import EqualRun, Op, align, pair_up, script
from retold.comparing.value_diff import weave

keys = st.lists(st.sampled_from("abcdefgh"), max_size=30)
edited = st.tuples(keys, keys, st.randoms(use_true_random=False)).map(lambda t: (t[0], _edited(t[0], t[1], t[2])))
pairs = st.one_of(st.tuples(keys, keys), edited)


def _edited(base: list[str], other: list[str], chance: random.Random) -> list[str]:
    return [key for key in base if chance.random() < 0.8] + other[:3]


def applied(steps: list[Op], a: list[Any], b: list[Any]) -> list[Any]:
    """Return the result of applying the script to `a`. Only inserted keys come from `b`."""
    made: list[Any] = []
    for tag, a_from, a_to, b_from, b_to in steps:
        made += a[a_from:a_to] if tag == "equal" else b[b_from:b_to]
    return made


def longest_common(a: list[Any], b: list[Any]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def stream(number: int, edits: float, kinds: int) -> tuple[list[str], list[str]]:
    """Return two long streams. The second has edits, and half of the keys repeat."""
    chance = random.Random(number)
    a = [f"often {chance.randrange(kinds)}" if chance.random() < 0.5 else f"once {i}" for i in range(number)]
    b = []
    for key in a:
        fate = chance.random()
        b += [] if fate < edits / 3 else [f"new {fate}"] if fate < edits * 2 / 3 else [key]
    return a, b


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_the_script_turns_a_into_b(both: tuple[list[str], list[str]]) -> None:
    """Every key of both is in exactly one step, and applying the steps to A yields B."""
    a, b = both
    steps = script(a, b)
    assert applied(steps, a, b) == b
    assert [i for step in steps for i in range(step.a_from, step.a_to)] == list(range(len(a)))
    assert [j for step in steps for j in range(step.b_from, step.b_to)] == list(range(len(b)))


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_the_alignment_of_the_mirrored_pair_is_the_mirrored_alignment(both: tuple[list[str], list[str]]) -> None:
    a, b = both
    assert align(b, a) == [EqualRun(block.b, block.a, block.size) for block in align(a, b)]


@given(keys)
@settings(deadline=None, max_examples=60)
def test_a_stream_is_equal_to_itself(a: list[str]) -> None:
    assert script(a, a) == ([Op("equal", 0, len(a), 0, len(a))] if a else [])


@given(pairs)
@settings(deadline=None, max_examples=60)
def test_a_small_script_is_the_shortest(both: tuple[list[str], list[str]]) -> None:
    """Within the budget, it keeps as many keys as possible."""
    a, b = both
    assert sum(block.size for block in align(a, b)) == longest_common(a, b)


@pytest.mark.parametrize(("small", "longest", "budget"), [(0, 512, 10**6), (0, 2, 30), (64, 1, 10**6), (4, 512, 1)])
@pytest.mark.parametrize("in_step", [2, 100])
def test_the_script_is_correct_with_any_limits(
    small: int, longest: int, budget: int, in_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk, anchors, combined keys, partial scripts and an exhausted budget all leave a script that turns A into B."""
    monkeypatch.setattr(aligner, "IN_STEP", in_step)
    monkeypatch.setattr(aligner, "SMALL", small)
    monkeypatch.setattr(aligner, "MAX_SCRIPT", longest)
    monkeypatch.setattr(aligner, "BUDGET", budget)
    chance = random.Random(1)
    for _ in range(100):
        letters = "abcdefghijklmnop"[: chance.choice([1, 2, 3, 16])]
        a = chance.choices(letters, k=chance.randrange(40))
        b = _edited(a, chance.choices(letters, k=5), chance)
        assert applied(script(a, b), a, b) == b
        assert align(b, a) == [EqualRun(block.b, block.a, block.size) for block in align(a, b)]


def test_one_percent_of_edits_is_found_among_repeats() -> None:
    """Half of the keys repeat thousands of times, but only the edits are reported."""
    a, b = stream(20_000, 0.01, 10)
    kept = sum(1 for key in b if not key.startswith("new"))
    assert kept - sum(block.size for block in align(a, b)) <= 2


def test_a_few_keys_in_any_order_stay_within_the_budget() -> None:
    """Two unlike streams of four keys are the worst case of Myers.

    Memory and steps are bounded, and the script is still correct.
    """
    chance = random.Random(2)
    a, b = chance.choices("abcd", k=8_000), chance.choices("abcd", k=8_000)
    assert applied(script(a, b), a, b) == b
    assert sum(block.size for block in align(a, b)) > 1_000


def test_unlike_streams_have_nothing_in_common() -> None:
    a = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(5_000)]
    assert script(a, a[::-1])[0].tag != "equal"
    assert align(a, [key[::-1] for key in a]) == []


def test_pairs_rise_and_have_the_greatest_score() -> None:
    """Items of a changed region are paired by similarity, and pairs never cross."""
    scores = {(0, 1): 0.9, (1, 0): 0.8, (1, 2): 0.5, (2, 2): 0.6}
    assert pair_up(3, 3, lambda i, j: scores.get((i, j), 0.0)) == [(0, 1), (2, 2)]
    assert pair_up(3, 0, lambda i, j: 1.0) == []  # noqa: ARG005


def test_a_large_rewrite_is_not_scored_pair_by_pair() -> None:
    """In a region of 3,000 by 3,000 items, a few thousand pairs are scored, not nine million."""
    asked = 0

    def score(i: int, j: int) -> float:
        nonlocal asked
        asked += 1
        return 1.0 if i == j else 0.0

    assert pair_up(3_000, 3_000, score) == [(i, i) for i in range(3_000)]
    assert asked < 100_000


@given(st.text(st.sampled_from("ab .\n"), max_size=40), st.text(st.sampled_from("ab .\n"), max_size=40))
@settings(deadline=None, max_examples=60)
def test_woven_words_contain_both_texts(a: str, b: str) -> None:
    """Without the added words the result is the first text, without the removed words the second."""
    found = weave(a, b)
    assert "".join(text for tag, text in found if tag != "added") == a
    assert "".join(text for tag, text in found if tag != "removed") == b
