"""Server-sent events without I/O: bytes in, frames out, every byte kept.

`FrameParser.feed` takes bytes, split anywhere, and returns the frames that they complete: raw bytes up to and including the
blank line. Joined, all returned bytes equal all fed bytes. Lines end in LF, CRLF or CR
(https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
"""

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""A longer frame is returned in pieces, so that an endless one cannot fill the memory."""

# Two line ends in a row. A CR at the very end may still become CRLF, so it does not end a frame yet.
_FRAME_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?=[^\n]))")
_LINE_END = re.compile(r"\r\n|\n|\r")


class Piece(NamedTuple):
    """Bytes of a body: one complete frame, or a piece of another body."""

    data: bytes
    is_frame: bool


class Classified(Piece):
    """A frame of a stream, which is matched with `PLAIN_DELTA` once: redaction matches it, and folding uses the result."""

    delta: tuple[bytes | Any, ...] | None = None
    """Index, key and escaped text of a plain delta; None for every other frame, and before redaction."""


class FrameParser:
    """Cuts an event stream into frames. Memory is bounded by `max_frame_bytes` and one fed chunk."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._broken = False
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> list[Piece]:
        """Return the pieces that `data` completes: frames, or parts of a frame that is longer than the limit."""
        # The end of a frame may have begun in the last three bytes of the earlier chunks.
        search = max(0, len(self._buffer) - 3)
        buffer: bytes | bytearray = data  # not copied if no frame is open, as for most chunks of the API
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        pieces, start = [], 0
        for match in _FRAME_END.finditer(buffer, search):
            end = match.end()
            frame = bytes(buffer[start:end])
            pieces.append(Piece(frame, False) if self._broken else Classified(frame, True))  # the rest of a cut frame is none
            self._broken = False
            start = end
        self._keep(buffer, start)
        if len(self._buffer) > self._max:
            # Keep the tail, because it may hold the beginning of the blank line that ends the frame.
            pieces.append(Piece(bytes(self._buffer[:-3]), False))
            del self._buffer[:-3]
            self._broken = True
        return pieces

    def _keep(self, buffer: bytes | bytearray, start: int) -> None:
        """Keep the incomplete rest. It grows in place, so that a long frame in small chunks is copied once."""
        if buffer is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += buffer[start:]

    @property
    def is_inside(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._buffer)

    def flush(self) -> list[Piece]:
        """Return the rest at the end of the stream: nothing, or a frame without its blank line."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        # `feed` kept a lone CR at the end. At the end of the stream it is a line end.
        return [Piece(rest, bool(_ends_with_blank_line(rest)) and not self._broken)] if rest else []


def _ends_with_blank_line(data: bytes) -> bool:
    return data.endswith((b"\n\r", b"\r\r"))


_HEAD = (
    rb'event: content_block_delta\ndata: \{"type":"content_block_delta","index":(0|[1-9]\d{0,8}+),"delta":\{"type":"\w++",'
    rb'"(?!type")(\w++)":"'
)
_TEXT = rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_END = rb'"\} *+\} *+\n\n'

PLAIN_DELTA = re.compile(rb"%b(%b)%b" % (_HEAD, _TEXT, _END))
"""The usual form of a delta: index, name and text of its one string, with JSON's escapes.

A matching frame needs no JSON parser. A frame that does not match may still be a delta."""

_PLAIN_DELTAS = re.compile(rb"((%b)(%b)%b)" % (_HEAD, _TEXT, _END))


class Deltas(NamedTuple):
    """Consecutive plain deltas with one head: they belong to one block and differ in their texts only."""

    frames: tuple[bytes, ...]
    head: bytes
    block: bytes
    """The number of the block."""
    key: bytes
    text: bytes
    """The texts of all frames, joined, with JSON's escapes."""


def plain_deltas(data: bytes) -> Deltas | None:
    """Return the frames of `data` if it is a sequence of plain deltas with one head, and nothing else.

    Most chunks of a stream are. One search cuts and matches all frames, at a fourth of the cost of cutting them one by one.
    """
    first = _PLAIN_DELTAS.match(data)
    if first is None:
        return None
    if first.end() == len(data):
        return Deltas((data,), *first.groups()[1:])
    found = _PLAIN_DELTAS.findall(data)
    frames, heads, blocks, keys, texts = zip(*found, strict=True)
    # Matches do not overlap. If they are as long as the data, nothing is between them.
    if sum(map(len, frames)) != len(data) or heads.count(heads[0]) != len(heads):
        return None
    return Deltas(frames, heads[0], blocks[0], keys[0], b"".join(texts))


