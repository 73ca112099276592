"""The real SDK replays a recording: the same bytes, events and errors, without a network."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import httpx2
import pytest

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import MissError
from retold.recorder.http.exchange import Exchange, Failure
from retold.recorder.http.patching import intercepted
from retold.replay.matching.matcher import Matcher
from retold.replay.timing import timing as timing_module
from retold.replay.timing.timing import Timing
from retold.replay.transport import Replayer, ReplayTransport
from tests.exchanges import JSON, URL, answer, exchange
from tests.messages_server import MessagesServer, Reply, http_error, text, thinking, tool_use
from tests.tape import ASK, BOTH, Consume, Seen, recording

HELLO = text("Hello there, général Kenobi 😀", pieces=4)
RETRY = http_error(529, headers={"retry-after-ms": "1"})
LIMITED = http_error(429, "rate_limit_error", "slow down", headers={"retry-after": "0.01"})
BLOCKS = [thinking("Hm."), HELLO, tool_use("t", {"a": "b"})]


class Case(NamedTuple):
    """The behaviour of a server during the recording, and of the client."""

    script: list[Reply]
    options: dict[str, Any] = {}  # noqa: RUF012 - read only


CASES = {
    "complete": Case([Reply(BLOCKS)]),
    "gzip": Case([Reply(BLOCKS, encoding="gzip")]),
    "br": Case([Reply(BLOCKS, encoding="br")]),
    "zstd": Case([Reply(BLOCKS, encoding="zstd")]),
    "CRLF": Case([Reply(BLOCKS, newline="\r\n")]),
    "byte by byte": Case([Reply(BLOCKS, split="bytes")]),
    "cut": Case([Reply(BLOCKS, cut_after=5)]),
    "cut, gzip": Case([Reply(BLOCKS, cut_after=5, encoding="gzip")]),
    "cut at once": Case([Reply(BLOCKS, cut_after=0)]),
    "error event": Case([Reply(BLOCKS, error_event_after=5)]),
    "400": Case([http_error(400, "invalid_request_error", "max_tokens: required")]),
    "529, then 200": Case([RETRY, Reply(BLOCKS)], {"retries": 2}),
    "429, then 200": Case([LIMITED, Reply(BLOCKS)], {"retries": 2}),
    "529 twice": Case([RETRY, RETRY], {"retries": 1}),
    "max_tokens": Case([Reply(BLOCKS, "max_tokens")]),
    "refusal": Case([Reply(BLOCKS, "refusal")]),
    "pause_turn": Case([Reply(BLOCKS, "pause_turn")]),
    "stop_sequence": Case([Reply(BLOCKS, "stop_sequence", "END")]),
}


class Recorded(NamedTuple):
    case: Case
    consume: Consume
    seen: Seen
    exchanges: list[Exchange]
    bodies: list[bytes]


@pytest.fixture(scope="module", params=[(name, client) for name in CASES for client in BOTH], ids=lambda pair: ", ".join(pair))
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record a case live into a log, and read it back from a cassette."""
    case, consume = CASES[request.param[0]], BOTH[request.param[1]]
    folder = tmp_path_factory.mktemp("replay")
    with recording(folder) as tape, MessagesServer(case.script) as server:
        seen = consume(server.url, **case.options)
    write_cassette(folder / "c.yaml", tape.exchanges())
    return Recorded(case, consume, seen, list(read_cassette(folder / "c.yaml").exchanges), server.bodies)


def client_for(consume: Consume, exchanges: list[Exchange]) -> tuple[Any, Matcher]:
    matcher = Matcher(exchanges)
    transport = ReplayTransport(matcher)
    if consume is BOTH["async"]:
        return httpx2.AsyncClient(transport=transport), matcher
    return httpx2.Client(transport=transport), matcher


def replay(consume: Consume, exchanges: list[Exchange], **options: Any) -> Seen:
    return consume("http://nowhere.test", http_client=client_for(consume, exchanges)[0], **options)


