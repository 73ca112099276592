"""The scripted server, seen through the real SDK."""

import asyncio
import gzip
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, APIStatusError, AsyncAnthropic, InternalServerError, NotFoundError
from anthropic.types import Message, MessageParam, ThinkingBlock, ToolUseBlock

from tests.messages_server import (
    Block,
    MessagesServer,
    Reply,
    Request,
    http_error,
    load_script,
    raw,
    redacted_thinking,
    text,
    thinking,
    tool_use,
)

HELLO: list[MessageParam] = [{"role": "user", "content": "Hello"}]
GREETING = "Hello there, general Kenobi. Ça va?"
TOOL_INPUT = {"city": "Paris", "days": 3}
MIXED = [thinking("Let me see."), redacted_thinking(), text("Looking."), tool_use("get_weather", TOOL_INPUT)]
FRAME = re.compile(rb"event: (\w+)\ndata: (\{.*?)( {0,15})\}\n\n")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def connect(server: MessagesServer, max_retries: int = 0) -> Anthropic:
    return Anthropic(base_url=server.url, api_key="test-key", max_retries=max_retries, timeout=20)


def stream(server: MessagesServer, max_retries: int = 0) -> Message:
    with (
        connect(server, max_retries) as client,
        client.messages.stream(model="claude-test", max_tokens=100, messages=HELLO) as events,
    ):
        return events.get_final_message()


def create(server: MessagesServer) -> Message:
    with connect(server) as client:
        return client.messages.create(model="claude-test", max_tokens=100, messages=HELLO)


def texts_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_the_server_streams_text_in_the_shape_of_the_real_api() -> None:
    with MessagesServer([Reply([text(GREETING)])]) as server:
        message = stream(server)
    assert texts_of(message) == GREETING
    assert message.model == "claude-test"
    assert re.fullmatch(r"msg_01\w{22}", message.id)
    assert (server.calls, server.requests[0].method, server.requests[0].path) == (1, "POST", "/v1/messages")
    assert server.requests[0].json["stream"] is True
    assert json.loads(server.requests[0].body) == server.requests[0].json
    assert server.requests[0].headers["host"] == server.url.removeprefix("http://")
    body = server.bodies[0]
    assert body == b"".join(frame for _, frame in server.sent[0])
    frames = FRAME.findall(body)
    assert b"".join(b"event: %b\ndata: %b%b}\n\n" % frame for frame in frames) == body
    kinds = [kind for kind, _, _ in frames]
    assert kinds[:3] == [b"message_start", b"content_block_start", b"ping"]
    assert kinds[-3:] == [b"content_block_stop", b"message_delta", b"message_stop"]
    assert b'data: {"type": "ping"}\n' in body
    assert len({len(spaces) for _, _, spaces in frames}) > 3


def test_an_async_client_reads_the_stream_too() -> None:
    async def run(server: MessagesServer) -> Message:
        async with (
            AsyncAnthropic(base_url=server.url, api_key="test-key", max_retries=0) as client,
            client.messages.stream(model="claude-test", max_tokens=100, messages=HELLO) as events,
        ):
            return await events.get_final_message()

    with MessagesServer([Reply(MIXED)]) as server:
        assert texts_of(asyncio.run(run(server))) == "Looking."


@pytest.mark.parametrize("answer", [stream, create])
def test_every_kind_of_block_reaches_the_client(answer: Any) -> None:
    search = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01A", "content": []}
    call = tool_use("web_search", {"query": "x"}, "srvtoolu_01A", kind="server_tool_use")
    reply = Reply([*MIXED, call, raw(search)], stop_reason="tool_use", usage={"input_tokens": 7})
    with MessagesServer([reply]) as server:
        message: Message = answer(server)
    kinds = ["thinking", "redacted_thinking", "text", "tool_use", "server_tool_use", "web_search_tool_result"]
    assert [block.type for block in message.content] == kinds
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 7)
    thought, tool = message.content[0], message.content[3]
    assert isinstance(thought, ThinkingBlock)
    assert thought.thinking == "Let me see."
    assert thought.signature
    assert isinstance(tool, ToolUseBlock)
    assert tool.input == TOOL_INPUT
    assert re.fullmatch(r"toolu_01\w{22}", tool.id)


