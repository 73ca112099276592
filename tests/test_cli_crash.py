"""Runs that are killed, stopped, followed by other processes or cut off from their output leave a true and readable log."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import retold
from tests.children import DEADLINE_S, Child, Folder, line_of, rest_of, wait_until
from tests.conftest import Cli
from tests.e2e import CASSETTE, FILE_OPERATIONS, NUMBERS, normalised, run_live, run_mock, step, tree, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, text, tool_use

STREAMED = step(claude_options={"async_streaming": True, "allowed_tools": ["Glob"]})

FIRST = text("First part.", pieces=4)
SECOND = text("Second part, which is long enough to be cut.", pieces=4)
HANGING = Reply([FIRST, SECOND], hang_after=12)
"""The whole first block, and 'Second p' of the second one: message_start, start, ping, 3 deltas, stop, start, 4 deltas."""

SHOWN_OF_HANGING = "[HH:MM:SS] ASSISTANT: First part.\n[HH:MM:SS] ASSISTANT: Second part, whi [incomplete]\n"


@pytest.fixture
def here() -> Iterator[Folder]:
    """Return the test's own working directory."""
    folder = Folder(Path.cwd())
    yield folder
    folder.close()


@pytest.fixture(scope="module")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Folder]]:
    """Create a folder for several tests, because its runs take seconds."""
    folders: list[Folder] = []

    def make(name: str) -> Folder:
        folders.append(Folder(tmp_path_factory.mktemp(name)))
        return folders[-1]

    yield make
    for folder in folders:
        folder.close()


def talk(folder: Folder, url: str) -> Child:
    """Start a live run of one streamed step."""
    return folder.spawn("run", write_workflow(folder.path / "talk.yaml", STREAMED), "--live", url=url)


def sent_frames(server: MessagesServer, call: int = 1) -> list[bytes]:
    return [frame for _, frame in server.sent[call - 1]]


def recorded_frames(log: retold.EventLog, run: str) -> list[bytes]:
    return [event.payload for event in log.events(run, kinds=("frame",))]


# Killed


@pytest.mark.trap(37)
def test_a_killed_run_keeps_every_received_byte(here: Folder) -> None:
    """After `kill -9` the log has the stream up to the kill, byte for byte, except for bytes in transit."""
    with MessagesServer([Reply([text("word " * 200, pieces=5)], gap_s=0.03)]) as server:
        child = talk(here, server.url)
        wait_until(lambda: len(server.sent) == 1 and len(server.sent[0]) >= 25)
        child.kill()
        killed_ns = time.monotonic_ns()
        child.wait()
        assert server.wait_idle()
    recorded, sent = recorded_frames(here.log, here.newest().run), sent_frames(server)
    on_its_way_ns = 200_000_000
    received = [frame for sent_ns, frame in server.sent[0] if sent_ns < killed_ns - on_its_way_ns]
    assert len(received) >= 10
    assert len(recorded) >= len(received)
    assert recorded == sent[: len(recorded)]


@dataclass(frozen=True)
class Killed:
    """A folder with a run that was killed in the middle of a stream, the bytes it had received, and the output of `tail`."""

    folder: Folder
    sent: bytes
    tailed: str


@pytest.fixture(scope="module")
def killed(make_folder: Callable[[str], Folder]) -> Killed:
    """Kill a run that another process follows."""
    folder = make_folder("killed")
    with MessagesServer([HANGING]) as server:
        child = talk(folder, server.url)
        wait_until(lambda: folder.frames() == 12)
        tail = folder.spawn("tail")
        line_of(tail.stdout)
        child.kill()
        child.wait()
        return Killed(folder, b"".join(sent_frames(server)), rest_of(tail)[0])


def test_a_killed_run_is_listed_as_interrupted_and_shown(killed: Killed, cli: Cli) -> None:
    """Its complete messages are shown, and the incomplete one is marked."""
    folder = killed.folder
    for _ in range(2):  # before and after a later run has closed it
        listed = normalised(cli("ls", cwd=folder.path).stdout).splitlines()[-1].split()
        assert listed[3:5] == ["live", "interrupted"]
        shown = normalised(cli("show", "talk", "--handler", "simple", cwd=folder.path).stdout)
        assert shown == SHOWN_OF_HANGING + "\n✗ Stream error: interrupted: the recording process died after 3 messages\n"
        with retold.EventLog(folder.log.path) as log:
            run_mock(NUMBERS, handlers=[], log=log)


def test_a_killed_run_is_played_with_its_ending(killed: Killed, cli: Cli) -> None:
    """`retold play` marks the incomplete message of an interrupted run and gives the reason for the missing end."""
    played = cli("play", "talk", "--timing", "instant", "--db", killed.folder.log.path)
    assert (played.returncode, played.stderr) == (0, "")
    assert normalised(played.stdout).endswith("\n✗ Stream error: interrupted: the recording process died after 3 messages\n")


