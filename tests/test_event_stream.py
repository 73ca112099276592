"""The wire of Bedrock: frames are kept byte for byte, folded like server-sent events, and redacted below their base64."""

import itertools
import json
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.audit.occurrences import texts_of_exchange
from retold.recorder.http import event_stream
from retold.recorder.http.event_stream import TYPE, EventStreamParser
from retold.recorder.http.exchange import Exchange, Request, Response, TimedPiece, frame_json, parser_for, pieces_of
from retold.recorder.http.fold import Fold
from retold.recorder.http.refold import refold_exchange
from retold.recorder.http.sse import Piece
from retold.recorder.messages import Session
from retold.recorder.secrets.redactor import Redactor
from retold.recorder.secrets.streams import FrameRedactor, redact_body
from tests.bedrock_server import chunk, converse_block, exception, framed, frames_of, packed
from tests.messages_server import Block, Reply, text, thinking, tool_use

HEADERS = (("content-type", TYPE),)
SECRET = "sk-ant-" + "a1B2" * 8
STREAMS = ("invoke-with-response-stream", "converse-stream")
REPLIES: dict[str, tuple[Block, ...]] = {
    "text": (text("Hello there, é😀"),),
    "thinking": (thinking("Let me see"), text("Yes")),
    "tool": (text("I look."), tool_use("get_weather", {"city": "Paris"}, id="toolu_1"), tool_use("now", {}, id="toolu_2")),
}

frames = st.builds(
    packed,
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=3),
    st.binary(max_size=60),
)


