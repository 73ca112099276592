"""The recorder does not change the run: events, errors and calls are the same, and every ending is recorded correctly."""

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import httpx2
import pytest

from retold.recorder.http.patching import current
from tests.messages_server import MessagesServer, Reply, http_error, text, thinking, tool_use
from tests.tape import ASK, BOTH, Consume, Seen, Tape, consume_sync, recording, sent_events

HELLO = text("Hello there, général Kenobi 😀", pieces=4)


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with recording(tmp_path) as recorded:
        yield recorded


@pytest.fixture(params=BOTH)
def consume(request: pytest.FixtureRequest) -> Consume:
    return BOTH[request.param]


class Case(NamedTuple):
    """A server's behaviour, the client's way to read it, and the expected record: an ending for each attempt."""

    script: list[Reply]
    endings: list[str]
    options: dict[str, Any] = {}  # noqa: RUF012 - read only


RETRY = http_error(529, headers={"retry-after-ms": "1"})
LIMITED = http_error(429, "rate_limit_error", "slow down", headers={"retry-after": "0.01"})
CASES = {
    "complete": Case([Reply([HELLO])], ["complete"]),
    "complete, every kind of block": Case([Reply([thinking("Hm."), HELLO, tool_use("t", {"a": "b"})], "tool_use")], ["complete"]),
    "complete, gzip": Case([Reply([HELLO], encoding="gzip")], ["complete"]),
    "complete, br": Case([Reply([HELLO], encoding="br")], ["complete"]),
    "complete, zstd": Case([Reply([HELLO], encoding="zstd")], ["complete"]),
    "complete, CRLF": Case([Reply([HELLO], newline="\r\n")], ["complete"]),
    "complete, byte by byte": Case([Reply([HELLO], split="bytes")], ["complete"]),
    "complete, chunks across frames": Case([Reply([HELLO], split=700)], ["complete"]),
    "closed": Case([Reply([HELLO], hang_after=5)], ["closed"], {"stop_after": 3}),
    "cut": Case([Reply([HELLO], cut_after=5)], ["cut"]),
    "cut, gzip": Case([Reply([HELLO], cut_after=5, encoding="gzip")], ["cut"]),
    "cut inside a frame": Case([Reply(raw_frames=[b"event: ping\nda"], cut_after=1)], ["cut"]),
    "cut before the first frame": Case([Reply([HELLO], cut_after=0)], ["cut"]),
    "error event": Case([Reply([HELLO], error_event_after=5)], ["error_event"]),
    "error event at once": Case([Reply([HELLO], error_event_after=0)], ["error_event"]),
    "400": Case([http_error(400, "invalid_request_error", "max_tokens: required")], ["http_error"]),
    "529, then 200": Case([RETRY, Reply([HELLO])], ["http_error", "complete"], {"retries": 2}),
    "429, then 200": Case([LIMITED, Reply([HELLO])], ["http_error", "complete"], {"retries": 2}),
    "529 until the last retry": Case([RETRY, RETRY], ["http_error", "http_error"], {"retries": 1}),
    "max_tokens": Case([Reply([HELLO], "max_tokens")], ["complete"]),
}


def run(case: Case, consume: Consume) -> tuple[Seen, MessagesServer]:
    with MessagesServer(case.script) as server:
        seen = consume(server.url, **case.options)
        assert server.wait_idle()
    return seen, server


class Taken(NamedTuple):
    """One case, run twice by the same client, without and with the recorder."""

    case: Case
    plain: Seen
    plain_server: MessagesServer
    seen: Seen
    server: MessagesServer
    tape: Tape


@pytest.fixture(scope="module", params=[(name, client) for name in CASES for client in BOTH], ids=lambda pair: ", ".join(pair))
def taken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    case, consume = CASES[request.param[0]], BOTH[request.param[1]]
    plain, plain_server = run(case, consume)
    with recording(tmp_path_factory.mktemp("tee")) as tape:
        seen, server = run(case, consume)
    return Taken(case, plain, plain_server, seen, server, tape)


@pytest.mark.trap(2)
def test_a_client_sees_the_same_with_and_without_the_recorder(taken: Taken) -> None:
    """Events, exception and number of upstream calls are the same, and connections are closed as early."""
    assert taken.seen == taken.plain
    assert taken.server.calls == taken.plain_server.calls
    assert taken.server.closed_early == taken.plain_server.closed_early
    assert len(taken.tape.exchanges()) == taken.server.calls