Delta = tuple[bytes | Any, ...]
"""A plain delta, as `PLAIN_DELTA` cuts it: index of the block, key and escaped text."""


class Run(NamedTuple):
    """Consecutive plain deltas with one head: their number, and the one delta that they come to."""

    size: int
    delta: Delta


_DELTA_HEAD = re.compile(_HEAD)


@lru_cache(64)
def _patterns(head: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the pattern of plain deltas with a head, and that of the bytes between their texts.

    A text holds no line break, so the second pattern is never found inside of one.
    """
    head = re.escape(head)
    return re.compile(rb"(?:%b%b%b)++" % (head, _TEXT, _END)), re.compile(rb"%b(?:%b)?" % (_END, head))


def cut_body(body: bytes, parser: FrameParser) -> list[Piece | Run]:
    """Return the pieces of `parser.feed(body)` for a new parser, with a run in place of plain deltas that follow each other.

    One match finds the deltas of a block, at a twentieth of the cost of a piece for each.
    """
    pieces: list[Piece | Run] = []
    at = end = 0
    while (first := _DELTA_HEAD.search(body, at)) is not None:
        start, at = first.span()
        deltas, between = _patterns(first[0])
        if (run := deltas.match(body, start)) is None:
            continue
        if start > end:
            before = FrameParser()
            pieces += before.feed(body[end:start])
            if before.is_inside:  # the match is not a frame, but a part of one
                return [*parser.feed(body)]
        text, size = between.subn(b"", body[at : run.end()])
        pieces.append(Run(size, (first[1], first[2], text)))
        at = end = run.end()
    return pieces + parser.feed(body[end:])


# A string of JSON (group 2 is empty if its end is missing), or a brace. Each character is looked at once.
_JSON_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)("?)|[{}]', re.DOTALL)


def text_of_delta(frame: bytes) -> tuple[int, bytes] | None:
    """Return the start of a delta's text in its frame, and the text with JSON's escapes; None for any other frame.

    The text is the first string in the object `delta` that is not its type, or the `completion` of the old API. Tokens find
    it, not a JSON parser, because a redactor replaces bytes. The cost is linear in the frame.
    """
    if b'"delta"' not in frame and b'"completion"' not in frame:
        return None
    # `key` is the last string, if it may be a key; `value_of` is the key of the current token, if a colon is between them;
    # `depth` counts braces from the object `delta` on, and is 0 outside of it.
    key, value_of, end, depth = b"", b"", 0, 0
    for token in _JSON_TOKEN.finditer(frame):
        value_of = key if key and frame[end : token.start()].strip() == b":" else b""
        key, end = b"", token.end()
        if token[0] == b"{":
            depth += 1 if depth or value_of == b"delta" else 0
        elif token[0] == b"}":
            depth -= 1 if depth else 0
        elif value_of and token[2]:
            if (depth and value_of != b"type") or value_of == b"completion":
                return token.start(1), token[1]
        elif token[2]:
            key = token[1]
    return None


_PLAIN = re.compile(rb"event: ([^\r\n]*)\ndata: ([^\r\n]*)\n\n")
"""The usual form of a frame of the API: two lines, LF."""


def parse_frame(frame: bytes) -> tuple[str, str]:
    """Return the event name and data of a frame, as a browser reads them; `("message", "")` for a comment alone."""
    if (plain := _PLAIN.fullmatch(frame)) is not None:
        return plain[1].decode("utf-8", "replace"), plain[2].decode("utf-8", "replace")
    name, data = "message", []
    for line in _LINE_END.split(frame.decode("utf-8", "replace").removeprefix("\ufeff")):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return name, "\n".join(data)


def frame_json(frame: bytes) -> dict[str, Any] | None:
    """Return the frame's data as a JSON object, or None if it is another value."""
    data = parse_frame(frame)[1]
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
