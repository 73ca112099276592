"""Several baseline runs: differences that they have among themselves are noise, any other one is a regression."""

import json
from pathlib import Path

import pytest

from tests.e2e import in_this_process


def _run(name: str, order: str, wording: str, *, fails: str = "") -> str:
    uses = [{"type": "tool_use", "id": f"{name}{tool}", "name": tool, "input": {"of": tool}} for tool in order]
    results = [
        {"type": "tool_result", "tool_use_id": f"{name}{tool}", "content": f"found {tool}", "is_error": tool == fails}
        for tool in order
    ]
    lines = [
        {"type": "user", "message": {"role": "user", "content": "look"}},
        {
            "type": "assistant",
            "message": {"id": f"m1{name}", "role": "assistant", "content": [{"type": "text", "text": wording}, *uses]},
        },
        {"type": "user", "message": {"role": "user", "content": results}},
        {"type": "assistant", "message": {"id": f"m2{name}", "role": "assistant", "content": [{"type": "text", "text": "done"}]}},
    ]
    Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{name}.jsonl"


@pytest.mark.usefixtures("cli")
def test_only_a_difference_outside_the_band_of_the_baseline_is_a_regression() -> None:
    """Five runs with shuffled tools and other wording: a sixth like them passes, a failing tool does not."""
    orders = ("abc", "bac", "cab", "acb", "bca")
    baseline = [_run(f"r{n}", order, f"wording number {n}") for n, order in enumerate(orders)]
    like = _run("like", "cba", "quite another sentence")
    bad = _run("bad", "cba", "quite another sentence", fails="b")
    for run, code in ((like, 0), (bad, 1)):
        done = in_this_process("diff", *baseline, "--", run)
        assert (done.returncode, "judged by 5 baseline runs" in done.stdout) == (code, True), done.stdout
        done = in_this_process("diff", *baseline, run, "--json")
        found = json.loads(done.stdout)
        assert (done.returncode, found["same"], found["runs"]) == (code, not code, 5)
        assert bool(found["regressions"]) is bool(code)
    done = in_this_process("diff", *[baseline[0]] * 2, "--", like)
    assert done.returncode == 1  # equal baseline runs allow no variation
    done = in_this_process("diff", baseline[0], "--", like)
    assert (done.returncode, "one baseline run shows no variation" in done.stderr) == (2, True)
