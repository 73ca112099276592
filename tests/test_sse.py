"""The parser of server-sent events keeps every byte, and its frames do not depend on the cuts of the network."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retold.recorder.http.sse import PLAIN_DELTA, FrameParser, Piece, Run, cut_body, frame_json, parse_frame, plain_deltas

LINES = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")

BODIES = {
    "LF": b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n",
    "CRLF": b"event: a\r\ndata: 1\r\n\r\nevent: b\r\ndata: 2\r\n\r\n",
    "CR": b"event: a\rdata: 1\r\revent: b\rdata: 2\r\r",
    "mixed line ends": b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\n\rdata: 4\n\rdata: 5\r\r\ndata: 6\n\n",
    "comments": b": hello\n\ndata: 1\n: inside\n\n:\n\n",
    "multi-line data": b"data: {\ndata: \ndata: }\n\ndata: 2\n\n",
    "no space": b"event:a\ndata:1\n\ndata:2\n\n",
    "UTF-8": "data: é€😀\u2028\u0085\n\ndata: ü\n\n".encode(),
    "no final blank line": b"data: 1\n\ndata: 2\n",
    "no final line end": b"data: 1\n\ndata: 2",
    "BOM": b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "many blank lines": b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n",
}

PARTS = [b"\n", b"\r\n", b"\r", b"data: x", b"data:", b": c", b"event: y", "é".encode(), b"\xff", b"\xef\xbb\xbf", b"\0"]
streams = st.lists(st.sampled_from(PARTS), max_size=25).map(b"".join)


def frames_by_the_book(body: bytes) -> list[Piece]:
    """Return the frames of a whole body, line by line as in the standard: a blank line ends the frame before it."""
    pieces, lines = [], list[bytes]()
    for line in LINES.findall(body):
        is_blank = line in (b"\n", b"\r\n", b"\r")
        lines.append(line)
        if is_blank and len(lines) > 1:
            pieces.append(Piece(b"".join(lines), True))
            lines.clear()
    return [*pieces, Piece(b"".join(lines), False)] if lines else pieces


def parse(*chunks: bytes, parser: FrameParser | None = None) -> list[Piece]:
    parser = parser or FrameParser()
    return [piece for chunk in chunks for piece in parser.feed(chunk)] + parser.flush()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(body)) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30), max_size=10), st.integers(8, 40))
def test_joined_pieces_equal_the_input_for_any_bytes_and_any_split(chunks: list[bytes], limit: int) -> None:
    """No byte is lost, added or moved, also if frames are longer than the parser's limit."""
    assert b"".join(piece.data for piece in parse(*chunks)) == b"".join(chunks)
    assert b"".join(piece.data for piece in parse(*chunks, parser=FrameParser(limit))) == b"".join(chunks)


@pytest.mark.trap(7)
@settings(deadline=None, max_examples=200)
@given(streams, st.lists(st.integers(0, 60), max_size=8))
@example(b"data: x\r\n\r\ndata: y\r\n\r\n", [9, 10, 11])
@example(b"data: x\n\r\ndata: y", [8, 9])
@example(b"data: x\r\r\n\n\n", [8])
def test_frames_follow_the_standard_for_any_split(body: bytes, places: list[int]) -> None:
    """Frames end at blank lines with any line ends. The cuts of the socket do not move them."""
    assert frames_by_the_book(body) == parse(*cut(body, places))


@pytest.mark.trap(7)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_every_split_in_two_and_single_bytes_give_the_same_frames(body: bytes) -> None:
    """The split may be at any byte, also inside CRLF or inside a UTF-8 character."""
    whole = parse(body)
    for place in range(len(body) + 1):
        assert whole == parse(body[:place], body[place:])
    assert whole == parse(*(bytes([byte]) for byte in body))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_frame_is_returned_with_its_last_byte(end: bytes) -> None:
    """No frame waits for the next one."""
    parser = FrameParser()
    frame = b"data: 1" + end
    assert parser.feed(frame[:-1]) == []
    assert parser.feed(frame[-1:]) == [Piece(frame, True)]


