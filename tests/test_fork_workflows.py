"""A workflow continues from a point of a recorded run: no tool of the recorded part runs again, and the rest is live."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import retold
from retold.recorder.cassette.transfer import exchanges_of
from tests.clients import ask
from tests.e2e import Done, Ran, in_this_process, run_live, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, http_error, text, tool_use

pytestmark = pytest.mark.needs("anthropic>=0.103")

PAUSES = {"retry_config": {"max_retries": 1, "base_delay_ms": 1}}
OPTIONS = {"allowed_tools": ["Bash"], "max_turns": 5, **PAUSES}


def script(request: Request) -> Reply:
    """Script the API: step `work` uses a tool twice, step `sum` gets a text. The answers name the model."""
    messages = request.json["messages"]
    turn = len(messages) // 2 + 1
    if "Work" in messages[0]["content"] and turn < 3:
        use = tool_use("Bash", {"command": f"echo {turn} >> ran.txt; echo did {turn}"}, id=f"toolu_{uuid4().hex}")
        return Reply([use], stop_reason="tool_use")
    return Reply([text(f"Turn {turn} by {request.json['model']}.")])


def workflow(**changed: Any) -> Path:
    steps = [
        step("work", changed.get("work", "Work."), claude_options=OPTIONS),
        step("sum", changed.get("sum", "Sum up: {{steps.work.text}}"), claude_options=PAUSES),
    ]
    return write_workflow("w.yaml", *steps, workspace_dir="space")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Record a live run of two steps with four turns in all. Its tools have run twice."""
    with MessagesServer(script) as server:
        ran = run_live(monkeypatch, server, workflow())
    assert Path("space/ran.txt").read_text() == "1\n2\n"
    assert ran.result.ok, ran.error
    return ran


def go_on(server: MessagesServer, *options: str) -> Done:
    return in_this_process("run", "w.yaml", "--fork", "w", *options, url=server.url)


def asked(server: MessagesServer) -> list[tuple[str, int]]:
    """Return (model, number of messages) of each request that reached the upstream."""
    return [(request.json["model"], len(request.json["messages"])) for request in server.requests]


def test_tools_before_the_point_do_not_run_again(recorded: Ran) -> None:
    """Turn 2 of `work` goes to another model. The recorded result of the first tool is sent, and the second tool runs."""
    with MessagesServer(script) as server:
        done = go_on(server, "--at", "work.2", "--model", "opus")
    assert done.returncode == 0, done.stderr
    assert asked(server) == [("claude-opus-5-5", 3), ("claude-opus-5-5", 5), ("claude-opus-5-5", 1)]
    assert Path("space/ran.txt").read_text() == "1\n2\n2\n"
    log = retold.EventLog()
    new = log.find("last")
    old, forked = exchanges_of(log, recorded.result.run), exchanges_of(log, new.run)
    assert [exchange.place.stamped for exchange in forked] == ["replay", "pull", "pull", "pull"]
    assert [exchange.place.call for exchange in forked] == [1, 2, 3, 1]
    assert forked[0].response is not None
    assert old[0].response is not None
    assert forked[0].response.body == old[0].response.body
    assert (new.name, new.mode, new.status) == ("w@work.2", "live", "completed")
    assert "nothing was changed: 2 runs" in in_this_process("verify").stdout
    assert "1 fork begins as the parent" in in_this_process("verify").stdout
    sent = server.requests[0].json["messages"][-1]["content"]
    assert [block["content"] for block in sent] == ["did 1"]
    cassette = retold.read_cassette("cassettes/w.yaml")
    assert len(cassette.exchanges) == 4  # the parent's exchanges: a fork does not replace the workflow's cassette
    assert json.loads(cassette.exchanges[1].request.body)["model"] == "claude-sonnet-5-5"


def test_a_later_step_may_have_changed(recorded: Ran) -> None:
    """After a replay of all earlier steps, the step at the point runs in its current form."""
    workflow(sum="Praise: {{steps.work.text}}")
    with MessagesServer(script) as server:
        done = go_on(server, "--at", "sum.1", "--json")
    result = json.loads(done.stdout)
    assert [step["text"] for step in result["steps"]] == ["Turn 3 by claude-sonnet-5-5.", "Turn 1 by claude-sonnet-5-5."]
    assert [request.json["messages"][0]["content"] for request in server.requests] == ["Praise: Turn 3 by claude-sonnet-5-5."]
    assert Path("space/ran.txt").read_text() == "1\n2\n"
    assert recorded.result.steps[0].text == result["steps"][0]["text"]
    durations = [m.data["duration_ms"] for m in retold.EventLog().messages(result["run"]) if m.type == "result"]
    assert all(duration >= 0 for duration in durations)