def test_a_killed_run_can_be_exported(killed: Killed, cli: Cli) -> None:
    """The partial stream becomes a cassette that ends in a cut."""
    assert cli("export", "talk", "-o", "half.yaml", "--db", killed.folder.log.path).returncode == 0
    (exchange,) = retold.read_cassette("half.yaml").exchanges
    assert exchange.response is not None
    assert (exchange.ending, exchange.response.body) == ("cut", killed.sent)


def test_handlers_mark_an_incomplete_message(killed: Killed, cli: Cli) -> None:
    """Every handler marks half a message."""
    shown = cli("show", "talk", "--handler", "console", "--db", killed.folder.log.path).stdout
    assert "] Second part, whi [incomplete]\n" in shown


# Stopped


@dataclass(frozen=True)
class Stopped:
    """A live run that got a signal in the middle of its stream."""

    folder: Folder
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def stopped(make_folder: Callable[[str], Folder]) -> Callable[[signal.Signals], Stopped]:
    """Stop runs by each signal once."""

    @functools.cache
    def stop(number: signal.Signals) -> Stopped:
        folder = make_folder(number.name)
        with MessagesServer([HANGING]) as server:
            child = talk(folder, server.url)
            wait_until(lambda: folder.frames() == 12)
            child.send_signal(number)
            out, err = rest_of(child)
            assert server.wait_idle()
            assert server.closed_early == 1
        return Stopped(folder, child.wait(), normalised(out), err)

    return stop


