"""Workflows in practice: overlapping tasks, runs that are stopped, killed and watched, and misbehaving handlers."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.handlers import HANDLERS, Handler
from retold.recorder.messages import Message
from tests.children import DEADLINE_S, Folder, line_of, rest_of, wait_until
from tests.e2e import NUMBERS, Ran, in_this_process, normalised, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, http_error, text, tool_use

STREAMING = {"async_streaming": True, "stream_handler": "simple"}


@pytest.fixture
def here() -> Iterator[Folder]:
    """Change to the test's working directory."""
    folder = Folder(Path.cwd())
    yield folder
    folder.close()


def batch(*names: str, **keys: Any) -> dict[str, Any]:
    """Return a batch step with tasks that ask for their own names."""
    return {"name": "tasks", "type": "claude_batch", "tasks": [{"id": name, "prompt": name} for name in names], **keys}


# Overlapping tasks

NAMES = ("one", "two", "three")

REVERSED = """\
[HH:MM:SS] [three] ASSISTANT: three looks.
[HH:MM:SS] [three] TOOL USE: Glob
[HH:MM:SS] [three] TOOL RESULT: no matches
[HH:MM:SS] [two] ASSISTANT: two looks.
[HH:MM:SS] [two] TOOL USE: Glob
[HH:MM:SS] [two] TOOL RESULT: no matches
[HH:MM:SS] [one] ASSISTANT: one looks.
[HH:MM:SS] [one] TOOL USE: Glob
[HH:MM:SS] [one] TOOL RESULT: no matches
[HH:MM:SS] [three] ASSISTANT: three found nothing.
[HH:MM:SS] [two] ASSISTANT: two found nothing.
[HH:MM:SS] [one] ASSISTANT: one found nothing.

✓ Stream completed: 18 messages (12 shown) in N.Ns
"""


def has_answer(name: str, turn: int) -> bool:
    """Return True if the newest run has the answer (turn 2) of a task, or the result of its tool (turn 1)."""
    log = retold.EventLog()
    wanted = "result" if turn == 2 else "user"
    return any(message.task == name and message.type == wanted for message in log.messages(log.find("last").run))


def in_reverse(request: Request) -> Reply:
    """Each task looks and then answers. In both turns the server serves the last task first."""
    messages = request.json["messages"]
    name, turn = messages[0]["content"], 1 if len(messages) == 1 else 2
    if name != NAMES[-1]:
        wait_until(lambda: has_answer(NAMES[NAMES.index(name) + 1], turn))
    elif turn == 2:
        wait_until(lambda: has_answer(NAMES[0], 1))
    if turn == 1:
        return Reply([text(f"{name} looks."), tool_use("Glob", {"pattern": "*.x"})], stop_reason="tool_use")
    return Reply([text(f"{name} found nothing.")])


def test_tasks_answered_in_reverse_order_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line names its task, lines of one task are in order, and results are in the order of the workflow."""
    flow = write_workflow("w.yaml", batch(*NAMES, claude_options=STREAMING | {"allowed_tools": ["Glob"]}))
    with MessagesServer(in_reverse) as server:
        live = run_live(monkeypatch, server, flow)
    assert normalised(live.output) == REVERSED
    (done,) = live.result.steps
    assert [(task.id, task.text, task.turns) for task in done.tasks] == [(n, f"{n} found nothing.", 2) for n in NAMES]
    assert done.text == "\n\n".join(f"## {name}\n\n{name} found nothing." for name in NAMES)
    mock = run_mock(flow)
    assert mock.result.steps == live.result.steps
    for name in NAMES:
        assert [line for line in normalised(mock.output).splitlines() if f"[{name}]" in line] == [
            line for line in REVERSED.splitlines() if f"[{name}]" in line
        ]


def test_concurrent_tasks_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer except the last waits for a second request. A third one never comes."""
    pairs, busy = threading.Barrier(2), []

    def script(request: Request) -> Reply:
        busy.append(server.answering)
        if request.json["messages"][0]["content"] != "five":
            pairs.wait(DEADLINE_S)
        return Reply([text("Done.")])

    tasks = batch("one", "two", "three", "four", "five", batch_config={"max_parallel": 2})
    with MessagesServer(script) as server:
        assert run_live(monkeypatch, server, write_workflow("w.yaml", tasks)).result.ok
    assert max(busy) == 2


