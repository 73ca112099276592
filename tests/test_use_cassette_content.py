"""Any content of a stream is replayed: its bytes to a plain client, its events to the SDK. Received events survive kill -9."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

import retold
from tests import forks
from tests.clients import NOWHERE, body, client, client_async
from tests.conftest import ROOT
from tests.messages_server import Block, MessagesServer, Reply, raw, redacted_thinking, text, thinking, tool_use
from tests.tape import sent_events

CASSETTE = Path("c.yaml")
HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": "test-key"}


# Bytes


def wire(url: str) -> bytes:
    """Return the body as it is on the wire."""
    with httpx2.Client(headers=HEADERS) as plain, plain.stream("POST", f"{url}/v1/messages", json=body()) as response:
        return b"".join(response.iter_raw())


def wire_async(url: str) -> bytes:
    async def run() -> bytes:
        async with (
            httpx2.AsyncClient(headers=HEADERS) as plain,
            plain.stream("POST", f"{url}/v1/messages", json=body()) as response,
        ):
            return b"".join([chunk async for chunk in response.aiter_raw()])

    return asyncio.run(run())


SHAPES: dict[str, bytes] = {
    "compact JSON": b'event: ping\ndata: {"type":"ping"}\n\n',
    "padded JSON": b'event: ping\ndata: {"type": "ping"     }\n\n',
    "non-ASCII": 'data: {"text":"é 😀 \\u00e9 \u2028"}\n\n'.encode(),
    "odd key order": b'data: {"z":1,"type":"ping","a":[{"y":1,"b":2}]}\n\n',
    "comment lines": b": keep-alive\n\nevent: ping\n: here too\ndata: {}\n\n",
    "CRLF": b"event: ping\r\ndata: {}\r\n\r\n",
    "no space after data:": b"data:{}\n\n",
    "multi-line data": b'data: {"type":\ndata: "ping"}\n\n',
    "no final blank line": b"data: {}\n\ndata: 2",
    "no UTF-8": b"data: \xff\xfe\x00\n\n",
    "empty": b"",
}


@pytest.mark.trap(3, 6, 25)
@pytest.mark.parametrize("read", [wire, wire_async], ids=["sync", "async"])
@pytest.mark.parametrize("encoding", [None, "gzip", "br", "zstd"])
def test_replayed_bytes_are_the_recorded_bytes(read: Callable[[str], bytes], encoding: Any) -> None:
    """Every stream, plain and compressed, has the sha256 of the body that the server sent."""
    script = [Reply(raw_frames=[shape], encoding=encoding) for shape in SHAPES.values()]
    with MessagesServer(script) as server, retold.use_cassette(CASSETTE, record_mode="once"):
        seen = [read(server.url) for _ in SHAPES]
    with retold.use_cassette(CASSETTE) as cassette:
        again = [read(NOWHERE) for _ in SHAPES]
        assert cassette.all_played
    digests = [[sha256(data).hexdigest() for data in bodies] for bodies in (server.bodies, seen, again)]
    assert digests[0] == digests[1] == digests[2]


# Events


def events(url: str, **fields: Any) -> list[dict[str, Any]]:
    with client(url) as asking, asking.messages.create(**body(**fields), stream=True) as stream:
        return [event.to_dict(warnings=False) for event in stream]


def events_async(url: str, **fields: Any) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        async with client_async(url) as asking, await asking.messages.create(**body(**fields), stream=True) as stream:
            return [event.to_dict(warnings=False) async for event in stream]

    return asyncio.run(run())


CACHED = {
    "cache_creation_input_tokens": 7, "cache_read_input_tokens": 2048, "service_tier": "priority",
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
    "server_tool_use": {"web_search_requests": 1},
}  # fmt: skip
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result", "url": "u"}]}
CITED = Block(
    {"type": "text", "text": "", "citations": []},
    [{"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "é", "document_index": 0}}],
    {"type": "text", "text": ""},
)
COMPACTED = Block({"type": "compaction", "content": None}, [{"type": "compaction_delta", "content": "So far."}], {})
PIECES = ['{"a', '": "\\u00', 'e9", "b": [1', ", 2]", "}"]


def interleaved() -> list[bytes]:
    """Return two blocks with alternating deltas, an unknown event, and a ping in the middle."""
    reply = Reply([text("one two"), tool_use("t", {"a": 1})])
    head, *inner, end, stop = reply.frames(reply.message({}, 1))
    blocks = [frame for frame in inner if b"event: ping" not in frame]
    first, second = ([frame for frame in blocks if b'"index":%d' % index in frame] for index in (0, 1))
    mixed = [frame for pair in zip(first, second, strict=False) for frame in pair] + first[len(second) :] + second[len(first) :]
    unknown = b'event: telemetry\ndata: {"type":"telemetry","of":{"a":[1]}}\n\n'
    return [head, *mixed[:3], unknown, b'event: ping\ndata: {"type": "ping"}\n\n', *mixed[3:], end, stop]


CONTENT = {
    "ids, usage, cache tokens, service tier": Reply([text("Hello")], usage=CACHED, id="msg_01Own", model="claude-own"),
    "thinking and its signature": Reply([thinking("Hm, é."), text("Hello")]),
    "thinking without a word": Reply([thinking(""), text("Hello")]),
    "redacted thinking": Reply([redacted_thinking(), redacted_thinking(""), text("Hello")]),
    "server tools": Reply([tool_use("web_search", {"query": "x"}, id="srvtoolu_1", kind="server_tool_use"), raw(FOUND)]),
    "citations": Reply([CITED]),
    "compaction": Reply([COMPACTED, text("Hello")]),
    "parallel tools, their input in pieces": Reply([tool_use("t", {"a": "é", "b": [1, 2]}, pieces=PIECES), tool_use("u", {})]),
    "interleaved blocks, unknown events, pings": Reply(raw_frames=interleaved()),
}


@pytest.mark.trap(22, 23, 24)
@pytest.mark.parametrize("see", [events, events_async], ids=["sync", "async"])
@pytest.mark.parametrize("content", CONTENT)
def test_every_kind_of_content_is_replayed_equal(content: str, see: Callable[..., list[dict[str, Any]]]) -> None:
    """The plain, recorded and replayed events of the SDK equal the sent ones, including fields that it does not know."""
    with MessagesServer([CONTENT[content]] * 2) as server:
        plain = see(server.url)
        with retold.use_cassette(CASSETTE, record_mode="once"):
            recorded = see(server.url)
    with retold.use_cassette(CASSETTE):
        replayed = see(NOWHERE)
    assert plain == sent_events(server.bodies[0])
    assert recorded == replayed == sent_events(server.bodies[1])


# kill -9

KILLED = """
import asyncio, os, signal, sys
import retold
from tests.clients import body, client, client_async