def test_a_cut_answer_is_requested_again(recorded: Ran) -> None:
    """The workflow repeats a broken call as usual, and the repetition is live: the second attempt of the same call."""
    log = retold.EventLog()
    second = [event.seq for event in log.events(recorded.result.run, kinds=("exchange.started",))][1]
    frames = [event.seq for event in log.events(recorded.result.run, exchange=second, kinds=("frame",))]
    with MessagesServer(script) as server:
        done = go_on(server, "--at", f"seq:{frames[1]}", "--cassette", "fork.yaml")
    assert done.returncode == 0, done.stderr
    assert asked(server) == [("claude-sonnet-5-5", 3), ("claude-sonnet-5-5", 5), ("claude-sonnet-5-5", 1)]
    forked = exchanges_of(log, log.find("last").run)
    assert [(exchange.place.call, exchange.place.attempt, exchange.ending) for exchange in forked] == [
        (1, 1, "complete"), (2, 1, "cut"), (2, 2, "complete"), (3, 1, "complete"), (1, 1, "complete"),
    ]  # fmt: skip
    assert in_this_process("verify").returncode == 0
    assert in_this_process("run", "w.yaml", "--cassette", "fork.yaml").returncode == 0


def test_a_users_answer_replaces_the_models(recorded: Ran) -> None:
    """Its tool runs, and the next request is live."""
    own = {"content": [{"type": "tool_use", "name": "Bash", "input": {"command": "echo mine"}}]}
    Path("own.json").write_text(json.dumps(own))
    with MessagesServer(script) as server:
        done = go_on(server, "--at", "work.2", "--answer", "own.json")
    assert done.returncode == 0, done.stderr
    assert server.requests[0].json["messages"][-1]["content"][0]["content"] == "mine"
    stamped = [exchange.place.stamped for exchange in exchanges_of(retold.EventLog(), retold.EventLog().find("last").run)]
    assert stamped == ["replay", "answer", "pull", "pull"]
    assert recorded.result.run != retold.EventLog().find("last").run