def parse(*chunks: bytes) -> list[Piece]:
    parser = EventStreamParser()
    return [piece for data in chunks for piece in parser.feed(data)] + parser.flush()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def payloads(body: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """Return the headers and payloads that botocore reads."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(event.headers, event.payload) for event in buffer]


@settings(deadline=None, max_examples=100)
@given(st.lists(frames, max_size=6), st.binary(max_size=20), st.lists(st.integers(0, 400), max_size=8))
def test_random_cuts_of_a_stream_give_the_same_frames(parts: list[bytes], rest: bytes, places: list[int]) -> None:
    """The frames equal the packed ones, and all pieces joined are the stream, with any bytes behind it."""
    pieces = parse(*cut(b"".join(parts) + rest, places))
    assert [piece.data for piece in pieces if piece.is_frame] == parts
    assert b"".join(piece.data for piece in pieces) == b"".join(parts) + rest


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_pass_the_parser_unchanged(chunks: list[bytes]) -> None:
    """Bytes outside frames are kept, too."""
    assert b"".join(piece.data for piece in parse(*chunks)) == b"".join(chunks)


@settings(deadline=None, max_examples=50)
@given(st.lists(frames, min_size=1, max_size=4))
def test_botocore_reads_packed_frames(parts: list[bytes]) -> None:
    """The packer of redacted frames writes the format that botocore reads."""
    assert len(payloads(b"".join(parts))) == len(parts)


def test_a_frame_is_returned_with_its_last_byte() -> None:
    parser, frame = EventStreamParser(), chunk({"type": "ping"})
    assert parser.feed(frame[:-1]) == []
    assert parser.is_inside
    assert parser.feed(frame[-1:]) == [Piece(frame, True)]
    assert not parser.is_inside


def test_a_wrong_checksum_makes_a_piece_without_an_event() -> None:
    """A damaged frame ends at its own length. A damaged prelude has no length, so no frame follows it."""
    one, two = chunk({"type": "ping"}), chunk({"type": "message_stop"})
    damaged = one[:-20] + bytes([one[-20] ^ 1]) + one[-19:]
    assert parse(damaged + two) == [Piece(damaged, False), Piece(two, True)]
    assert frame_json(damaged) is None
    lost = bytes([1]) + one[1:]
    assert parse(two + lost + two) == [Piece(two, True), Piece(lost + two, False)]


@pytest.mark.parametrize("kind", range(10))
def test_headers_of_every_type_are_read(kind: int) -> None:
    """A frame with a header of any type keeps its event, and survives redaction unchanged."""
    value = {6: b"\0\2ab", 7: b"\0\2ab"}.get(kind, b"\1" * event_stream._SIZES.get(kind, 0))
    plain = chunk({"type": "ping"})
    head = int.from_bytes(plain[4:8])
    own = b"\1x" + bytes([kind]) + value
    body = plain[12 : 12 + head] + own + plain[12 + head : -4]
    lengths = (16 + len(body)).to_bytes(4) + (head + len(own)).to_bytes(4)
    data = lengths + crc32(lengths).to_bytes(4) + body
    frame = data + crc32(data).to_bytes(4)
    assert frame_json(frame) == {"type": "ping"}
    assert FrameRedactor(Redactor({})).feed(Piece(frame, True)) == [Piece(frame, True)]


def test_the_beginning_identifies_a_stream_without_a_type() -> None:
    frame = chunk({"type": "ping"})
    assert isinstance(parser_for(None, frame), EventStreamParser)
    assert isinstance(parser_for(TYPE, b""), EventStreamParser)
    assert parser_for(None, b"\0\0\0\1 no frame") is None
    assert parser_for("application/json", frame) is None


def folded(parts: list[bytes], model: str = "m") -> Fold:
    fold = Fold(Session("s"), model=model)
    for part in parts:
        fold.feed(part)
    return fold


@pytest.mark.parametrize("blocks", REPLIES.values(), ids=REPLIES.keys())
@pytest.mark.parametrize("action", STREAMS)
def test_a_stream_folds_into_the_message_of_the_api(action: str, blocks: tuple[Block, ...]) -> None:
    """Both streams give the same blocks, stop reason and tokens as the Messages API."""
    reply = Reply(blocks, stop_reason="tool_use")
    message = reply.message({"model": "m"}, 1)
    fold = folded(frames_of(reply, action, {"model": "m"}))
    assert fold.content == message["content"]
    assert (fold.stop_reason, fold.stopped, fold.message["model"]) == ("tool_use", True, "m")
    assert {name: fold.usage[name] for name in ("input_tokens", "output_tokens")} == {
        name: message["usage"][name] for name in ("input_tokens", "output_tokens")
    }


@pytest.mark.parametrize("blocks", REPLIES.values(), ids=REPLIES.keys())
def test_an_answer_of_converse_folds_into_the_message_of_the_api(blocks: tuple[Block, ...]) -> None:
    message = Reply(blocks).message({"model": "m"}, 1)
    content = [converse_block(block) for block in message["content"]]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3},
    }
    fold = Fold(Session("s"), model="m")
    messages = fold.feed_json(json.dumps(answer).encode())
    assert fold.content == message["content"]
    assert [each["message"]["content"] for each in messages] == [[block] for block in message["content"]]
    assert (fold.stop_reason, fold.usage, fold.message["model"]) == ("end_turn", {"input_tokens": 3}, "m")


def test_an_exception_is_an_error_event() -> None:
    """Exceptions, and errors without a model, become the error of the answer. Blocks before them are incomplete."""
    fold = folded([*frames_of(Reply([text("Hello")]), STREAMS[0], {})[:4], exception("throttlingException", "Too many")])
    assert fold.error == {"type": "throttlingException", "message": "Too many"}
    assert fold.flush()[0]["incomplete"]
    headers = {":message-type": "error", ":error-code": "internal", ":error-message": "Oh"}
    assert folded([packed(headers, b"")]).error == {"type": "internal", "message": "Oh"}


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b'{"bytes":1}', b'{"bytes":"!"}', b'{"bytes":"Ww=="}', b"\xff"])
def test_a_frame_without_an_event_is_kept_and_folds_into_nothing(payload: bytes) -> None:
    frame = packed({":event-type": "chunk", ":message-type": "event"}, payload)
    assert frame_json(frame) is None
    assert frame_json(packed({":event-type": "unheardOf", ":message-type": "event"}, payload)) is None
    assert parse(frame) == [Piece(frame, True)]


# Secrets


def redacted(parts: list[Piece]) -> list[Piece]:
    scrub = FrameRedactor(Redactor({}))
    return [piece for part in parts for piece in scrub.feed(part)] + scrub.flush()


@pytest.mark.parametrize("pieces", [1, 3, 100])
@pytest.mark.parametrize("action", STREAMS)
def test_secrets_are_removed_below_base64_and_over_frames(action: str, pieces: int) -> None:
    """The frames stay frames with right checksums: botocore reads them, and their text lacks the secret."""
    parts = [Piece(part, True) for part in frames_of(Reply([text(f"It is {SECRET} today", pieces)]), action, {"model": "m"})]
    for clean in (redacted(parts), redact_body(parts, Redactor({}))):
        assert len(payloads(b"".join(piece.data for piece in clean))) == len(parts)
        answer = folded([piece.data for piece in clean]).content[0]["text"]
        assert (answer.startswith("It is "), answer.endswith(" today"), "a1B2" in answer) == (True, True, False)


@pytest.mark.parametrize("action", STREAMS)
def test_frames_without_a_secret_are_written_byte_for_byte(action: str) -> None:
    parts = [Piece(part, True) for part in frames_of(Reply([text("The sk- prefix, eyJ and xox")]), action, {"model": "m"})]
    assert redacted(parts) == parts
    assert redact_body(parts, Redactor({})) == parts


def test_secrets_in_headers_exceptions_and_cut_frames_are_removed() -> None:
    """A cut frame has no checksum to correct. Its base64 is searched, too."""
    whole = chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{SECRET} and more text"}})
    odd = packed({":message-type": "error", ":error-code": "x", ":error-message": f"key {SECRET}"}, b"")
    clean = redacted([Piece(odd, True), Piece(exception("x", SECRET), True), Piece(whole[:-30], False)])
    assert folded([clean[0].data]).error == {"type": "x", "message": "key REDACTED"}
    assert folded([clean[1].data]).error == {"type": "x", "message": "REDACTED"}
    inner = event_stream._inner(clean[2].data)
    assert inner is not None
    assert b"REDACTED and" in inner[1]
    assert b"a1B2" not in inner[1]


def test_a_cassette_cuts_and_folds_the_frames_again() -> None:
    """A body from a cassette has the frames of the recording, including the cut one at its end."""
    parts = frames_of(Reply([text("Hello there")]), STREAMS[0], {"model": "m"})
    body = b"".join(parts[:5]) + parts[5][:9]
    pieces = list(pieces_of(body, HEADERS))
    assert pieces == [*(Piece(part, True) for part in parts[:5]), Piece(parts[5][:9], False)]
    response = Response(200, "OK", HEADERS, tuple(TimedPiece(1, *piece) for piece in pieces))
    request = Request("POST", "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.m/invoke-with-response-stream")
    assert refold_exchange(Exchange(request, response)).text == ""
    whole = Response(200, "OK", HEADERS, (TimedPiece(1, b"".join(parts), False),))
    assert refold_exchange(Exchange(request, whole)).text == "Hello there"


@pytest.mark.parametrize("action", STREAMS)
def test_an_erasure_finds_a_text_over_frames_below_base64(action: str) -> None:
    """The texts of a body are those that a person reads, joined over its frames."""
    body = b"".join(frames_of(Reply([text("My name is Ada Lovelace", 4)]), action, {"model": "m"}))
    request = Request("POST", f"https://x/model/m/{action}")
    found = list(texts_of_exchange(Exchange(request, Response(200, "OK", HEADERS, (TimedPiece(1, body, False),)))))
    assert "My name is Ada Lovelace" in found


def test_unknown_blocks_of_converse_pass_through() -> None:
    fold = folded([
        framed("messageStart", {"role": "assistant"}),
        framed("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "eA=="}}}),
        framed("contentBlockStop", {"contentBlockIndex": 0}),
        framed("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"video": {"a": 1}}}),
        framed("contentBlockStop", {"contentBlockIndex": 1}),
    ])  # fmt: skip
    assert fold.content == [{"type": "redacted_thinking", "data": "eA=="}, {"type": "video", "video": {"a": 1}}]
