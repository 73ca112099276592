"""A live workflow against a scripted API: its recording, tools and failures, and the mock run after it."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import example_replies
from tests.conftest import Cli
from tests.e2e import (
    CASSETTE,
    FILE_OPERATIONS,
    NUMBERS,
    Ran,
    in_this_process,
    normalised,
    run_live,
    run_mock,
    step,
    tree,
    write_workflow,
)
from tests.messages_server import MessagesServer, Reply, http_error, text, tool_use
from tests.test_run_mock import CONSOLE_NUMBERS, SIMPLE_FILE_OPERATIONS

HELLO = Reply([text("Hello there.")])
RETRY_AT_ONCE = http_error(529, headers={"retry-after-ms": "1"})


def quick(replies: list[Reply]) -> list[Reply]:
    """Return the same replies without their pauses."""
    return [Reply(reply.blocks, reply.stop_reason, usage=reply.usage) for reply in replies]


def asks(*tools: Any) -> Reply:
    """Return an answer that uses tools."""
    return Reply(list(tools), stop_reason="tool_use")


def comparable(run: str) -> list[dict[str, Any]]:
    """Return the messages of a run without the ids and times of that run."""
    kept = []
    for message in retold.EventLog().messages(run):
        data = {key: value for key, value in message.data.items() if key not in ("session_id", "uuid")}
        kept.append({"step": message.step, "task": message.task, "message": data})
    return kept


def results_of(ran: Ran) -> list[tuple[Any, bool]]:
    """Return (content, is_error) of each tool result of a run."""
    blocks = [b for m in retold.EventLog().messages(ran.result.run) if m.type == "user" for b in m.blocks]
    return [(block["content"], block.get("is_error", False)) for block in blocks]


def endings_of(ran: Ran) -> list[tuple[int, int, str]]:
    """Return (call, attempt, ending) of each exchange of a run."""
    log = retold.EventLog()
    started = [event.data for event in log.events(ran.result.run, kinds=("exchange.started",))]
    ended = [event.data for event in log.events(ran.result.run, kinds=("exchange.ended",))]
    return [(one["call"], one["attempt"], other["ending"]) for one, other in zip(started, ended, strict=True)]


# Record, then replay


@pytest.mark.needs("genai-prices")
def test_live_run_is_shown_and_recorded_and_mock_shows_the_same(cli: Cli) -> None:
    """The command line from end to end: live with a key, then offline without one, with equal output."""
    with MessagesServer(quick(example_replies.NUMBERS)) as server:
        live = cli("run", NUMBERS, "--live", "--cassette", "new.yaml", url=server.url)
    mock = cli("run", NUMBERS, "--cassette", "new.yaml")
    assert normalised(live.stdout) == CONSOLE_NUMBERS.replace("mock run", "live run")
    assert normalised(live.stderr) == "retold: run RUN completed: 1 step, 3 messages, recorded to new.yaml\n"
    assert normalised(mock.stdout) == CONSOLE_NUMBERS
    assert [live.returncode, mock.returncode] == [0, 0]


@pytest.mark.parametrize(("mode", "flag", "calls"), [("live", "", 1), ("live", "--mock", 0), ("mock", "--live", 1), ("", "", 0)])
def test_mode_comes_from_the_flag_or_from_test_mode(monkeypatch: pytest.MonkeyPatch, mode: str, flag: str, calls: int) -> None:
    """`TEST_MODE=live` makes a run live, and a flag on the command line takes precedence."""
    with MessagesServer(quick(example_replies.NUMBERS)) as server:
        monkeypatch.setenv("TEST_MODE", mode)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        shutil.copy(CASSETTE, "numbers.yaml")
        assert in_this_process("run", NUMBERS, "--cassette", "numbers.yaml", *filter(None, [flag])).returncode == 0
    assert server.calls == calls


@pytest.mark.needs("anthropic>=0.103")
def test_tools_run_in_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a live run Write, Edit and Bash run inside `workspace_dir` and nowhere else."""
    with MessagesServer(quick(example_replies.FILE_OPERATIONS)) as server:
        ran = run_live(monkeypatch, server, FILE_OPERATIONS, cassette="x.yaml")
    assert normalised(ran.output) == SIMPLE_FILE_OPERATIONS
    assert tree() == ["workspace/test_file.txt", "x.yaml"]
    assert Path("workspace/test_file.txt").read_text() == "alpha\ngamma\n"


