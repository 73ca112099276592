"""Faults inject failures that the real API cannot produce on demand, into any recorded stream, in the library and over HTTP."""

import gzip
import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

import retold
from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange, Response, TimedPiece
from retold.replay.faults import Fault, Faults, Telling, framed
from retold.replay.timing.timing import INSTANT, ORIGINAL, Timing
from tests.clients import ask, body, client, record
from tests.exchanges import GZIP, JSON, answer, exchange
from tests.messages_server import Reply, text
from tests.wire import post, wire

MS = 1_000_000


def frames(count: int) -> list[bytes]:
    return [b"event: ping\ndata: %d\n\n" % number for number in range(1, count + 1)]


def stream(count: int = 6) -> Exchange:
    """Return a stream with frames one millisecond apart."""
    return exchange(answer(*frames(count)))


def struck(spec: str, original: Exchange, timing: Timing = INSTANT) -> Telling:
    telling = Fault.parse(spec).on(Telling(original, timing))
    assert telling is not None
    return telling


def pieces(result: Exchange) -> list[bytes]:
    assert result.response is not None
    return [piece.data for piece in result.response.pieces]


# The effect of a fault on an exchange


def test_a_cut_lets_the_frames_before_it_pass() -> None:
    result = struck("cut@frame=5", stream()).exchange
    assert pieces(result) == frames(4)
    assert result.ending == "cut"


def test_an_error_event_replaces_its_frame() -> None:
    result = struck("error_event@frame=3", stream()).exchange
    assert pieces(result)[:2] == frames(2)
    assert json.loads(pieces(result)[2].split(b"data: ")[1])["error"]["type"] == "overloaded_error"
    assert (len(pieces(result)), result.ending) == (3, "error_event")


def test_a_stall_keeps_its_length_at_any_timing() -> None:
    """The silence before its frame is real time.

    At four times the pace 30 s remain 30 s, and an idle limit does not shorten them.
    """
    for timing, gap in ((INSTANT, 0), (ORIGINAL, 1), (Timing(4.0, 10 * MS), 0.25)):
        result, pace = struck("stall=30s@frame=4", stream(), timing)
        assert pace == ORIGINAL
        assert result.response is not None
        offsets = [piece.offset_ns / MS for piece in result.response.pieces]
        assert [round(b - a, 3) for a, b in pairwise(offsets)] == [gap, gap, 30_000 + gap, gap, gap]


def test_slow_is_a_share_of_the_pace() -> None:
    assert struck("slow=0.25x", stream()).timing == Timing(0.25)
    assert struck("slow=0.25x", stream(), Timing(2.0)).timing == Timing(0.5)


def test_overloaded_and_rate_limit_are_the_answers_of_the_api() -> None:
    overloaded = struck("overloaded", stream()).exchange.response
    limited = struck("rate_limit@retry_after=7", stream())
    assert overloaded is not None
    assert (overloaded.status, overloaded.reason) == (529, "")
    assert json.loads(overloaded.body)["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    assert limited.exchange.response is not None
    assert limited.exchange.response.header("retry-after") == "7"
    assert not limited.timing.is_instant  # an instant replay would make the client repeat the request at once


def test_frames_of_a_compressed_stream_are_counted_too() -> None:
    packed = gzip.compress(b"".join(frames(6)))
    whole = Response(200, "OK", GZIP, tuple(TimedPiece(MS * n, packed[n * 10 : n * 10 + 10], False) for n in range(12)), 0)
    result = struck("cut@frame=3", exchange(whole)).exchange
    assert pieces(result) == frames(2)
    assert result.response is not None
    assert result.response.header("content-encoding") is None


def test_an_answer_without_a_stream_is_one_frame() -> None:
    result = framed(exchange(Response(200, "OK", JSON, (TimedPiece(0, b'{"a":', False), TimedPiece(9, b"1}", False)), 0)))
    assert result.response is not None
    assert result.response.pieces == (TimedPiece(9, b'{"a":1}', True),)


def test_a_fault_without_its_place_does_not_happen_and_is_named() -> None:
    """A stream has too few frames, or the answer is already an error. The report names the unused fault."""
    faults = Faults(("cut@frame=7", "overloaded@call=9"))
    refused = exchange(answer(b"{}", headers=JSON, status=400), ending="http_error")
    for recorded in (stream(), refused):
        assert faults.on(recorded, INSTANT) == (Telling(recorded, INSTANT), False)
    assert faults.unused == ["cut@frame=7", "overloaded@call=9"]


def test_calls_are_counted_in_the_order_of_their_answers() -> None:
    faults = Faults(("overloaded@call=2", "slow=0.5x"))
    tellings = [faults.on(stream(), ORIGINAL) for _ in range(3)]
    assert [telling.exchange.ending for telling, _ in tellings] == ["complete", "http_error", "complete"]
    assert [destroyed for _, destroyed in tellings] == [False, True, False]
    assert tellings[0][0].timing == Timing(0.5)
    assert faults.unused == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "unknown fault ''"),
        ("boom@call=1", "unknown fault 'boom@call=1'"),
        ("cut", "needs a place: cut@frame=5"),
        ("stall=3s", "needs a place: stall=30s@frame=5"),
        ("stall@frame=3", "needs a duration"),
        ("stall=soon@frame=3", "unknown duration 'soon'"),
        ("slow", "needs a pace"),
        ("slow=instant", "needs a pace"),
        ("cut=5@frame=5", "takes no value"),
        ("cut@frame=0", "'frame=0' in fault"),
        ("cut@retry_after=1", "cut takes call and frame"),
        ("overloaded@frame=1", "overloaded takes call"),
    ],
)
def test_a_malformed_fault_is_refused(spec: str, message: str) -> None:
    with pytest.raises(InputError) as refusal:
        Fault.parse(spec)
    assert message in str(refusal.value)


