"""Many streams through one proxy: frames of one turn of the event loop are committed together, before any client gets them."""

import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.recorder.errors import LogError
from retold.recorder.events import Event
from retold.recorder.http.capture import Capture, record_together
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.log.memory import MemoryStore
from retold.recorder.proxy.answer_parser import AnswerParser
from retold.recorder.proxy.commands import CaptureBody, CaptureHead, EndCapture
from retold.recorder.proxy.http_messages import Asked
from retold.recorder.proxy.relay import Relay
from retold.recorder.proxy.turn import LoopTurn
from retold.recorder.proxy.upstream import ApiReader, Streams, Upstream
from tests.children import Folder, line_of, wait_until
from tests.test_retell import Listener
from tests.wire import connected, request_bytes, rest, wire

STREAM = (("content-type", "text/event-stream"),)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def delta(text: str) -> bytes:
    data = f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{text}"}}}}'
    return f"event: content_block_delta\ndata: {data}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def captured(run: RunWriter, uri: str = "https://api.anthropic.com/v1/messages") -> Capture:
    capture = Capture(run, Request("POST", uri, (), b"{}"))
    capture.response(200, "OK", STREAM)
    return capture


@pytest.fixture
def log() -> Any:
    with EventLog(store=MemoryStore()) as opened:
        yield opened


class Commits(MemoryStore):
    """A store that counts commits, and refuses them on request."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[list[bytes]] = []
        self.refuses = False

    def append(self, events: Sequence[Event]) -> None:
        if self.refuses:
            raise LogError("no room")
        super().append(events)
        self.kept.append([event.payload for event in events])


# The recording


def test_streams_of_one_run_are_recorded_in_one_transaction() -> None:
    """Each exchange has its frames and its first time. Each run is committed separately."""
    store = Commits()
    with EventLog(store=store) as log, log.start(name="a", mode="live") as run, log.start(name="b", mode="live") as other:
        one, two, third = captured(run), captured(run), captured(other)
        store.kept.clear()
        record_together([(one, [delta("a"), delta("b")]), (third, [delta("x")]), (two, [b": ping\n\n"]), (one, [delta("c")])])
        frames = sorted(store.kept, key=len)
        assert frames == [[delta("x")], [delta("a"), delta("b"), b": ping\n\n", delta("c")]]
        assert None not in (one.first_ns, two.first_ns, third.first_ns)
        for capture in (one, two, third):
            capture.end("cut")
        assert [capture.frames for capture in (one, two, third)] == [3, 1, 1]
        assert "".join(str(block) for block in one.fold.incomplete).count("abc") == 1


def test_an_exchange_that_has_ended_accepts_no_frame(log: EventLog) -> None:
    with log.start(name="a", mode="live") as run:
        one, two = captured(run), captured(run)
        one.end("closed")
        record_together([(one, [delta("late")]), (two, [delta("good")])])
        assert [event.payload for event in log.events(run.run, kinds=("frame",))] == [delta("good")]


# The turn


def test_nothing_is_sent_before_the_commit_of_the_turn() -> None:
    """All frames that arrive in one turn of the loop are one commit. The callbacks then run in the order of arrival."""
    store = Commits()

    async def turn_of_two(run: RunWriter) -> list[str]:
        turn, sent = LoopTurn(asyncio.get_running_loop()), list[str]()
        for name in ("first", "second"):
            turn.add(captured(run), [delta(name)], lambda failure, name=name: sent.append(f"{name} {failure} {len(store.kept)}"))  # type: ignore[misc]
        store.kept.clear()
        assert sent == []
        await asyncio.sleep(0)
        return sent

    with EventLog(store=store) as log, log.start(name="a", mode="live") as run:
        assert asyncio.run(turn_of_two(run)) == ["first None 1", "second None 1"]


def test_a_turn_that_cannot_be_recorded_fails_for_all_its_streams() -> None:
    store = Commits()

    async def refused(run: RunWriter) -> list[str]:
        turn, found = LoopTurn(asyncio.get_running_loop()), list[str]()
        capture = captured(run)
        store.refuses = True
        turn.add(capture, [delta("a")], lambda failure: found.append(str(failure)))
        turn.add(capture, [delta("b")], lambda failure: found.append(str(failure)))
        await asyncio.sleep(0)
        store.refuses = False
        return found

    with EventLog(store=store) as log, log.start(name="a", mode="live") as run:
        assert asyncio.run(refused(run)) == ["no room", "no room"]


# The proxy


def test_a_client_gets_only_recorded_frames_if_the_log_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both connections end, and the server reports the failure. The client has the frames from before it."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as api, wire(f"http://127.0.0.1:{api.getsockname()[1]}") as running:
        with connected(running.url) as client:
            client.sendall(request_bytes())
            upstream, _ = api.accept()
            with upstream:
                upstream.recv(65536)
                upstream.sendall(HEAD + chunk(delta("one")))
                received = b""
                while not received.endswith(chunk(delta("one"))):
                    received += client.recv(65536)
                monkeypatch.setattr(running.log.store, "append", _refuse)
                upstream.sendall(chunk(delta("lost")))
                assert rest(client) == b""
                with contextlib.suppress(ConnectionError):
                    assert upstream.recv(65536) == b""
            monkeypatch.undo()
        assert [str(failure) for failure in running.serving.failures] == ["no room"]


def _refuse(_: Sequence[Event]) -> None:
    raise LogError("no room")


def test_concurrent_streams_reach_their_clients_complete_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each client gets the bytes of its own answer. The log has each frame, and each exchange is complete."""
    monkeypatch.chdir(tmp_path)
    texts = [[f"{stream}-{number}" for number in range(30)] for stream in range(8)]
    with (
        socket.create_server(("127.0.0.1", 0)) as api,
        wire(f"http://127.0.0.1:{api.getsockname()[1]}") as running,
        contextlib.ExitStack() as stack,
    ):
        pairs = []
        for _ in texts:
            client = stack.enter_context(connected(running.url))
            client.sendall(request_bytes(head="Connection: close\r\n"))
            upstream = stack.enter_context(api.accept()[0])
            upstream.recv(65536)
            upstream.sendall(HEAD)
            pairs.append((client, upstream))
        for number in range(30):
            for (_, upstream), names in zip(pairs, texts, strict=True):
                upstream.sendall(chunk(delta(names[number])))
        for _, upstream in pairs:
            upstream.sendall(b"0\r\n\r\n")
        for (client, _), names in zip(pairs, texts, strict=True):
            body = rest(client).partition(b"\r\n\r\n")[2]
            assert body == b"".join([chunk(delta(text)) for text in names]) + b"0\r\n\r\n"
        run = next(iter(running.log.runs())).run
        frames: dict[int | None, list[bytes]] = {}
        for event in running.log.events(run, kinds=("frame",)):
            frames.setdefault(event.exchange, []).append(event.payload)
        assert sorted(frames.values()) == sorted([[delta(text) for text in names] for names in texts])
        endings = [event.data["ending"] for event in running.log.events(run, kinds=("exchange.ended",))]
        assert endings == ["complete"] * 8


