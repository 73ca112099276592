"""`retold pin` of an unsuitable run, or into an unwritable place, is one clear error and writes nothing."""

import json
from pathlib import Path

import pytest

import retold
from retold.experiments.pinning.draft import function_name
from retold.recorder.cassette.transfer import append_at_once, import_exchanges
from retold.recorder.log.runs import RunInfo
from retold.recorder.messages import Session
from tests.e2e import in_this_process, refused, run_live, run_mock, step, tree, write_workflow
from tests.exchanges import exchange
from tests.messages_server import MessagesServer, Reply, http_error, text
from tests.test_fork_workflows import PAUSES


def good(name: str = "good", body: bytes = b"{}") -> str:
    """Import a run that can be pinned, and return its id."""
    with retold.EventLog() as log:
        return import_exchanges(log, [exchange(uri="https://api.anthropic.com/v1/models", body=body)], name=name, source="x")


def pin(*arguments: str | Path) -> str:
    """Return the error of a pin that writes nothing."""
    before = tree()
    said = refused(in_this_process("pin", *arguments))
    assert tree() == before
    return said


def test_an_unknown_run_is_named() -> None:
    assert "no log at .retold/log.db" in pin("last")
    good()
    assert "no run 'nothing'" in pin("nothing")
    Path("c.yaml").write_text("")
    assert "c.yaml is a file, not a run." in pin("c.yaml")


def test_an_erased_run_is_refused() -> None:
    """This is also true if only one event was erased."""
    run = good("whole")
    assert in_this_process("erase", run, "--yes", "--why", "asked for").returncode == 0
    assert pin(run) == f"retold: run {run[:8]} (erased) was erased; nothing of it can be replayed.\n"
    run = good("part", body=b'{"limit": "Jane Doe"}')
    assert in_this_process("erase", "--text", "Jane Doe", "--yes", "--why", "asked for").returncode == 0
    assert "(part) cannot be pinned: event 1 (exchange.started) was erased, so it cannot be replayed." in pin(run)


def test_a_run_in_progress_is_refused() -> None:
    with retold.EventLog() as log, log.start(name="live", mode="live"):
        assert pin("live").endswith(" (live) is still being recorded; pin it when it has ended.\n")


def test_a_run_without_requests_is_refused() -> None:
    """The cases are a run that recorded nothing, a transcript, and a change of the log."""
    with retold.EventLog() as log:
        log.start(name="empty", mode="live").end("failed", error="no network")
    assert pin("empty").endswith(" (empty) holds no requests; there is nothing to replay (failed: no network).\n")
    line = {"type": "user", "message": {"role": "user", "content": "Hi"}, "session_id": "s"}
    Path("t.jsonl").write_text(json.dumps(line) + "\n")
    assert in_this_process("import", "t.jsonl").returncode == 0
    assert "holds messages only, and no requests; there is nothing to replay." in pin("last")
    assert in_this_process("erase", good(), "--yes", "--why", "asked for").returncode == 0
    audit = next(json.loads(line)["run"] for line in [in_this_process("ls", "--json").stdout] for line in _runs(line))
    assert "records a change of the log itself; it has nothing to pin." in pin(audit)


def _runs(listing: str) -> list[str]:
    return [json.dumps(run) for run in json.loads(listing) if run["mode"] == "audit"]


def test_a_missing_or_changed_workflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the first changed step, and the command that records the present workflow."""
    with MessagesServer([Reply([text("Hello.")])]) as server:
        run_live(monkeypatch, server, write_workflow("w.yaml", step("greet", "Greet."), step("skip", condition="1 == 2")))
    assert run_mock(Path("w.yaml")).result.ok
    for run in ("last", "last~1"):
        write_workflow("w.yaml", step("greet", "Greet me."), step("skip", condition="1 == 2"))
        said = pin(run)
        assert "the step 'greet' of w.yaml has changed since, so its requests are others." in said
        assert said.endswith("Record the present workflow with: retold run w.yaml --live\n")
    write_workflow("w.yaml", step("greet", "Greet."), step("skip", condition="1 == 2"), step("more"))
    assert "the step 'more' of w.yaml has changed since" in pin("last")
    Path("w.yaml").write_text("workflow: {}")
    assert "its workflow is not valid any more. 2 errors in the workflow:\nw.yaml:1:" in pin("last")
    Path("w.yaml").unlink()
    assert "its workflow w.yaml is gone. Run retold pin in the folder of the run." in pin("last")


def test_a_failed_workflow_is_pinned_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test expects the error and replays the retries of the run."""
    with MessagesServer([http_error(529), http_error(529)]) as server:
        ran = run_live(monkeypatch, server, write_workflow("w.yaml", step("greet", "Greet.", claude_options=PAUSES)))
    assert not ran.result.ok
    assert in_this_process("pin", "last").returncode == 0
    source = Path("tests/test_w.py").read_text()
    assert 'assert result.status == "failed", result.error' in source
    assert "in result.error" in source
    names: dict[str, object] = {"__file__": str(Path("tests/test_w.py").absolute())}
    exec(source, names)
    with pytest.MonkeyPatch.context() as patch:
        Path("tmp").mkdir()
        names["test_w"](patch, Path("tmp").absolute())  # type: ignore[operator]