@pytest.mark.trap(13)
def test_every_attempt_is_recorded_once_with_its_ending(taken: Taken) -> None:
    """Endings are complete, closed, cut, error event and HTTP error.

    Exactly one event has the ending and the attempt's number.
    """
    endings = taken.case.endings
    gc.collect()
    for capture in taken.tape.captures:
        capture.end("cut", RuntimeError("late"))
    exchanges = taken.tape.exchanges()
    assert [exchange.ending for exchange in exchanges] == endings
    assert [exchange.place.attempt for exchange in exchanges] == list(range(1, len(endings) + 1))
    assert [taken.tape.kinds().count(kind) for kind in ("exchange.started", "exchange.ended")] == [len(endings)] * 2


def test_the_bytes_in_the_log_are_the_bytes_on_the_wire(taken: Taken) -> None:
    """This covers every attempt, any encoding, line ends and chunks. A closed attempt has the bytes up to its closing."""
    bodies = [exchange.response.body for exchange in taken.tape.exchanges() if exchange.response is not None]
    sent = [
        body if ending != "closed" else body[: len(recorded)]
        for recorded, body, ending in zip(bodies, taken.server.bodies, taken.case.endings, strict=True)
    ]
    assert [sha256(body).hexdigest() for body in bodies] == [sha256(body).hexdigest() for body in sent]
    assert [bool(body) for body in bodies] == [bool(body) for body in taken.server.bodies]
    ended = [event.data for event in taken.tape.log.events(taken.tape.run, kinds=("exchange.ended",))]
    assert [(data["sha256"], data["bytes"]) for data in ended] == [(sha256(body).hexdigest(), len(body)) for body in bodies]


def test_the_messages_of_a_stream_are_in_the_log(taken: Taken) -> None:
    """The text that the client assembled equals the text of the messages, including incomplete ones."""
    received = "".join(str(event.get("delta", {}).get("text", "")) for event in taken.seen.events)
    assert "".join(taken.tape.texts()).startswith(received)


def test_a_failure_is_recorded_with_its_type_and_text(tape: Tape, consume: Consume) -> None:
    """The record has the exception that ended the stream, so replay can raise it again."""
    run(CASES["cut"], consume)
    failure = tape.only().failure
    assert failure is not None
    assert failure.type == "httpx2.RemoteProtocolError"
    assert "peer closed connection" in failure.message


def test_an_exchange_that_ended_normally_has_no_failure(tape: Tape, consume: Consume) -> None:
    """Complete, closed and error endings are not exceptions of the transport."""
    for name in ("complete", "closed", "error event", "400"):
        run(CASES[name], consume)
    assert [exchange.failure for exchange in tape.exchanges()] == [None] * 4


def test_a_refused_connection_is_recorded_as_no_response(tmp_path: Path, consume: Consume) -> None:
    """The client raises the same error as without the recorder."""
    with closing(socket.socket()) as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        plain = consume(url)
        with recording(tmp_path) as tape:
            recorded = consume(url)
    exchange = tape.only()
    assert plain == recorded == Seen([], "anthropic.APIConnectionError")
    assert (exchange.ending, exchange.response) == ("no_response", None)
    assert exchange.failure is not None
    assert exchange.failure.type == "httpx2.ConnectError"
    assert tape.kinds() == ["run.started", "exchange.started", "exchange.ended", "run.ended"]
    assert [event.data["ending"] for event in tape.log.events(tape.run, kinds=("exchange.ended",))] == ["no_response"]


def test_a_cancelled_task_is_recorded_as_a_closed_stream(tape: Tape) -> None:
    """The task is cancelled after the first event. The stream is recorded as closed, and the connection is closed at once."""

    async def stream(url: str, first: asyncio.Event) -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="test-key", max_retries=0) as client:
            async for _ in await client.messages.create(**ASK, stream=True):
                first.set()

    async def cancel(url: str) -> None:
        first = asyncio.Event()
        task = asyncio.create_task(stream(url, first))
        await first.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with MessagesServer([Reply([HELLO], hang_after=3)]) as server:
        asyncio.run(cancel(server.url))
        assert server.wait_idle()
    assert (tape.only().ending, server.closed_early) == ("closed", 1)
    assert 1 <= tape.kinds().count("frame") <= 3


def test_a_stream_dropped_unread_is_recorded_as_closed(tape: Tape) -> None:
    """The client drops it silently, so the next write to the log records the ending."""
    with MessagesServer([Reply([HELLO], hang_after=3)]) as server:
        with httpx2.Client() as client:
            request = client.build_request("POST", f"{server.url}/v1/messages", json={**ASK, "stream": True})
            response = client.send(request, stream=True)
            del response
            gc.collect()
        assert server.wait_idle()
    tape.writer.note("message", {"type": "later"})
    assert tape.only().ending == "closed"
    assert tape.kinds()[-2:] == ["exchange.ended", "message"]


