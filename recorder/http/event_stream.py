"""The wire of Bedrock, `application/vnd.amazon.eventstream`, without I/O: bytes in, frames out, every byte kept.

A frame has a prelude (total length, length of the headers, CRC-32 of both), headers, a payload, and a CRC-32 of all of it
(https://smithy.io/2.0/aws/amazon-eventstream.html). The payload depends on the call:

1. `invoke-with-response-stream`: JSON whose `bytes` are the base64 of one event of the Messages API.
2. `converse-stream`: JSON in shapes of its own (converse.py).
3. An exception in the stream: its type is in the headers. It becomes an event `error`.
"""

import base64
import binascii
import json
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

from ..strict_json import object_in
from . import converse
from .sse import Classified, Piece

TYPE = "application/vnd.amazon.eventstream"

MAX_FRAME_BYTES = 24 * 1024 * 1024 + 128 * 1024 + 16
"""The limits of the format: 24 MB of payload, 128 kB of headers. A longer frame is damage."""

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""The bytes of a header's value by its type. Types 6 (bytes) and 7 (text) have a length of two bytes in front."""

_BYTES = re.compile(rb'"bytes"\s*:\s*"([A-Za-z0-9+/=]*)')

Clean = Callable[[bytes], bytes]
"""Returns bytes without secrets, the same object if there are none."""


def total_of(beginning: bytes | bytearray) -> int | None:
    """Return the length of the frame that begins with these bytes, or None if no frame does."""
    if len(beginning) < _PRELUDE.size:
        return None
    total, headers, checksum = _PRELUDE.unpack_from(beginning)
    fits = _PRELUDE.size + _CRC.size + headers <= total <= MAX_FRAME_BYTES
    return total if fits and crc32(beginning[:8]) == checksum else None