def test_no_file_is_replaced_without_force() -> None:
    """`pin` replaces neither the test nor the cassette, which may belong to another test."""
    good("talk")
    assert in_this_process("pin", "talk").returncode == 0
    assert "tests/test_talk.py exists already; name another file with -o, or replace it with --force." in pin("talk")
    Path("tests/test_talk.py").unlink()
    assert "tests/cassettes/test_talk/test_talk.yaml exists already" in pin("talk")
    assert in_this_process("pin", "talk", "--force").returncode == 0
    done = in_this_process("pin", "talk", "-o", "tests/test_other.py")
    assert done.stdout.split("\n")[:2] == ["tests/test_other.py", "tests/cassettes/test_other/test_other.yaml"]
    assert "def test_other(retold_cassette):" in Path("tests/test_other.py").read_text()


def test_an_unwritable_place_is_named() -> None:
    good("talk")
    Path("file").write_text("")
    assert "/file is no folder." in pin("talk", "-o", "file")
    assert "pytest finds tests in files test_*.py; name it test_talk.py." in pin("talk", "-o", "talk.py")
    Path("closed/cassettes").mkdir(parents=True)
    Path("closed/cassettes/test_talk").write_text("")
    assert "cannot write closed/cassettes/test_talk/test_talk.yaml: " in pin("talk", "-o", "closed")
    Path("closed/test_talk.py").mkdir()
    assert "closed/test_talk.py exists already" in pin("talk", "-o", "closed")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tests/test_shop.py::TestLamp::test_price[a b-1]", "test_price_a_b_1"),
        ("My Run: 7/2", "test_my_run_7_2"),
        ("größe & höhe", "test_gr_e_h_he"),
        ("日本", "test_run"),
        ("x" * 99, "test_" + "x" * 50),
        ("workflow.yaml", "test_workflow"),
    ],
)
def test_the_test_is_named_after_the_run(name: str, function: str) -> None:
    run = RunInfo("0" * 16, name, "import", "completed", 0, 0, 0, 0, 0, None)
    assert function_name(run) == function


def test_a_run_that_reused_steps_is_refused() -> None:
    """It has only the requests of a part of the workflow."""
    with retold.EventLog() as log:
        writer = log.start(name="again", mode="live", data={"workflow": "w.yaml"})
        writer.note("step.resumed", {"name": "first", "from": "0" * 16}, step="first")
        append_at_once(writer, exchange(), Session(), set())
        writer.end("completed")
    assert "took over the step 'first' from an earlier run" in pin("again")


def test_a_part_of_a_recording_is_refused() -> None:
    """Record mode new_episodes records only requests that the cassette lacks. A test of a command needs all of them."""
    with retold.EventLog() as log:
        data = {"command": ["python", "a.py"], "record_mode": "new_episodes", "cassette": "a.yaml"}
        import_exchanges(log, [exchange()], name="part", source="x", data=data)
    assert "recorded only the requests that a.yaml did not hold." in pin("part")


def test_the_json_output_has_the_facts() -> None:
    good("talk")
    found = json.loads(in_this_process("pin", "talk", "--json").stdout)
    assert found == {
        "run": found["run"], "name": "talk", "kind": "requests", "test": "tests/test_talk.py",
        "cassette": "tests/cassettes/test_talk/test_talk.yaml", "exchanges": 1, "sessions": 0, "turns": 0, "tool_calls": 0,
        "left_out": 0, "redacted": 0, "secrets": 0,
    }  # fmt: skip
