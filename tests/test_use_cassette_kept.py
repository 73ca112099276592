"""The results of a block with a cassette: the cassette, the run in the log, and the counts of the block."""

import asyncio
from dataclasses import replace
from pathlib import Path

import anthropic
import pytest

import retold
from retold.recorder.http.exchange import Request
from retold.testing.use import Use
from tests.clients import ASKING, NOWHERE, Ask, ask, body, client, prompts_of, record, serve
from tests.messages_server import MessagesServer, Reply, text

CASSETTE = Path("c.yaml")
KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"


def newest(path: str | None = None) -> retold.RunInfo:
    """Return the newest run of a log."""
    return retold.EventLog(path).runs()[0]


def frames_of(run: str, path: str | None = None) -> list[bytes]:
    return [event.payload for event in retold.EventLog(path).events(run, kinds=("frame",))]


@pytest.mark.needs("genai-prices")
def test_the_cost_of_a_recorded_answer_is_stored() -> None:
    """The cassette and the log have the cost by the price of the day, so later readers need no price table."""
    answers = [Reply([text("yes")], model="claude-haiku-4-5")]
    with MessagesServer(answers) as server, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        ask("hi", server.url)
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    (ended,) = retold.EventLog().events(cassette.run or "", kinds=("exchange.ended",))
    assert exchange.cost_usd
    assert ended.data["cost_usd"] == exchange.cost_usd


# Failed blocks


def fail(ask: Ask, url: str, error: BaseException, path: str | Path = CASSETTE, mode: str = "rewrite") -> None:
    """Record a call, then raise an error in the block."""
    with retold.use_cassette(path, record_mode=mode):
        ask("new", url)
        raise error


@pytest.mark.trap(40)
@pytest.mark.parametrize("kind", ASKING)
@pytest.mark.parametrize("mode", ["new_episodes", "all", "rewrite"])
def test_a_failed_block_keeps_the_old_cassette_unchanged(mode: str, kind: str) -> None:
    """The log has the recording as a failed run with the reason."""
    before = record(CASSETTE, "old").read_bytes()
    with serve() as server, pytest.raises(ValueError, match="bad"):
        fail(ASKING[kind], server.url, ValueError("bad"), mode=mode)
    run = newest()
    assert CASSETTE.read_bytes() == before
    assert (run.name, run.status, run.error, run.messages, run.exchanges) == ("c", "failed", "ValueError: bad", 1, 1)
    assert b"".join(frames_of(run.run)) == server.bodies[0]


def test_a_failed_block_leaves_no_new_cassette() -> None:
    """The next test must not replay half of a test."""
    with serve() as server, pytest.raises(ValueError, match="bad"):
        fail(ask, server.url, ValueError("bad"), "new/c.yaml", "once")
    assert not Path("new").exists()


@pytest.mark.trap(40)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupted_block_keeps_the_old_cassette(stop: type[BaseException]) -> None:
    """The status of its run is cancelled."""
    before = record(CASSETTE, "old").read_bytes()
    with serve() as server, pytest.raises(stop):
        fail(ask, server.url, stop())
    assert (CASSETTE.read_bytes(), newest().status) == (before, "cancelled")


def test_the_error_of_a_failed_run_is_scrubbed() -> None:
    """If an assertion of a test quotes a key, the log does not contain the key."""
    with serve() as server, pytest.raises(ValueError, match=KEY):
        fail(ask, server.url, ValueError(f"not {KEY}"))
    assert newest().error == "ValueError: not REDACTED"


