"""Steps with `engine: claude_code` on the real Claude Code, against a scripted API, and then in mock without it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.recorder.words import plural
from tests import claude_code, engine_cli
from tests.children import Folder, rest_of, wait_until
from tests.e2e import normalised, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, http_error, text, thinking, tool_use
from tests.test_run_live import comparable

pytestmark = [
    pytest.mark.claude_code,
    pytest.mark.stress,
    pytest.mark.skipif(claude_code.find() is None, reason="Claude Code is not installed"),
]
pytest.importorskip("claude_agent_sdk")

STEPS: list[dict[str, Any]] = [
    step("claude", "PROMPT-READ notes.txt", claude_options={"allowed_tools": ["Read"], "max_turns": 3}),
    step("claude_smart", "PROMPT-JUDGE: {{steps.claude.text}}", type="claude_smart", preset="test"),
    step("remember", "PROMPT-SEVEN", type="claude_session", session_config={"session_name": "talk"}),
    step("recall", "PROMPT-RECALL", type="claude_session", session_config={"session_name": "talk"}),
    {"name": "claude_batch", "type": "claude_batch", "tasks": [{"id": "one", "prompt": "PROMPT-BREAD"}]},
    step("claude_extract", "PROMPT-JSON", type="claude_extract", extraction_config={"format": "json"}),
    step("claude_robust", "PROMPT-BUSY", type="claude_robust", retry_config={"max_retries": 1, "base_delay_ms": 1}),
    {"name": "parallel_claude", "type": "parallel_claude", "parallel_tasks": [{"id": "left", "prompt": "PROMPT-LEFT"}]},
]

ANSWERS = {
    "PROMPT-JUDGE": "Fair.", "PROMPT-SEVEN": "I remember seven.", "PROMPT-RECALL": "Seven.", "PROMPT-BREAD": "Brot",
    "PROMPT-JSON": '{"a": [1, 2]}', "PROMPT-LEFT": "Left.", "PROMPT-BUSY": "Patience helped.",
}  # fmt: skip

SHOWN = """\
[HH:MM:SS] ASSISTANT: I'll look.
[HH:MM:SS] TOOL USE: Read
[HH:MM:SS] TOOL RESULT: 1	Bread is
           2	good.
           3	
[HH:MM:SS] ASSISTANT: Two lines.
"""  # noqa: W291 - the tool's own output


class Answers:
    """The scripted API. It refuses the first request of the robust step."""

    def __init__(self) -> None:
        self.is_busy = True

    def __call__(self, request: Request) -> Reply:
        asked = json.dumps(request.json["messages"])
        if "HANG" in asked:
            return Reply([text("Half an answer.")], hang_after=6)
        if "PROMPT-READ" in asked:
            if "tool_result" in asked:
                return Reply([text("Two lines.")])
            use = tool_use("Read", {"file_path": str(Path("workspace/notes.txt").resolve())}, id="toolu_1")
            return Reply([thinking("A file."), text("I'll look."), use], stop_reason="tool_use")
        if "PROMPT-BUSY" in asked and self.is_busy:
            self.is_busy = False
            return http_error(529)
        # The newest prompt of a session is the last one.
        name = max(ANSWERS, key=asked.rfind)
        return Reply([text(ANSWERS[name])])


def test_every_step_type_runs_on_claude_code_and_is_replayed_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, messages and the lines of the handler are equal to those of the live run."""
    for name, value in claude_code.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    Path("workspace").mkdir()
    Path("workspace/notes.txt").write_text("Bread is\ngood.\n")
    shown = {"claude_options": {"async_streaming": True}}
    workflow = write_workflow("w.yaml", *STEPS, engine="claude_code", workspace_dir="workspace", defaults=shown)
    with MessagesServer(Answers()) as server:
        live = run_live(monkeypatch, server, workflow)
    assert live.result.ok, live.result
    engine_cli.remove(monkeypatch)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    mock = run_mock(workflow)
    assert mock.result.steps == live.result.steps
    assert mock.result.notes == []
    assert comparable(mock.result.run) == comparable(live.result.run)
    assert normalised(mock.output) == normalised(live.output)
    assert normalised(live.output).startswith(SHOWN)
    assert "[HH:MM:SS] [left] ASSISTANT: Left.\n\n✓ Stream completed: 3 messages (1 shown) in N.Ns\n" in normalised(live.output)
    texts = {done.name: done.text for done in live.result.steps}
    assert [texts[name] for name in ("claude_smart", "recall", "claude_robust")] == ["Fair.", "Seven.", "Patience helped."]
    assert [done.attempts for done in live.result.steps if done.type == "claude_robust"] == [2]
    costs = [done.cost_usd for done in live.result.steps]
    assert all(cost is not None and cost > 0 for cost in costs)


def processes(home: Path) -> list[int]:
    """Return the processes with this home folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"HOME={home}".encode() in environment:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_stopped_run_leaves_its_log_and_no_claude_code(ending: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C also ends Claude Code. After `kill -9` the log has all lines that were shown."""
    write_workflow(tmp_path / "w.yaml", step(prompt="HANG", claude_options={"async_streaming": True}), engine="claude_code")
    folder = Folder(tmp_path)
    try:
        with MessagesServer(Answers()) as server:
            child = folder.spawn("run", "w.yaml", "--live", "--handler", "debug", url=server.url, **claude_code.ENVIRONMENT)
            wait_until(lambda: server.calls > 0, 60)
            assert child.stdout is not None
            seen = next(line for line in iter(child.stdout.readline, "") if "system:init" in line)
            child.send_signal(ending)
            out, err = rest_of(child)
            assert "Traceback" not in err
            run = folder.newest()
            kinds = [event.kind for event in folder.log.events(run.run)]
            assert seen
            assert {"session.started", "wire.sent", "wire.received", "message"} <= set(kinds)
            assert [message.subtype for message in folder.log.messages(run.run)][:1] == ["init"]
            if ending is signal.SIGINT:
                assert (run.status, child.returncode) == ("cancelled", 130)
                assert kinds[-3:] == ["session.ended", "step.ended", "run.ended"]
                wait_until(lambda: processes(tmp_path) == [])
                # Claude Code may have sent the block before Ctrl-C.
                count = plural(len(list(folder.log.messages(run.run))), "message")
                assert out.endswith(f"=== DEBUG STREAM END: {count} in " + out.rpartition(" in ")[2])
            else:
                assert run.status == "interrupted"
            assert retold.EventLog(tmp_path / ".retold" / "log.db").find(run.run).run == run.run
    finally:
        for pid in processes(tmp_path):
            os.kill(pid, signal.SIGKILL)
        folder.close()