def test_tool_input_starts_with_an_empty_delta_and_comes_in_the_given_pieces() -> None:
    pieces = ['{"city": ', '"Paris"}']
    block = tool_use("get_weather", {"city": "Paris"}, "toolu_01A", pieces)
    assert [delta["partial_json"] for delta in block.deltas] == ["", *pieces]
    assert [delta["partial_json"] for delta in tool_use("ping", {}).deltas] == [""]
    assert [delta["text"] for delta in text("Hello", ["He", "llo"]).deltas] == ["He", "llo"]
    with pytest.raises(ValueError, match="not the JSON"):
        tool_use("get_weather", {"city": "Rome"}, pieces=pieces)
    with pytest.raises(ValueError, match="do not add up"):
        text("Hello", ["He"])


@pytest.mark.parametrize("split", ["frame", "bytes", 7, 100_000])
@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_wire_options_change_the_bytes_but_not_the_message(split: Any, encoding: Any, newline: str) -> None:
    with MessagesServer([Reply(MIXED, split=split, encoding=encoding, newline=newline)]) as server:
        assert texts_of(stream(server)) == "Looking."
    plain = b"".join(frame for _, frame in server.sent[0])
    assert (gzip.decompress(server.bodies[0]) if encoding else server.bodies[0]) == plain
    assert (b"\r\n" in plain) is (newline == "\r\n")


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_the_server_answers_with_json_without_a_stream(encoding: Any) -> None:
    with MessagesServer([Reply([text(GREETING)], id="msg_01Given", encoding=encoding)]) as server:
        message = create(server)
    assert (texts_of(message), message.id) == (GREETING, "msg_01Given")
    assert json.loads(server.sent[0][0][1])["content"] == [{"type": "text", "text": GREETING}]


def test_an_error_event_ends_the_stream() -> None:
    reply = Reply([text(GREETING)], error_event_after=5)
    with MessagesServer([reply]) as server, pytest.raises(APIStatusError, match="Overloaded"):
        stream(server)
    assert len(server.sent[0]) == 6
    error = b'{"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}'
    assert server.sent[0][-1][1].startswith(b"event: error\ndata: " + error)


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_a_cut_stream_ends_after_the_given_number_of_frames(encoding: Any) -> None:
    with MessagesServer([Reply([text(GREETING)], cut_after=5, encoding=encoding)]) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            stream(server)
        assert server.wait_idle()
    assert len(server.sent[0]) == 5
    assert server.closed_early == 0


def test_an_http_error_is_retried_and_529_has_no_reason_phrase() -> None:
    error = http_error(529, headers={"Retry-After-Ms": "1"})
    with MessagesServer([error, Reply([text(GREETING)]), error]) as server:
        assert texts_of(stream(server, max_retries=2)) == GREETING
        assert server.calls == 2
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request("POST", "/some/prefix/v1/messages?beta=true", b"{}")
        response = connection.getresponse()
        envelope = json.loads(response.read())
        connection.close()
    assert (response.status, response.reason, response.headers["retry-after-ms"]) == (529, "", "1")
    assert envelope["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert envelope["request_id"] == response.headers["request-id"]
    assert json.loads(server.bodies[2]) == envelope


def test_an_exhausted_script_is_not_retried() -> None:
    with MessagesServer([]) as server, pytest.raises(InternalServerError, match="no reply for call 1"):
        stream(server, max_retries=2)
    assert server.calls == 1


@pytest.mark.parametrize("reply", [Reply([text(GREETING)], hang_after=4), Reply([text(GREETING)], gap_s=30)])
def test_the_server_counts_clients_that_leave(reply: Reply) -> None:
    with MessagesServer([reply]) as server:
        with (
            connect(server) as client,
            client.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True) as events,
        ):
            next(iter(events))
        assert server.wait_idle()
        assert server.closed_early == 1


def test_closing_the_server_ends_a_hanging_stream_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with ExitStack() as stack:
        server = stack.enter_context(MessagesServer([Reply([text(GREETING)], hang_after=2)]))
        with connect(server) as client:
            events = client.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True)
            next(iter(events))
            stack.close()
            assert threading.active_count() == before
            with pytest.raises(httpx2.RemoteProtocolError):
                list(events)
    assert server.closed_early == 0


