"""`retold fork` and `retold.fork`: the part before the point is byte for byte the recorded one, and the rest is live."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.experiments.answer import answered, message_of
from retold.experiments.changes import Changes
from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http.exchange import Exchange
from retold.recorder.http.refold import refold_exchange
from retold.recorder.log.origin import Origin, origin_of
from tests.clients import ask, echo
from tests.e2e import Done, in_this_process
from tests.exchanges import exchange
from tests.messages_server import MessagesServer, Reply, Request, text
from tests.wire import asks

PROMPTS = ("one", "two", "three")
LIKE_THE_PARENT = {"model": "claude-sonnet-4-5", "max_tokens": 9}

pytestmark = pytest.mark.filterwarnings("ignore:The model 'claude-sonnet-4-5' is deprecated:DeprecationWarning")


def other(request: Request) -> Reply:
    """Start an upstream with answers that name the request and the model."""
    return Reply([text(f"Live {request.json['messages'][-1]['content']} by {request.json['model']}.")])


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a log with one run of three turns."""
    path = tmp_path_factory.mktemp("parent") / "log.db"
    with MessagesServer(echo) as server:
        done = in_this_process("record", "--upstream", server.url, "--db", path, "--name", "talk", "--", *asks(*PROMPTS))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def log(parent: Path) -> Iterator[retold.EventLog]:
    """Return a copy of the log at the default place."""
    Path(".retold").mkdir()
    shutil.copy(parent, ".retold/log.db")
    with retold.EventLog() as log:
        yield log


def fork(server: MessagesServer, *options: str, run: str = "talk", asking: tuple[str, ...] = PROMPTS) -> Done:
    return in_this_process("fork", run, *options, "--upstream", server.url, "--", *asks(*asking))


def bodies(exchanges: list[Exchange]) -> list[bytes]:
    return [each.response.body for each in exchanges if each.response is not None]


def asked(server: MessagesServer) -> list[tuple[str, str]]:
    """Return (model, prompt) of each request that reached the upstream."""
    return [(request.json["model"], request.json["messages"][-1]["content"]) for request in server.requests]


def first_of(log: retold.EventLog, run: str) -> dict[str, Any]:
    return next(log.events(run)).data


def test_a_fork_replays_the_prefix_and_records_the_rest(log: retold.EventLog, capfd: pytest.CaptureFixture[str]) -> None:
    """No call of the prefix reaches the API. The new run names its parent, the event before the point and its hash."""
    with MessagesServer(other) as server:
        done = fork(server, "--at", "2", "--model", "claude-opus-5-5", "--set", "temperature=0.2")
    assert done.returncode == 0, done.stderr
    assert asked(server) == [("claude-opus-5-5", "two"), ("claude-opus-5-5", "three")]
    assert [request.json["temperature"] for request in server.requests] == [0.2, 0.2]
    old, new = log.find("talk"), log.find("last")
    assert (new.name, new.mode, new.status) == ("talk@2", "live", "completed")
    recorded, forked = exchanges_of(log, old.run), exchanges_of(log, new.run)
    assert bodies(forked) == [bodies(recorded)[0], *server.bodies]
    assert [each.place.stamped for each in forked] == ["replay", "arrival", "arrival"]
    assert [each.place.call for each in forked] == [1, 2, 3]
    second = [event.seq for event in log.events(old.run, kinds=("exchange.started",))][1]
    before = next(log.events(old.run, after=second - 2))
    assert origin_of(log, new.run) == Origin(old.run, before.seq, before.hash)
    assert first_of(log, new.run)["changes"] == [{"model": "claude-opus-5-5", "set": {"temperature": 0.2}}]
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) == 3
    assert f"replayed 1 of 1 exchange from run {old.run[:8]} (talk)" in done.stderr
    assert "recorded 2 exchanges (2 complete)" in done.stderr


def test_a_block_forks_in_this_process(log: retold.EventLog) -> None:
    """The clients of a program behave the same. A user's answer takes the place of the model's at the point."""
    with MessagesServer(other) as server, retold.fork("talk", at=2, answer="Mine.", model="haiku") as forked:
        answers = [ask(prompt, server.url, **LIKE_THE_PARENT) for prompt in PROMPTS]
    assert answers == ["You said one.", "Mine.", "Live three by claude-haiku-5-5."]
    assert asked(server) == [("claude-haiku-5-5", "three")]
    assert forked.run is not None
    assert [each.place.stamped for each in exchanges_of(log, forked.run)] == ["replay", "answer", "pull"]
    assert forked.log is not None


