"""Every form of the SDK's API, sync and async, gives the same result plain, recorded, and replayed from the cassette."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_async_tool, beta_tool

import retold
from tests.messages_server import MessagesServer, Reply, http_error, text, thinking, tool_use

ASK: dict[str, Any] = {"model": "claude-sonnet-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
BATCH = {
    "id": "msgbatch_01", "type": "message_batch", "processing_status": "ended", "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2026-01-02T00:00:00Z", "ended_at": None, "archived_at": None, "cancel_initiated_at": None,
    "results_url": None, "request_counts": {"processing": 0, "succeeded": 1, "errored": 0, "canceled": 0, "expired": 0},
}  # fmt: skip
ONE_BATCH: Any = [{"custom_id": "a", "params": ASK}]
BINARY = bytes(range(256)) * 20


def script(request: Any) -> Reply:
    """Answer by the content of the request, so every form and every repetition gets the same answer."""
    asked = request.json or {}
    if asked.get("tools") and not any(isinstance(m["content"], list) and m["role"] == "user" for m in asked["messages"]):
        return Reply([tool_use("add", {"a": 1, "b": 2}, id="toolu_01")], stop_reason="tool_use", id="msg_tool")
    return Reply([thinking("Hm."), text("Hello there, é and 😀.")], id="msg_fixed", gap_s=0.0)


def serve() -> MessagesServer:
    server = MessagesServer(script)
    server.routes["POST", "messages/batches"] = ("application/json", json.dumps(BATCH).encode())
    server.routes["GET", "files/file_1/content"] = ("application/octet-stream", BINARY)
    return server


def alike(value: Any) -> str:
    """Return a text without the parts that the server generates for each call: request ids and the padding of frames."""
    return re.sub(r"req_\w+| +(?=\})", "", repr(value))


def plain(value: Any) -> Any:
    """Return a comparable value of an SDK value."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@beta_async_tool(name="add")
async def add_async(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


def stream_helper(client: Anthropic) -> Any:
    with client.messages.stream(**ASK) as stream:
        events = [event.type for event in stream]
        return events, plain(stream.get_final_message())


def beta_stream_helper(client: Anthropic) -> Any:
    with client.beta.messages.stream(**ASK) as stream:
        return stream.get_final_text()


def streaming_response(client: Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**ASK) as response:
        return response.status_code, b"".join(response.iter_bytes())


def raw_lines(client: Anthropic) -> Any:
    with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
        return list(response.iter_lines())


def early_exit(client: Anthropic) -> Any:
    with client.messages.create(**ASK, stream=True) as stream:
        return [event.type for event, _ in zip(stream, range(3), strict=False)]


def tools_streaming(client: Anthropic) -> Any:
    runner = client.beta.messages.tool_runner(**ASK, tools=[add], stream=True)
    return [event.type for stream in runner for event in stream]


SYNC: dict[str, Callable[[Anthropic], Any]] = {
    "create": lambda c: plain(c.messages.create(**ASK)),
    "create stream": lambda c: [plain(event) for event in c.messages.create(**ASK, stream=True)],
    "stream": stream_helper,
    "raw response": lambda c: plain(c.messages.with_raw_response.create(**ASK).parse()),
    "streaming response": streaming_response,
    "raw lines": raw_lines,
    "early exit": early_exit,
    "beta create": lambda c: plain(c.beta.messages.create(**ASK)),
    "beta stream": beta_stream_helper,
    "count tokens": lambda c: plain(c.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])),
    "batches": lambda c: plain(c.messages.batches.create(requests=ONE_BATCH)),
    "files": lambda c: c.beta.files.download("file_1").read(),
    "tool runner": lambda c: plain(c.beta.messages.tool_runner(**ASK, tools=[add], thread=False).until_done()),
    "tool runner on a thread": lambda c: plain(c.beta.messages.tool_runner(**ASK, tools=[add]).until_done()),
    "tool runner streaming": tools_streaming,
    "models": lambda c: [plain(model) for model in c.models.list()],
    "with options": lambda c: plain(c.with_options(max_retries=1, timeout=30).messages.create(**ASK)),
    "system and temperature": lambda c: plain(c.messages.create(**ASK, system="Be brief.", extra_body={"temperature": 0.5})),
}


async def stream_helper_async(client: AsyncAnthropic) -> Any:
    async with client.messages.stream(**ASK) as stream:
        events = [event.type async for event in stream]
        return events, plain(await stream.get_final_message())


async def beta_stream_helper_async(client: AsyncAnthropic) -> Any:
    async with client.beta.messages.stream(**ASK) as stream:
        return await stream.get_final_text()


async def streaming_response_async(client: AsyncAnthropic) -> Any:
    async with client.messages.with_streaming_response.create(**ASK) as response:
        return response.status_code, b"".join([chunk async for chunk in response.iter_bytes()])


async def raw_lines_async(client: AsyncAnthropic) -> Any:
    async with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
        return [line async for line in response.iter_lines()]


async def early_exit_async(client: AsyncAnthropic) -> Any:
    seen = []
    async with await client.messages.create(**ASK, stream=True) as stream:
        async for event in stream:
            seen.append(event.type)
            if len(seen) == 3:
                break
    return seen


async def events_async(client: AsyncAnthropic) -> Any:
    return [plain(event) async for event in await client.messages.create(**ASK, stream=True)]


async def files_async(client: AsyncAnthropic) -> Any:
    return await (await client.beta.files.download("file_1")).read()


async def raw_async(client: AsyncAnthropic) -> Any:
    return plain(await (await client.messages.with_raw_response.create(**ASK)).parse())