def test_a_killed_proxy_leaves_everything_that_its_clients_saw(tmp_path: Path) -> None:
    """Streams that share commits lose nothing: the log holds all frames that each client received, and maybe more."""
    folder = Folder(tmp_path)
    streams, received = 6, dict[int, bytes]()

    def send(connection: socket.socket, stream: int) -> None:
        with contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(HEAD)
            for number in itertools.count():
                connection.sendall(chunk(delta(f"{stream}-{number}")))

    def read(client: socket.socket, stream: int) -> None:
        received[stream] = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                received[stream] += data

    with socket.create_server(("127.0.0.1", 0)) as api, contextlib.ExitStack() as stack:
        threads = []
        try:
            child = folder.spawn("proxy", "--upstream", f"http://127.0.0.1:{api.getsockname()[1]}")
            url = line_of(child.stdout).strip()
            for stream in range(streams):
                client = stack.enter_context(connected(url))
                client.settimeout(None)
                client.sendall(request_bytes())
                upstream = stack.enter_context(api.accept()[0])
                for work, end in ((send, upstream), (read, client)):
                    threads.append(threading.Thread(target=work, args=(end, stream)))
                    threads[-1].start()
            wait_until(lambda: len(received) == streams and all(b"-99" in data for data in received.values()))
            child.kill()
        finally:
            folder.close()
            for thread in threads:
                thread.join()
    kept: dict[bytes, list[bytes]] = {}
    for event in folder.log.events(folder.newest().run, kinds=("frame",)):
        kept.setdefault(place_of(event.payload)[0], []).append(event.payload)
    for stream, data in received.items():
        seen = [part for part in data.split(b"\r\n") if part.endswith(b"\n\n")]
        assert [place_of(frame)[1] for frame in seen] == [b"%d" % number for number in range(len(seen))]
        assert len(seen) > 99
        assert kept[b"%d" % stream][: len(seen)] == seen


def place_of(frame: bytes) -> list[bytes]:
    """The stream and the number that are the text of a delta."""
    return frame.rpartition(b'"text":"')[2].partition(b'"')[0].split(b"-")


# A head and an end in steps


