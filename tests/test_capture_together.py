"""Chunks that arrive together are committed together, before the client sees the first of them. Each is passed on alone."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.recorder.http.tee import MAX_TOGETHER, chunks_in
from tests.raw_log import query
from tests.tape import Tape, recording

FRAMES = [b'event: ping\ndata: {"type": "ping", "n": %d}\n\n' % number for number in range(150)]


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[Tape]:
    with recording(tmp_path) as recorded:
        yield recorded


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Serve these bytes to one client, all at once, and close the connection."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + answer
            )

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def chunks_sync(url: str) -> Iterator[bytes]:
    with httpx2.Client() as client, client.stream("POST", url) as response:
        yield from response.iter_raw()


def chunks_async(url: str) -> Iterator[bytes]:
    """Yield each chunk from an event loop, which does not run in between."""

    async def consume() -> Any:
        async with httpx2.AsyncClient() as client, client.stream("POST", url) as response:
            async for chunk in response.aiter_raw():
                yield chunk

    loop, chunks = asyncio.new_event_loop(), consume()
    try:
        while True:
            yield loop.run_until_complete(anext(chunks))
    except StopAsyncIteration:
        return
    finally:
        loop.run_until_complete(chunks.aclose())
        loop.close()


@pytest.fixture(params=[chunks_sync, chunks_async], ids=["sync", "async"])
def chunks_of(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_chunks_that_arrive_together_share_a_commit_and_pass_one_by_one(tape: Tape, chunks_of: Any) -> None:
    """The client gets the chunks as sent. Each is in the log when the client has it. A commit has many of them."""
    committed = "SELECT count(*) FROM events WHERE run = ? AND kind = 'frame'"
    seen: list[bytes] = []
    with answering(chunked(*FRAMES, b"")) as url:
        for chunk in chunks_of(url):
            seen.append(chunk)
            assert query(tape.log.path, committed, tape.run)[0][0] >= len(seen)
    assert seen == FRAMES
    response = tape.only().response
    assert response is not None
    assert [piece.data for piece in response.pieces] == FRAMES
    commits = query(tape.log.path, "SELECT count(DISTINCT wall_ns) FROM events WHERE run = ? AND kind = 'frame'", tape.run)
    assert commits[0][0] < len(FRAMES) / 10


def test_a_cut_after_chunks_that_arrived_together_comes_last(tape: Tape, chunks_of: Any) -> None:
    """Every chunk, even half a chunk, is passed on and recorded before the error is raised."""
    seen: list[bytes] = []
    with (
        answering(chunked(*FRAMES[:9]) + b"100\r\n" + FRAMES[9]) as url,
        pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"),
    ):
        seen.extend(chunks_of(url))
    assert seen == FRAMES[:10]
    assert (tape.only().ending, len(tape.captures)) == ("cut", 1)
    assert tape.kinds().count("frame") == 10


def test_a_broken_chunk_after_good_ones_is_not_read_with_them(tape: Tape, chunks_of: Any) -> None:
    """It fails at the same place as without the recorder."""
    seen: list[bytes] = []
    with (
        answering(chunked(*FRAMES[:5]) + b"no size\r\n") as url,
        pytest.raises(httpx2.RemoteProtocolError, match="illegal chunk header"),
    ):
        seen.extend(chunks_of(url))
    assert seen == FRAMES[:5]
    assert tape.kinds().count("frame") == 5


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(0, 400), st.booleans())
def test_only_chunks_that_have_begun_are_counted(chunks: list[bytes], cut: int, ended: bool) -> None:
    """A size alone is not a chunk, nor is the end of the body. A chunk that arrived in part is one."""
    buffer = (b"\r\n" + chunked(*chunks, *[b""] * ended))[:cut]
    begun, at = 0, 2
    for chunk in chunks:
        at += len(b"%x\r\n" % len(chunk))
        begun += len(buffer) > at
        at += len(chunk) + 2
    assert chunks_in(buffer) == begun


def test_only_a_few_chunks_share_a_commit() -> None:
    """The first of very many chunks does not wait for the work on all of them."""
    assert chunks_in(b"\r\n" + chunked(*FRAMES)) == MAX_TOGETHER - 1