def test_pacing_delays_frames() -> None:
    """The server sends no frame before its time, counted from the beginning of the answer."""
    gaps = [0.03, 0.0, 0.05]
    with MessagesServer([Reply([text("Hi")], gap_s=0.01, first_gap_s=0.02), Reply([text("Hi")], gap_s=gaps)]) as server:
        began = [time.monotonic_ns()]
        stream(server)
        began.append(time.monotonic_ns())
        stream(server)
    even, listed = ([stamp - start for stamp, _ in sent] for sent, start in zip(server.sent, began, strict=True))
    assert all(stamp >= 20_000_000 + 10_000_000 * number for number, stamp in enumerate(even))
    assert all(stamp >= due * 1_000_000 for stamp, due in zip(listed, [0, 30, 30, *[80] * len(listed)], strict=False))


def test_raw_frames_are_sent_unchanged_and_a_script_may_be_a_function() -> None:
    def by_model(request: Request) -> Reply:
        return Reply(raw_frames=[request.json["model"].encode(), b"", b"\xff\n"], split=2)

    with MessagesServer(by_model) as server:
        answer = httpx2.post(server.url + "/v1/messages", json={"model": "abc"}, trust_env=False)
    assert (answer.content, server.bodies[0]) == (b"abc\xff\n", b"abc\xff\n")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["request-id"].startswith("req_011C")
    assert answer.headers["anthropic-ratelimit-requests-remaining"]


def test_other_endpoints_answer_without_using_the_script() -> None:
    with MessagesServer([]) as server, connect(server) as client:
        assert client.models.list().data[0].id.startswith("claude-")
        assert client.messages.count_tokens(model="m", messages=HELLO).input_tokens > 0
        with pytest.raises(NotFoundError):
            client.get("/v1/nothing", cast_to=object)
        assert httpx2.head(server.url + "/api/hello", trust_env=False).status_code == 200
    assert [request.method for request in server.requests] == ["GET", "POST", "GET", "HEAD"]
    assert server.calls == 0


def test_the_same_script_gives_the_same_bytes() -> None:
    def bodies() -> list[bytes]:
        with MessagesServer([Reply(MIXED), Reply(MIXED)]) as server:
            stream(server)
            stream(server)
        return server.bodies

    first, second = bodies()
    assert [first, second] == bodies()
    assert first != second


SCRIPT: list[Any] = [
    "Hello",
    {"http_error": {"status": 529, "headers": {"retry-after-ms": "1"}}, "first_gap_s": 0.01},
    {
        "blocks": [
            {"text": "Hi", "pieces": 1},
            {"thinking": "Hm.", "signature": "c2ln"},
            {"redacted_thinking": "ZGF0YQ=="},
            {"tool_use": "get_weather", "input": TOOL_INPUT, "id": "toolu_01A"},
            {"raw": {"type": "x"}},
        ],
        "gap_s": [0.1],
        "cut_after": 4,
    },
    {"raw_frames": ["event: ping\n\n"]},
]
LOADED = [
    Reply([text("Hello")]),
    Reply(blocks=[], status=529, headers={"retry-after-ms": "1"}, first_gap_s=0.01),
    Reply(
        [
            text("Hi", 1),
            thinking("Hm.", "c2ln"),
            redacted_thinking("ZGF0YQ=="),
            tool_use("get_weather", TOOL_INPUT, "toolu_01A"),
            raw({"type": "x"}),
        ],
        gap_s=[0.1],
        cut_after=4,
    ),
    Reply(blocks=[], raw_frames=[b"event: ping\n\n"]),
]


@pytest.mark.parametrize("name", ["script.json", "script.yaml"])
def test_a_script_is_read_from_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(SCRIPT))  # JSON is YAML too
    assert [plain(reply) for reply in load_script(tmp_path / name)] == [plain(reply) for reply in LOADED]


def plain(reply: Reply) -> dict[str, Any]:
    return {**vars(reply), "error": tuple(reply.error), "blocks": [compare(block) for block in reply.blocks]}


def compare(block: Block) -> tuple[Any, ...]:
    return block.start, list(block.deltas), block.whole


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "script.json").write_text('["Hello from a file"]')
    command = [sys.executable, "tests/messages_server.py", "--script", str(tmp_path / "script.json"), "--print-url"]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.send_signal(request.param)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 0


def test_the_program_prints_its_address_and_ends_on_a_signal(program: str) -> None:
    with Anthropic(base_url=program, api_key="test-key", max_retries=0) as client:
        message = client.messages.create(model="m", max_tokens=9, messages=HELLO)
    assert texts_of(message) == "Hello from a file"