def test_a_fork_can_be_forked(recorded: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second fork, started by `run_workflow`, recognises the changed requests of the first one."""
    with MessagesServer(script) as server:
        assert go_on(server, "--at", "work.2", "--model", "opus").returncode == 0
        first = retold.EventLog().find("last").run
        again = run_live(monkeypatch, server, Path("w.yaml"), fork=retold.fork(first, at="sum.1", model="haiku"))
    assert again.result.ok
    assert asked(server)[3:] == [("claude-haiku-5-5", 1)]
    assert again.text == "Turn 1 by claude-haiku-5-5."
    assert "2 forks begin as the parent" in in_this_process("verify").stdout
    assert recorded.result.run != first


@pytest.mark.parametrize(
    ("options", "changed", "expected"),
    [
        (["--at", "sum.1"], {"work": "Work more."}, "the step 'work' of w.yaml was changed since run"),
        (["--at", "work.2"], {"work": "Work more."}, "Undo the change, or fork before the first turn of the step."),
        (["--at", "work.9"], {}, "has no turn work.9: work has 3 turns: work.1 (event "),
        (["--at", "wrok.1"], {}, "did you mean work"),
        (["--at", "work.2", "--mock"], {}, "leave out --mock"),
        ([], {}, "--fork needs a point"),
    ],
)
def test_bad_input_writes_nothing(recorded: Ran, options: list[str], changed: dict[str, str], expected: str) -> None:
    workflow(**changed)
    with MessagesServer(script) as server:
        done = go_on(server, *options)
    assert (done.returncode, len(retold.EventLog().runs()), server.calls) == (2, 1, 0)
    assert expected in done.stderr
    assert recorded.result.ok


VERIFY = 'read line && test "$line" = "Turn 3 by $RETOLD_TRY_MODEL." && test -d "$RETOLD_TRY_FOLDER" && test -n "$RETOLD_RUN"'


def test_a_workflow_is_tried_with_several_models(recorded: Ran) -> None:
    """Each model continues from the recorded turn, without a command. Tokens and cost are those of the live part."""
    with MessagesServer(script) as server:
        models = "claude-opus-5-5,claude-haiku-5-5,my-own"
        options = ("--models", models, "--unpriced", "--at", "work.2", "--verify", VERIFY, "--json")
        done = in_this_process("try", "w", *options, url=server.url)
    made = json.loads(done.stdout)["attempts"]
    assert [(each["model"], each["verdict"]) for each in made] == [(name, "passed") for name in models.split(",")], done.stderr
    assert asked(server) == [(name, count) for name in models.split(",") for count in (3, 5, 1)]
    assert [each["cost_usd"] is None for each in made] == [False, False, True]
    assert {each["input_tokens"] for each in made} == {75}
    assert {each["divergence"] is None for each in made} == {False}
    names = {info.name for info in retold.EventLog().runs()}
    assert names == {"w", *(f"w@work.2 {name} 1" for name in models.split(","))}
    assert "3 forks begin as the parent" in in_this_process("verify").stdout
    assert recorded.result.ok
    with MessagesServer(script) as server:
        done = in_this_process("try", "w", "--models", "opus", "--at", "sum.1", "--verify", "exit 3", url=server.url)
    assert (done.returncode, done.stdout.splitlines()[1].split()[2]) == (1, "failed")


def test_a_try_that_cannot_begin_writes_nothing(recorded: Ran) -> None:
    """Each is one error: of the options, of the parent, or of a workflow that has changed since."""
    run, log = recorded.result.run, retold.EventLog()

    def refused(expected: str, *options: str, parent: str = run) -> None:
        runs = [info.run for info in log.runs()]
        with MessagesServer(script) as server:
            done = in_this_process("try", parent, *options, url=server.url)
        assert (done.returncode, server.calls, done.stdout) == (2, 0, ""), done.stderr
        assert expected in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert [info.run for info in log.runs()] == runs

    refused("has no turn work.9: work has 3 turns: work.1 (event ", "--models", "opus", "--at", "work.9")
    refused("has no event 9999", "--models", "opus", "--at", "seq:9999")
    refused("unknown model 'opuss'; did you mean 'opus'?", "--models", "opuss", "--at", "work.2")
    refused("--upstream is for a command", "--models", "opus", "--at", "work.2", "--upstream", "http://127.0.0.1:9")
    with MessagesServer(script) as server, retold.use_cassette("c.yaml", record_mode="once", name="block"):
        ask("hi", server.url)
    block = log.find("block").run
    refused("is no run of a workflow; name the program to run", "--models", "opus", "--at", "1", parent=block)
    workflow(work="Work more.")
    refused("the step 'work' of w.yaml was changed since run", "--models", "opus,haiku", "--at", "sum.1")
    Path("w.yaml").unlink()
    refused("ran the workflow w.yaml, which is not there", "--models", "opus,haiku", "--at", "work.2")
    assert in_this_process("erase", run, "--yes", "--why", "asked for").returncode == 0
    refused("was erased; nothing of it can be replayed", "--models", "opus", "--at", "work.2")


def test_only_a_run_of_a_workflow_can_continue_as_one(recorded: Ran) -> None:
    """The options of a fork need --fork. A run of another kind is refused with the command that forks it."""
    log = retold.EventLog()
    with MessagesServer(script) as server, retold.use_cassette("c.yaml", record_mode="once", name="block"):
        ask("hi", server.url)
    done = in_this_process("run", "w.yaml", "--fork", "block", "--at", "1", url=server.url)
    assert (done.returncode, f"it with: retold fork {log.find('block').run[:8]} -- CMD" in done.stderr) == (2, True)
    done = in_this_process("run", "w.yaml", "--at", "work.2")
    assert (done.returncode, "--at changes a fork; name the run with --fork RUN" in done.stderr) == (2, True)
    assert recorded.result.ok


def test_a_failed_attempt_before_the_point_is_repeated_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """The point is between two attempts of one call. The recorded 529 is replayed, and its repetition is sent."""
    replies = [http_error(529, headers={"retry-after-ms": "1"}), Reply([text("Recorded.")])]
    with MessagesServer(replies) as server:
        ran = run_live(monkeypatch, server, write_workflow("w.yaml", step("say", "Say hi.", claude_options=PAUSES)))
    log = retold.EventLog()
    second = [event.seq for event in log.events(ran.result.run, kinds=("exchange.started",))][1]
    with MessagesServer([Reply([text("Live.")])]) as server:
        done = go_on(server, "--at", f"seq:{second}")
    assert (done.returncode, server.calls) == (0, 1), done.stderr
    forked = exchanges_of(log, log.find("last").run)
    assert [(each.place.call, each.place.attempt, each.ending) for each in forked] == [(1, 1, "http_error"), (1, 2, "complete")]