class Steps:
    """A recording that notes its steps, and calls `then` after one of them."""

    def __init__(self, found: list[str], after: str = "", then: Callable[[], object] = lambda: None) -> None:
        self._found = found
        self._after = after
        self._then = then

    def _note(self, step: str) -> None:
        self._found.append(step)
        if step == self._after:
            self._then()

    def response(self, status: int, reason: str, headers: object) -> None:  # noqa: ARG002 - the relay calls it so
        self._note(f"{status} {reason}")

    def data(self, *chunks: bytes) -> None:
        self._note(b"".join(chunks).decode())

    def end(self, ending: str, error: object = None, *, failure: object = None) -> None:
        assert error is None
        assert failure is None
        self._note(ending)


class Answering(Upstream):
    """An API that has sent its whole answer before the proxy reads."""

    async def connect(self) -> Streams:
        loop = asyncio.get_running_loop()
        reader = ApiReader(loop=loop)
        reader.feed_data(HEAD + chunk(b"body") + b"0\r\n\r\n")
        ours, theirs = socket.socketpair()
        theirs.close()
        transport, protocol = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=ours)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def relayed(found: list[str], leaves_after: str = "") -> bool:
    """Relay one answer while a callback of another stream runs in each turn of the loop."""
    client = Listener()
    loop = asyncio.get_running_loop()

    def other() -> None:
        if found and found[-1] != "other":
            found.append("other")
        loop.call_soon(other)

    relay = Relay(Answering.parse("http://127.0.0.1:1"))
    task = asyncio.create_task(
        relay.forward(Asked("POST", "/", (), b""), client, lambda _: Steps(found, leaves_after, task.cancel))
    )
    loop.call_soon(other)
    try:
        return await task
    finally:
        relay.close()


def test_frames_of_other_streams_pass_between_the_steps_of_a_head_and_an_end() -> None:
    """Each step takes up to 0.5 ms, in which no frame is relayed."""
    found: list[str] = []
    asyncio.run(relayed(found))
    assert found == ["200 OK", "other", "body", "other", "complete", "other"]


@pytest.mark.parametrize("step", ["200 OK", "body"])
def test_an_answer_that_has_arrived_is_recorded_if_its_client_leaves_between_two_steps(step: str) -> None:
    """The parser has seen its end, so nothing else would record it."""
    found: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(relayed(found, step))
    assert [each for each in found if each != "other"] == ["200 OK", "body", "complete"]


# Chunks that bypass h11

contents = st.lists(st.sampled_from([b"a", b"\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"data: 1\n\n", b"x" * 300]), max_size=8)


@given(contents, st.lists(st.integers(0, 400), max_size=12), st.sampled_from(["", ";ext=1", "\r\nTrailer: 1"]), st.booleans())
def test_whole_chunks_that_bypass_h11_are_read_like_others(bodies: list[bytes], cuts: list[int], odd: str, is_last: bool) -> None:
    """A parser that bypasses h11 for whole chunks returns the same head, body and ending for any cuts."""
    wire_bytes = HEAD + b"".join(map(chunk, bodies))
    if odd.startswith(";"):
        wire_bytes += b"1;ext=1\r\ny\r\n" + b"".join(map(chunk, bodies))
    wire_bytes += (b"0\r\n" + (b"Trailer: 1\r\n" if odd.startswith("\r") else b"") + b"\r\n") if is_last else b""
    edges = sorted({0, len(HEAD), len(wire_bytes), *(min(at, len(wire_bytes)) for at in cuts)})
    parts = [wire_bytes[a:b] for a, b in itertools.pairwise(edges)]

    def read(*, passing: bool) -> tuple[Any, ...]:
        parser, records, passed = AnswerParser(Asked("POST", "/", (), b"")), list[Any](), 0
        for part in parts:
            if passing and (pieces := parser.whole_chunks(part)) is not None:
                records.append(CaptureBody(pieces))
                passed += 1
            else:
                records += parser.feed(part)
        head = [record for record in records if isinstance(record, CaptureHead)]
        body = b"".join(b"".join(record.pieces) for record in records if isinstance(record, CaptureBody))
        ends = [record for record in records if isinstance(record, EndCapture)]
        return head, body, ends, parser.is_over, parser.goes_on

    assert read(passing=True) == read(passing=False)


def test_whole_chunks_bypass_h11_only_between_chunks() -> None:
    parser = AnswerParser(Asked("POST", "/", (), b""))
    assert parser.whole_chunks(chunk(b"x")) is None
    parser.feed(HEAD)
    assert parser.whole_chunks(chunk(b"x") + chunk(b"y")) == [b"x", b"y"]
    assert parser.whole_chunks(chunk(b"x")[:-1]) is None
    parser.feed(chunk(b"x")[:-1])
    assert parser.whole_chunks(chunk(b"y")) is None
    parser.feed(chunk(b"x")[-1:])
    assert parser.whole_chunks(chunk(b"y")) == [b"y"]
    assert parser.whole_chunks(b"0\r\n\r\n") is None
    parser.feed(b"0\r\n\r\n")
    assert parser.is_over
