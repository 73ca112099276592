"""`retold try`: one fork for each model and repetition, side by side, judged by a command."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import retold
from tests.clients import echo
from tests.e2e import Done, in_this_process
from tests.messages_server import MessagesServer, Reply, Request, text
from tests.wire import asks

GOOD, BAD, OWN = "claude-opus-5-5", "claude-haiku-5-5", "my-own"


def other(request: Request) -> Reply:
    """Answer with the name of the model."""
    return Reply([text(f"By {request.json['model']}.")])


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parent") / "log.db"
    with MessagesServer(echo) as server:
        assert (
            in_this_process("record", "--upstream", server.url, "--db", path, "--name", "talk", "--", *asks("a", "b")).returncode
            == 0
        )
    return path


@pytest.fixture
def log(parent: Path) -> Iterator[retold.EventLog]:
    Path(".retold").mkdir()
    shutil.copy(parent, ".retold/log.db")
    with retold.EventLog() as log:
        yield log


def tried(server: MessagesServer, *options: str, asking: tuple[str, ...] = ("a", "b")) -> Done:
    return in_this_process("try", "talk", *options, "--upstream", server.url, "--", *asks(*asking))


VERIFY = 'test "$RETOLD_TRY_MODEL" != haiku && grep -q 200 && test -d "$RETOLD_TRY_FOLDER" && test -n "$RETOLD_RUN"'


def test_each_model_has_its_forks_and_a_verdict(log: retold.EventLog) -> None:
    """Only the live part is requested and paid. The cost of a model without a price stays unknown."""
    with MessagesServer(other) as server:
        models = f"{GOOD},haiku,{OWN}"
        done = tried(server, "--models", models, "--unpriced", "--at", "2", "-n", "2", "--verify", VERIFY, "--json")
    assert done.returncode == 1
    made = json.loads(done.stdout)["attempts"]
    names = [GOOD, GOOD, "haiku", "haiku", OWN, OWN]
    assert [(each["model"], each["number"]) for each in made] == [(name, at % 2 + 1) for at, name in enumerate(names)]
    assert {each["model"]: each["verdict"] for each in made} == {GOOD: "passed", "haiku": "failed", OWN: "passed"}
    asked = sorted(request.json["model"] for request in server.requests)
    assert asked == sorted([GOOD, GOOD, BAD, BAD, OWN, OWN])
    assert [each["cost_usd"] is None for each in made] == [False] * 4 + [True] * 2
    assert {each["divergence"] for each in made} == {"#2, turn 1, request, changed"}
    runs = [run for run in log.runs() if run.name != "talk"]
    assert {run.run for run in runs} == {each["run"] for each in made}
    assert f"talk@2 {GOOD} 1" in {run.name for run in runs}
    assert "retold: 6 of 6: " in done.stderr
    assert "6 forks begin as the parent" in in_this_process("verify").stdout


def test_concurrent_forks_have_a_limit(log: retold.EventLog) -> None:
    """With a limit of two, two forks meet in the upstream. With a limit of one they cannot."""
    together = threading.Barrier(2)

    def meet(request: Request) -> Reply:
        together.wait(20)
        return other(request)

    with MessagesServer(meet) as server:
        assert tried(server, "--models", f"{GOOD},{BAD}", "--at", "2", "--max-parallel", "2").returncode == 0
    running, most = 0, 0
    lock = threading.Lock()

    def alone(request: Request) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return other(request)

    with MessagesServer(alone) as server:
        done = tried(server, "--models", f"{GOOD},{BAD}", "--at", "2", "--max-parallel", "1")
    assert (done.returncode, most) == (0, 1)
    assert len(log.runs()) == 5


def test_the_result_is_printed_as_a_table(log: retold.EventLog) -> None:
    """Text and Markdown have one line for each fork. Without a judging command, the program's exit code is the verdict."""
    with MessagesServer(other) as server:
        done = tried(server, "--models", GOOD, "--at", "2", asking=("a", "b", "exit=3"))
        markdown = tried(server, "--models", GOOD, "--at", "2", "--format", "markdown")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].split() == ["MODEL", "N", "VERDICT", "IN", "OUT", "COST", "TOOK", "RUN", "FIRST", "DIVERGENCE"]
    assert lines[1].split()[:5] == [GOOD, "1", "failed", "25", "4"]
    assert markdown.stdout.splitlines()[2].startswith(f"| {GOOD} | 1 | passed | 25 | 4 | $")
    assert {run.status for run in log.runs()} == {"completed", "failed"}


@pytest.mark.parametrize(
    ("options", "code", "expected"),
    [
        (["--models", "claude-opus-55"], 2, "unknown model 'claude-opus-55'; did you mean 'claude-opus-5-5'?"),
        (["--models", " , "], 2, "--models names no model"),
        (["--models", GOOD, "--at", "9"], 2, "has no turn 9: it has 2 turns"),
        (["--models", GOOD, "--at", "seq:999"], 2, "has no event 999"),
        (["--models", GOOD, "--at", "2", "ERASED"], 2, "was erased; nothing of it can be replayed"),
        (["--models", GOOD, "--at", "2", "LEFT"], 3, "The program left the recording at its request 1, before the point 2"),
        (["--models", GOOD, "MISSING"], 2, "cannot run no-such-command: No such file or directory."),
    ],
)
def test_bad_input_writes_nothing(log: retold.EventLog, options: list[str], code: int, expected: str) -> None:
    command = ["no-such-command"] if options[-1] == "MISSING" else asks(*(("x",) if options[-1] == "LEFT" else ("a", "b")))
    run, runs = log.find("talk").run, 1
    if options[-1] == "ERASED":
        assert in_this_process("erase", run, "--yes", "--why", "asked for").returncode == 0
        runs = 2  # including the run that records the erasure
    options = [option for option in options if option not in ("LEFT", "MISSING", "ERASED")]
    with MessagesServer(other) as server:
        done = in_this_process("try", run, *options, "--upstream", server.url, "--", *command)
    assert (done.returncode, server.calls, len(log.runs())) == (code, 0, runs)
    assert expected in done.stderr