def test_a_point_inside_an_answer_cuts_it(log: retold.EventLog, capfd: pytest.CaptureFixture[str]) -> None:
    """The program gets the recorded frames up to the event, then a broken connection, as in a recording that was cut there."""
    second = [event.seq for event in log.events(log.find("talk").run, kinds=("exchange.started",))][1]
    frames = [event.seq for event in log.events(log.find("talk").run, exchange=second, kinds=("frame",))]
    with MessagesServer(other) as server:
        done = fork(server, "--at", f"seq:{frames[2]}", asking=("one", "two", "two"))
    assert done.returncode == 0, done.stderr
    assert asked(server) == [("claude-sonnet-4-5", "two")]
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line[3] for line in lines] == [None, "IncompleteRead", None]
    old, new = (exchanges_of(log, log.find(name).run) for name in ("talk", "last"))
    assert [each.ending for each in new] == ["complete", "cut", "complete"]
    assert bodies(new)[1] == b"".join(piece.data for piece in old[1].response.pieces[:3])  # type: ignore[union-attr]
    assert in_this_process("verify").returncode == 0


def test_a_fork_can_be_forked(log: retold.EventLog) -> None:
    """A fork is a run like any other. It can be forked twice, with the request that its changes altered before the point."""
    with MessagesServer(other) as server:
        assert fork(server, "--at", "2", "--model", "claude-opus-5-5").returncode == 0
        first = log.find("last").run
        assert fork(server, "--at", "3", "--model", "haiku", run=first).returncode == 0
        second = log.find("last").run
        assert fork(server, "--at", "3", run=second).returncode == 0
        third = log.find("last").run
    assert asked(server)[2:] == [("claude-haiku-5-5", "three"), ("claude-sonnet-4-5", "three")]
    shared = [bodies(exchanges_of(log, run))[:2] for run in (first, second, third)]
    assert shared[0] == shared[1] == shared[2]
    verified = in_this_process("verify")
    assert (verified.returncode, verified.stdout.split(": ")[0]) == (0, "nothing was changed")
    assert "3 forks begin as the parent" in verified.stdout
    names = [line.split("  ")[-1].strip() for line in in_this_process("ls").stdout.splitlines()[1:]]
    assert names == ["talk", "└─ talk@2", "└─ talk@2@3", "└─ talk@2@3@3"]
    listed = {run["run"]: run["fork"] for run in json.loads(in_this_process("ls", "--json").stdout)}
    assert [None if listed[run] is None else listed[run]["parent"] for run in (third, second, first)] == [
        second,
        first,
        log.find("talk").run,
    ]


@pytest.mark.usefixtures("log")
def test_stats_count_a_replayed_exchange_once() -> None:
    """The parent has paid for the prefix of a fork."""
    with MessagesServer(other) as server:
        assert fork(server, "--at", "3").returncode == 0
    (line,) = json.loads(in_this_process("stats", "--json").stdout)
    assert (line["exchanges"], line["runs"]) == (4, 2)


def test_diff_of_parent_and_fork_begins_at_the_fork(log: retold.EventLog) -> None:
    """The first divergence is the first one after the point. Equal turns before it are not listed."""
    with MessagesServer(other) as server:
        assert fork(server, "--at", "3", "--model", "claude-opus-5-5").returncode == 0
    found = retold.compare("talk", "last", log=log)
    assert found.first is not None
    assert (found.first.what, found.b.title.split(", ")[-1]) == ("request", f"forked from {log.find('talk').run[:8]} at 3")
    turns = {item.seq for pair in found.pairs for row in pair.rows for item in (row.a,) if item is not None}
    assert min(seq for seq in turns if seq is not None) > first_of(log, log.find("last").run)["fork"]["seq"]
    assert len(retold.compare("last", "talk", log=log).differences) == len(found.differences)


def test_a_program_that_deviates_from_the_recording_is_stopped(log: retold.EventLog, capfd: pytest.CaptureFixture[str]) -> None:
    """The miss names the request. No later request is answered, sent or written."""
    with MessagesServer(other) as server:
        done = fork(server, "--at", "3", asking=("one", "else", "two", "three"))
    assert done.returncode == 3
    assert 'messages[0].content: recorded "two", now "else"' in done.stderr
    assert (
        "The program left the recording at its request 2, before the point 3: 1 of 2 exchanges before it were played."
        in done.stderr
    )
    assert server.requests == []
    assert [run.name for run in log.runs()] == ["talk"]
    assert [json.loads(line)[0] for line in capfd.readouterr().out.splitlines() if line.startswith("[")] == [200, 418, 418, 418]