def test_a_carriage_return_ends_a_frame_if_the_next_byte_is_not_a_line_feed() -> None:
    """A CR at the end of the input may become CRLF. The next byte or the end of the stream decides."""
    parser = FrameParser()
    assert parser.feed(b"data: 1\r\r") == []
    assert parser.feed(b"d") == [Piece(b"data: 1\r\r", True)]
    assert parser.feed(b"ata: 2\r\r") == []
    assert parser.flush() == [Piece(b"data: 2\r\r", True)]


def test_a_rest_without_its_blank_line_is_kept_but_is_not_a_frame() -> None:
    """Half a frame at the end of a cut stream is recorded, but it is not an event."""
    assert parse(b"data: 1\n\ndata: 2\n") == [Piece(b"data: 1\n\n", True), Piece(b"data: 2\n", False)]


def test_a_flushed_parser_is_empty() -> None:
    """It returns the rest once."""
    parser = FrameParser()
    parser.feed(b"data: 1")
    assert parser.flush() == [Piece(b"data: 1", False)]
    assert parser.flush() == []


@pytest.mark.trap(9)
def test_an_endless_frame_needs_limited_memory() -> None:
    """The parser never stores more than its limit, however long the frame is."""
    parser = FrameParser(max_frame_bytes=1000)
    fed = given_out = 0
    for _ in range(100):
        fed += 300
        given_out += sum(len(piece.data) for piece in parser.feed(b"x" * 300))
        assert fed - given_out <= 1000


@settings(deadline=None, max_examples=100)
@given(st.integers(20, 60), st.sampled_from([b"\n\n", b"\r\n\r\n", b"\n\r\n"]), st.lists(st.integers(0, 80), max_size=8))
def test_the_frame_after_an_oversized_one_is_whole(size: int, end: bytes, places: list[int]) -> None:
    """An oversized frame ends at its blank line for any cuts, and does not damage the next frame."""
    chunks = cut(b"x" * size + end + b"data: 1\n\n", places)
    assert parse(*chunks, parser=FrameParser(16))[-1] == Piece(b"data: 1\n\n", True)


def test_the_pieces_of_an_oversized_frame_are_not_frames() -> None:
    """The last piece looks like a frame, but it is only the end of one."""
    parser = FrameParser(max_frame_bytes=10)
    pieces = [piece for chunk in (b"data: 123456", b"7890\n", b"\n") for piece in parser.feed(chunk)]
    assert b"".join(piece.data for piece in pieces) == b"data: 1234567890\n\n"
    assert [piece.is_frame for piece in pieces] == [False] * len(pieces)


@pytest.mark.parametrize(
    ("frame", "name", "data"),
    [
        (b"event: a\ndata: 1\n\n", "a", "1"),
        (b"data: 1\n\n", "message", "1"),
        (b": comment\n\n", "message", ""),
        (b"event: a\n: comment\ndata: 1\n\n", "a", "1"),
        (b"data: {\ndata:  1\ndata\ndata: }\n\n", "message", "{\n 1\n\n}"),
        (b"event:a\ndata:1\n\n", "a", "1"),
        (b"data:  1 \n\n", "message", " 1 "),
        (b"event: a\r\ndata: 1\r\ndata: 2\r\n\r\n", "a", "1\n2"),
        (b"event: a\rdata: 1\rdata: 2\r\r", "a", "1\n2"),
        (b"\xef\xbb\xbfevent: a\ndata: 1\n\n", "a", "1"),
        (b"event: a\nevent: b\ndata: 1\n\n", "b", "1"),
        (b"id: 7\nretry: 10\nfuture: x\ndata: a: b\n\n", "message", "a: b"),
        ("data: a\u2028b\u2029c\u0085d\x0be\n\n".encode(), "message", "a\u2028b\u2029c\u0085d\x0be"),
        (b"data: \xff\n\n", "message", "\ufffd"),
        (b"data: 1\n", "message", "1"),
    ],
)
def test_a_frame_is_read_by_the_rules_of_the_standard(frame: bytes, name: str, data: str) -> None:
    """The cases are fields, comments, several data lines and any line end. Unicode's own line ends do not count here."""
    assert (name, data) == parse_frame(frame)