@pytest.mark.needs("anthropic>=0.103")
def test_mock_run_writes_the_messages_of_the_live_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Live and mock differ only in ids and times: all messages are equal, results and durations included."""
    with MessagesServer(quick(example_replies.FILE_OPERATIONS)) as server:
        live = run_live(monkeypatch, server, FILE_OPERATIONS, cassette="x.yaml")
    mock = run_mock(FILE_OPERATIONS, cassette="x.yaml")
    assert comparable(mock.result.run) == comparable(live.result.run)
    assert mock.result.steps == live.result.steps


def test_recorded_body_equals_the_sent_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cassette has the bytes of the wire, including padding, pings and odd chunk borders."""
    with MessagesServer([Reply([text("Hëllo ☃")], split=7)]) as server:
        run_live(monkeypatch, server, write_workflow("hello.yaml"))
    (exchange,) = retold.read_cassette("cassettes/hello.yaml").exchanges
    assert exchange.response is not None
    assert exchange.response.body == server.bodies[0]


def test_compressed_stream_is_recorded_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzip stream is stored as its wire bytes and still decoded to messages."""
    workflow = write_workflow("hello.yaml")
    with MessagesServer([Reply([text("Hello there.")], encoding="gzip")]) as server:
        live = run_live(monkeypatch, server, workflow)
    mock = run_mock(workflow)
    (exchange,) = retold.read_cassette("cassettes/hello.yaml").exchanges
    assert exchange.response is not None
    assert exchange.response.body == server.bodies[0]
    assert [live.text, mock.text] == ["Hello there.", "Hello there."]
    assert comparable(mock.result.run) == comparable(live.result.run)


def test_no_file_contains_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a key that the answer repeats reaches neither the log nor the cassette."""
    with MessagesServer([Reply([text("Your key is test-key.", pieces=100)]), http_error(401, message="bad test-key")]) as server:
        for _ in range(2):
            run_live(monkeypatch, server, write_workflow("hello.yaml"))
    sent = {request.headers.get("authorization", request.headers.get("x-api-key")) for request in server.requests}
    assert sent <= {"Bearer test-key", "test-key"}  # older SDKs send only the key, under another name
    assert len(sent) == 1
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert [path.name for path in written if b"test-key" in path.read_bytes()] == []
    assert Path("cassettes/hello.yaml") in written
    assert any(path.name == "log.db" for path in written)


# Retries, fallbacks, limits


def test_retry_is_a_second_attempt_and_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """529 then 200 are two attempts of one call, live and in mock."""
    workflow = write_workflow("hello.yaml")
    with MessagesServer([RETRY_AT_ONCE, HELLO]) as server:
        live = run_live(monkeypatch, server, workflow)
    mock = run_mock(workflow)
    assert endings_of(live) == [(1, 1, "http_error"), (1, 2, "complete")]
    assert endings_of(mock) == endings_of(live)
    assert comparable(mock.result.run) == comparable(live.result.run)


@pytest.mark.needs("anthropic>=0.103")
def test_fallback_model_answers_after_an_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the model fails, live or in mock, the fallback model answers this turn and the later ones."""
    options = {"model": "opus", "fallback_model": "haiku", "retry_config": {"max_retries": 0}, "allowed_tools": ["Glob"]}
    workflow = write_workflow("hello.yaml", step(claude_options=options))
    with MessagesServer([http_error(529), asks(tool_use("Glob", {"pattern": "*"})), HELLO]) as server:
        live = run_live(monkeypatch, server, workflow)
    mock = run_mock(workflow)
    assert [request.json["model"] for request in server.requests] == ["claude-opus-5-5", "claude-haiku-5-5", "claude-haiku-5-5"]
    assert [live.text, mock.text] == ["Hello there."] * 2
    assert comparable(mock.result.run) == comparable(live.result.run)


def test_fallback_model_is_not_asked_after_a_refused_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that another model would return, too, fails the step."""
    workflow = write_workflow("hello.yaml", step(claude_options={"fallback_model": "haiku"}))
    with MessagesServer([http_error(401, "authentication_error", "no")]) as server:
        live = run_live(monkeypatch, server, workflow)
    assert (len(server.requests), live.error) == (1, "HTTP 401 authentication_error: no (check the key)")


