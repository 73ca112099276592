"""Several baseline runs judge a run: only a deviation from the variation among them is a regression."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.comparing.focus import Focus, parse_tolerances
from retold.comparing.reading import Side, read_messages
from retold.experiments.noise import judge, place_of
from tests.conftest import ROOT
from tests.e2e import in_this_process

ORDERS = ("abc", "bac", "cab", "acb", "bca")
CASSETTE = ROOT / "cassettes" / "streaming_file_operations.yaml"


def _messages(
    name: str, order: str, wording: str, *, fails: str = "", argument: Any = None, found: str = "found",
    tokens: int | None = None, last: str = "done",
) -> list[dict[str, Any]]:  # fmt: skip
    """A run of two turns: texts (divided by `|`), calls of tools with one letter, their results, and a last text."""
    uses = [
        {
            "type": "tool_use",
            "id": f"{name}{tool}",
            "name": tool,
            "input": {"of": tool} | ({"with": argument} if tool == "b" and argument is not None else {}),
        }
        for tool in order
    ]
    results = [
        {"type": "tool_result", "tool_use_id": f"{name}{tool}", "content": f"{found} {tool}", "is_error": tool == fails}
        for tool in order
    ]
    texts = [{"type": "text", "text": text} for text in wording.split("|") if text]
    end = {"type": "result", "subtype": "success", "usage": {"output_tokens": tokens}, "num_turns": 2}
    return [
        {"type": "user", "message": {"role": "user", "content": "look"}},
        {"type": "assistant", "message": {"id": f"m1{name}", "role": "assistant", "content": [*texts, *uses]}},
        {"type": "user", "message": {"role": "user", "content": results}},
        {"type": "assistant", "message": {"id": f"m2{name}", "role": "assistant", "content": [{"type": "text", "text": last}]}},
        *([] if tokens is None else [end]),
    ]


def _side(name: str, *arguments: Any, **options: Any) -> Side:
    return read_messages(_messages(name, *arguments, **options), title=name)


def _found(baseline: Sequence[Side], run: Side, focus: Focus | None = None) -> list[str]:
    """Return the kind and the place of each regression."""
    judged = judge(baseline, run, focus or Focus())
    assert judged.runs == len(baseline)
    return [f"{each.kind} {place_of(each)}" for each in judged.regressions]


BASELINE = [_side(f"r{n}", order, f"wording number {n}") for n, order in enumerate(ORDERS)]


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (_side("x", "cba", "quite another sentence"), []),
        (_side("x", "ca", "w"), ["missing turn 1, tool call b"]),
        (_side("x", "abcd", "w"), ["added turn 1, tool call d"]),
        (_side("x", "abca", "w"), ["added turn 1, tool call a"]),
        (_side("x", "cab", "w", fails="b"), ["value turn 1, tool result b, is_error"]),
        (_side("x", "cab", "w", argument=1), ["value turn 1, tool call b, input.with"]),
        (_side("x", "cab", ""), ["missing turn 1, text"]),
        (_side("x", "cab", "one|two"), ["added turn 1, text"]),
        (_side("x", "cab", "w", last="failed"), ["value turn 2, text, text"]),
        (_side("x", "cab", "w", found="lost"), [f"value turn 1, tool result {tool}, content" for tool in "cab"]),
    ],
)
def test_one_regression_is_found_among_shuffled_tools_and_other_wording(run: Side, found: list[str]) -> None:
    """A sixth run of the same kind has no regression. Each single change of another kind is one."""
    assert _found(BASELINE, run) == found


@pytest.mark.parametrize("first", range(5))
def test_all_baseline_runs_count(first: int) -> None:
    """The order of the baseline runs does not change the verdict, and each of them passes."""
    turned = [*BASELINE[first:], *BASELINE[:first]]
    assert _found(turned, _side("x", "cba", "w", fails="b")) == ["value turn 1, tool result b, is_error"]
    assert _found(turned, BASELINE[first]) == []


@pytest.mark.parametrize(
    ("known", "value", "within"),
    [
        ((1, 5), 3, True),
        ((1, 5), 5.0, True),
        ((1, 5), 6, False),
        ((1, 5), "3", False),
        ((10, 20, 15), 30, True),
        ((10, 20, 15), 31, False),
        ((10, 20, 10), 21, False),
        ((1, True), False, False),
        ((True, False), False, True),
        (("a.py", "b.py"), "b.py", True),
        (("a.py", "b.py"), "c.py", False),
        (("a.py", "b.py", "a.py"), "c.py", False),
        (("weather in Paris", "Paris weather", "weather of Paris now"), "the weather in Paris", True),
        (("weather in Paris", "Paris weather", "weather of Paris now"), "delete every file", False),
        (([1, 2], [1]), [1], True),
        (([1, 2], [1]), [1, 3], False),
        (({"x": 1}, {"x": 1, "y": 2}), {"x": 1}, True),
        (({"x": 1}, {"x": 1, "y": 2}), {"y": 2}, False),
        (({"x": 1}, {"x": 2}), {"x": 1, "z": 1}, False),
    ],
)
def test_another_argument_at_a_varying_path_must_fit(known: Sequence[Any], value: Any, *, within: bool) -> None:
    """Numbers must fit a range, other values must be known. A text may be new if each of three or more runs had a new one."""
    baseline = [_side(f"r{n}", "ab", "w", argument=each) for n, each in enumerate(known)]
    assert (_found(baseline, _side("x", "ab", "w", argument=value)) == []) is within


def test_order_may_vary_as_in_the_baseline_runs() -> None:
    """Tools that changed places, even through other tools, are free. A tool that always came last stays last."""
    baseline = [_side(f"r{n}", order, "w") for n, order in enumerate(("abcd", "bacd", "acbd"))]
    assert _found(baseline, _side("x", "cbad", "w")) == []
    assert _found(baseline, _side("x", "cbda", "w")) == ["order turn 1, tool call a"]


def test_a_pair_in_few_runs_has_no_order() -> None:
    """Two of five runs have both a and d, so their order may be chance. The order counts if both of two runs have the pair."""
    baseline = [_side(f"r{n}", order, "w") for n, order in enumerate(("abd", "ba", "ab", "abd", "ba"))]
    assert _found(baseline, _side("x", "dab", "w")) == []
    assert _found(baseline[::3], _side("x", "dab", "w")) == ["order turn 1, tool call a"]


def test_an_item_that_some_runs_lack_is_optional() -> None:
    """Tool b is optional, but not more often than before. A call that each run makes once, in varying turns, is required."""
    baseline = [_side("r0", "ab", "w"), _side("r1", "a", "w")]
    assert _found(baseline, _side("x", "a", "w")) == _found(baseline, _side("y", "ab", "w")) == []

    def call(*turns: str) -> Side:
        uses = [
            [{"type": "tool_use", "id": f"t{n}", "name": tool, "input": {}} for tool in tools] for n, tools in enumerate(turns)
        ]
        lines = [{"type": "assistant", "message": {"id": f"m{n}", "content": blocks}} for n, blocks in enumerate(uses)]
        return read_messages(lines, title="")

    moving = [call("a", "b", "c"), call("b", "a", "c")]
    assert _found(moving, call("a", "a", "c")) == ["count tool call a", "count tool call b"]


def test_totals_may_exceed_the_baseline_by_its_spread() -> None:
    """Varying totals have loose bounds, and equal totals have exact ones. A tolerance is added. Other totals do not count."""
    baseline = [_side(f"r{n}", "ab", "w", tokens=tokens) for n, tokens in enumerate((100, 110))]
    for tokens, found in ((95, []), (120, []), (121, ["total total output_tokens"]), (89, ["total total output_tokens"])):
        assert _found(baseline, _side("x", "ab", "w", tokens=tokens)) == found
    equal = [_side(f"r{n}", "ab", "w", tokens=100) for n in range(2)]
    more = _side("x", "ab", "w", tokens=102)
    assert _found(equal, more) == ["total total output_tokens"]
    assert _found(equal, more, Focus(ignore=("totals",))) == []
    assert _found(equal, more, Focus(tolerance=parse_tolerances(["tokens=5%"]))) == []
    assert _found(equal, _side("x", "ab", "w")) == []  # unknown totals are not compared


def test_ignored_parts_cause_no_regression() -> None:
    """`ignore` excludes kinds, paths and the order. The other parts still count."""
    run = _side("x", "cba", "w", fails="b", argument=1)
    assert _found(BASELINE, run, Focus(ignore=("tool_use.input.with",))) == ["value turn 1, tool result b, is_error"]
    assert _found(BASELINE, run, Focus(ignore=("tool_use", "tool_result"))) == []
    assert _found(BASELINE, run, Focus(only=("tool_use",))) == ["value turn 1, tool call b, input.with"]
    fixed = [_side(f"r{n}", "abc", "w") for n in range(2)]
    assert _found(fixed, _side("x", "bac", "w")) == ["order turn 1, tool call a"]
    assert _found(fixed, _side("x", "bac", "w"), Focus(ignore=("order",))) == []


def test_few_similar_runs_are_false_alarms() -> None:
    """Of 40 sixth runs with shuffled tools, numbers and words, few are false alarms. Each failing tool is found."""
    luck = random.Random(18)

    def drawn(*, fails: str = "") -> Side:
        order = "".join(luck.sample("abcde", 5))
        words = " ".join(luck.choices(("look", "read", "the", "file", "now", "then", "it"), k=9))
        return _side("r", order, words, argument=luck.randint(10, 50), tokens=luck.randint(90, 130), fails=fails)

    bands = [[drawn() for _ in range(5)] for _ in range(10)]
    assert sum(not judge(band, drawn()).same for band in bands for _ in range(4)) <= 4
    assert all("is_error" in judge(band, drawn(fails="c")).as_text() for band in bands)


# retold diff


@pytest.fixture
def files(cli: Any) -> list[str]:
    """Return five baseline runs, `like` and `bad` as files."""
    del cli
    runs = {f"r{n}": (order, f"wording number {n}", "") for n, order in enumerate(ORDERS)}
    runs |= {"like": ("cba", "quite another sentence", ""), "bad": ("cba", "quite another sentence", "b")}
    for name, (order, wording, fails) in runs.items():
        lines = _messages(name, order, wording, fails=fails)
        Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [f"r{n}.jsonl" for n in range(5)]


def test_judging_a_run_against_five_files_works_on_the_command_line(files: list[str]) -> None:
    """The exit code is 0 for a similar run and 1 for a failing tool. The report gives the number of runs. One run is refused."""
    for run, code in (("like", 0), ("bad", 1)):
        done = in_this_process("diff", *files, "--", f"{run}.jsonl")
        assert (done.returncode, "judged by 5 baseline runs" in done.stdout) == (code, True), done.stdout
        found = json.loads(in_this_process("diff", *files, f"{run}.jsonl", "--json").stdout)
        assert (found["same"], found["runs"], len(found["regressions"])) == (not code, 5, code)
        assert found["noise"]
    assert "turn 1, tool result b, is_error\n    true; the baseline runs have false" in done.stdout or code
    done = in_this_process("diff", *[files[0]] * 2, "--", "like.jsonl")
    assert done.returncode == 1  # equal baseline runs allow no variation
    done = in_this_process("diff", files[0], "--", "like.jsonl")
    assert (done.returncode, "one baseline run shows no variation" in done.stderr) == (2, True)


def test_a_judged_run_is_shown_in_every_format(files: list[str]) -> None:
    """Text is limited in length. Markdown and HTML have the verdict and the regression. `--volatile` is an error."""
    done = in_this_process("diff", files[0], files[0], "bad.jsonl", "--limit", "1")
    count = len(json.loads(in_this_process("diff", files[0], files[0], "bad.jsonl", "--json").stdout)["regressions"])
    assert done.stdout.splitlines()[-1] == f"  … and {count - 1} more; --limit 0 prints all"
    for form, said in (
        ("markdown", "**turn 1, tool result b, is\\_error**\n\n```diff\ntrue; the baseline runs have false\n```"),
        ("html", "1 regression: judged by 5 baseline runs"),
    ):
        done = in_this_process("diff", *files, "bad.jsonl", f"--format={form}")
        assert (done.returncode, said in done.stdout) == (1, True), done.stdout
    assert '"ignored":true' in done.stdout
    done = in_this_process("diff", *files, "bad.jsonl", "-o", "judged.html")
    assert (done.returncode, Path("judged.html").read_text().startswith("<!doctype html>")) == (1, True)
    for wrong, said in ((["bad.jsonl", "--volatile"], "--volatile is for two"), (["--", "bad.jsonl", "--json"], "before `--`")):
        done = in_this_process("diff", *files, *wrong)
        assert (done.returncode, said in done.stderr) == (2, True)


@pytest.mark.usefixtures("cli")
def test_sides_in_several_forms_are_read_by_common_rules() -> None:
    """A cassette, two runs of the log and a stream-json file of the same run are equal in everything that all of them contain."""
    retold.run_workflow(ROOT / "examples" / "streaming_file_operations.yaml", show=False)
    retold.run_workflow(ROOT / "examples" / "streaming_file_operations.yaml", show=False)
    Path("run.jsonl").write_text(in_this_process("show", "last", "--json").stdout)
    done = in_this_process("diff", str(CASSETTE), "last~1", "run.jsonl", "--json", "--", "last")
    found = json.loads(done.stdout)
    assert (done.returncode, found["regressions"], found["runs"]) == (0, [], 3), done.stdout
    assert "request" in found["not_compared"]