@pytest.mark.trap(13, 14)
def test_a_replay_equals_the_live_stream(recorded: Recorded) -> None:
    """The events and the exception are the same, and all recorded attempts are played."""
    client, matcher = client_for(recorded.consume, recorded.exchanges)
    assert recorded.consume("http://nowhere.test", http_client=client, **recorded.case.options) == recorded.seen
    assert matcher.unplayed == []


def test_a_patched_client_is_answered_from_the_recording_too(recorded: Recorded) -> None:
    """The interceptor of `use_cassette` works with any client, and no server listens at the URL."""
    with intercepted(Replayer(Matcher(recorded.exchanges))):
        assert recorded.consume("http://127.0.0.1:9", **recorded.case.options) == recorded.seen


def raw_sync(played: Exchange) -> tuple[bytes, httpx2.Response, str | None]:
    """Return the bytes on the wire before any decoding, the response, and the error that ended it."""
    got = b""
    with httpx2.Client(transport=ReplayTransport(Matcher([played]))) as client:
        request = client.build_request(played.request.method, URL, content=played.request.body)
        response = client.send(request, stream=True)
        try:
            for chunk in response.iter_raw():
                got += chunk
        except httpx2.TransportError as error:
            return got, response, f"{type(error).__name__}: {error}"
    return got, response, None


def raw_async(played: Exchange) -> tuple[bytes, httpx2.Response, str | None]:
    """Like `raw_sync`, with an async client."""

    async def read() -> tuple[bytes, httpx2.Response, str | None]:
        got = b""
        async with httpx2.AsyncClient(transport=ReplayTransport(Matcher([played]))) as client:
            request = client.build_request(played.request.method, URL, content=played.request.body)
            response = await client.send(request, stream=True)
            try:
                async for chunk in response.aiter_raw():
                    got += chunk
            except httpx2.TransportError as error:
                return got, response, f"{type(error).__name__}: {error}"
        return got, response, None

    return asyncio.run(read())


def test_the_replayed_bytes_are_the_recorded_bytes(recorded: Recorded) -> None:
    """Status, reason and body of every attempt are the same, byte for byte, and so is the ending."""
    read = raw_sync if recorded.consume is BOTH["sync"] else raw_async
    for played, body in zip(recorded.exchanges, recorded.bodies, strict=True):
        got, response, error = read(played)
        assert played.response is not None
        assert (response.status_code, response.reason_phrase) == (played.response.status, played.response.reason)
        assert sha256(got).hexdigest() == sha256(body).hexdigest()
        assert (error is not None) == (played.ending == "cut")


@pytest.fixture(params=BOTH)
def consume(request: pytest.FixtureRequest) -> Consume:
    return BOTH[request.param]


def live(tmp_path: Path, consume: Consume, *script: Reply, **options: Any) -> list[Exchange]:
    with recording(tmp_path) as tape, MessagesServer(script) as server:
        consume(server.url, **options)
    return tape.exchanges()


def test_a_stream_that_the_client_closed_ends_in_an_error_where_the_recording_ends(tmp_path: Path, consume: Consume) -> None:
    """A client that reads further gets an error, so that it cannot mistake a partial answer for a complete one."""
    exchanges = live(tmp_path, consume, Reply([HELLO], hang_after=5), stop_after=3)
    seen = replay(consume, exchanges)
    assert len(seen.events) >= 3
    assert seen.error == "retold.RecordingEnded"
    assert replay(consume, exchanges, stop_after=3) == Seen(seen.events[:3], None)