@pytest.mark.parametrize(
    ("frame", "value"),
    [
        (b'data: {"type": "ping"}\n\n', {"type": "ping"}),
        (b'data: {"a":\r\ndata: "\xc3\xa9"   }\r\n\r\n', {"a": "é"}),
        (b"data: [1]\n\n", None),
        (b"data: [DONE]\n\n", None),
        (b'data: {"a": \n\n', None),
        (b": comment\n\n", None),
    ],
)
def test_the_json_of_a_frame_is_an_object_or_none(frame: bytes, value: object) -> None:
    """Data that is not a JSON object is no error: a recorder must not fail if the client may ignore the data."""
    assert value == frame_json(frame)


def test_json_nested_too_deeply_is_none() -> None:
    """A frame that Python's JSON parser refuses is relayed like any other, and raises no exception in the client's stream."""
    depth = 100_000
    assert frame_json(b'data: {"a":' + b"[" * depth + b"]" * depth + b"}\n\n") is None


_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":"%b"}%b}\n\n'
plain = st.builds(
    lambda index, kind, text, spaces: _DELTA % (index, *kind, text, b" " * spaces),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([(b"text_delta", b"text")] * 3 + [(b"thinking_delta", b"thinking")]),
    st.sampled_from([b"word ", b"", b'\\"', b"\\u00e9", "é".encode(), b"\xff", b"event: content_block_delta"]),
    st.integers(0, 3),
)
others = st.sampled_from([b"event: ping\ndata: {}\n\n", b"id: 1\n", b"\n", b"data: x", b'{"a": "'])


@given(st.lists(plain, min_size=1, max_size=5), others, st.integers(0, 9))
@example([_DELTA % (0, b"text_delta", b"text", b"word ", b"")], b"id: 1\n", 0)
def test_plain_deltas_of_a_block_are_cut_together(frames: list[bytes], other: bytes, place: int) -> None:
    """The parser cuts and matches them like single frames if all bytes belong to them and all heads are equal, otherwise none."""
    body = b"".join(frames)
    matches = [match for frame in frames if (match := PLAIN_DELTA.fullmatch(frame)) is not None]
    heads = {frame[: match.start(3)] for frame, match in zip(frames, matches, strict=True)}
    found = plain_deltas(body)
    assert (found is not None) == (len(heads) == 1)
    if found is not None:
        assert [Piece(frame, True) for frame in found.frames] == parse(body)
        assert {(found.head, found.block, found.key)} == {(*heads, *match.groups()[:2]) for match in matches}
        assert found.text == b"".join([match[3] for match in matches])
    assert plain_deltas(b"".join([*frames[:place], other, *frames[place:]])) is None
    assert plain_deltas(body[:-1]) is None


@given(st.lists(plain | others | st.sampled_from(PARTS), max_size=8))
@example([b"\xef\xbb\xbf", _DELTA % (0, b"text_delta", b"text", b"word ", b"")])
@example([b"\r", _DELTA % (0, b"text_delta", b"text", b"word ", b"")] * 2)
def test_a_whole_body_is_cut_into_the_pieces_of_the_parser(parts: list[bytes]) -> None:
    """Plain deltas of one head that follow each other are one run. Where one begins inside of a frame, there are no runs."""
    body, parser, whole, heads = b"".join(parts), FrameParser(), FrameParser(), list[bytes]()
    expected: list[Piece | Run] = []
    for piece in whole.feed(body):
        match = PLAIN_DELTA.fullmatch(piece.data)
        last = expected[-1] if expected else None
        if match is None:
            expected.append(piece)
        elif isinstance(last, Run) and last.delta[:2] == match.groups()[:2] and heads[-1] == piece.data[: match.start(3)]:
            expected[-1] = Run(last.size + 1, (*last.delta[:2], last.delta[2] + match[3]))
        else:
            expected.append(Run(1, match.groups()))
        heads.append(piece.data if match is None else piece.data[: match.start(3)])
    found = cut_body(body, parser)
    assert found == expected or found == FrameParser().feed(body)
    assert parser.flush() == whole.flush()