# In the library


def test_the_sdk_repeats_an_overloaded_call_and_gets_the_recording(tmp_path: Path) -> None:
    path = record(tmp_path / "c.yaml", "a", "b")
    with retold.use_cassette(path, faults=["overloaded@call=2"]) as cassette:
        assert [ask("a", max_tokens=64), ask("b")] == ["You said a.", "You said b."]
    assert cassette.play_count == 3
    assert cassette.all_played


def test_the_sdk_sees_a_cut_and_can_ask_again(tmp_path: Path) -> None:
    path = record(tmp_path / "c.yaml", "a")
    with retold.use_cassette(path, faults=["cut@call=1,frame=4"]), client() as asking:
        with pytest.raises(httpx2.RemoteProtocolError), asking.messages.stream(**body("a")) as broken:
            assert len(list(broken)) == 3
        assert ask("a") == "You said a."


def test_the_sdk_sees_an_error_event(tmp_path: Path) -> None:
    path = record(tmp_path / "c.yaml", "a")
    with retold.use_cassette(path, faults=["error_event@frame=3"]), pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        ask("a")


def test_an_unused_fault_causes_a_warning(tmp_path: Path) -> None:
    """A test of an error that did not occur proves nothing."""
    path = record(tmp_path / "c.yaml", "a")
    with (
        pytest.warns(retold.FaultWarning, match="cut@frame=99 never happened"),
        retold.use_cassette(path, faults=["cut@frame=99"]),
    ):
        ask("a")


def test_a_rate_limit_has_a_retry_after(tmp_path: Path) -> None:
    path = record(tmp_path / "c.yaml", "a")
    with (
        retold.use_cassette(path, faults=["rate_limit@call=1,retry_after=2"]),
        client(max_retries=0) as asking,
        pytest.raises(anthropic.RateLimitError) as refusal,
    ):
        asking.messages.create(**body("a"), stream=True)
    assert refusal.value.response.headers["retry-after"] == "2"
    assert "retry-after-ms" not in refusal.value.response.headers


# Over HTTP


def recorded(**fields: Any) -> list[Exchange]:
    """Return a recorded stream for the request that `post` sends."""
    reply = Reply([text("Hello there, you.")])
    message = reply.message({}, 1)
    asked = json.dumps(body("hi", **fields)).encode()
    return [exchange(answer(*reply.frames(message)), asked)]


def test_the_server_fails_like_the_library() -> None:
    with wire(mode="none", recorded=recorded(stream=True), faults=("overloaded@call=1", "error_event@call=2,frame=3")) as running:
        answers = [post(running.url, stream=True) for _ in range(3)]
    assert [answer.status for answer in answers] == [529, 200, 200]
    assert [answer.body.count(b"event: error") for answer in answers] == [0, 1, 0]
    assert answers[2].body == recorded()[0].response.body  # type: ignore[union-attr]
    assert running.use.all_played


def test_the_whole_answer_is_available_without_streaming_after_an_error_event() -> None:
    """Claude Code then asks without streaming, but the recording has only the stream."""
    with wire(mode="none", recorded=recorded(stream=True), faults=("error_event@call=1,frame=3",)) as running:
        post(running.url, stream=True)
        whole = json.loads(post(running.url, stream=False, max_tokens=32).body)
    assert whole["content"] == [{"type": "text", "text": "Hello there, you."}]
    assert whole["stop_reason"] == "end_turn"
    assert running.use.misses == []


def test_a_stall_delays_the_stream() -> None:
    began = time.monotonic()
    with wire(mode="none", recorded=recorded(), faults=("stall=0.1s@frame=2",)) as running:
        assert post(running.url).body == recorded()[0].response.body  # type: ignore[union-attr]
    assert time.monotonic() - began >= 0.1


def test_a_recording_is_not_changed_by_its_faults() -> None:
    original = stream()
    before = replace(original)
    for spec in ("cut@frame=2", "stall=1s@frame=2", "error_event@frame=2", "overloaded", "slow=2x"):
        struck(spec, original)
    assert original == before
