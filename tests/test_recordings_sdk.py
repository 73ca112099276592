"""Real recordings, other people's: each is replayed through the real SDK by issuing its recorded request again."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

from retold.recorder.cassette import read_cassette
from retold.recorder.exchange import Exchange, decoder_for
from retold.replay.matcher import Matcher
from retold.replay.transport import ReplayTransport
from tests.conftest import RECORDINGS

FILES = sorted(RECORDINGS.glob("*/*.yaml")) if RECORDINGS.is_dir() else []

pytestmark = [
    pytest.mark.skipif(not FILES, reason="the sample recordings are not here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # old models, which the SDK warns of
    pytest.mark.filterwarnings("ignore:Using Claude with:UserWarning"),
]


def sent(exchange: Exchange) -> tuple[str, str, dict[str, str], bytes]:
    """The recorded request as a client sends it again, to another host."""
    url = httpx2.URL(exchange.request.uri)
    headers = {"anthropic-version": "2023-06-01", "content-type": "application/json"}
    return exchange.request.method, f"http://127.0.0.1:9{url.raw_path.decode()}", headers, exchange.request.body


def body_of(exchange: Exchange) -> bytes:
    assert exchange.response is not None
    return decoder_for(exchange.response.headers).decode(exchange.response.body)


def sdk_events(exchange: Exchange) -> list[Any]:
    """What the SDK makes of a body from memory: the reference for what it makes of the replayed one."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body_of(exchange)))
    with Anthropic(api_key="test-key", http_client=httpx2.Client(transport=transport), max_retries=0) as client:
        stream = api_of(client, exchange).create(model="m", max_tokens=1, messages=[], stream=True)
        return [event.model_dump(mode="json", warnings=False) for event in stream]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name.partition('__')[2]}-{path.stem}")
def test_a_recording_answers_its_own_requests_with_its_own_bytes(path: Path) -> None:
    """Sync and async, every recorded request gets its recorded body, and the SDK reads the same events from it."""
    exchanges = read_cassette(path).exchanges
    expected = [body_of(exchange) for exchange in exchanges]

    with httpx2.Client(transport=ReplayTransport(Matcher(exchanges))) as client:
        got = []
        for exchange in exchanges:
            method, url, headers, body = sent(exchange)
            got.append(client.request(method, url, headers=headers, content=body).content)
    assert got == expected

    async def again() -> list[bytes]:
        async with httpx2.AsyncClient(transport=ReplayTransport(Matcher(exchanges))) as client:
            return [(await client.request(m, u, headers=h, content=b)).content for m, u, h, b in map(sent, exchanges)]

    assert asyncio.run(again()) == expected


def api_of(client: Any, exchange: Exchange) -> Any:
    """The part of the API that the request was made with."""
    return client.beta.messages if "beta=true" in exchange.request.uri else client.messages


STREAMS = [path for path in FILES if any(b"event: message_start" in body_of(e) for e in read_cassette(path).exchanges)]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name.partition('__')[2]}-{path.stem}")
def test_the_sdk_reads_a_replayed_stream_as_it_reads_the_same_bytes_from_memory(path: Path) -> None:
    """Through `messages.create(stream=True)`, sync and async, the events of a replayed stream are those of its bytes."""
    for exchange in read_cassette(path).exchanges:
        if b"event: message_start" not in body_of(exchange):
            continue
        asked = json.loads(exchange.request.body)
        expected = sdk_events(exchange)
        transport = ReplayTransport(Matcher([exchange]))
        with Anthropic(api_key="test-key", http_client=httpx2.Client(transport=transport), max_retries=0) as client:
            got = [
                event.model_dump(mode="json", warnings=False)
                for event in api_of(client, exchange).create(
                    model=asked["model"], max_tokens=asked["max_tokens"], messages=asked["messages"], stream=True,
                    extra_body={k: v for k, v in asked.items() if k not in ("model", "max_tokens", "messages", "stream")},
                    extra_query=dict(httpx2.URL(exchange.request.uri).params),
                )
            ]  # fmt: skip
        assert got == expected
        assert asyncio.run(_again(exchange, asked)) == expected


async def _again(exchange: Exchange, asked: dict[str, Any]) -> list[Any]:
    http = httpx2.AsyncClient(transport=ReplayTransport(Matcher([exchange])))
    async with AsyncAnthropic(api_key="test-key", http_client=http, max_retries=0) as client:
        stream = await api_of(client, exchange).create(
            model=asked["model"], max_tokens=asked["max_tokens"], messages=asked["messages"], stream=True,
            extra_body={k: v for k, v in asked.items() if k not in ("model", "max_tokens", "messages", "stream")},
            extra_query=dict(httpx2.URL(exchange.request.uri).params),
        )  # fmt: skip
        return [event.model_dump(mode="json", warnings=False) async for event in stream]