def test_timeout_ends_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes longer than `timeout_ms` fails, and its exchange ends as closed by the client."""
    workflow = write_workflow("hello.yaml", step(claude_options={"timeout_ms": 300, "async_streaming": True}))
    with MessagesServer([Reply([text("Hello there.")], hang_after=4)]) as server:
        ran = run_live(monkeypatch, server, workflow)
        assert server.wait_idle()
    assert normalised(ran.output) == (
        "[HH:MM:SS] ASSISTANT: Hello th [incomplete]\n\n✗ Stream error: timed out after N ms after 3 messages\n"
    )
    assert endings_of(ran) == [(1, 1, "closed")]
    assert (ran.result.status, ran.error) == ("failed", "timed out after 300 ms")


@pytest.mark.needs("anthropic>=0.103")
def test_a_run_without_turns_left_keeps_the_old_cassette(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation stopped by `max_turns` fails. Its last tools ran and are in the log. The cassette is unchanged."""
    workflow = write_workflow("hello.yaml", step(claude_options={"max_turns": 2, "allowed_tools": ["Bash"]}))
    calls = [asks(tool_use("Bash", {"command": f"echo turn {n}"})) for n in (1, 2)]
    Path("cassettes").mkdir()
    Path("cassettes/hello.yaml").write_text("version: 1\ninteractions: []\n")
    with MessagesServer([*calls, HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    *_, last = retold.EventLog().messages(ran.result.run)
    assert (last.subtype, last.data["errors"], last.data["num_turns"]) == (
        "error_max_turns",
        ["stopped after 2 turns (max_turns)"],
        2,
    )
    assert results_of(ran) == [("turn 1", False), ("turn 2", False)]
    assert (ran.result.ok, len(server.requests)) == (False, 2)
    assert Path("cassettes/hello.yaml").read_text() == "version: 1\ninteractions: []\n"


@pytest.mark.needs("anthropic>=0.103")
def test_exported_failed_run_keeps_the_last_tool_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cassette has tool results that no later request contains, so that the failed run can be replayed."""
    workflow = write_workflow("hello.yaml", step(claude_options={"max_turns": 1, "allowed_tools": ["Bash"]}))
    with MessagesServer([asks(tool_use("Bash", {"command": "echo done"}))]) as server:
        live = run_live(monkeypatch, server, workflow)
    assert in_this_process("export", "last", "-o", "failed.yaml").returncode == 0
    mock = run_mock(workflow, cassette="failed.yaml")
    assert results_of(mock) == [("done", False)]
    assert comparable(mock.result.run) == comparable(live.result.run)


# Broken streams

BROKEN = [
    (
        Reply([text("Half of it is here.")], cut_after=5),
        "the stream was cut: peer closed connection without sending complete message body (incomplete chunked read)",
    ),
    (Reply([text("Half of it is here.")], error_event_after=5), "overloaded_error: Overloaded"),
]


@pytest.mark.parametrize(("reply", "what"), BROKEN, ids=["cut", "error event"])
def test_broken_stream_is_a_failed_step(reply: Reply, what: str) -> None:
    """The partial answer is shown and marked, the error is named, the exit code is 1 and the cassette is unchanged."""
    write_workflow("hello.yaml", step(claude_options={"async_streaming": True, "retry_config": {"max_retries": 0}}))
    Path("cassettes").mkdir()
    Path("cassettes/hello.yaml").write_text("version: 1\ninteractions: []\n")
    with MessagesServer([reply]) as server:
        done = in_this_process("run", "hello.yaml", "--live", url=server.url)
        assert len(server.requests) == 1
    assert normalised(done.stdout) == (
        f"[HH:MM:SS] ASSISTANT: Half of it is he [incomplete]\n\n✗ Stream error: {what} after 3 messages\n"
    )
    assert normalised(done.stderr) == (
        f"retold: run RUN failed (live; 1 step, 3 messages): step 'say' failed: {what}\n"
        "retold: the cassette cassettes/hello.yaml was left as it was\n"
    )
    assert done.returncode == 1
    assert Path("cassettes/hello.yaml").read_text() == "version: 1\ninteractions: []\n"


def test_stream_without_its_last_event_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is complete only if its last event arrived."""
    frames = Reply([text("Hello")]).frames(Reply([text("Hello")]).message({}, 1))[:-1]
    once = step(claude_options={"retry_config": {"max_retries": 0}})
    with MessagesServer([Reply(raw_frames=frames)]) as server:
        ran = run_live(monkeypatch, server, write_workflow("hello.yaml", once))
    assert (ran.result.status, ran.error) == ("failed", "the stream ended before the answer was whole")


def test_frame_that_is_not_json_is_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that the SDK cannot read is the step's error."""
    with MessagesServer([Reply(raw_frames=[b"event: message_start\ndata: {oops\n\n"])]) as server:
        ran = run_live(monkeypatch, server, write_workflow("hello.yaml"))
    assert ran.error is not None
    assert "closed early" not in ran.error


# Tools


def shell_pids(ran: Ran) -> list[int]:
    """Return the process ids that the tools of a run printed."""
    return [int(content) for content, _ in results_of(ran)]


@pytest.mark.needs("anthropic>=0.103")
def test_shell_ends_with_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shell serves the calls of a step, and is gone when the run returns."""
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Bash"]}))
    calls = [asks(tool_use("Bash", {"command": "echo $$"}))] * 2
    with MessagesServer([*calls, HELLO]) as server:
        first, again = shell_pids(run_live(monkeypatch, server, workflow))
    assert first == again
    assert not is_running(first)


@pytest.mark.needs("anthropic>=0.103")
def test_background_job_of_a_shell_ends_with_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A background process of a command ends with the step."""
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Bash"]}))
    with MessagesServer([asks(tool_use("Bash", {"command": "sleep 60 & echo $!"})), HELLO]) as server:
        (child,) = shell_pids(run_live(monkeypatch, server, workflow))
    assert not ended_by_force(child)


@pytest.mark.needs("anthropic>=0.103")
def test_command_ends_with_the_time_limit_of_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that times out during a command ends the command, too."""
    options = {"allowed_tools": ["Bash"], "timeout_ms": 500}
    workflow = write_workflow("hello.yaml", step(claude_options=options))
    with MessagesServer([asks(tool_use("Bash", {"command": "sh -c 'echo $$ >pid; exec sleep 60'"})), HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    assert ran.error == "timed out after 500 ms"
    assert not ended_by_force(int(Path("pid").read_text()))


def ended_by_force(pid: int) -> bool:
    """Return True if a process was still running, and kill it."""
    running = is_running(pid)
    if running:
        os.kill(pid, signal.SIGKILL)
    return running


def is_running(pid: int) -> bool:
    """Return True if a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.needs("anthropic>=0.103")
def test_shell_keeps_its_state_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bash call sees the state of the previous one. The shell starts in the working directory."""
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Bash"], "cwd": "deep"}), workspace_dir="ws")
    calls = [asks(tool_use("Bash", {"command": command})) for command in ("word=kept; pwd", "echo $word")]
    with MessagesServer([*calls, HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    assert results_of(ran) == [(f"{Path.cwd()}/ws/deep", False), ("kept", False)]


@pytest.mark.needs("anthropic>=0.103")
def test_failure_of_a_tool_is_sent_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside a tool is its result, and the conversation continues."""
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Bash", "Read"]}))
    described = tool_use("Bash", {"command": "touch made", "description": "Make a file", "of": 1})
    first = asks(tool_use("Bash", {"command": "echo no; exit 3"}), tool_use("Read", {"file_path": "nope.txt"}), described)
    with MessagesServer([first, HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    sent = server.requests[1].json["messages"][-1]["content"]
    assert [block["is_error"] for block in sent] == [True, True, True]
    assert results_of(ran) == [(block["content"], True) for block in sent]
    assert sent[0]["content"] == "no"
    assert "nope.txt" in str(sent[1]["content"])
    assert sent[2]["content"] == "Bash: unknown field description, of; there are command, restart, timeout_ms"
    assert not Path("made").exists()
    assert ran.text == "Hello there."


@pytest.mark.needs("anthropic>=0.103")
def test_tool_that_is_not_allowed_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `allowed_tools` run, even if the model asks for others."""
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Read"]}))
    with MessagesServer([asks(tool_use("Bash", {"command": "touch pwned"})), HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    assert results_of(ran) == [("Bash: not allowed; allowed tools are Read", True)]
    assert not Path("pwned").exists()


@pytest.mark.needs("anthropic>=0.103")
@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "link/secret.txt"])
def test_path_outside_the_workspace_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """File tools stay inside `workspace_dir`, and every path that leaves it is refused."""
    Path("secret.txt").write_text("secret\n")
    Path("ws").mkdir()
    os.symlink("..", "ws/link")
    workflow = write_workflow("hello.yaml", step(claude_options={"allowed_tools": ["Read", "Write"]}), workspace_dir="ws")
    uses = asks(tool_use("Read", {"file_path": path}), tool_use("Write", {"file_path": path, "content": "mine"}))
    with MessagesServer([uses, HELLO]) as server:
        ran = run_live(monkeypatch, server, workflow)
    assert [is_error for _, is_error in results_of(ran)] == [True, True]
    assert "secret\n" not in json.dumps(results_of(ran))
    assert Path("secret.txt").read_text() == "secret\n"
