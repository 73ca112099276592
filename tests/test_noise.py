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
    texts = [{"type": "text", "text": text} for text in wording.split("|") if text]
    lines = [
        {"type": "user", "message": {"role": "user", "content": "look"}},
        {
            "type": "assistant",
            "message": {"id": f"m1{name}", "role": "assistant", "content": [*texts, *uses]},
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


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize(("wording", "code"), [("quite another sentence", 0), ("", 1), ("one|and two", 1)])
def test_another_number_of_texts_is_a_regression(wording: str, code: int) -> None:
    """A text may have any wording if it varies among the baseline runs, but it may not be absent, and no text may be added."""
    baseline = [_run(f"r{n}", "ab", f"wording number {n} {n * 'x'}") for n in range(3)]
    done = in_this_process("diff", *baseline, "--", _run("run", "ab", wording))
    assert done.returncode == code, done.stdout


@pytest.mark.usefixtures("cli")
def test_a_report_has_a_limit_and_refuses_what_it_does_not_have() -> None:
    """Two regressions with --limit 1 are one line and a count; --volatile, HTML and Markdown are errors."""
    baseline = [_run("r1", "abc", "a"), _run("r2", "abc", "b")]
    bad = _run("bad", "abcd", "a", fails="b")
    done = in_this_process("diff", *baseline, bad, "--limit", "1")
    count = len(json.loads(in_this_process("diff", *baseline, bad, "--json").stdout)["regressions"])
    assert done.stdout.splitlines()[-1] == f"  … and {count - 1} more; --limit 0 prints all"
    for option in ("--volatile", "--format=html", "--format=markdown"):
        assert in_this_process("diff", *baseline, bad, option).returncode == 2
