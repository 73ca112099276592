"""`retold.recording(log)`: one client records itself through the SDK's own middleware, and nothing else changes."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

import retold
from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http.exchange import Exchange
from retold.recorder.http.patching import current
from tests import forks
from tests.clients import NOWHERE, MeetingLog, answer_text, answer_text_async, body, client, client_async, serve, threaded
from tests.messages_server import MessagesServer, Reply, http_error, text
from tests.test_api_forms import ASYNC, BINARY, SYNC, alike
from tests.test_api_forms import serve as serve_every_form

KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"
HELLO = Reply([text("Hello there, é 😀")])
RETRY = http_error(529, headers={"retry-after-ms": "1"})


@pytest.fixture
def log() -> Iterator[retold.EventLog]:
    with retold.EventLog("log.db") as opened:
        yield opened


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def use(kind: str, form: Any, url: str, **options: Any) -> Any:
    """Return the result of a form of the API with a client of this kind."""
    if kind == "sync":
        with client(url, **options) as asking:
            return form(asking)

    async def run() -> Any:
        async with client_async(url, **options) as asking:
            return await form(asking)

    return asyncio.run(run())


def ask(kind: str, url: str, prompt: str = "hi", **options: Any) -> str:
    """Return the text of the streamed answer."""
    form: Any = answer_text if kind == "sync" else answer_text_async
    return str(use(kind, lambda asking: form(asking, prompt), url, **options))


def exchanges(log: retold.EventLog) -> list[Exchange]:
    """Return the exchanges of the newest run."""
    return exchanges_of(log, log.runs()[0].run)


def bodies(recorded: list[Exchange]) -> list[bytes]:
    return [exchange.response.body for exchange in recorded if exchange.response is not None]


# Equality with an unrecorded client


@pytest.mark.parametrize("form", SYNC)
def test_a_recorded_client_gets_the_same_events_and_all_requests_are_in_the_log(
    form: str, kind: str, log: retold.EventLog
) -> None:
    """The events of every form of the API are equal, and so is the number of requests."""
    forms: Any = SYNC if kind == "sync" else ASYNC
    with serve_every_form() as server:
        expected = use(kind, forms[form], server.url)
        asked = len(server.requests)
        with retold.recording(log) as recording:
            seen = use(kind, forms[form], server.url, middleware=[recording])
    assert alike(seen) == alike(expected)
    assert len(server.requests) == 2 * asked
    recorded = exchanges(log)
    assert [exchange.request.body for exchange in recorded] == [request.body for request in server.requests[asked:]]
    assert [(exchange.place.call, exchange.place.attempt) for exchange in recorded] == [(call + 1, 1) for call in range(asked)]
    if form == "files":
        assert bodies(recorded) == [BINARY]
    elif server.calls and form != "early exit":
        assert bodies(recorded) == server.bodies[server.calls // 2 :]
        assert {exchange.ending for exchange in recorded} == {"complete"}


def test_the_log_contains_the_frames_of_the_server(kind: str, log: retold.EventLog) -> None:
    """The log has every frame, with pings and padding, and the message that the frames fold into."""
    with MessagesServer([HELLO]) as server, retold.recording(log) as recording:
        assert ask(kind, server.url, middleware=[recording]) == "Hello there, é 😀"
    (run,) = log.runs()
    assert [event.payload for event in log.events(run.run, kinds=("frame",))] == [frame for _, frame in server.sent[0]]
    assert [next(message.blocks)["text"] for message in log.messages(run.run)] == ["Hello there, é 😀"]
    assert (run.mode, run.name, run.status) == ("live", "recording", "completed")
    assert next(iter(log.events(run.run))).data["via"] == "middleware"


def test_a_compressed_stream_is_recorded_compressed(kind: str, log: retold.EventLog) -> None:
    """The log has the bytes of the wire and the messages in them."""
    with MessagesServer([Reply([text("Hello there")], encoding="gzip")]) as server, retold.recording(log) as recording:
        ask(kind, server.url, middleware=[recording])
    assert bodies(exchanges(log)) == [server.bodies[0]]
    assert [next(message.blocks)["text"] for message in log.messages(log.runs()[0].run)] == ["Hello there"]


def test_a_compressed_answer_without_streaming_is_recorded_decoded(kind: str, log: retold.EventLog) -> None:
    """The SDK decodes the body before the middleware gets it. The recorded headers match, so the recording can be replayed."""
    with MessagesServer([Reply([text("Hello there")], encoding="gzip")]) as server, retold.recording(log) as recording:
        use(kind, lambda asking: asking.messages.create(**body()), server.url, middleware=[recording])
    (exchange,) = exchanges(log)
    assert exchange.response is not None
    assert json.loads(exchange.response.body)["content"] == [{"type": "text", "text": "Hello there"}]
    assert (exchange.response.header("content-encoding"), exchange.ending) == (None, "complete")


@pytest.mark.trap(1)
def test_the_client_gets_the_first_event_before_the_second_is_sent(kind: str, log: retold.EventLog) -> None:
    """Recording does not delay events."""

    def times(asking: Anthropic) -> list[int]:
        with asking.messages.create(**body(), stream=True) as stream:
            return [time.monotonic_ns() for _ in stream]

    async def times_async(asking: AsyncAnthropic) -> list[int]:
        async with await asking.messages.create(**body(), stream=True) as stream:
            return [time.monotonic_ns() async for _ in stream]

    form: Any = times if kind == "sync" else times_async
    with MessagesServer([Reply([text("Hello there")], gap_s=[0.2])]) as server, retold.recording(log) as recording:
        seen = use(kind, form, server.url, middleware=[recording])
    sent = [at for at, _ in server.sent[0]]
    assert sent[0] < seen[0] < sent[1]


# Calls and attempts


def test_a_client_derived_with_other_options_is_recorded_too(kind: str, log: retold.EventLog) -> None:
    """It inherits the middleware. Both calls are in one run."""

    def other(asking: Anthropic) -> tuple[str, str]:
        return answer_text(asking, "a"), answer_text(asking.with_options(max_retries=0, timeout=9), "b")

    async def other_async(asking: AsyncAnthropic) -> tuple[str, str]:
        return await answer_text_async(asking, "a"), await answer_text_async(asking.with_options(max_retries=0, timeout=9), "b")

    with serve() as server, retold.recording(log) as recording:
        form = other if kind == "sync" else other_async
        assert use(kind, form, server.url, middleware=[recording]) == ("You said a.", "You said b.")
    assert [exchange.place.call for exchange in exchanges(log)] == [1, 2]


def test_a_retry_is_a_second_attempt_of_the_same_call(kind: str, log: retold.EventLog) -> None:
    """The recording includes the body of the error, which the SDK does not read."""
    with MessagesServer([RETRY, HELLO, HELLO]) as server, retold.recording(log) as recording:
        for _ in range(2):
            ask(kind, server.url, middleware=[recording])
    recorded = exchanges(log)
    assert [exchange.ending for exchange in recorded] == ["http_error", "complete", "complete"]
    assert [(exchange.place.call, exchange.place.attempt) for exchange in recorded] == [(1, 1), (1, 2), (2, 1)]
    assert bodies(recorded) == server.bodies


def test_concurrent_calls_are_recorded_into_one_run() -> None:
    """Each call has its own number."""
    prompts = [str(number) for number in range(6)]
    with serve() as server, MeetingLog("log.db") as log:
        with retold.recording(log) as recording:
            threaded(prompts, server.url, middleware=[recording])
        assert [(run.status, run.exchanges) for run in log.runs()] == [("completed", 6)]
        assert sorted(exchange.place.call for exchange in exchanges(log)) == [1, 2, 3, 4, 5, 6]


# Failures


FAILING = {
    "400": (http_error(400, "invalid_request_error", "bad"), "http_error"),
    "529 to the end": (RETRY, "http_error"),
    "error event": (Reply([text("Hello there")], error_event_after=4), "error_event"),
    "cut": (Reply([text("Hello there")], cut_after=4), "cut"),
}


def failure_of(kind: str, url: str, **options: Any) -> tuple[list[str], str, str]:
    """Return the events and the exception of a stream that fails."""
    seen: list[str] = []

    def read(asking: Anthropic) -> None:
        with asking.messages.create(**body(), stream=True) as stream:
            seen.extend(event.type for event in stream)

    async def read_async(asking: AsyncAnthropic) -> None:
        async with await asking.messages.create(**body(), stream=True) as stream:
            async for event in stream:
                seen.append(event.type)  # noqa: PERF401 - the events before the error count

    form: Any = read if kind == "sync" else read_async
    try:
        use(kind, form, url, max_retries=1, **options)
    except Exception as error:
        return seen, type(error).__name__, str(error)
    raise AssertionError("nothing failed")


@pytest.mark.parametrize("failure", FAILING)
def test_a_failure_is_unchanged_and_recorded(failure: str, kind: str, log: retold.EventLog) -> None:
    """The client gets the same events and exception after as many attempts. Each attempt is recorded with ending and bytes."""
    reply, ending = FAILING[failure]
    with MessagesServer(lambda _: reply) as server:
        expected = failure_of(kind, server.url)
        calls = server.calls
        with retold.recording(log) as recording:
            assert alike(failure_of(kind, server.url, middleware=[recording])) == alike(expected)
        assert server.calls == 2 * calls
    recorded = exchanges(log)
    assert [exchange.ending for exchange in recorded] == [ending] * calls
    assert bodies(recorded) == server.bodies[calls:]


def test_a_refused_connection_is_recorded_as_no_response(kind: str, log: retold.EventLog) -> None:
    """The recording has the error of the transport, not that of the SDK."""
    with closing(socket.socket()) as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with retold.recording(log) as recording, pytest.raises(anthropic.APIConnectionError):
            ask(kind, url, middleware=[recording], max_retries=0)
    (exchange,) = exchanges(log)
    assert exchange.failure is not None
    assert (exchange.ending, exchange.response, exchange.failure.type) == ("no_response", None, "httpx2.ConnectError")
    assert exchange.request.uri == f"{url}/v1/messages"


def test_a_call_that_is_cancelled_before_its_answer_is_recorded(log: retold.EventLog) -> None:
    """The request was sent, and may have cost something."""
    asked = threading.Event()

    def wait(_: Any) -> Reply:
        asked.set()
        return Reply(status=529, first_gap_s=20)

    async def cancel(asking: AsyncAnthropic) -> None:
        task = asyncio.create_task(answer_text_async(asking))
        assert await asyncio.to_thread(asked.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with MessagesServer(wait) as server, retold.recording(log) as recording:
        use("async", cancel, server.url, middleware=[recording], max_retries=0)
    (exchange,) = exchanges(log)
    assert (exchange.ending, exchange.response, exchange.request.method) == ("no_response", None, "POST")
    assert exchange.request.uri.endswith("/v1/messages")
    assert json.loads(exchange.request.body) == server.requests[0].json


@pytest.mark.trap(15)
def test_a_stream_that_the_client_leaves_is_recorded_as_closed(kind: str, log: retold.EventLog) -> None:
    """The log has the bytes that came before."""

    def leave(asking: Anthropic) -> None:
        with asking.messages.create(**body(), stream=True) as stream:
            next(iter(stream))

    async def leave_async(asking: AsyncAnthropic) -> None:
        async with await asking.messages.create(**body(), stream=True) as stream:
            await anext(aiter(stream))

    form: Any = leave if kind == "sync" else leave_async
    with MessagesServer([Reply([text("Hello there")], hang_after=3)]) as server, retold.recording(log) as recording:
        use(kind, form, server.url, middleware=[recording])
        assert server.wait_idle()
        assert server.closed_early == 1
    (exchange,) = exchanges(log)
    assert exchange.response is not None
    assert (exchange.ending, exchange.failure) == ("closed", None)
    assert exchange.response.body == server.bodies[0][: len(exchange.response.body)] != b""


# The run


def fail(recording: retold.Recording, kind: str, url: str, error: Exception) -> None:
    """Record a call, then raise an error in the block."""
    with recording:
        ask(kind, url, middleware=[recording])
        raise error


def test_the_end_of_the_block_ends_the_run(kind: str, log: retold.EventLog) -> None:
    """The run is completed or failed. A later call of the client begins another run."""
    with serve() as server:
        with retold.recording(log, name="first") as recording:
            ask(kind, server.url, middleware=[recording])
            first = recording.run
            assert log.runs()[0].status == "running"
        assert recording.run is None
        with pytest.raises(ValueError, match="bad"):
            fail(recording, kind, server.url, ValueError("bad"))
    assert [(run.name, run.status, run.exchanges) for run in log.runs()] == [("first", "failed", 1), ("first", "completed", 1)]
    assert log.runs()[1].run == first
    assert "bad" in (log.runs()[0].error or "")


def test_a_block_without_a_call_creates_no_run(log: retold.EventLog) -> None:
    """The block does not even create the log."""
    with retold.recording(log):
        pass
    assert not log.path.exists()


@pytest.mark.parametrize("prompt", ["hi", KEY])
def test_no_secret_reaches_the_log(prompt: str, log: retold.EventLog) -> None:
    """The secrets are the key of the client, and the same key in a prompt."""
    with serve("yes") as server, retold.recording(log) as recording:
        ask("sync", server.url, prompt, middleware=[recording], api_key=KEY)
    assert KEY in server.requests[0].headers.get("authorization", "") + server.requests[0].headers.get("x-api-key", "")
    stored = b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())
    assert (KEY.encode() in stored, b"REDACTED" in stored) == (False, True)


def test_the_error_of_a_failed_run_is_scrubbed(log: retold.EventLog) -> None:
    """The log has the error with its secret replaced."""
    with serve() as server, pytest.raises(ValueError, match=KEY):
        fail(retold.recording(log), "sync", server.url, ValueError(f"not {KEY}"))
    assert log.runs()[0].error == "ValueError: not REDACTED"


PRICED = "claude-sonnet-4-5-20250929"


@pytest.mark.parametrize("costs", [True, False])
def test_costs_are_computed_if_they_are_requested(costs: bool, log: retold.EventLog) -> None:
    """The price is that of the model that answered."""
    with MessagesServer([Reply([text("yes")], model=PRICED)]) as server, retold.recording(log, costs=costs) as recording:
        ask("sync", server.url, middleware=[recording])
    (exchange,) = exchanges(log)
    assert (exchange.cost_usd is not None) == costs


def test_the_repr_of_a_recording_shows_its_target_and_its_calls(log: retold.EventLog) -> None:
    """It shows the name, the log and the number of calls."""
    with serve() as server, retold.recording(log, name="chat") as recording:
        ask("sync", server.url, middleware=[recording])
        assert repr(recording) == "<Recording 'chat' into log.db, 1 calls>"


# Nothing else


def test_other_clients_are_not_recorded(kind: str, log: retold.EventLog) -> None:
    """Only the client with the middleware is recorded, and no interceptor is active."""
    with serve() as server, retold.recording(log) as recording:
        ask(kind, server.url, "mine", middleware=[recording])
        ask(kind, server.url, "other")
        assert current() is None
    assert [json.loads(exchange.request.body)["messages"][0]["content"] for exchange in exchanges(log)] == ["mine"]


def test_middleware_records_the_answers_that_a_cassette_replays(kind: str, log: retold.EventLog) -> None:
    """Both can be active at once and do not affect each other."""
    with serve() as server, retold.use_cassette("c.yaml", record_mode="once"):
        ask(kind, server.url)
    with retold.use_cassette("c.yaml"), retold.recording(log) as recording:
        assert ask(kind, NOWHERE, middleware=[recording]) == "You said hi."
    assert bodies(exchanges(log)) == server.bodies


def test_middleware_patches_nothing() -> None:
    """In a process that records only by middleware, the transports are those of httpx2."""
    script = (
        "import sys, threading, anthropic, httpx2, retold\n"
        "with retold.EventLog('log.db') as log, retold.recording(log) as recording:\n"
        "    client = anthropic.Anthropic(base_url=sys.argv[1], api_key='test-key', middleware=[recording])\n"
        "    client.messages.create(model='m', max_tokens=9, messages=[{'role': 'user', 'content': 'hi'}])\n"
        "    assert recording.run\n"
        "for method in (httpx2.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request,"
        " threading.Thread.start):\n"
        "    print(method.__module__, hasattr(method, '__wrapped__'))\n"
    )
    with serve() as server:
        done = forks.run("-c", script, server.url, env=os.environ)
    assert (done.stderr, done.stdout) == ("", "httpx2._transports.default False\n" * 2 + "threading False\n")
