"""httpx beside httpx2: requests of older SDKs through httpx are recorded and replayed like those through httpx2."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import retold
from tests.clients import NOWHERE, body, record
from tests.messages_server import MessagesServer, Reply, http_error, text

CASSETTE = Path("c.yaml")
HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": "test-key"}
HELLO = Reply([text("Hello there, é 😀")])


def stream(url: str, stop_after: int | None = None) -> list[bytes]:
    """Return the chunks of a streamed answer, read by an httpx client like that of an SDK."""
    chunks = []
    with (
        httpx.Client(headers=HEADERS) as client,
        client.stream("POST", f"{url}/v1/messages", content=json.dumps(body(stream=True))) as response,
    ):
        for chunk in response.iter_raw():
            chunks.append(chunk)
            if len(chunks) == stop_after:
                break
    return chunks


def stream_async(url: str, stop_after: int | None = None) -> list[bytes]:
    """Return the chunks of a streamed answer, read by an async httpx client."""

    async def run() -> list[bytes]:
        chunks = []
        async with (
            httpx.AsyncClient(headers=HEADERS) as client,
            client.stream("POST", f"{url}/v1/messages", content=json.dumps(body(stream=True))) as response,
        ):
            async for chunk in response.aiter_raw():
                chunks.append(chunk)
                if len(chunks) == stop_after:
                    break
        return chunks

    return asyncio.run(run())


@pytest.fixture(params=[stream, stream_async], ids=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_stream_over_httpx_is_recorded_and_replayed(read: Any) -> None:
    """The bytes are equal, and the cassette has them frame by frame."""
    with MessagesServer([HELLO]) as server, retold.use_cassette(CASSETTE, record_mode="once"):
        seen = read(server.url)
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert exchange.response is not None
    assert [piece.data for piece in exchange.response.pieces] == [frame for _, frame in server.sent[0]]
    with retold.use_cassette(CASSETTE) as cassette:
        assert b"".join(read(NOWHERE)) == b"".join(seen) == server.bodies[0]
        assert cassette.all_played


def test_an_error_of_httpx_is_raised_again_in_a_replay(read: Any) -> None:
    """The error belongs to the client's own library, not to the other one."""
    with (
        MessagesServer([Reply([text("Hello there")], cut_after=4)]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
        pytest.raises(httpx.RemoteProtocolError) as live,
    ):
        read(server.url)
    with retold.use_cassette(CASSETTE), pytest.raises(httpx.RemoteProtocolError) as again:
        read(NOWHERE)
    assert (type(again.value), str(again.value)) == (type(live.value), str(live.value))


def test_the_body_of_an_error_is_recorded(read: Any) -> None:
    """The client closes the connection without reading it."""
    with (
        MessagesServer([http_error(429, "rate_limit_error", "slow down")]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
    ):
        read(server.url, 1)
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert exchange.response is not None
    assert (exchange.response.status, exchange.response.body, exchange.ending) == (429, server.bodies[0], "http_error")


def test_a_stream_closed_early_is_recorded_as_closed(read: Any) -> None:
    """httpx2 behaves the same."""
    with (
        MessagesServer([Reply([text("Hello there")], hang_after=3)]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
    ):
        read(server.url, 1)
        assert server.wait_idle()
    assert [exchange.ending for exchange in retold.read_cassette(CASSETTE).exchanges] == ["closed"]


def test_an_unrecorded_request_over_httpx_is_a_miss(read: Any) -> None:
    """Nothing is sent."""
    record(CASSETTE, "another")
    with MessagesServer([HELLO]) as server, retold.use_cassette(CASSETTE), pytest.raises(retold.MissError):
        read(server.url)
    assert server.calls == 0


def test_httpx_replays_a_recording_of_httpx2(read: Any) -> None:
    """A cassette contains requests, and does not depend on a library."""
    record(CASSETTE)
    with retold.use_cassette(CASSETTE):
        assert b"You said" in b"".join(read(NOWHERE))
