"""Statistics by name, hour, error and status add up to the same total."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from retold.audit.accounts import DIMENSIONS, hour_of
from retold.audit.index import opened
from retold.audit.stats import stats, total
from retold.recorder.events import Entry, encode
from retold.recorder.http.call_errors import error_kind
from retold.recorder.http.exchange import Exchange, Failure
from retold.recorder.log.log import EventLog
from tests import forks
from tests.e2e import in_this_process
from tests.exchanges import JSON, answer, exchange
from tests.talk import asked, record, text, turn


def refusal(status: int, kind: str) -> Exchange:
    """Return a call that the API refuses."""
    body = encode({"type": "error", "error": {"type": kind, "message": "no"}})
    return exchange(answer(body, headers=JSON, status=status), body=asked("x"), ending="http_error", call=1)


@pytest.fixture
def log() -> Path:
    """Return a log of three runs: one with a refused call, one with a cut stream and two models, and one plain run."""
    path = Path(".retold/log.db")
    record(path, turn(asked("a"), text("one"), cost_usd=0.5, call=0), refusal(429, "rate_limit_error"), name="report")
    cut = turn(asked("b"), text("x"), ending="cut", failure=Failure("Cut", "cut"), call=1)
    record(path, turn(asked("b"), text("two"), model="claude-other", cost_usd=0.25, call=0), cut, name="report")
    record(path, turn(asked("c"), text("three"), cost_usd=1.0, call=0), name="chat")
    return path


def lines_by(by: str) -> dict[str, dict[str, object]]:
    return {line[by]: line for line in json.loads(in_this_process("stats", "--by", by, "--json").stdout)}


@pytest.mark.usefixtures("log")
def test_statistics_by_name_error_hour_and_status() -> None:
    """`name` is that of the run, a failure has the kind of its error, an hour is local, and a status is that of the run."""
    found = lines_by("name")
    assert {name: (line["runs"], line["exchanges"], line["cost_usd"]) for name, line in found.items()} == {
        "chat": (1, 1, 1.0), "report": (2, 4, 0.75)
    }  # fmt: skip
    found = lines_by("error")
    assert {name: (line["exchanges"], line["errors"]) for name, line in found.items()} == {
        "": (3, 0), "429 rate_limit_error": (1, 1), "cut": (1, 1)
    }  # fmt: skip
    (hour,) = lines_by("hour")
    assert hour == hour_of(EventLog().runs()[0].started_ns)
    found = lines_by("status")
    assert {name: (line["runs"], line["exchanges"]) for name, line in found.items()} == {"completed": (3, 5)}
    (line,) = json.loads(in_this_process("stats", "--by", "day,status", "--json").stdout)
    assert (line["status"], line["runs"]) == ("completed", 3)


def test_a_run_without_an_end_counts_with_its_present_status(log: Path) -> None:
    """It is running, and later has another status. It never counts twice."""
    with EventLog(log) as writing:
        run = writing.start(name="open", mode="live")
        run.append(Entry("message", encode({"type": "assistant", "message": {"model": "m", "content": []}})))
        assert {name: line["runs"] for name, line in lines_by("status").items()} == {"completed": 3, "running": 1}
        run.append(Entry("message", encode({"type": "assistant", "message": {"model": "m", "content": []}})))
        assert lines_by("status")["running"]["messages"] == 2
        run.end("failed", error="it broke")
    found = lines_by("status")
    assert {name: (line["runs"], line["messages"]) for name, line in found.items()}["failed"] == (1, 2)
    assert set(found) == {"completed", "failed"}


def test_the_run_of_a_dead_writer_is_interrupted(log: Path) -> None:
    """The index does not have this status, so retold reads the listing."""
    code = f"import os; from retold import EventLog; EventLog({str(log)!r}).start(name='dies', mode='live'); os._exit(0)"
    assert forks.run("-c", code, env=dict(os.environ)).returncode == 0
    assert {name: line["runs"] for name, line in lines_by("status").items()} == {"completed": 3, "interrupted": 1}


@pytest.mark.parametrize("dimension", [each for each in DIMENSIONS if each != "tool"])
def test_every_dimension_has_the_same_total(dimension: str, log: Path) -> None:
    """The sums of the lines equal the total, except for runs and messages, which belong to several lines or to none."""
    with opened(EventLog(log)) as index:
        lines, whole = stats(index, [dimension]), total(index, [dimension])
    assert (whole.keys, whole.runs, whole.exchanges, whole.errors, whole.cost_usd) == (("TOTAL",), 3, 5, 2, 1.75)
    assert sum(line.exchanges for line in lines) == whole.exchanges
    assert sum(line.input_tokens for line in lines) == whole.input_tokens
    assert sum(line.errors for line in lines) == whole.errors


@pytest.mark.usefixtures("log")
def test_the_table_ends_in_a_total_and_csv_does_not() -> None:
    """Both blocks have a total, but not with a single line. A script never has to skip it."""
    blocks = [block.splitlines() for block in in_this_process("stats").stdout.split("\n\n")]
    assert [block[-1].split()[:3] for block in blocks] == [["TOTAL", "3", "5"], ["TOTAL", "2", "0"]]
    assert in_this_process("stats", "--by", "error").stdout.splitlines()[1].split()[3] == "-"
    assert "TOTAL" not in in_this_process("stats", "--by", "day").stdout
    assert [line["model"] for line in csv.DictReader(io.StringIO(in_this_process("stats", "--csv").stdout))] == [
        "claude-other", "claude-test-1"
    ]  # fmt: skip
    done = in_this_process("stats", "--by", "colour")
    assert (done.returncode, "model, day, hour, name, step, tool, error, status" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        ({"ending": "complete"}, ""),
        ({"ending": "closed_early"}, ""),
        ({"ending": "http_error", "status": 529, "api_error": {"type": "overloaded_error"}}, "529 overloaded_error"),
        ({"ending": "http_error", "status": 502}, "502"),
        ({"ending": "error_event", "status": 200, "api_error": {"type": "overloaded_error"}}, "overloaded_error"),
        ({"ending": "error_event"}, "error_event"),
        ({"ending": "no_response"}, "no_response"),
    ],
)
def test_a_failure_has_a_kind(ended: dict[str, object], kind: str) -> None:
    """The kind is short and has no ids, so that failures of one kind share one line."""
    assert error_kind(ended) == kind