class EventStreamParser:
    """Cuts an event stream of Bedrock into frames.

    A frame with a wrong checksum is a piece that is no frame. Behind a wrong prelude no frame can be found any more, so the rest
    of the stream is returned as it arrives.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_lost = False

    def feed(self, data: bytes) -> list[Piece]:
        """Return the pieces that `data` completes."""
        self._buffer += data
        pieces = []
        while (piece := self._next()) is not None:
            pieces.append(piece)
        return pieces

    def _next(self) -> Piece | None:
        buffer = self._buffer
        if not self._is_lost and len(buffer) < _PRELUDE.size:
            return None
        total = len(buffer) if self._is_lost else total_of(buffer)
        if total is None:
            self._is_lost, total = True, len(buffer)
        if len(buffer) < total or not buffer:
            return None
        data = bytes(buffer[:total])
        del buffer[:total]
        return Classified(data, True) if not self._is_lost and is_frame(data) else Piece(data, False)

    @property
    def is_inside(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._buffer)

    def flush(self) -> list[Piece]:
        """Return the rest at the end of the stream: nothing, or a frame that was cut."""
        rest, self._buffer = bytes(self._buffer), bytearray()
        return [Piece(rest, False)] if rest else []


def is_frame(data: bytes) -> bool:
    """Return whether bytes are one complete frame with right checksums. No text, and no frame of another wire, is."""
    if data[:1] not in (b"\0", b"\1") or total_of(data) != len(data):
        return False
    return data.endswith(_CRC.pack(crc32(data[:-4])))


class _Header(NamedTuple):
    """A header of a frame. `value` is text for type 7, else the bytes on the wire."""

    name: bytes
    kind: int
    value: bytes


def _headers(data: bytes) -> Iterator[_Header]:
    """Yield the headers. Raise ValueError, IndexError or struct.error if they are damaged."""
    at = 0
    while at < len(data):
        size = data[at]
        name, kind, at = data[at + 1 : at + 1 + size], data[at + 1 + size], at + 2 + size
        if kind in (6, 7):
            (size,), at = struct.unpack_from(">H", data, at), at + 2
        elif (size := _SIZES.get(kind, -1)) < 0:
            raise ValueError(f"unknown type {kind} of a header")
        if at + size > len(data):
            raise ValueError("a header is longer than the headers")
        yield _Header(name, kind, data[at : at + size])
        at += size


def _packed(headers: list[_Header], payload: bytes) -> bytes:
    """Return the frame of these headers and this payload."""
    parts = []
    for name, kind, value in headers:
        length = struct.pack(">H", len(value)) if kind in (6, 7) else b""
        parts.append(bytes([len(name)]) + name + bytes([kind]) + length + value)
    packed = b"".join(parts)
    lengths = struct.pack(">II", _PRELUDE.size + len(packed) + len(payload) + _CRC.size, len(packed))
    data = lengths + _CRC.pack(crc32(lengths)) + packed + payload
    return data + _CRC.pack(crc32(data))


def _unpacked(frame: bytes) -> tuple[list[_Header], bytes] | None:
    """Return the headers and the payload of a frame, or None for any other bytes and for damaged headers."""
    if not is_frame(frame):
        return None
    end = _PRELUDE.size + _PRELUDE.unpack_from(frame)[1]
    try:
        return list(_headers(frame[_PRELUDE.size : end])), frame[end:-4]
    except (ValueError, IndexError, struct.error):
        return None


def event_of(frame: bytes) -> dict[str, Any] | None:
    """Return the event of the Messages API in a frame, or None if it holds none."""
    if (found := _unpacked(frame)) is None:
        return None
    texts = {header.name.decode("utf-8", "replace"): header.value.decode("utf-8", "replace") for header in found[0]}
    payload = object_in(found[1])
    match texts.get(":message-type"):
        case "exception":
            reason = payload.get("message", payload.get("Message"))
            rest = {name: value for name, value in payload.items() if name not in ("message", "Message", "p")}
            return {"type": "error", "error": {"type": texts.get(":exception-type"), "message": reason} | rest}
        case "error":
            return {"type": "error", "error": {"type": texts.get(":error-code"), "message": texts.get(":error-message")}}
    name = texts.get(":event-type", "")
    if name != "chunk":
        return converse.event_of(name, payload)
    try:
        value = json.loads(base64.b64decode(payload.get("bytes", ""), validate=True))
    except (ValueError, TypeError, RecursionError):  # binascii.Error among them
        return None
    return value if isinstance(value, dict) else None


# Redaction: the same text as in other wires, below base64


class Content(NamedTuple):
    """The text in a frame (JSON, without base64 around it), and whether the frame ends a block."""

    data: bytes
    ends_block: bool


def content_of(frame: bytes) -> Content | None:
    """Return the text in a frame, or None for any other bytes."""
    if (found := _unpacked(frame)) is None:
        return None
    headers, payload = found
    inner = _inner(payload)
    data = payload if inner is None else inner[1]
    ends = any(header.value == b"contentBlockStop" for header in headers)
    return Content(data, ends or b"content_block_stop" in data)


def with_content(frame: bytes, content: bytes, clean: Clean) -> bytes:
    """Return a frame with another text, headers and other parts passed through `clean`, and right lengths and checksums.

    Return the frame itself if nothing differs. Also take the beginning of a frame that was cut: it has no checksum.
    """
    if (found := _unpacked(frame)) is None:
        return _cut_clean(frame, clean)
    headers, payload = found
    kept = [
        header._replace(value=_short(header.value, clean(header.value))) if header.kind == 7 else header for header in headers
    ]
    inner = _inner(payload)
    if inner is None:
        changed = clean(content)
    elif content == inner[1] and clean(payload) is payload:
        changed = payload
    else:
        start, end = inner[0]
        changed = clean(payload[:start]) + base64.b64encode(content) + clean(payload[end:])
    return frame if kept == headers and changed == payload else _packed(kept, changed)


def _short(before: bytes, after: bytes) -> bytes:
    """Return a changed value of a header, within the length that a header can have."""
    return before if after is before else after[:0xFFFF]


def _cut_clean(data: bytes, clean: Clean) -> bytes:
    inner = _inner(data)
    if inner is None or total_of(data) is None or (text := clean(inner[1])) is inner[1]:
        return clean(data)
    start, end = inner[0]
    return clean(data[:start]) + base64.b64encode(text) + clean(data[end:])


def _inner(payload: bytes) -> tuple[tuple[int, int], bytes] | None:
    """Return the place of base64 in a payload, and the text that it encodes; None if the payload has none."""
    if (match := _BYTES.search(payload)) is None:
        return None
    whole = match[1][: len(match[1]) // 4 * 4]
    try:
        return match.span(1), base64.b64decode(whole, validate=True)
    except binascii.Error:
        return None
