"""The tee on scripted chunks and a scripted clock: the passed chunks, their time stamps, and the unchanged bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http import capture as capture_module
from retold.recorder.http.capture import Capture
from retold.recorder.http.tee import Recorder
from retold.recorder.log import log as writer_module
from retold.recorder.log.log import EventLog
from retold.replay.timing.timing import times_of
from tests.exchanges import URL
from tests.messages_server import MessagesServer, Reply, http_error, text
from tests.tape import ASK, recording

S = 1_000_000_000
MINUTE = 60 * S


class Clock:
    """A replacement of the module `clock` for events. The wall clock may be set, the monotonic one only advances."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * S
        self.wall = 1_800_000_000 * S

    def pass_by(self, ns: int) -> None:
        self.now_ns += ns
        self.wall += ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.wall


class Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of these chunks. It calls `before` ahead of each chunk."""

    def __init__(self, chunks: list[bytes], before: Callable[[], None]) -> None:
        self._chunks = chunks
        self._before = before

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._before()
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


Pulled = Callable[[EventLog, list[bytes], Callable[[], None], Callable[[], None]], tuple[str, list[bytes]]]


def answer(chunks: list[bytes], before: Callable[[], None]) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Chunks(chunks, before))


def pull(
    log: EventLog, chunks: list[bytes], before: Callable[[], None], after: Callable[[], None]
) -> tuple[str, list[bytes]]:  # fmt: skip
    """Record these chunks. Return the run, and the chunks of a client that calls `after` with each one."""
    got = []
    with log.start(name="run", mode="live") as writer:
        recorder = Recorder(lambda request: Capture(writer, request))
        response = recorder.handle(httpx2.Request("POST", URL, json=ASK), lambda _: answer(chunks, before))
        for chunk in response.iter_raw():
            got.append(chunk)
            after()
    return writer.run, got


def pull_async(
    log: EventLog, chunks: list[bytes], before: Callable[[], None], after: Callable[[], None]
) -> tuple[str, list[bytes]]:  # fmt: skip
    """Record these chunks on an event loop, with the same results."""
    got = []

    async def send(_: Any) -> httpx2.Response:
        return answer(chunks, before)

    async def run() -> str:
        with log.start(name="run", mode="live") as writer:
            recorder = Recorder(lambda request: Capture(writer, request))
            response = await recorder.handle_async(httpx2.Request("POST", URL, json=ASK), send)
            async for chunk in response.aiter_raw():
                got.append(chunk)
                after()
        return writer.run

    return asyncio.run(run()), got


@pytest.fixture(params=[pull, pull_async], ids=["sync", "async"])
def pulled(request: pytest.FixtureRequest) -> Pulled:
    chosen: Pulled = request.param
    return chosen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(writer_module, "clock", clock)
    monkeypatch.setattr(capture_module, "wall_ns", clock.wall_ns)
    return clock


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "log.db") as opened:
        yield opened


def frames(log: EventLog, run: str) -> list[Any]:
    return list(log.events(run, kinds=("frame",)))


def nothing() -> None:
    """Wait neither in the server nor in the client."""


@pytest.mark.trap(4)
def test_every_chunk_is_passed_on_unchanged(pulled: Pulled, log: EventLog) -> None:
    """Chunks are neither joined nor split, wherever frames begin and end. Each is passed on before the next is requested."""
    chunks = [b"data: 1\n\nda", b"t", b"a: 2\n\ndata: 3\n\n", "data: é".encode()[:-1], b"\xa9\n\n", b"data: " + b"x" * 100_000]
    asked: list[int] = []
    run, got = pulled(log, chunks, lambda: asked.append(len(asked)), lambda: asked.append(-1))
    assert got == chunks
    assert asked == [0, -1, 2, -1, 4, -1, 6, -1, 8, -1, 10, -1]
    assert [event.payload for event in frames(log, run)] == [
        b"data: 1\n\n",
        b"data: 2\n\n",
        b"data: 3\n\n",
        "data: é\n\n".encode(),
    ]


@pytest.mark.trap(5)
def test_a_silent_minute_is_recorded_with_its_pause(pulled: Pulled, log: EventLog, clock: Clock, tmp_path: Path) -> None:
    """The model thinks. The recording continues afterwards, is complete, and its cassette has the pause."""
    run, _ = pulled(log, [b"data: 1\n\n", b"data: 2\n\n"], lambda: clock.pass_by(MINUTE), nothing)
    first, second = frames(log, run)
    assert second.t_ns - first.t_ns == MINUTE
    write_cassette(tmp_path / "c.yaml", exchanges_of(log, run))
    (exchange,) = read_cassette(tmp_path / "c.yaml").exchanges
    assert exchange.ending == "complete"
    assert sorted(times_of(exchange))[-1] - exchange.started_ns == 2 * MINUTE


@pytest.mark.trap(10)
def test_setting_the_wall_clock_back_changes_no_interval(pulled: Pulled, log: EventLog, clock: Clock) -> None:
    """Intervals use monotonic time. The wall time is recorded beside them, unchanged."""

    def set_back() -> None:
        clock.pass_by(1 * S)
        clock.wall -= 3600 * S

    run, _ = pulled(log, [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"], set_back, nothing)
    events = frames(log, run)
    assert [event.t_ns for event in events] == [1 * S, 2 * S, 3 * S]
    assert [event.wall_ns for event in events] == [1_800_000_000 * S + n * (1 - 3600) * S for n in (1, 2, 3)]


@pytest.mark.trap(12)
def test_a_tee_in_the_client_stamps_each_pull_of_the_client(pulled: Pulled, log: EventLog, clock: Clock) -> None:
    """A client that needs two seconds per frame records them two seconds apart, although all had arrived.

    The stamp names the client.
    """
    run, _ = pulled(log, [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"], nothing, lambda: clock.pass_by(2 * S))
    assert [event.t_ns for event in frames(log, run)] == [0, 2 * S, 4 * S]
    assert [event.data["stamped"] for event in log.events(run, kinds=("exchange.started",))] == ["pull"]


def head(url: str) -> tuple[int, str, list[tuple[str, str]]]:
    with httpx2.Client() as client, client.stream("POST", f"{url}/v1/messages", json=ASK) as response:
        return response.status_code, response.reason_phrase, response.headers.multi_items()


def head_async(url: str) -> tuple[int, str, list[tuple[str, str]]]:
    async def run() -> tuple[int, str, list[tuple[str, str]]]:
        async with httpx2.AsyncClient() as client, client.stream("POST", f"{url}/v1/messages", json=ASK) as response:
            return response.status_code, response.reason_phrase, response.headers.multi_items()

    return asyncio.run(run())


REPLIES = {
    "200": Reply([text("Hello")], headers={"X-Case": "é"}),
    "200 gzip": Reply([text("Hello")], encoding="gzip"),
    "400": http_error(400, "invalid_request_error", "bad"),
    "529": http_error(529, headers={"retry-after": "7"}),
}


@pytest.mark.trap(18)
@pytest.mark.parametrize("read", [head, head_async], ids=["sync", "async"])
@pytest.mark.parametrize("reply", REPLIES)
def test_status_and_headers_are_the_servers_while_recording(reply: str, read: Any, tmp_path: Path) -> None:
    """A 529 stays a 529, and every header keeps its order. The record has the same, except for the ids of the key's owner."""

    def undated(seen: tuple[int, str, list[tuple[str, str]]]) -> Any:
        return (*seen[:2], [pair for pair in seen[2] if pair[0] != "date"])

    with MessagesServer([REPLIES[reply]]) as server:
        plain = read(server.url)
    with recording(tmp_path) as tape, MessagesServer([REPLIES[reply]]) as server:
        seen = read(server.url)
    assert undated(seen) == undated(plain)
    response = tape.only().response
    assert response is not None
    shown = [(name.lower(), value) for name, value in response.headers if name.lower() != "anthropic-organization-id"]
    assert (response.status, response.reason, shown) == (
        *seen[:2],
        [pair for pair in seen[2] if pair[0] != "anthropic-organization-id"],
    )