async def tools_streaming_async(client: AsyncAnthropic) -> Any:
    runner = client.beta.messages.tool_runner(**ASK, tools=[add_async], stream=True)
    return [event.type async for stream in runner async for event in stream]


async def models_async(client: AsyncAnthropic) -> Any:
    return [plain(model) async for model in client.models.list()]


async def comparable(awaitable: Awaitable[Any]) -> Any:
    return plain(await awaitable)


ASYNC: dict[str, Callable[[AsyncAnthropic], Awaitable[Any]]] = {
    "create": lambda c: comparable(c.messages.create(**ASK)),
    "create stream": events_async,
    "stream": stream_helper_async,
    "raw response": raw_async,
    "streaming response": streaming_response_async,
    "raw lines": raw_lines_async,
    "early exit": early_exit_async,
    "beta create": lambda c: comparable(c.beta.messages.create(**ASK)),
    "beta stream": beta_stream_helper_async,
    "count tokens": lambda c: comparable(c.messages.count_tokens(model=ASK["model"], messages=ASK["messages"])),
    "batches": lambda c: comparable(c.messages.batches.create(requests=ONE_BATCH)),
    "files": files_async,
    "tool runner": lambda c: comparable(c.beta.messages.tool_runner(**ASK, tools=[add_async], thread=False).until_done()),
    "tool runner on a thread": lambda c: comparable(c.beta.messages.tool_runner(**ASK, tools=[add_async]).until_done()),
    "tool runner streaming": tools_streaming_async,
    "models": models_async,
    "with options": lambda c: comparable(c.with_options(max_retries=1, timeout=30).messages.create(**ASK)),
    "system and temperature": lambda c: comparable(c.messages.create(**ASK, system="Be brief.", extra_body={"temperature": 0.5})),
}


def perform(form: str, kind: str, url: str) -> Any:
    """Use the API in one form with a new client, and close the client."""
    options: dict[str, Any] = {"api_key": "test-key", "base_url": url, "max_retries": 0}
    if kind == "sync":
        with Anthropic(**options) as client:
            return SYNC[form](client)

    async def use() -> Any:
        async with AsyncAnthropic(**options) as client:
            return await ASYNC[form](client)

    return asyncio.run(use())


@pytest.mark.trap(3)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("form", SYNC)
def test_every_form_is_the_same_plain_recorded_and_replayed(form: str, kind: str, tmp_path: Path) -> None:
    """With and without recording, a form returns the same value with the same number of requests. A replay returns it again."""
    cassette = tmp_path / "form.yaml"
    with serve() as server:
        expected = perform(form, kind, server.url)
        asked = len(server.requests)
        with retold.use_cassette(cassette, record_mode="once") as recorded:
            seen = perform(form, kind, server.url)
        assert alike(seen) == alike(expected)
        assert len(server.requests) == 2 * asked
        assert recorded.recorded == asked
    with retold.use_cassette(cassette) as replayed:
        assert perform(form, kind, "http://127.0.0.1:9") == seen
        assert replayed.all_played
    assert len(server.requests) == 2 * asked


FAILING: dict[str, Reply] = {
    "400": http_error(400, "invalid_request_error", "bad"),
    "529": http_error(529),
    "error event": Reply([text("Hello there")], error_event_after=4),
    "cut": Reply([text("Hello there")], cut_after=4),
}


@pytest.mark.trap(2)
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("failure", FAILING)
def test_every_failure_is_the_same_plain_recorded_and_replayed(failure: str, kind: str, tmp_path: Path) -> None:
    """Events and exception are the same with and without recording, and again in a replay."""

    def attempt(url: str) -> tuple[list[str], str, str]:
        options: dict[str, Any] = {"api_key": "test-key", "base_url": url, "max_retries": 0}
        seen: list[str] = []
        try:
            if kind == "sync":
                with Anthropic(**options) as client, client.messages.create(**ASK, stream=True) as stream:
                    for event in stream:
                        seen.append(event.type)  # noqa: PERF401 - the events before the error count
            else:
                asyncio.run(_collect(options, seen))
        except Exception as error:
            return seen, type(error).__name__, getattr(error, "message", str(error))
        raise AssertionError("nothing failed")

    with MessagesServer([FAILING[failure]] * 2) as server:
        expected = attempt(server.url)
        with retold.use_cassette(tmp_path / "f.yaml", record_mode="once"):
            seen = attempt(server.url)
        assert alike(seen) == alike(expected)
        assert server.calls == 2
    with retold.use_cassette(tmp_path / "f.yaml"):
        assert attempt("http://127.0.0.1:9") == seen


async def _collect(options: dict[str, Any], seen: list[str]) -> None:
    async with AsyncAnthropic(**options) as client, await client.messages.create(**ASK, stream=True) as stream:
        async for event in stream:
            seen.append(event.type)  # noqa: PERF401 - the events before the error count


@pytest.mark.trap(36)
def test_the_canary_reports_requests_that_bypass_the_patched_transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If a new SDK's requests no longer pass the patched transport, the result is an error at once, not a silent live request."""
    from retold.testing import canary

    def elsewhere(*_: Any, **__: Any) -> Any:
        raise anthropic.APIConnectionError(request=None)  # type: ignore[arg-type]

    monkeypatch.setattr(canary, "_checked", set())
    monkeypatch.setattr(anthropic.Anthropic, "post", elsewhere)
    with (
        pytest.raises(retold.RetoldError, match=r"anthropic .* does not send its requests as this retold expects"),
        retold.use_cassette(tmp_path / "c.yaml"),
    ):
        pass
