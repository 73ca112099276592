"""Input and output that retold does not control: cut transcripts, impossible times, callbacks that move, a lost stdout."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import retold
from retold.recorder.http.exchange import wall_ns_of
from retold.recorder.log.log import EventLog
from tests.e2e import in_this_process, refused, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, text

LINE = '{"type": "user", "uuid": "u", "sessionId": "s", "timestamp": "%s", "message": {"role": "user", "content": "hi"}}\n'
USER = '{"type":"user","message":{"role":"user","content":"caf\u00e9"}}'
NOON = LINE % "2026-11-01T12:00:00Z"


@pytest.mark.parametrize("rest", ['{"type":"assis', USER[:-5], "{", "tru"])
def test_a_truncated_last_line_is_reported_and_skipped(rest: str) -> None:
    """The user may import a transcript while its writer is still writing it, or after the writer died."""
    Path("s.jsonl").write_bytes((NOON + rest).encode()[: -1 if "caf" in rest else None])
    done = in_this_process("import", "s.jsonl")
    assert (done.returncode, done.stderr) == (0, "retold: s.jsonl:2: the last line is cut short and was left out\n")
    assert len(list(EventLog().messages(EventLog().find("last").run))) == 1


@pytest.mark.parametrize("text", ['{"type":"assis\n' + NOON, '{"type":"assis', NOON + '{"type":"assis\n'])
def test_a_damaged_line_elsewhere_is_an_error(text: str) -> None:
    """Only a last line without a line end can be a line that its writer has not finished."""
    Path("s.jsonl").write_text(text)
    assert "not a line of JSON" in refused(in_this_process("import", "s.jsonl"))


@pytest.mark.parametrize("stamp", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "3026-01-01T00:00:00Z", "x", ""])
def test_an_impossible_time_of_a_line_counts_as_unknown(stamp: str) -> None:
    """Zero times of other languages count as unknown too. retold imports the line and uses the day of the other line."""
    assert wall_ns_of(stamp) is None
    Path("s.jsonl").write_text(LINE % stamp + NOON)
    for command in (["import", "s.jsonl"], ["ls"], ["show", "last"], ["search", "hi"], ["stats", "--by", "day"], ["verify"]):
        assert in_this_process(*command).returncode == 0, command
    log = EventLog()
    assert {m.wall_ns for m in log.messages(log.find("last").run)} == {wall_ns_of("2026-11-01T12:00:00Z")}


def test_a_callback_that_changes_the_folder_does_not_break_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run completes because the answer is paid for. The cassette is in its usual place, and the error names the callback."""
    Path("mover.py").write_text("import os\ndef go(message): os.chdir('/')\n")
    options = {
        "async_streaming": True,
        "stream_handler": "callback",
        "stream_handler_opts": {"module": "mover", "function": "go"},
    }
    workflow = write_workflow("w.yaml", step(claude_options=options), step("next"))
    here = os.getcwd()
    with MessagesServer([Reply([text("ok")]), Reply([text("ok")])]) as server:
        live = run_live(monkeypatch, server, workflow)
    assert (live.result.status, os.getcwd()) == ("completed", here)
    (error,) = live.result.handler_errors
    assert "it changed the working directory of the process" in error
    assert run_mock(workflow, handlers=[]).result.ok


def test_an_output_path_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` means the home folder, as in a shell. retold never creates a folder named `~`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    workflow = write_workflow("w.yaml", step(output_to_file="~/answer.txt"))
    with MessagesServer([Reply([text("ok")])]) as server:
        run_live(monkeypatch, server, workflow)
    assert (tmp_path / "home" / "answer.txt").read_text() == "ok"
    assert not Path("~").exists()


def test_a_workflow_runs_in_a_running_loop() -> None:
    """Notebooks and async tests already run a loop. The error of `run_workflow` names `arun_workflow`, which works there."""
    cassette = Path(__file__).parents[1] / "examples" / "clean_streaming_numbers.yaml"

    async def both() -> retold.RunResult:
        with pytest.raises(retold.InputError, match=r"await arun_workflow"):
            retold.run_workflow(cassette, handlers=[])
        return await retold.arun_workflow(cassette, handlers=[])

    result = asyncio.run(both())
    assert (result.status, result.steps) == ("completed", retold.run_workflow(cassette, handlers=[]).steps)


def test_public_names_are_listed() -> None:
    """Tab completion shows public names although retold imports them on first use."""
    assert set(retold.__all__) <= set(dir(retold))


@pytest.mark.parametrize("redirection", [">&-", "> /dev/full"])
@pytest.mark.parametrize("command", ["show last --json", "run w.yaml"])
def test_an_unwritable_stdout_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], redirection: str, command: str
) -> None:
    """With a closed stdout or a full disk, retold prints one line and exits with code 1."""
    workflow = write_workflow("w.yaml", step())
    with MessagesServer([Reply([text("ok")])]) as server:
        run_live(monkeypatch, server, workflow)
    program = f"exec {sys.executable} -m retold {command} {redirection}"
    done = subprocess.run(["sh", "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("retold: ")
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr
