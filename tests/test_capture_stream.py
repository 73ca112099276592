"""While an answer streams, nothing is delayed, and every event is committed before the client sees it, with its own time."""

import asyncio
import functools
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from retold.recorder.errors import LogError
from retold.recorder.http import exchange
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Place, Request
from retold.recorder.http.patching import intercepted
from retold.recorder.http.sse import FrameParser
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog
from tests.children import DEADLINE_S, wait_until
from tests.exchanges import GZIP, JSON, SSE, URL
from tests.messages_server import MessagesServer, Reply, text
from tests.raw_log import query
from tests.tape import ASK, Tape, recording, sent_events

HELLO = text("Hello there, general Kenobi", pieces=4)
REQUEST = Request("POST", URL, JSON, b"{}")


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with recording(tmp_path) as recorded:
        yield recorded


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "log.db") as opened:
        yield opened


def each_event_sync(url: str, look: Callable[[dict[str, Any]], None]) -> None:
    with (
        anthropic.Anthropic(base_url=url, api_key="test-key") as client,
        client.messages.create(**ASK, stream=True) as stream,
    ):
        for event in stream:
            look(event.to_dict())


def each_event_async(url: str, look: Callable[[dict[str, Any]], None]) -> None:
    async def consume() -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="test-key") as client:
            async for event in await client.messages.create(**ASK, stream=True):
                look(event.to_dict())

    asyncio.run(consume())