FAILURES = {
    "refused": Reply(status=400, error=("invalid_request_error", "no")),
    "cut": Reply([text("cut off")], cut_after=5),
    "broken": Reply([text("broken")], error_event_after=5),
    "hanging": Reply([text("hanging")], hang_after=5),
    "fine": Reply([text("fine")]),
}


def test_failed_tasks_are_shown_and_replayed_as_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, cut, broken and timed out tasks each have an error line. The mock run has the same results, also for timeouts."""
    options = STREAMING | {"retry_config": {"max_retries": 0}}
    config = {"allow_failures": True, "timeout_per_task": 1_000, "max_parallel": 5}
    flow = write_workflow("w.yaml", batch(*FAILURES, claude_options=options, batch_config=config))
    with MessagesServer(lambda request: FAILURES[request.json["messages"][0]["content"]]) as server:
        live = run_live(monkeypatch, server, flow)
    mock = run_mock(flow)
    assert mock.result.steps == live.result.steps
    assert mock.result.notes == live.result.notes == ["step 'tasks' went on although tasks failed: refused, cut, broken, hanging"]
    for ran in (live, mock):
        assert sorted(line[11:].partition(": peer")[0] for line in ran.output.splitlines() if "] ERROR: " in line) == [
            "[broken] ERROR: overloaded_error: Overloaded",
            "[cut] ERROR: the stream was cut",
            "[hanging] ERROR: timed out after 1000 ms",
            "[refused] ERROR: HTTP 400 invalid_request_error: no",
        ]


# Stopped, killed and watched runs

SHOWN = "\n".join(f"[HH:MM:SS] [{name}] ASSISTANT: {name} begins." for name in ("a", "b"))


def test_ctrl_c_leaves_a_closed_run_and_whole_lines(here: Folder) -> None:
    """A batch stopped in the middle of two answers is cancelled and readable. A file has only whole lines, equal to the log."""
    files = [
        {"file": {"file_path": "w.log"}},
        {"file": {"file_path": "w.jsonl", "format": "jsonl"}},
        {"file": {"file_path": "w.json", "format": "json"}},
    ]
    options = {"async_streaming": True, "stream_handler": ["simple", *files]}
    write_workflow("w.yaml", batch("a", "b", "c", claude_options=options, batch_config={"max_parallel": 2}))

    def script(request: Request) -> Reply:
        name = request.json["messages"][0]["content"]
        return Reply([text(f"{name} begins.", pieces=20), text("and goes on", pieces=4)], hang_after=8)

    with MessagesServer(script) as server:
        child = here.spawn("run", "w.yaml", "--live", url=server.url)
        wait_until(lambda: here.frames() == 16)
        child.send_signal(signal.SIGINT)
        out, err = rest_of(child)
        assert server.wait_idle()
        assert (server.calls, server.closed_early) == (2, 2)
    assert (child.returncode, err) == (130, "")
    run = here.newest()
    assert run.status == "cancelled"
    ended = {event.task: event.data["status"] for event in here.log.events(run.run, kinds=("task.ended",))}
    assert ended == {"a": "cancelled", "b": "cancelled"}
    assert normalised(in_this_process("show", "last", "--handler", "simple").stdout) == normalised(out)
    assert sorted(normalised(out).splitlines()[:2]) == SHOWN.splitlines()
    recorded = [message.data for message in here.log.messages(run.run)]
    assert [json.loads(line)["message"] for line in Path("w.jsonl").read_text().splitlines()] == recorded
    assert [item["message"] for item in json.loads(Path("w.json").read_text())] == recorded
    assert Path("w.log").read_text().endswith(f"✗ Stream error: cancelled after {len(recorded)} messages\n\n")


def test_the_log_has_all_output_of_a_killed_run(here: Folder) -> None:
    """After `kill -9`, every line on the screen and in a file is in the log. The last line of the file is complete."""
    options = {"async_streaming": True, "stream_handler": ["simple", {"file": {"file_path": "w.jsonl", "format": "jsonl"}}]}
    flow = write_workflow("w.yaml", step(claude_options=options))
    blocks = [text(f"Block {number:03}.", pieces=20) for number in range(400)]
    with MessagesServer([Reply(blocks, gap_s=0.002)]) as server:
        child = here.spawn("run", flow, "--live", url=server.url)
        lines = [line_of(child.stdout) for _ in range(40)]
        child.kill()
        lines += rest_of(child)[0].splitlines(keepends=True)
    recorded = [message.data for message in here.log.messages(here.newest().run)]
    texts = [data["message"]["content"][0]["text"] for data in recorded if data["type"] == "assistant"]
    shown = [line.partition("ASSISTANT: ")[2].rstrip("\n") for line in lines if line.endswith("\n")]
    assert 40 <= len(shown) <= len(texts) < 400
    assert shown == texts[: len(shown)]
    written = [json.loads(line)["message"] for line in Path("w.jsonl").read_text().splitlines()]
    assert written == recorded[: len(written)]


def test_console_tails_a_run_from_a_second_process(here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """`retold tail --handler console` shows each message while the run waits for the next, and the statistics at its end."""
    go_on = threading.Event()

    def script(request: Request) -> Reply:
        if len(request.json["messages"]) == 1:
            return Reply([text("Looking."), tool_use("Glob", {"pattern": "*.x"})], stop_reason="tool_use")
        assert go_on.wait(DEADLINE_S)
        return Reply([text("Nothing there.")])

    flow = write_workflow(
        "talk.yaml", step(claude_options={"async_streaming": True, "stream_handler": "console", "allowed_tools": ["Glob"]})
    )
    with MessagesServer(script) as server:
        ran: list[Ran] = []
        run = threading.Thread(target=lambda: ran.append(run_live(monkeypatch, server, flow)))
        run.start()
        wait_until(lambda: here.log.path.exists() and bool(here.log.runs()))
        tail = here.spawn("tail", "--handler", "console")
        seen = [line_of(tail.stdout) for _ in range(4)]
        assert run.is_alive()
        go_on.set()
        rest, _ = rest_of(tail)
        run.join(DEADLINE_S)
    assert normalised("".join(seen)) == (
        '=== talk: say ===\nlive run RUN, HH:MM:SS\n[HH:MM:SS] Looking.\n[HH:MM:SS] TOOL USE: Glob {"pattern": "*.x"}\n'
    )
    assert "".join(seen) + rest == ran[0].output
    assert "Messages               6 (3 shown)\n" in rest
    assert tail.returncode == 0


# Sessions across runs


def talk_on(**config: Any) -> Path:
    """Return a workflow with one step that continues a session."""
    one = {"name": "say", "type": "claude_session", "prompt": "And then?", "session_config": {"session_name": "s", **config}}
    return write_workflow("w.yaml", one)


def history(server: MessagesServer) -> list[list[str]]:
    """Return the texts of the earlier messages in each request."""
    found = []
    for request in server.requests:
        contents = [message["content"] for message in request.json["messages"]]
        found.append([content if isinstance(content, str) else content[0]["text"] for content in contents])
    return found


def test_persistent_session_continues_in_later_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later live run continues it from the log. A mock run uses the history in its recording, with any log."""
    flow = talk_on(persist=True)
    with MessagesServer([Reply([text(answer)]) for answer in ("Morning.", "Noon.", "Night.")]) as server:
        first = run_live(monkeypatch, server, flow)
        run_mock(flow)
        second = run_live(monkeypatch, server, flow)
        assert history(server)[1] == ["And then?", "Morning.", "And then?"]
        assert first.result.steps[0].session_id == second.result.steps[0].session_id
        run_mock(flow)
        run_live(monkeypatch, server, flow)
        assert history(server)[2] == ["And then?", "Morning.", "And then?", "Noon.", "And then?"]
    for path in (None, "other.db"):
        with retold.EventLog(path) as log:
            assert run_mock(flow, log=log).text == "Night."