url = sys.argv[1]

def see(event):
    print(event.type, flush=True)

with retold.use_cassette("c.yaml", record_mode="once"):
    stream = client(url).messages.create(**body(), stream=True)
    for _ in range(3):
        see(next(stream))

    async def run():
        stream = await client_async(url).messages.create(**body(), stream=True)
        for _ in range(3):
            see(await anext(stream))
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run())
"""


@pytest.mark.trap(37)
def test_the_log_has_every_event_that_a_killed_test_received(environment: dict[str, str]) -> None:
    """It has both streams, sync and async. The run is interrupted, and no cassette exists."""
    with MessagesServer(lambda _: Reply([text("Hello there")], hang_after=4)) as server:
        child = forks.run("-c", KILLED, server.url, env=environment | {"PYTHONPATH": str(ROOT)})
    assert (child.returncode, child.stderr) == (-9, "")
    log = retold.EventLog()
    (run,) = log.runs()
    frames = [[event.payload for event in log.events(run.run, kinds=("frame",), exchange=seq)] for seq in exchanges(log, run.run)]
    recorded = [[event["type"] for event in sent_events(b"".join(of_one))] for of_one in frames]
    seen = child.stdout.split()
    assert len(seen) == 6
    assert [types[:3] for types in recorded] == [seen[:3], seen[3:]]
    assert (run.status, CASSETTE.exists()) == ("interrupted", False)


def exchanges(log: retold.EventLog, run: str) -> list[int]:
    return [event.seq for event in log.events(run, kinds=("exchange.started",))]
