"""Clients over aiohttp, which does not use httpx2's transport: the middleware records them, and a cassette must cover them."""

import asyncio
import contextlib
from collections.abc import Iterator

import anthropic
import pytest

import retold
from retold.recorder.cassette.transfer import exchanges_of
from tests.clients import answer_text_async, body, client_async, serve
from tests.messages_server import MessagesServer, Reply, http_error, text

HELLO = Reply([text("Hello there, é 😀")])
RETRY = http_error(529, headers={"retry-after-ms": "1"})


@pytest.fixture
def log() -> Iterator[retold.EventLog]:
    with retold.EventLog("log.db") as opened:
        yield opened


def test_the_middleware_records_a_client_over_aiohttp(log: retold.EventLog) -> None:
    """It records streams and whole answers, retries and errors, although aiohttp does not use httpx2's transport."""

    async def run(url: str) -> tuple[str, list[str]]:
        http = anthropic.DefaultAioHttpClient()
        async with client_async(url, http_client=http, middleware=[recording]) as asking:
            streamed = await answer_text_async(asking, "a")
            whole = await asking.messages.create(**body("b"))
            with pytest.raises(anthropic.BadRequestError):
                await asking.messages.create(**body("c"))
            return streamed, [block.text for block in whole.content if block.type == "text"]

    script = [HELLO, RETRY, HELLO, http_error(400, "invalid_request_error", "bad")]
    with MessagesServer(script) as server, retold.recording(log) as recording:
        assert asyncio.run(run(server.url)) == ("Hello there, é 😀", ["Hello there, é 😀"])
    recorded = exchanges_of(log, log.runs()[0].run)
    assert [(exchange.place.call, exchange.place.attempt, exchange.ending) for exchange in recorded] == [
        (1, 1, "complete"),
        (2, 1, "http_error"),
        (2, 2, "complete"),
        (3, 1, "http_error"),
    ]
    assert [exchange.response.body for exchange in recorded if exchange.response is not None] == server.bodies


def test_a_client_over_aiohttp_never_sends_live_requests_in_a_replay() -> None:
    """Its requests are replayed or refused, but never sent. An unpatched transport must not look like a patched one."""

    async def run(url: str) -> None:
        async with client_async(url, http_client=anthropic.DefaultAioHttpClient()) as asking:
            with contextlib.suppress(retold.RetoldError), retold.use_cassette("c.yaml"):
                await answer_text_async(asking)

    with serve() as server:
        asyncio.run(run(server.url))
    assert server.calls == 0