def test_an_error_of_the_api_does_not_fail_the_block() -> None:
    """A test of an error path records it."""
    with (
        MessagesServer([Reply(status=400, error=("invalid_request_error", "bad"))]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
        pytest.raises(anthropic.BadRequestError),
    ):
        ask("hi", server.url)
    with retold.use_cassette(CASSETTE), pytest.raises(anthropic.BadRequestError):
        ask("hi")


# The run in the log


def test_a_recording_is_a_run_in_the_log() -> None:
    """The run has the name of the cassette, with its messages and unchanged frames."""
    with serve() as server, retold.use_cassette("cassettes/hello.yaml", record_mode="once") as cassette:
        ask("hi", server.url)
    run = newest()
    log = retold.EventLog()
    assert (run.run, run.name, run.mode, run.status) == (cassette.run, "hello", "live", "completed")
    assert (run.messages, run.exchanges, run.frames) == (1, 1, len(server.sent[0]))
    assert frames_of(run.run) == [frame for _, frame in server.sent[0]]
    assert [next(message.blocks)["text"] for message in log.messages(run.run)] == ["You said hi."]
    started = next(iter(log.events(run.run))).data
    assert (started["cassette"], started["record_mode"]) == ("cassettes/hello.yaml", "once")
    assert log.path == Path(".retold/log.db")


def test_a_run_can_have_another_name_and_another_log() -> None:
    """`recordings` is the log for recordings. Replays still write nothing to it."""
    settings = replace(retold.use_cassette(name="tests::greet").settings, recordings="other.db")
    with serve() as server, Use(Path(CASSETTE), "once", settings):
        ask("hi", server.url)
    with Use(Path(CASSETTE), "none", settings):
        ask("hi")
    assert [(run.name, run.mode) for run in retold.EventLog("other.db").runs()] == [("tests::greet", "live")]
    assert not Path(".retold").exists()


@pytest.mark.parametrize("kind", ASKING)
def test_replays_write_nothing(kind: str) -> None:
    """A suite may have thousands of replays."""
    record(CASSETTE, log="elsewhere.db")
    before = sorted(Path().rglob("*"))
    with retold.use_cassette(CASSETTE) as cassette:
        ASKING[kind]("hi")
    assert (sorted(Path().rglob("*")), cassette.run, cassette.log) == (before, None, None)


@pytest.mark.parametrize("kind", ASKING)
def test_replays_into_a_log_are_runs_of_mode_mock(kind: str) -> None:
    """They have the recorded frames and messages, marked as replays."""
    record(CASSETTE)
    with retold.use_cassette(CASSETTE, log="replays.db"):
        ASKING[kind]("hi")
    recorded, replayed = newest(), newest("replays.db")
    assert (replayed.mode, replayed.name, replayed.status) == ("mock", "c", "completed")
    assert frames_of(replayed.run, "replays.db") == frames_of(recorded.run)
    assert (replayed.messages, replayed.exchanges, replayed.frames) == (recorded.messages, 1, recorded.frames)
    (started,) = retold.EventLog("replays.db").events(replayed.run, kinds=("exchange.started",))
    assert started.data["stamped"] == "replay"


def test_a_log_of_the_caller_stays_open() -> None:
    """The caller that opened it closes it."""
    record(CASSETTE)
    with retold.EventLog("mine.db") as log:
        for _ in range(2):
            with retold.use_cassette(CASSETTE, log=log) as cassette:
                ask("hi")
                assert cassette.log is log
        with log.start(name="later", mode="live"):
            pass
        assert [run.name for run in log.runs()] == ["later", "c", "c"]


def test_the_log_of_a_replay_lacks_the_parts_that_before_record_removes() -> None:
    """Recording, matching and the log use the same function."""

    def without_name(request: Request) -> Request:
        return type(request)(request.method, request.uri, request.headers, request.body.replace(b"Alice", b"NAME"))

    record(CASSETTE, "I am Alice", before_record=without_name)
    with retold.use_cassette(CASSETTE, log="replays.db", before_record=without_name):
        ask("I am Alice")
    (started,) = retold.EventLog("replays.db").events(newest("replays.db").run, kinds=("exchange.started",))
    assert "NAME" in started.data["body"]


# A stream that outlives its block


@pytest.mark.trap(21)
def test_a_stream_open_at_the_end_of_its_block_is_recorded_as_closed() -> None:
    """The ending does not claim that the process died. Nothing is written after the end of the run."""
    with MessagesServer([Reply([text("Hello there, general Kenobi")], gap_s=[0.05])]) as server, client(server.url) as asking:
        with retold.use_cassette(CASSETTE, record_mode="once"):
            stream = asking.messages.create(**body(), stream=True)
            first = next(iter(stream))
        rest = list(stream)
    assert (first.type, rest[-1].type) == ("message_start", "message_stop")
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert [event.kind for event in retold.EventLog().events(newest().run)][-1] == "run.ended"
    assert (exchange.ending, exchange.failure) == ("closed", None)


def test_a_replayed_stream_can_be_read_after_its_block() -> None:
    """Its content is in memory."""
    record(CASSETTE)
    with client() as asking:
        with retold.use_cassette(CASSETTE):
            stream = asking.messages.create(**body(), stream=True)
        assert [event.type for event in stream][-1] == "message_stop"


# The counts


def test_a_cassette_in_use_lists_played_exchanges() -> None:
    """The counts are play_count, played, unplayed, all_played, requests, recorded and misses."""
    record(CASSETTE, "a", "b", "c")
    with retold.use_cassette(CASSETTE) as cassette:
        assert (cassette.play_count, cassette.all_played, len(cassette.unplayed)) == (0, False, 3)
        ask("c")
        ask("a")
        assert (cassette.play_count, cassette.all_played) == (2, False)
        assert [exchange.request for exchange in cassette.played] == [cassette.requests[2], cassette.requests[0]]
        assert [exchange.request for exchange in cassette.unplayed] == [cassette.requests[1]]
        with pytest.raises(retold.MissError):
            ask("a")
        ask("b")
    assert (cassette.play_count, cassette.all_played, cassette.unplayed, cassette.recorded) == (3, True, [], 0)
    assert [len(cassette.requests), len(cassette.misses), cassette.path, cassette.record_mode] == [3, 1, CASSETTE, "none"]
    assert [exchange.request.uri.rpartition(":")[2].partition("/")[2] for exchange in cassette.played] == ["v1/messages"] * 3
    assert repr(cassette) == "<UsedCassette c.yaml none 3 of 3 played>"


def test_a_cassette_in_use_lists_recorded_exchanges() -> None:
    """It lists exchanges, so every attempt counts. Exchanges that were played do not count."""
    record(CASSETTE, "a")
    overloaded = Reply(status=529, headers={"retry-after-ms": "1"})
    with MessagesServer([overloaded, Reply([text("yes")])]) as server:
        with retold.use_cassette(CASSETTE, record_mode="new_episodes") as cassette:
            ask("a", NOWHERE)
            ask("b", server.url)
        assert (cassette.recorded, cassette.play_count, cassette.all_played) == (2, 1, True)
    assert prompts_of(CASSETTE) == ["a", "b", "b"]


def test_a_missing_cassette_contains_nothing() -> None:
    """Until the block ends, only the log has the recording."""
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        ask("a", server.url)
        assert (cassette.requests, cassette.unplayed, cassette.all_played, cassette.recorded) == ([], [], True, 1)
        assert not CASSETTE.exists()


def test_replays_and_recordings_are_the_same_exchange() -> None:
    """A recorded replay equals the first recording in request, bytes and ending."""
    record(CASSETTE, "a")
    with retold.use_cassette(CASSETTE, log="replays.db"):
        ask("a")
    from retold.recorder.cassette.transfer import exchanges_of

    (again,) = exchanges_of(retold.EventLog("replays.db"), newest("replays.db").run)
    (before,) = retold.read_cassette(CASSETTE).exchanges
    assert again.response is not None
    assert before.response is not None
    assert (again.response.body, again.response.status, again.ending) == (before.response.body, 200, "complete")
    assert again.request.body == before.request.body