@pytest.mark.parametrize("config", [{}, {"persist": True, "continue_on_restart": False}])
def test_session_without_continuation_begins_again(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]) -> None:
    """Without `persist`, or with `continue_on_restart: false`, a run sends no earlier messages."""
    flow = talk_on(**config)
    with MessagesServer([Reply([text("Morning.")]), Reply([text("Noon.")])]) as server:
        for _ in range(2):
            run_live(monkeypatch, server, flow)
        assert history(server) == [["And then?"]] * 2


def test_turns_of_a_session_count_across_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_turns` limits the turns of the whole conversation over all runs."""
    flow = talk_on(persist=True, max_turns=2)
    with MessagesServer([Reply([text("Morning.")]), Reply([text("Noon.")])]) as server:
        results = [run_live(monkeypatch, server, flow).error for _ in range(3)]
    assert results == [None, None, "session 's' has used the 2 turns of its max_turns"]


def test_erased_session_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erased messages are not sent again, and neither is the rest of their session."""
    flow = talk_on(persist=True)
    with MessagesServer([Reply([text("Jane Doe called.")]), Reply([text("Noon.")])]) as server:
        run_live(monkeypatch, server, flow)
        assert in_this_process("erase", "--text", "Jane Doe", "--why", "asked", "--yes").returncode == 0
        run_live(monkeypatch, server, flow)
        assert history(server) == [["And then?"]] * 2


# Handlers that misbehave


class Bad(Handler):
    """Waits in its first message until it may continue, then fails."""

    name = "bad"
    go_on: threading.Event

    def message(self, message: Message) -> bool:
        assert self.go_on.wait(DEADLINE_S)
        raise ZeroDivisionError(message.type)


def test_bad_handlers_neither_delay_nor_break_a_live_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a handler hangs in its first message, both turns are requested and recorded. Its crash changes only the exit code."""
    monkeypatch.setitem(HANDLERS, "bad", Bad)
    monkeypatch.setattr(Bad, "go_on", threading.Event(), raising=False)
    recorded: list[int] = []

    def watch() -> None:
        log = retold.EventLog()
        wait_until(lambda: log.path.exists() and bool(log.runs()))
        run = log.find("last").run
        recorded.append(sum(event.kind == "message" for event in log.follow(run, until=lambda event: event.kind == "step.ended")))
        Bad.go_on.set()

    flow = write_workflow(
        "w.yaml", step(claude_options={"async_streaming": True, "stream_handler": ["bad", "simple"], "allowed_tools": ["Glob"]})
    )
    watcher = threading.Thread(target=watch)
    watcher.start()
    asks = Reply([tool_use("Glob", {"pattern": "*.x"})], stop_reason="tool_use")
    with MessagesServer([asks, Reply([text("Nothing.")])]) as server:
        live = run_live(monkeypatch, server, flow)
    watcher.join(DEADLINE_S)
    assert recorded == [5]
    assert live.result.handler_errors == ["handler 'bad' failed in step 'say': ZeroDivisionError: system"]
    assert (live.result.status, live.result.ok) == ("completed", False)
    assert normalised(live.output).endswith("✓ Stream completed: 5 messages (3 shown) in N.Ns\n")
    assert run_mock(flow, handlers=[]).text == "Nothing."


def test_endless_handler_does_not_delay_ctrl_c(here: Folder) -> None:
    """Ctrl-C ends the wait for a slow handler. The recording is complete."""
    Path("slow.py").write_text(
        "import threading\n\ndef go(message):\n    print('stuck', flush=True)\n    threading.Event().wait()\n"
    )
    child = here.spawn("run", NUMBERS, "--handler", "callback:module=slow,function=go", PYTHONPATH=str(here.path))
    line_of(child.stdout)
    wait_until(lambda: bool([*here.log.events(here.newest().run, kinds=("step.ended",))]))
    child.send_signal(signal.SIGINT)
    assert rest_of(child) == ("", "")
    assert (child.returncode, here.newest().status) == (130, "cancelled")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_unread_output_does_not_delay_a_signal(here: Folder, number: signal.Signals) -> None:
    """A pager that is not scrolled blocks a handler in the middle of a line. A signal still ends the run."""
    Path("filling.py").write_text("def go(message):\n    print('stuck' * 100_000, flush=True)\n")
    child = here.spawn("run", NUMBERS, "--handler", "callback:module=filling,function=go", PYTHONPATH=str(here.path))
    assert child.stdout is not None
    assert child.stdout.read(5) == "stuck"
    wait_until(lambda: bool([*here.log.events(here.newest().run, kinds=("step.ended",))]))
    child.send_signal(number)
    assert child.wait(DEADLINE_S) == 128 + number
    assert here.newest().status == "cancelled"


def test_callback_that_exits_the_program_is_a_failed_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.exit` in a callback does not end the run. It is reported like any other failure."""
    Path("leaving.py").write_text("import sys\n\ndef go(message):\n    sys.exit('enough')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    ran = run_mock(NUMBERS, handlers=[("callback", {"module": "leaving", "function": "go"})])
    assert ran.result.handler_errors == [
        "handler 'callback' failed in step 'count': CallbackFailed: leaving.go raised 3 times, first SystemExit: enough"
    ]
    assert (ran.result.status, ran.result.ok) == ("completed", False)


# Characters


def test_half_of_a_character_survives_files_and_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of an emoji in an answer is recorded unchanged, written as an escape, and replaced in the next request."""
    plain = Reply([text("XX")])
    frames = [frame.replace(b"XX", b"half \\ud83d") for frame in plain.frames(plain.message({}, 1))]
    files = {"stream_handler": {"file": {"file_path": "w.jsonl", "format": "jsonl"}}, "async_streaming": True}
    steps = [step("half", output_to_file="half.txt", claude_options=files), step("on", "{{steps.half.text}}")]
    flow = write_workflow("w.yaml", *steps)
    with MessagesServer([Reply(raw_frames=frames), Reply([text("Fine.")])]) as server:
        live = run_live(monkeypatch, server, flow)
        assert server.requests[1].json["messages"][0]["content"] == "half ?"
    mock = run_mock(flow)
    assert [done.text for done in mock.result.steps] == [done.text for done in live.result.steps] == ["half \ud83d", "Fine."]
    assert Path("half.txt").read_text() == "half \\ud83d"
    assert json.loads(Path("w.jsonl").read_text().splitlines()[1])["message"]["message"]["content"][0]["text"] == "half \ud83d"


def test_terminal_without_unicode_gets_escapes(environment: dict[str, str]) -> None:
    """A run does not fail because its output is not UTF-8."""
    command = [sys.executable, "-m", "retold", "run", str(NUMBERS), "--handler", "simple"]
    done = subprocess.run(command, env=environment | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "\n\\u2713 Stream completed: 3 messages (1 shown)" in done.stdout


def test_progress_of_a_task_names_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress of several concurrent tasks names them. Progress of a step without tasks does not."""
    options = {"verbose": True, "retry_config": {"base_delay_ms": 0}}
    flow = write_workflow("w.yaml", batch("one", claude_options=options), step("alone", claude_options=options))
    told: list[str] = []
    with MessagesServer([http_error(529), Reply([text("Hi.")]), Reply([text("Hi.")])]) as server:
        run_live(monkeypatch, server, flow, notify=told.append)
    retried, *turns = (line for line in told if not line.startswith("step "))
    assert retried.startswith("[one] attempt 1 of 3: HTTP 529 overloaded_error: Overloaded")
    assert turns == ["[one] turn 1: end_turn", "turn 1: end_turn"]