def test_a_program_that_ends_before_the_point_writes_nothing(log: retold.EventLog) -> None:
    """A command exits with 1, and a block raises an error."""
    with MessagesServer(other) as server:
        done = fork(server, "--at", "3", asking=("one",))
    assert (done.returncode, [run.name for run in log.runs()]) == (1, ["talk"])
    assert "the program did not reach the point 3 of run" in done.stderr
    with (
        pytest.raises(retold.RunError, match=r"did not reach the point 2 of run .*: 0 of 1 exchanges"),
        retold.fork("talk", at=2),
    ):
        pass
    with MessagesServer(other) as server:
        done = fork(server, "--at", "2", asking=("one",))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"retold: the program sent no request after the point 2 of run {log.find('talk').run[:8]} (talk).",
    )


def test_parallel_requests_may_come_in_any_order(log: retold.EventLog) -> None:
    """A request that the recording has after the point has reached it, and a late request of the prefix is still played."""
    with MessagesServer(other) as server, retold.fork("talk", at=3) as forked:
        answers = [ask(prompt, server.url, **LIKE_THE_PARENT) for prompt in ("one", "three", "two", "new")]
    assert answers == ["You said one.", "Live three by claude-sonnet-4-5.", "You said two.", "Live new by claude-sonnet-4-5."]
    assert forked.run is not None
    assert [each.place.stamped for each in exchanges_of(log, forked.run)] == ["replay", "pull", "replay", "pull"]


# Bad input


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--at", "4"], "has no turn 4: it has 3 turns: 1 (event 1), 2 (event "),
        (["--at", "seq:999"], "has no event 999"),
        (["--at", "2", "--model", "claude-opus-55"], "unknown model 'claude-opus-55'; did you mean 'claude-opus-5-5'?"),
        (["--at", "2", "--set", "temperature"], "give PATH=VALUE"),
        (["--at", "2", "--set", "a..b=1"], "is no path in a request"),
        (["--at", "2", "--set", "tools[3].description=x"], "no request after the point has this path"),
        (["--at", "2", "--answer", "missing.json"], "cannot read the answer missing.json"),
        (["--at", "2", "--answer", "empty.json"], "empty.json is no message of the Messages API"),
        (["--at", "seq:LAST", "--answer", "text.txt"], "so there is nothing to answer"),
    ],
)  # fmt: skip
def test_bad_input_is_one_error_and_writes_nothing(log: retold.EventLog, options: list[str], expected: str) -> None:
    Path("empty.json").write_text("{}")
    Path("text.txt").write_text("Mine.")
    last = log.last(log.find("talk").run)
    assert last is not None
    done = in_this_process("fork", "talk", *(option.replace("LAST", str(last.seq)) for option in options), "--", *asks(*PROMPTS))
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [run.name for run in log.runs()] == ["talk"]


@pytest.mark.usefixtures("log")
def test_an_unpriced_model_is_accepted_by_name() -> None:
    """Its cost stays unknown."""
    with MessagesServer(other) as server:
        done = fork(server, "--at", "3", "--model", "my-own", "--unpriced")
    assert "cost unknown" in done.stderr
    assert asked(server) == [("my-own", "three")]


def test_a_failed_parent_is_forked_only_on_request(log: retold.EventLog) -> None:
    """The recording up to the failure can be the reason to fork it."""
    with MessagesServer(echo) as server:
        in_this_process("record", "--upstream", server.url, "--name", "bad", "--", *asks("one", "exit=4"))
        done = fork(server, "--at", "1", run="bad")
        assert (done.returncode, len(log.runs())) == (2, 2)
        assert (
            "(bad) failed: RunError: the command exited with 4. To fork what was recorded until then, add --failed."
            in done.stderr
        )
        assert fork(server, "--at", "1", "--failed", run="bad").returncode == 0