def test_a_lost_connection_is_lost_again(consume: Consume) -> None:
    """No response was recorded, so the SDK raises its own connection error."""
    body = json.dumps({**ASK, "stream": True}).encode()
    lost = replace(exchange(body=body), response=None, ending="no_response", failure=Failure("httpx2.ConnectError", "refused"))
    assert replay(consume, [lost]) == Seen([], "anthropic.APIConnectionError")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure("httpx2.ConnectError", "refused"), httpx2.ConnectError),
        (Failure("httpx2.ReadTimeout", "timed out"), httpx2.ReadTimeout),
        (Failure("httpx2.ConnectTimeout", ""), httpx2.ConnectTimeout),
        (Failure("Interrupted", "the recording process died"), httpx2.ConnectError),
        (Failure("httpx2.HTTPTransport", "a class, but no error"), httpx2.ConnectError),
        (Failure("httpx2.InvalidURL", "an error, but not of a transport"), httpx2.ConnectError),
        (None, httpx2.RemoteProtocolError),
    ],
)
def test_a_failure_is_raised_with_its_recorded_type(failure: Failure | None, kind: type[Exception]) -> None:
    """It has the recorded type if httpx2 has it, otherwise the nearest one, and the recorded text."""
    lost = replace(exchange(), response=None, ending="no_response", failure=failure)
    with httpx2.Client(transport=ReplayTransport(Matcher([lost]))) as client, pytest.raises(kind) as caught:
        client.post(URL, content=lost.request.body)
    assert type(caught.value) is kind
    assert str(caught.value) == ("" if failure is None else failure.message)


@pytest.mark.parametrize("read", [raw_sync, raw_async])
def test_a_cut_without_a_known_cause_is_a_protocol_error(read: Any) -> None:
    """After the recorded bytes the client sees a broken connection."""
    cut = exchange(answer(b"data: 1\n\n"), ending="cut", failure=Failure("Interrupted", "the recording process died"))
    got, _, error = read(cut)
    assert (got, error) == (b"data: 1\n\n", "RemoteProtocolError: the recording process died")


@pytest.mark.trap(25)
def test_stored_lengths_are_ignored() -> None:
    """Hundreds of published cassettes have a wrong content-length. It neither cuts nor blocks the replay."""
    headers = (*JSON, ("content-length", "3"), ("transfer-encoding", "chunked"), ("x-a", "1"), ("x-a", "2"))
    lying = exchange(answer(b'{"a": 1}', headers=headers))
    with httpx2.Client(transport=ReplayTransport(Matcher([lying]))) as client:
        response = client.post(URL, content=lying.request.body)
    assert response.json() == {"a": 1}
    assert response.headers.multi_items() == [("content-type", "application/json"), ("x-a", "1"), ("x-a", "2")]


def test_an_instant_replay_does_not_wait_before_a_retry() -> None:
    """The SDK would sleep half a second for each 529, and a replay has no server to protect."""
    refused = exchange(answer(b"{}", headers=JSON, status=529, reason=""), ending="http_error")
    for timing, header in ((Timing(), "1"), (Timing(1000.0), None)):
        with httpx2.Client(transport=ReplayTransport(Matcher([refused]), timing)) as client:
            assert client.post(URL, content=refused.request.body).headers.get("retry-after-ms") == header


def test_an_instant_replay_replaces_a_recorded_retry_after_ms() -> None:
    """The SDK cannot parse two of these headers and would use its own half second."""
    headers = (*JSON, ("Retry-After-Ms", "2000"), ("retry-after", "2"))
    refused = exchange(answer(b"{}", headers=headers, status=529, reason=""), ending="http_error")
    _, response, _ = raw_sync(refused)
    assert response.headers.get_list("retry-after-ms") == ["1"]


# Misses


def test_a_miss_reaches_the_caller_of_the_sdk_and_is_not_retried(consume: Consume) -> None:
    """The first attempt raises a typed error with its report, although the client retries connection errors."""
    matcher = Matcher([exchange()])
    asked: list[Any] = []
    take = matcher.take
    matcher.take = lambda *request: asked.append(request) or take(*request)  # type: ignore[method-assign, func-returns-value]
    transport = ReplayTransport(matcher)
    client: Any = httpx2.AsyncClient(transport=transport) if consume is BOTH["async"] else httpx2.Client(transport=transport)
    seen = consume("http://nowhere.test", retries=5, http_client=client)
    assert (seen, len(asked)) == (Seen([], "retold.MissError"), 1)