@pytest.mark.trap(16)
def test_a_stream_closed_after_its_last_event_is_complete(tape: Tape, consume: Consume) -> None:
    """The client closes the stream a moment early, but message_stop has arrived."""
    events = len(sent_events(b"".join(Reply([HELLO]).frames(Reply([HELLO]).message({}, 1)))))
    reply = Reply([HELLO], hang_after=len(Reply([HELLO]).frames(Reply([HELLO]).message({}, 1))))
    with MessagesServer([reply]) as server:
        seen = consume(server.url, stop_after=events)
        assert server.wait_idle()
    assert seen.events[-1]["type"] == "message_stop"
    assert (tape.only().ending, server.closed_early) == ("complete", 1)


@pytest.mark.trap(19)
def test_the_attempts_of_one_call_are_separate_exchanges(tape: Tape, consume: Consume) -> None:
    """The first has 529 with its body and its `retry-after-ms`, although the SDK closes it unread. The second has the answer."""
    _, server = run(CASES["529, then 200"], consume)
    refused, answered = (exchange.response for exchange in tape.exchanges())
    assert refused is not None
    assert answered is not None
    assert (refused.status, refused.reason, answered.status) == (529, "", 200)
    assert refused.header("retry-after-ms") == "1"
    assert json.loads(refused.body)["error"]["type"] == "overloaded_error"
    assert answered.body == server.bodies[1]


@pytest.mark.parametrize("encoding", [None, "gzip", "br", "zstd"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_unstreamed_answer_yields_messages(tape: Tape, encoding: Any, is_async: bool) -> None:
    """A JSON body is recorded unchanged and folded when it is complete."""

    async def ask_async(url: str) -> Any:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="test-key") as client:
            return await client.messages.create(**ASK)

    with MessagesServer([Reply([HELLO, tool_use("t", {"a": 1})], "tool_use", encoding=encoding)]) as server:
        if is_async:
            message = asyncio.run(ask_async(server.url))
        else:
            with anthropic.Anthropic(base_url=server.url, api_key="test-key") as client:
                message = client.messages.create(**ASK)
    exchange = tape.only()
    assert exchange.response is not None
    assert (exchange.ending, exchange.response.body) == ("complete", server.bodies[0])
    blocks = [block for recorded in tape.log.messages(tape.run) for block in recorded.blocks]
    assert blocks == [block.to_dict() for block in message.content]


@pytest.mark.trap(3)
@pytest.mark.parametrize("how", ["stream", "raw", "streaming", "iter_raw", "iter_lines"])
def test_every_way_of_reading_a_response_is_recorded(tape: Tape, how: str) -> None:
    """The SDK's helpers and the bare HTTP client read the same recorded stream."""
    with MessagesServer([Reply([HELLO])]) as server, anthropic.Anthropic(base_url=server.url, api_key="test-key") as client:
        match how:
            case "stream":
                with client.messages.stream(**ASK) as stream:
                    assert stream.get_final_text() == HELLO.whole["text"]
            case "raw":
                list(client.messages.with_raw_response.create(**ASK, stream=True).parse())
            case "streaming":
                with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
                    list(response.iter_bytes())
            case _:
                with httpx2.Client() as bare:
                    content = json.dumps({**ASK, "stream": True})
                    with bare.stream("POST", f"{server.url}/v1/messages", content=content) as answer:
                        list(getattr(answer, how)())
    exchange = tape.only()
    assert exchange.response is not None
    assert (exchange.ending, exchange.response.body, tape.texts()) == ("complete", server.bodies[0], [HELLO.whole["text"]])


def test_clients_outside_the_context_are_not_recorded(tmp_path: Path) -> None:
    """The clients run before the block, after it, and in a thread that began before it."""
    go, done = threading.Event(), threading.Event()
    seen: list[Seen] = []
    with MessagesServer(lambda _: Reply([HELLO])) as server:

        def elsewhere() -> None:
            go.wait(20)
            seen.append(consume_sync(server.url))
            done.set()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        before = consume_sync(server.url)
        with recording(tmp_path) as tape:
            go.set()
            assert done.wait(20)
            inside = consume_sync(server.url)
        after = consume_sync(server.url)
        thread.join()
    assert [len(s.events) for s in (before, *seen, inside, after)] == [len(before.events)] * 4
    assert len(tape.exchanges()) == 1
    assert current() is None


def test_a_thread_records_into_the_recording_of_its_start(tape: Tape) -> None:
    """Work of a new thread belongs to the same recording."""
    with MessagesServer([Reply([HELLO])]) as server:
        thread = threading.Thread(target=consume_sync, args=(server.url,))
        thread.start()
        thread.join()
    assert tape.only().ending == "complete"
