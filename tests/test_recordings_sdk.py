"""Recordings of other projects: the real SDK issues each recorded request again and gets the recorded answer."""

import asyncio
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, APIError, APIStatusError, AsyncAnthropic
from anthropic.types import Message
from pydantic import BaseModel

from retold.recorder.cassette.format import read_cassette
from retold.recorder.http.encodings import decoder_for
from retold.recorder.http.exchange import Exchange
from retold.replay.matching.matcher import Matcher
from retold.replay.transport import ReplayTransport
from tests.conftest import RECORDINGS

FILES = sorted(RECORDINGS.glob("*/*.yaml")) if RECORDINGS.is_dir() else []

pytestmark = [
    pytest.mark.skipif(not FILES, reason="the sample recordings are not here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the SDK warns about old models
    pytest.mark.filterwarnings("ignore:Using Claude with:UserWarning"),
]


@functools.cache
def recorded(path: Path) -> Sequence[Exchange]:
    return read_cassette(path).exchanges


def body_of(exchange: Exchange) -> bytes:
    assert exchange.response is not None
    return decoder_for(exchange.response.headers).decode(exchange.response.body)


def sdk_events(exchange: Exchange) -> list[Any]:
    """Return the events that the SDK reads from a body in memory. They are the reference for the replayed stream."""
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body_of(exchange)))
    with Anthropic(api_key="test-key", http_client=httpx2.Client(transport=transport), max_retries=0) as client:
        stream = api_of(client, exchange).create(model="m", max_tokens=1, messages=[], stream=True)
        return [event.model_dump(mode="json", warnings=False) for event in stream]


def issue(client: Any, exchange: Exchange, kind: type[Any]) -> Any:
    """Send the recorded request again through the SDK. Requests to other hosts (a picture, a price list) use its inner client."""
    url = httpx2.URL(exchange.request.uri)
    if exchange.request.method != "POST":
        return client._client.request(exchange.request.method, f"http://127.0.0.1:9{url.path}")
    return client.post(
        url.path, cast_to=kind, body=json.loads(exchange.request.body), options={"params": dict(url.params), "max_retries": 0}
    )


def outcome(answer: Any) -> Any:
    """Return the content of an answer: the bytes of a body, the fields of a message, or the repr of an unparsed answer."""
    match answer:
        case httpx2.Response():
            return answer.content
        case BaseModel():
            return answer.model_dump(mode="json", warnings=False)
    return repr(answer)


def failure(error: APIError) -> tuple[str, str, bytes]:
    """Return the kind, the text and the body of an error of the SDK."""
    return type(error).__name__, str(error), error.response.content if isinstance(error, APIStatusError) else b""


def outcomes(transport: Any, exchanges: Sequence[Exchange], kind: type[Any]) -> list[Any]:
    """Issue the recorded requests again with the sync client over this transport. Return their outcomes."""
    found = []
    with Anthropic(api_key="test-key", base_url="http://127.0.0.1:9", http_client=httpx2.Client(transport=transport)) as client:
        for exchange in exchanges:
            try:
                found.append(outcome(issue(client, exchange, kind)))
            except APIError as error:
                found.append(failure(error))
    return found


def outcomes_async(transport: Any, exchanges: Sequence[Exchange], kind: type[Any]) -> list[Any]:
    """Do the same with the async client."""

    async def run() -> list[Any]:
        found = []
        http = httpx2.AsyncClient(transport=transport)
        async with AsyncAnthropic(api_key="test-key", base_url="http://127.0.0.1:9", http_client=http) as client:
            for exchange in exchanges:
                try:
                    found.append(outcome(await issue(client, exchange, kind)))
                except APIError as error:
                    found.append(failure(error))
        return found

    return asyncio.run(run())


def from_memory(exchanges: Sequence[Exchange]) -> httpx2.MockTransport:
    """Return a transport that answers with the recorded status, type and decoded body, in order and without retold."""
    answers = iter(exchanges)

    def answer(_: httpx2.Request) -> httpx2.Response:
        exchange = next(answers)
        assert exchange.response is not None
        kind = exchange.response.header("content-type")
        headers = {} if kind is None else {"content-type": kind}
        return httpx2.Response(exchange.response.status, headers=headers, content=body_of(exchange))

    return httpx2.MockTransport(answer)


@pytest.mark.parametrize("issued", [outcomes, outcomes_async], ids=["sync", "async"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name.partition('__')[2]}-{path.stem}")
def test_a_recording_answers_its_own_requests_with_its_own_bytes(path: Path, issued: Any) -> None:
    """The SDK issues each request again and gets the recorded body. A body that the SDK cannot parse fails as without retold."""
    exchanges = recorded(path)
    got = issued(ReplayTransport(Matcher(exchanges)), exchanges, httpx2.Response)
    assert [answer if isinstance(answer, bytes) else answer[2] for answer in got] == [body_of(e) for e in exchanges]
    assert got == issued(from_memory(exchanges), exchanges, httpx2.Response)
    assert issued(ReplayTransport(Matcher(exchanges)), exchanges, Message) == issued(from_memory(exchanges), exchanges, Message)


def api_of(client: Any, exchange: Exchange) -> Any:
    """Return the part of the API that the request used."""
    return client.beta.messages if "beta=true" in exchange.request.uri else client.messages


# Search instead of parsing: reading 150 cassettes would take each worker a second during collection.
STREAMS = [path for path in FILES if re.search(rb"message_start|text/event-stream", path.read_bytes())]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: f"{path.parent.name.partition('__')[2]}-{path.stem}")
def test_the_sdk_reads_a_replayed_stream_like_the_same_bytes_in_memory(path: Path) -> None:
    """The events of `messages.create(stream=True)`, sync and async, are equal."""
    for exchange in recorded(path):
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