Stop = Callable[[signal.Signals], Stopped]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_closed_as_cancelled(stopped: Stop, cli: Cli, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end the run in the log. Received messages are readable, and the cassette is not written."""
    run = stopped(number)
    assert run.code != 0
    assert run.out.startswith(SHOWN_OF_HANGING)
    (listed,) = run.folder.log.runs()
    assert (listed.status, listed.frames, listed.messages) == ("cancelled", 12, 3)
    assert normalised(cli("show", "last", "--handler", "simple", cwd=run.folder.path).stdout) == run.out
    assert not (run.folder.path / "cassettes").exists()


def test_an_interrupted_run_exits_with_130(stopped: Stop) -> None:
    """Ctrl-C causes this exit code and no traceback."""
    assert (stopped(signal.SIGINT).code, stopped(signal.SIGINT).err) == (130, "")


def test_a_terminated_run_exits_with_143(stopped: Stop) -> None:
    """SIGTERM causes this exit code and no traceback."""
    assert (stopped(signal.SIGTERM).code, stopped(signal.SIGTERM).err) == (143, "")


def test_a_cancelled_stream_is_not_called_completed(stopped: Stop) -> None:
    """The footer calls it stopped."""
    assert stopped(signal.SIGINT).out.splitlines()[-1] == "✗ Stream error: cancelled after 3 messages"


def test_a_terminated_play_leaves_nothing_behind(here: Folder) -> None:
    """Playing a cassette keeps no file, however it ends."""
    (here.path / "tmp").mkdir()
    child = here.spawn("play", CASSETTE.with_name(FILE_OPERATIONS.name), TMPDIR=str(here.path / "tmp"))
    line_of(child.stdout)
    child.terminate()
    child.wait()
    assert tree("tmp") == []


# Followed by other processes


@dataclass(frozen=True)
class Followed:
    """A run, and the output of `tail` and `tail --json`. Their first lines arrived while the run waited."""

    folder: Folder
    first: list[str]
    rest: list[tuple[str, str]]
    codes: list[int]


@pytest.fixture(scope="module")
def followed(make_folder: Callable[[str], Folder]) -> Followed:
    """Run two turns live, followed by two other processes. The second answer waits for their first lines."""
    folder, go_on = make_folder("followed"), threading.Event()

    def script(request: Request) -> Reply:
        if len(request.json["messages"]) == 1:
            return Reply([text("Looking."), tool_use("Glob", {"pattern": "*.txt"})], stop_reason="tool_use")
        assert go_on.wait(DEADLINE_S)
        return Reply([text("Nothing there.")])

    with MessagesServer(script) as server:
        run = talk(folder, server.url)
        first = [line_of(run.stdout)]
        tails = [folder.spawn("tail"), folder.spawn("tail", "talk", "--json")]
        first += [line_of(tail.stdout) for tail in tails]
        assert run.poll() is None
        go_on.set()
        rest = [rest_of(child) for child in (run, *tails)]
    return Followed(folder, first, rest, [child.wait() for child in (run, *tails)])


def test_tail_follows_a_running_run_and_ends_with_it(followed: Followed) -> None:
    """A second process sees the messages during the run, prints the same as the run, and ends with it."""
    shown, seen, _ = (first + out for first, (out, _) in zip(followed.first, followed.rest, strict=True))
    assert seen == shown
    assert normalised(seen) == (
        "[HH:MM:SS] ASSISTANT: Looking.\n"
        "[HH:MM:SS] TOOL USE: Glob\n"
        "[HH:MM:SS] TOOL RESULT: no matches\n"
        "[HH:MM:SS] ASSISTANT: Nothing there.\n"
        "\n✓ Stream completed: 6 messages (4 shown) in N.Ns\n"
    )
    assert followed.rest[1][1] == f"retold: following {followed.folder.newest().run[:8]} (talk); Ctrl-C to leave\n"
    assert followed.codes == [0, 0, 0]


def test_tail_json_prints_each_message_when_it_arrives(followed: Followed, cli: Cli) -> None:
    """`tail --json` prints the lines of `show --json`, the first of them during the run."""
    seen = followed.first[2] + followed.rest[2][0]
    assert seen == cli("show", "last", "--json", cwd=followed.folder.path).stdout
    assert len(seen.splitlines()) == 6


def test_tail_ends_when_the_run_is_killed(killed: Killed) -> None:
    """It reports that the process died, and does not wait for ever."""
    assert "✗ Stream error: interrupted: the recording process died after " in killed.tailed


def test_tail_of_a_finished_run_shows_it(cli: Cli) -> None:
    """If nothing runs, `tail` shows the whole last run."""
    run_mock(NUMBERS, handlers=[])
    done = cli("tail")
    assert done.stdout == cli("show", "last", "--handler", "simple").stdout
    assert (done.stderr, done.returncode) == ("", 0)


def test_two_runs_write_one_log_at_once(here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two concurrent live runs of two processes are two complete runs in one log. Nothing is lost or mixed."""
    both = threading.Barrier(2)
    replies = {name: Reply([text(f"{name} " * 60, pieces=4)], gap_s=0.005) for name in ("north", "south")}

    def script(request: Request) -> Reply:
        both.wait(DEADLINE_S)
        return replies[request.json["messages"][0]["content"]]

    with MessagesServer(script) as server:
        north, south = (write_workflow(f"{name}.yaml", step(prompt=name)) for name in replies)
        child = here.spawn("run", north, "--live", url=server.url)
        assert run_live(monkeypatch, server, south).text == "south " * 60
        assert rest_of(child)[0] == "north " * 60 + "\n"
    assert sorted((run.name, run.status) for run in here.log.runs()) == [("north", "completed"), ("south", "completed")]
    asked = [request.json["messages"][0]["content"] for request in server.requests]
    for call, name in enumerate(asked, 1):
        run = here.log.find(name).run
        assert recorded_frames(here.log, run) == sent_frames(server, call)
        assert [event.seq for event in here.log.events(run)] == list(range(len(list(here.log.events(run)))))


# Cut off from the output


def left_alone(here: Folder, *args: str | Path) -> tuple[int, str]:
    """Return the exit code and stderr of a command with a reader that left before any output (`| true`)."""
    child = here.spawn(*args)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    return child.wait(), err


@pytest.mark.trap(21)
def test_a_leaving_reader_does_not_harm_the_run(here: Folder) -> None:
    """A run is recorded to its end without a reader."""
    left_alone(here, "run", NUMBERS)
    assert (here.newest().status, here.newest().messages) == ("completed", 3)


QUIET = [
    ("show", "last"),
    ("tail",),
    ("play", "last", "--timing", "instant"),
    ("run", str(NUMBERS)),
    ("ls",),
]


@pytest.mark.parametrize("command", QUIET)
def test_a_leaving_reader_causes_no_error_message(here: Folder, command: tuple[str, ...]) -> None:
    """`retold … | head -1` ends without an error about pipes."""
    run_mock(NUMBERS, handlers=[])
    _, err = left_alone(here, *command)
    assert "BrokenPipeError" not in err
    assert "Traceback" not in err


def test_a_leaving_reader_sets_the_exit_code(here: Folder) -> None:
    """A command that cannot write its output exits like one that SIGPIPE ended."""
    run_mock(NUMBERS, handlers=[])
    assert left_alone(here, "show", "last")[0] == 128 + signal.SIGPIPE


def test_head_gets_its_line(environment: dict[str, str]) -> None:
    """In a real pipeline the reader takes one line and leaves. No traceback follows."""
    command = f"{sys.executable} -m retold run {NUMBERS} --handler simple --timing original | head -n 1"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert normalised(done.stdout) == "[HH:MM:SS] ASSISTANT: 1\n"
    assert "Traceback" not in done.stderr
    assert os.path.exists(".retold/log.db")