def test_an_erased_parent_cannot_be_forked(log: retold.EventLog) -> None:
    """An erased event before the point cannot be replayed. A pruned parent is not in the log any more."""
    run = log.find("talk").run
    with MessagesServer(other) as server:
        assert fork(server, "--at", "2").returncode == 0
        assert in_this_process("erase", run, "--yes", "--why", "asked for").returncode == 0
        done = fork(server, "--at", "2", run=run)
        assert done.returncode == 2
        assert "(erased) was erased; nothing of it can be replayed." in done.stderr
        verified = in_this_process("verify")
        assert (verified.returncode, "cannot be compared with its parent: payloads were erased" in verified.stdout) == (0, True)
        assert in_this_process("prune", "--older-than", "0s", "--keep", "1", "--yes").returncode == 0
        assert f"its parent {run} was pruned" in in_this_process("verify").stdout
        done = fork(server, "--at", "2", run=run)
        assert (done.returncode, done.stderr) == (
            2,
            f"retold: no run {run!r} in the log .retold/log.db. `retold ls` lists them; `last` is the newest.\n",
        )


def test_a_changed_prefix_is_found_by_verify(log: retold.EventLog) -> None:
    """The hash in the fork is that of the parent's event. Another run in the parent's place is a finding."""
    with MessagesServer(other) as server:
        assert fork(server, "--at", "2").returncode == 0
    origin = origin_of(log, log.find("last").run)
    assert origin is not None
    data = {"fork": Origin(origin.parent, origin.seq, bytes(32)).as_dict()}
    forged = [
        log.start(name="forged", mode="live", data=data),
        log.start(name="beyond", mode="live", data={"fork": Origin(origin.parent, 999, bytes(32)).as_dict()}),
    ]
    elsewhere = log.start(name="elsewhere", mode="live", data={"fork": Origin("0123456789abcdef", 2, bytes(32)).as_dict()})
    for writer in (*forged, elsewhere):
        writer.end()
    done = in_this_process("verify", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert [(finding["run"], finding["what"]) for finding in report["findings"]] == [(writer.run, "fork") for writer in forged]
    assert report["unproven"] == [
        f"run {elsewhere.run} is a fork, and cannot be compared with its parent: its parent 0123456789abcdef is not in this log"
    ]
    assert report["forks"] == 1


# Changes and answers


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["temperature=0.2"], {"temperature": 0.2}),
        (["thinking.type=disabled"], {"thinking": {"type": "disabled"}}),
        (["max_tokens=null"], {"max_tokens": None}),
        (["system=Be brief."], {"system": "Be brief."}),
        (["messages[0].content=[]"], {"messages": [{"role": "user", "content": []}]}),
        (["messages[1].content=x"], {}),
        (["max_tokens.deep=1"], {}),
    ],
)
def test_values_are_set_by_path(assignments: list[str], expected: dict[str, Any]) -> None:
    """Keys are added, null removes one, and lists do not grow. A request that asks for no message stays unchanged."""
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    changes = Changes.parse(None, assignments)
    changed = json.loads(changes.applied(json.dumps(asked).encode()))
    assert changed == {key: value for key, value in {**asked, **expected}.items() if value is not None}
    assert changes.applied(b'{"max_tokens": 1}') == b'{"max_tokens": 1}'
    assert Changes.recorded({"changes": [changes.as_dict()]}) == (changes,)


def test_an_answer_is_streamed_as_by_the_api() -> None:
    """The SDK's fold of the frames is the given message. A request without streaming gets it whole."""
    blocks = [
        {"type": "thinking", "thinking": "Well.", "signature": "sig"},
        {"type": "text", "text": "Hëllo."},
        {"type": "tool_use", "name": "Bash", "input": {"command": "ls"}},
        {"type": "server_block", "data": 1},
    ]
    message = message_of({"content": blocks})
    for streams in (True, False):
        body = json.dumps({"model": "m", "stream": streams, "messages": []}).encode()
        made = answered(exchange(body=body), message)
        fold = refold_exchange(made)
        assert (fold.content, fold.stop_reason, fold.message["model"]) == (message["content"], "tool_use", "m")
        assert made.ending == "complete"
    assert message_of("Hello.\n")["content"] == [{"type": "text", "text": "Hello."}]


def test_an_answer_may_be_the_last_part(log: retold.EventLog) -> None:
    """The program reached the point, and ended with the answer."""
    Path("mine.txt").write_text("Mine.")
    with MessagesServer(other) as server:
        done = fork(server, "--at", "3", "--answer", "mine.txt")
    assert (done.returncode, server.calls) == (0, 0), done.stderr
    assert log.find("last").messages == 3
