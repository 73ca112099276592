"""`retold diff --stat` counts the differences by stream and kind of item; `-q` answers only by the exit code."""

import json
from pathlib import Path

import pytest

from retold.comparing.stat import LONGEST_BAR, StatLine, bars, rows
from tests.e2e import in_this_process
from tests.talk import asked, record, text, tool_use, turn


@pytest.fixture
def two_runs() -> None:
    """Record two runs. The second has another text, one more tool call, and another step with a request."""
    record(".retold/log.db", turn(asked("a"), text("it rains today in Paris"), step="look", call=0), name="one")
    use = tool_use("Read", "t1", file_path="x")
    more = turn(asked("b"), text("new"), step="say", call=1)
    record(".retold/log.db", turn(asked("a"), text("it snows today in Paris"), use, step="look", call=0), more, name="two")


@pytest.mark.usefixtures("two_runs")
def test_the_differences_are_counted() -> None:
    """There is one line for each stream and kind. The sum equals the whole report, and JSON has the same numbers."""
    done = in_this_process("diff", "one", "two", "--stat")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0].split()) == (1, ["STREAM", "ITEM", "CHANGED", "ADDED", "REMOVED", "MOVED"])
    assert lines[1].split() == ["look", "text", "1", "0", "0", "0", "~"]
    assert lines[2].split() == ["look", "tool", "call", "0", "1", "0", "0", "+"]
    assert lines[-1] == in_this_process("diff", "one", "two").stdout.splitlines()[-1]
    found = json.loads(in_this_process("diff", "one", "two", "--stat", "--json").stdout)
    assert found["same"] is False
    assert found["stat"][0] == {"stream": "look", "what": "text", "changed": 1, "added": 0, "removed": 0, "moved": 0}
    assert in_this_process("diff", "one", "two", "--stat", "-o", "s.txt").stdout == ""
    assert Path("s.txt").read_text() == done.stdout
    same = in_this_process("diff", "one", "one", "--stat")
    assert (same.returncode, same.stdout.startswith("no difference: ")) == (0, True)


@pytest.mark.usefixtures("two_runs")
def test_a_quiet_comparison_prints_no_report() -> None:
    """Only the exit code answers, also for several baseline runs. An error is still printed."""
    for arguments, code in ((["one", "two"], 1), (["one", "one"], 0), (["one", "one", "two"], 1)):
        done = in_this_process("diff", "-q", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert in_this_process("diff", "-q", "one", "three").returncode == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-q", "--stat"], "-q prints nothing; leave out --stat and -o."),
        (["-q", "-o", "x.json"], "-q prints nothing; leave out --stat and -o."),
        (["--stat", "--format", "html"], "--stat has no html report; choose text or json."),
        (["--stat", "-o", "x.md"], "--stat has no markdown report; choose text or json."),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: list[str], why: str) -> None:
    """The command reads nothing before it refuses them."""
    done = in_this_process("diff", "one", "two", *options)
    assert (done.returncode, done.stderr) == (2, f"retold: {why}\n")


@pytest.mark.usefixtures("two_runs")
def test_counts_need_two_recordings() -> None:
    """Several baseline runs have no counts."""
    assert "--stat is for two recordings" in in_this_process("diff", "--stat", "one", "one", "two").stderr


def test_long_bars_are_shortened_in_proportion() -> None:
    """No bar is much longer than its limit, none loses a kind of difference, and short ones are exact."""
    lines = [StatLine("", "text", 1000, 2, 0, 0), StatLine("", "tool_use", 0, 0, 500, 1)]
    found = bars(lines)
    assert [set(bar) for bar in found] == [set("~+"), set("->")]
    assert all(len(bar) <= LONGEST_BAR + 4 for bar in found)
    assert bars([StatLine("", "text", 2, 1, 1, 1)]) == ["~~+->"]
    assert rows(lines)[0][0] == "ITEM"
