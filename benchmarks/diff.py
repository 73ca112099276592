"""Align two streams of 100,000 messages with 1 % edits: against git and difflib on the same streams, and on unlike ones.

Half of the messages repeat (`ok` and similar ones), as in long runs. git gets the messages as lines of JSON. retold and difflib
get their keys, as `compare` has them after reading. The cost of reading is a separate row: `compare` of the two files, from
JSON to differences.
"""

import difflib
import json
import random
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, absent, figure, folder, found_command, ratio, rounds, run
from retold.comparing.align import align
from retold.comparing.sources import compare

MESSAGES = 100_000
ROUNDS = 7


def _streams(edits: float) -> tuple[list[str], list[str]]:
    """Return two streams of texts. Each edit changes a text, removes one or adds one."""
    chance = random.Random(7)
    a = [f"ok, {chance.randrange(50)}" if chance.random() < 0.5 else f"Step {n} is done: the quick fox" for n in range(MESSAGES)]
    b = []
    for text in a:
        fate = chance.random() / edits
        if fate < 1 / 3:
            b.append(text.replace("is", "was") + "!")
        elif fate < 2 / 3:
            b += [text, f"One more, {fate}"]
        elif fate > 1:
            b.append(text)
    return a, b


def _keys(texts: list[str]) -> list[str]:
    return [sha256(text.encode()).hexdigest()[:32] for text in texts]


def _write(path: Path, texts: list[str]) -> None:
    with path.open("w") as file:
        for number, text in enumerate(texts):
            message = {"id": f"msg_{number // 3}", "content": [{"type": "text", "text": text}]}
            file.write(json.dumps({"type": "assistant", "message": message}) + "\n")


def _write_plain(path: Path, texts: list[str]) -> None:
    """Write the texts for git, without ids, because git would show them as edits."""
    path.write_text(
        "".join(json.dumps({"type": "assistant", "content": [{"type": "text", "text": text}]}) + "\n" for text in texts)
    )


def _timed(function: Callable[[], object]) -> Callable[[], float]:
    def measured() -> float:
        began = time.perf_counter()
        function()
        return (time.perf_counter() - began) * 1000

    return measured


def _peak_mb(a: list[Any], b: list[Any]) -> float:
    tracemalloc.start()
    align(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def measure() -> list[Row]:
    a, b = _streams(0.01)
    keys_a, keys_b = _keys(a), _keys(b)
    half_a, half_b = (_keys(texts) for texts in _streams(0.5))
    chance = random.Random(3)
    few_a, few_b = (chance.choices("abcd", k=MESSAGES) for _ in range(2))
    with folder() as home:
        for name, texts in (("a", a), ("b", b)):
            _write(home / f"{name}.jsonl", texts)
            _write_plain(home / f"{name}.txt", texts)
        git = ["git", "diff", "--no-index", "--no-color", str(home / "a.txt"), str(home / "b.txt")]
        contestants = {"ours": _timed(lambda: align(keys_a, keys_b))}
        if found_command("git"):
            contestants["git"] = _timed(lambda: subprocess.run(git, stdout=subprocess.DEVNULL, check=False))
        found = rounds(ROUNDS, contestants)
        whole = [_timed(lambda: compare(home / "a.jsonl", home / "b.jsonl"))() for _ in range(2)]
    slow = _timed(lambda: difflib.SequenceMatcher(None, keys_a, keys_b, autojunk=False).get_matching_blocks())()
    what, peer = "align 2 x 100,000 keys, 1 % edits", "git diff --no-index"
    return [
        ratio(what, found["ours"], peer, found["git"], "ms", at_most=1.0)
        if "git" in found
        else absent(what, found["ours"], peer, "ms"),
        ratio("the same", found["ours"][:1], "difflib.SequenceMatcher", [slow], "ms", at_most=0.1),
        figure("the same, peak memory", [_peak_mb(keys_a, keys_b)], "MB", at_most=20),
        figure("50 % edits", [_timed(lambda: align(half_a, half_b))()], "ms", at_most=2000),
        figure("50 % edits, peak memory", [_peak_mb(half_a, half_b)], "MB", at_most=100),
        figure("unlike streams of 4 keys", [_timed(lambda: align(few_a, few_b))()], "ms", at_most=5000),
        figure("unlike streams of 4 keys, peak memory", [_peak_mb(few_a, few_b)], "MB", at_most=100),
        figure("compare the two as stream-json files", whole, "ms"),
    ]


if __name__ == "__main__":
    run("Diff: two streams of 100,000 messages", measure)