def test_a_miss_is_both_kinds_of_error() -> None:
    """`except` clauses for retold's MissError and for the SDK's root error both catch it, with the whole report."""
    transport = ReplayTransport(Matcher([], source="c.yaml"))
    report = r"no recorded exchange answers call 1, POST /v1/messages, in c\.yaml"
    with (
        anthropic.Anthropic(api_key="x", http_client=httpx2.Client(transport=transport)) as client,
        pytest.raises(MissError, match=report) as caught,
    ):
        client.messages.create(**ASK)
    assert isinstance(caught.value, anthropic.AnthropicError)
    assert caught.value.exit_code == 3


def test_a_replayed_request_is_never_sent(consume: Consume) -> None:
    """Neither a hit nor a miss reaches the server at the URL."""
    with MessagesServer([Reply([HELLO])]) as server:
        with intercepted(Replayer(Matcher([exchange()]))):
            assert consume(server.url).error == "retold.MissError"
        assert server.requests == []


# Many calls


def ask_for(number: int) -> Any:
    return {**ASK, "messages": [{"role": "user", "content": f"number {number}"}]}


def answer_of(message: Any) -> str:
    return str(message.content[0].text)


@pytest.fixture
def six(tmp_path: Path) -> Iterator[list[Exchange]]:
    """Return six different calls, recorded in order. Each answer repeats its question."""

    def echo(request: Any) -> Reply:
        return Reply([text(request.json["messages"][0]["content"])])

    with recording(tmp_path) as tape, MessagesServer(echo) as server:
        with anthropic.Anthropic(base_url=server.url, api_key="x") as client:
            for number in range(6):
                client.messages.create(**ask_for(number))
        yield tape.exchanges()


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 1, 5, 0, 4, 2]])
def test_parallel_calls_get_the_right_answers_in_any_order(six: list[Exchange], order: list[int]) -> None:
    """Six different requests come at once, in another order than the recorded one."""

    async def ask_all() -> list[str]:
        http = httpx2.AsyncClient(transport=ReplayTransport(Matcher(six)))
        async with anthropic.AsyncAnthropic(api_key="x", http_client=http) as client:
            answers = await asyncio.gather(*(client.messages.create(**ask_for(number)) for number in order))
        return [answer_of(message) for message in answers]

    assert asyncio.run(ask_all()) == [f"number {number}" for number in order]


def test_threads_get_the_right_answers(six: list[Exchange]) -> None:
    """Six threads share one client."""
    answers: dict[int, str] = {}
    with anthropic.Anthropic(api_key="x", http_client=httpx2.Client(transport=ReplayTransport(Matcher(six)))) as client:

        def ask(number: int) -> None:
            answers[number] = answer_of(client.messages.create(**ask_for(number)))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: f"number {number}" for number in range(6)}


def test_playing_with_original_timing_yields_frames_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport yields each piece when it is due, not the whole body at the end."""
    waits: list[int] = []
    monkeypatch.setattr(timing_module, "wait_until", waits.append)
    stream = exchange(answer(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"))
    with (
        httpx2.Client(transport=ReplayTransport(Matcher([stream]), Timing(1.0))) as client,
        client.stream("POST", URL, content=stream.request.body) as response,
    ):
        chunks = [(chunk, len(waits)) for chunk in response.iter_raw()]
    assert chunks == [(b"data: 1\n\n", 1), (b"data: 2\n\n", 2), (b"data: 3\n\n", 3)]
    assert [deadline - waits[0] for deadline in waits] == [0, 1_000_000, 2_000_000, 2_000_000]