@pytest.fixture(params=[each_event_sync, each_event_async], ids=["sync", "async"])
def each_event(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.trap(1)
@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("encoding", [None, "gzip", "br", "zstd"])
@pytest.mark.parametrize("split", ["frame", "bytes"])
def test_the_first_event_arrives_before_the_second_is_sent(each_event: Any, encoding: Any, split: Any) -> None:
    """The recorder joins nothing and waits for nothing: the server sends the second event only after the client has the first."""
    seen: list[int] = []
    has_first = threading.Event()

    def look(_: dict[str, Any]) -> None:
        seen.append(time.monotonic_ns())
        has_first.set()

    def wait_for_the_client(number: int) -> None:
        if number == 1:
            has_first.wait(DEADLINE_S)

    with MessagesServer([Reply([text("a")], before_frame=wait_for_the_client, encoding=encoding, split=split)]) as server:
        each_event(server.url, look)
    sent = [at for at, _ in server.sent[0]]
    assert sent[0] < seen[0] < sent[1]


def test_every_event_is_committed_before_the_client_has_it(tape: Tape, each_event: Any) -> None:
    """When the client gets an event, a separate connection finds its frame in the log, and the messages folded from it."""
    path, run = tape.log.path, tape.run
    found: list[bool] = []

    def look(event: dict[str, Any]) -> None:
        frames = [payload for (payload,) in query(path, "SELECT payload FROM events WHERE run = ? AND kind = 'frame'", run)]
        events = sent_events(b"".join(frame.encode() for frame in frames))
        messages = query(path, "SELECT count(*) FROM messages WHERE run = ?", run)[0][0]
        stops = sum(event["type"] == "content_block_stop" for event in events)
        found.append(len(events) > len(found) and events[len(found)]["type"] == event["type"] and messages == stops)

    with MessagesServer([Reply([HELLO, text("Bye")], gap_s=0.005)]) as server:
        each_event(server.url, look)
    assert found == [True] * len(sent_events(server.bodies[0]))


def test_a_log_that_cannot_be_written_passes_nothing_on(tmp_path: Path) -> None:
    """Events are committed before the client sees them, so an event that cannot be recorded is not shown."""
    with EventLog(tmp_path / "log.db") as log, log.start(name="run", mode="live") as writer:
        capture = Capture(writer, REQUEST)
        capture.response(200, "OK", SSE)
        query(
            log.path, "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.kind = 'frame' BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        with pytest.raises(LogError, match="full"):
            capture.data(b"data: 1\n\n")
        capture.end("cut")
    assert query(log.path, "SELECT count(*) FROM events WHERE kind = 'frame'") == [(0,)]


def test_a_frame_and_its_message_share_a_transaction(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's last frame is never in the log without the message that it completes."""
    writer = log.start(name="run", mode="live")
    capture = Capture(writer, REQUEST)
    capture.response(200, "OK", SSE)
    batches: list[list[str]] = []
    append = type(writer).append

    def note(self: Any, *entries: Any) -> Any:
        batches.append([entry.kind for entry in entries])
        return append(self, *entries)

    monkeypatch.setattr(type(writer), "append", note)
    capture.data(b"".join(Reply([text("a")]).frames(Reply([text("a")]).message({}, 1))))
    assert batches == [["frame", "frame", "frame", "frame", "frame", "message", "frame", "frame"]]


@pytest.mark.trap(8)
def test_each_frame_has_its_own_time(tape: Tape, each_event: Any) -> None:
    """The time is later than the server sent the frame, and earlier than it sent the next one."""
    began = time.monotonic_ns()
    path, run = tape.log.path, tape.run

    def wait_for_the_log(number: int) -> None:
        """Send a frame only after the frames before it are in the log."""
        stored = "SELECT count(*) FROM events WHERE run = ? AND kind = 'frame'"
        wait_until(lambda: query(path, stored, run) == [(number,)])

    with MessagesServer([Reply([text("a")], before_frame=wait_for_the_log)]) as server:
        each_event(server.url, lambda _: None)
    (capture,) = tape.captures
    origin = tape.writer.started_ns
    frames = [event.t_ns + origin for event in tape.log.events(tape.run, kinds=("frame",))]
    sent = [at for at, _ in server.sent[0]]
    assert len(frames) == len(sent)
    assert all(at < frame for at, frame in zip(sent, frames, strict=True))
    assert all(frame < following for frame, following in zip(frames[:-1], sent[1:], strict=True))
    assert capture.first_ns == frames[0] - origin
    assert origin <= began


# Capture alone: chunks in, events out


def captured(log: EventLog, headers: Any, *chunks: bytes, ending: Any = "complete", **options: Any) -> tuple[str, Capture]:
    with log.start(name="run", mode="live") as writer:
        capture = Capture(writer, REQUEST, **options)
        capture.response(200, "OK", headers)
        for chunk in chunks:
            capture.data(chunk)
        capture.end(ending)
    return writer.run, capture


def payloads(log: EventLog, run: str) -> list[tuple[str, bytes]]:
    return [(event.kind, event.payload) for event in log.events(run, kinds=("frame", "chunk"))]


@pytest.mark.trap(8)
def test_chunks_of_a_stream_become_frames(log: EventLog) -> None:
    """This does not depend on the cuts of the socket. A rest without a blank line becomes a chunk."""
    run, _ = captured(log, SSE, b"data: 1\n", b"\ndata: 2\n\ndata: 3", b"\n")
    assert payloads(log, run) == [("frame", b"data: 1\n\n"), ("frame", b"data: 2\n\n"), ("chunk", b"data: 3\n")]


def test_chunks_of_other_bodies_stay_unchanged(log: EventLog) -> None:
    """JSON, compressed streams and other bodies are recorded piece by piece."""
    for headers in (JSON, GZIP, (("content-type", "image/png"),)):
        run, _ = captured(log, headers, b"\x1f\x8b\x08", b"data: 1\n\n", b"\x00")
        assert payloads(log, run) == [("chunk", b"\x1f\x8b\x08"), ("chunk", b"data: 1\n\n"), ("chunk", b"\x00")]


def post(url: str) -> bytes:
    with httpx2.Client() as client:
        return client.post(f"{url}/v1/messages", json=ASK).content


def post_async(url: str) -> bytes:
    async def run() -> bytes:
        async with httpx2.AsyncClient() as client:
            return (await client.post(f"{url}/v1/messages", json=ASK)).content

    return asyncio.run(run())


@pytest.mark.trap(9)
@pytest.mark.parametrize("read", [post, post_async], ids=["sync", "async"])
def test_an_endless_frame_is_recorded_in_pieces_and_reaches_the_client_whole(
    tape: Tape, read: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame without an end is bounded in memory and marked as not a frame. The client loses nothing."""
    monkeypatch.setattr(exchange, "FrameParser", functools.partial(FrameParser, max_frame_bytes=10_000))
    endless = b"data: " + b"x" * 300_000
    with MessagesServer([Reply(raw_frames=[endless, b"\n\n", b"data: 2\n\n"], split=1000)]) as server:
        received = read(server.url)
    assert received == server.bodies[0] == endless + b"\n\ndata: 2\n\n"
    stored = payloads(tape.log, tape.run)
    assert b"".join(data for _, data in stored) == received
    assert stored[-1] == ("frame", b"data: 2\n\n")
    assert {kind for kind, _ in stored[:-1]} == {"chunk"}
    assert len(stored) > 4
    assert tape.only().ending == "complete"


@pytest.mark.parametrize("ending", ["complete", "closed", "cut"])
def test_a_held_back_frame_is_written_at_the_end(log: EventLog, ending: Any) -> None:
    """A frame with the possible beginning of a secret is not lost when the stream stops there."""
    frames = [
        b"data: "
        + json.dumps({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}).encode()
        + b"\n\n"
        for part in ("Hello ", "sk-", "ant-")
    ]
    run, _ = captured(log, SSE, *frames, ending=ending)
    assert payloads(log, run) == [("frame", frame) for frame in frames]


@pytest.mark.trap(20)
def test_an_ending_is_written_once(log: EventLog) -> None:
    """The first ending counts, for all six endings in any order. Later events are not written."""
    endings: Any = ("complete", "closed", "cut", "error_event", "http_error", "no_response")
    writer = log.start(name="run", mode="live")
    for first, second in itertools.permutations(endings, 2):
        capture = Capture(writer, REQUEST)
        capture.response(200, "OK", SSE)
        capture.end(first)
        capture.data(b"data: late\n\n")
        capture.end(second)
        events = log.events(writer.run, exchange=capture.exchange)
        kinds = [(event.kind, event.data["ending"] if event.kind == "exchange.ended" else None) for event in events]
        assert kinds == [("exchange.started", None), ("response.started", None), ("exchange.ended", first)]


def test_the_last_event_of_an_exchange_summarises_it(log: EventLog) -> None:
    """It has frames, bytes, digest, model, stop reason, usage and cost."""
    reply = Reply([text("a")], "max_tokens", usage={"input_tokens": 7, "output_tokens": 2}, model="m", id="msg_1")
    frames = reply.frames(reply.message({}, 1))
    run, _ = captured(log, SSE, *frames, price=lambda model, usage: 0.25 if (model, usage["output_tokens"]) == ("m", 2) else None)
    (summary,) = [event.data for event in log.events(run, kinds=("exchange.ended",))]
    assert summary["usage"].pop("cache_creation") is not None
    assert {key: summary[key] for key in summary if key not in ("sha256", "usage")} == {
        "ending": "complete",
        "call": 0,
        "attempt": 1,
        "api_error": None,
        "error": None,
        "status": 200,
        "frames": len(frames),
        "bytes": len(b"".join(frames)),
        "message_id": "msg_1",
        "model": "m",
        "stop_reason": "max_tokens",
        "cost_usd": 0.25,
    }
    assert (summary["usage"]["input_tokens"], summary["usage"]["output_tokens"]) == (7, 2)


def test_an_unknown_price_is_not_zero(log: EventLog) -> None:
    """The cost of a model without a known price is unknown, never 0."""
    reply = Reply([text("a")])
    run, capture = captured(log, SSE, *reply.frames(reply.message({}, 1)), price=lambda *_: None)
    (summary,) = [event.data for event in log.events(run, kinds=("exchange.ended",))]
    assert (summary["cost_usd"], capture.cost_usd) == (None, None)


def test_an_exchange_records_its_place(log: EventLog) -> None:
    """The place has step, task, call, attempt, the origin of the time stamps, and the run's own variables."""
    place = Place("step", "task", 3, 2, "arrival", {"date": "2026-11-22"})
    run, capture = captured(log, SSE, b"data: 1\n\n", place=place, recorded_at="2026-11-22T00:00:00.000Z")
    started = next(iter(log.events(run, kinds=("exchange.started",))))
    assert {(event.step, event.task, event.exchange) for event in log.events(run, exchange=capture.exchange)} == {
        ("step", "task", 1)
    }
    assert started.data == {
        "method": "POST",
        "uri": URL,
        "headers": [["content-type", "application/json"]],
        "body": "{}",
        "call": 3,
        "attempt": 2,
        "stamped": "arrival",
        "variables": {"date": "2026-11-22"},
        "recorded_at": "2026-11-22T00:00:00.000Z",
    }


def test_a_tee_leaves_the_request_unchanged(tmp_path: Path) -> None:
    """The server gets the same bytes and headers with and without the recorder, except for values that change with every call."""

    def ask(url: str) -> None:
        with anthropic.Anthropic(base_url=url, api_key="test-key") as client:
            client.messages.create(**ASK)

    with MessagesServer([Reply([HELLO])] * 2) as server, EventLog(tmp_path / "log.db") as log:
        ask(server.url)
        with log.start(name="run", mode="live") as writer, intercepted(Recorder(lambda request: Capture(writer, request))):
            ask(server.url)
    plain, recorded = server.requests
    assert recorded == plain
