"""Find secrets that are split over several pieces of a body, and remove them before a piece is written.

If a piece ends with the possible beginning of a secret, its writing is delayed (never its way to the client) until later pieces
settle the question. The pieces behind it wait too, to keep the order. Ordinary text is written unchanged, byte for byte. At most
three characters of a secret are written before it can be recognised.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..http.encodings import Decoder, decoder_for
from ..http.event_stream import content_of, total_of, with_content
from ..http.exchange import Headers, Parser, frame_parser
from ..http.sse import PLAIN_DELTA, Classified, Deltas, Piece, text_of_delta
from .redactor import MARK, Redactor
from .shapes import MAX_OPEN_BYTES, MIN_PREFIX

_TAIL_BYTES = 48
"""The length of the preceding text that is kept: an edge, three characters of a secret, the name in front of one."""

_INDEX = re.compile(rb'"(?:index|contentBlockIndex)"\s*:\s*(\d+)')
_REST = re.compile(rb"[A-Za-z0-9_\-.+/=]*")


@dataclass(slots=True)
class _Slot:
    """A piece on its way to the log, and the place of a block's text in it, with JSON's escapes.

    A frame of Bedrock holds its text below base64. Then `piece` is that text, and `packed` is the frame.
    """

    piece: Piece
    delta: tuple[bytes | Any, ...] | None = None
    start: int = 0
    text: bytes = b""
    settled: bool = True
    is_changed: bool = False
    packed: bytes | None = None
    ends_block: bool = False

    def put(self, text: bytes) -> None:
        self.is_changed = True
        data = self.piece.data
        self.piece = Piece(data[: self.start] + text + data[self.start + len(self.text) :], self.piece.is_frame)
        self.text = text

    def clean(self, redactor: Redactor) -> bytes:
        """Return the bytes of the piece without secrets; the same object as `wire` if nothing is removed."""
        data = redactor.data(self.piece.data)
        return data if self.packed is None else with_content(self.packed, data, redactor.data)

    @property
    def wire(self) -> bytes:
        """The bytes of the piece, with the texts that were put into it."""
        return self.piece.data if self.packed is None else self.packed


@dataclass(slots=True)
class _Block:
    """A text that continues over several pieces: the end of the settled part, and the pieces that are not settled."""

    tail: bytes = b""
    open: list[_Slot] = field(default_factory=list)
    swallowing: bool = False
    head: bytes = b""
    """The last head of a frame of this text; it holds no secret."""
    wary: bool = False
    """Whether the tail holds a possible beginning of a secret, so that the next piece needs the complete check."""


def _slot(piece: Piece) -> tuple[_Slot, bytes | None]:
    """Return a piece with its text, and the number of the block that the text belongs to; None if it has no text."""
    if not piece.is_frame:
        if total_of(piece.data) is None:
            return _Slot(piece, text=piece.data), b""
        return _Slot(piece, packed=piece.data), None  # a frame of Bedrock that was cut
    packed, ends = None, b"content_block_stop" in piece.data
    # A frame of Bedrock begins with its length, a frame of text does not.
    if piece.data[:1] <= b"\1" and (content := content_of(piece.data)) is not None:
        packed, ends = piece.data, content.ends_block
        piece = Piece(content.data, True)
    if (found := text_of_delta(piece.data)) is None:
        return _Slot(piece, packed=packed, ends_block=ends), None
    number = _INDEX.search(piece.data)
    start, text = found
    return _Slot(piece, start=start, text=text, packed=packed), b"" if number is None else number[1]


def _classified(piece: Piece, delta: tuple[bytes | Any, ...] | None) -> Classified:
    """Return a frame with its match. The frames of a parser take it themselves: making another one costs as much as matching."""
    if not isinstance(piece, Classified):
        piece = Classified(*piece)
    piece.delta = delta
    return piece


class FrameRedactor:
    """Takes the pieces of one uncompressed body in order, and returns them without secrets.

    A piece is returned as soon as no secret can be split over its end.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._beginning = redactor.beginning
        self._max_open = max(MAX_OPEN_BYTES, 8 * redactor.longest)
        self._queue: deque[_Slot] = deque()
        self._blocks: dict[bytes, _Block] = {}
        self.found = False
        """Whether a secret was removed."""

    @property
    def waiting(self) -> bool:
        """Whether a piece is delayed."""
        return bool(self._queue)

    def feed(self, piece: Piece) -> list[Piece]:
        """Take a piece; return the pieces that may be written now: none, this one, or also those delayed before it."""
        # Fast way: nearly all frames are plain deltas in which no secret begins.
        delta = None
        if piece.is_frame and (match := PLAIN_DELTA.fullmatch(piece.data)) is not None:
            delta = match.groups()
            if self._is_ordinary(piece.data[: match.start(3)], delta[0], delta[2]):
                return [_classified(piece, delta)]
        # Complete check: the text of the piece joins the text of its block. A frame without text waits only for those before it.
        slot, number = _slot(piece)
        slot.delta = delta
        if number is not None:
            self._text(self._blocks.setdefault(number, _Block()), slot)
        elif slot.ends_block:  # the text of the block is complete
            index = _INDEX.search(slot.piece.data)
            if (block := self._blocks.pop(b"" if index is None else index[1], None)) is not None:
                self._settle(block)
        self._queue.append(slot)
        return self._drained()

    def passes(self, deltas: Deltas) -> bool:
        """Return whether all of these frames may be written now, unchanged. If not, give them to `feed`, one by one."""
        return self._is_ordinary(deltas.head, deltas.block, deltas.text)

    def _is_ordinary(self, head: bytes, index: bytes, new: bytes) -> bool:
        """Return whether no secret begins or continues in plain deltas of a block, with this head and the text `new`.

        One search decides, instead of the complete check.
        """
        if self._queue:
            return False
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block()
        text = block.tail + new
        # A beginning may be split over the tail and the new text: its first part has fewer than MIN_PREFIX characters.
        if block.wary or self._beginning.search(text, max(0, len(block.tail) - MIN_PREFIX + 1)) is not None:
            return False
        if head != block.head:
            if not self._redactor.is_clean(head):
                return False
            block.head = head
        block.tail = text[-_TAIL_BYTES:]
        return True

    def flush(self) -> list[Piece]:
        """Return the delayed pieces at the end of the body."""
        for block in self._blocks.values():
            self._settle(block)
        return self._drained()

    def _drained(self) -> list[Piece]:
        pieces = []
        while self._queue and self._queue[0].settled:  # in order: a settled piece waits for those before it
            slot = self._queue.popleft()
            data = slot.clean(self._redactor)
            is_changed = data is not slot.wire
            self.found = self.found or is_changed
            # The text of a frame changes with the removal of a secret, so folding matches the frame again.
            is_same = slot.piece.is_frame and not is_changed and not slot.is_changed
            same = Piece(data, True) if slot.packed is not None else slot.piece
            pieces.append(_classified(same, slot.delta) if is_same else Piece(data, slot.piece.is_frame))
        return pieces

    def _text(self, block: _Block, slot: _Slot) -> None:
        if block.swallowing:  # the last secret has no end yet: its characters at the beginning of this piece go, too
            rest = _REST.match(slot.text)
            assert rest is not None
            block.swallowing = rest.end() == len(slot.text)
            slot.put(slot.text[rest.end() :])
        block.open.append(slot)
        slot.settled = False
        text = block.tail + b"".join([part.text for part in block.open])
        if len(text) >= self._max_open or not self._redactor.is_open(text):
            self._settle(block, text)

    def _settle(self, block: _Block, text: bytes | None = None) -> None:
        """Remove the secrets in the delayed pieces. They are complete now."""
        if text is None:
            text = block.tail + b"".join([part.text for part in block.open])
        written = len(block.tail)  # the tail is in the log already; only the part of a secret behind it can be removed
        spans = [(max(start - written, 0), end - written) for start, end in self._redactor.find(text) if end > written]
        for start, end in reversed(spans):  # from the end, so that the places before stay valid
            _remove(block.open, start, end)
            self.found = True
        # The secret is too long to be delayed: remove its continuation, too.
        block.swallowing = bool(spans) and len(text) >= self._max_open and spans[-1][1] + written == len(text)
        block.tail = (block.tail + b"".join([part.text for part in block.open]))[-_TAIL_BYTES:]
        block.wary = block.swallowing or self._beginning.search(block.tail) is not None
        for part in block.open:
            part.settled = True
        block.open = []


class PackedRedactor:
    """Takes the wire bytes of a compressed body, and returns them when no secret can be split over the end of their content.

    Compressed bytes cannot be changed. From the first secret on, `found` is set and only the content is returned, redacted.
    """

    def __init__(self, redactor: Redactor, headers: Headers) -> None:
        self.decoder: Decoder = decoder_for(headers)
        self._headers = headers
        self._scrub = FrameRedactor(redactor)
        self._parser: Parser | None = None
        self._began = False
        self._held: list[bytes] = []

    @property
    def found(self) -> bool:
        """Whether the body holds a secret."""
        return self._scrub.found

    @property
    def has_frames(self) -> bool:
        """Whether the content is an event stream."""
        return self._parser is not None

    def feed(self, data: bytes) -> tuple[list[bytes], list[Piece]]:
        """Take wire bytes; return the wire bytes, and the pieces of their content, that may be written now."""
        content = self.decoder.decode(data)
        self._held.append(data)
        if content and not self._began:
            self._began = True
            self._parser = frame_parser(self._headers, content)
        pieces = self._cut(content) if content else []
        inside = self._parser is not None and self._parser.is_inside
        return self._released(waiting=inside or self._scrub.waiting), pieces

    def flush(self) -> tuple[list[bytes], list[Piece]]:
        """Return the rest at the end of the body."""
        pieces = [] if self._parser is None else self._parser.flush()
        clean = [clean for piece in pieces for clean in self._scrub.feed(piece)] + self._scrub.flush()
        return self._released(waiting=False), clean

    def _cut(self, content: bytes) -> list[Piece]:
        pieces = [Piece(content, False)] if self._parser is None else self._parser.feed(content)
        return [clean for piece in pieces for clean in self._scrub.feed(piece)]

    def _released(self, *, waiting: bool) -> list[bytes]:
        if waiting or self.found:
            return []
        held, self._held = self._held, []
        return held


Edit = tuple[int, int, bytes]
"""The start and the end of a part of a text, and the text that takes its place."""

Edits = Callable[[bytes], Sequence[Edit]]
"""Returns the edits of a text, in order."""


def _remove(parts: list[_Slot], start: int, end: int, mark: bytes = MARK) -> None:
    """Replace [start:end) of the joined text in its pieces; the first of them gets the mark."""
    at = 0
    for part in parts:
        size = len(part.text)
        low, high = max(start - at, 0), min(end - at, size)
        if low < high:
            part.put(part.text[:low] + mark + part.text[high:])
            mark = b""
        at += size


def _edited(pieces: Sequence[Piece], edits: Edits) -> tuple[list[_Slot], set[int]]:
    """Return the pieces of a complete body with edited texts, and the numbers of the pieces that have a text."""
    slots: list[_Slot] = []
    blocks: dict[bytes, list[_Slot]] = {}
    with_text = set()
    for at, piece in enumerate(pieces):
        slot, number = _slot(piece)
        slots.append(slot)
        if number is not None:
            with_text.add(at)
            blocks.setdefault(number, []).append(slot)
    for parts in blocks.values():
        for start, end, text in reversed(edits(b"".join([part.text for part in parts]))):
            _remove(parts, start, end, text)
    return slots, with_text


def redact_body(pieces: Sequence[Piece], redactor: Redactor) -> list[Piece]:
    """Return all pieces of a complete body without secrets. No piece is written early, so not even a first character is left."""
    slots, _ = _edited(pieces, lambda text: [(start, end, MARK) for start, end in redactor.find(text)])
    return [Piece(slot.clean(redactor), slot.piece.is_frame) for slot in slots]


def edit_body(pieces: Sequence[Piece], edits: Edits) -> list[Piece]:
    """Return all pieces of a complete body with edited texts, also of texts that are split over several pieces.

    A piece without such a text is edited as a whole. The edits must leave JSON as JSON.
    """

    def edited(data: bytes) -> bytes:
        for start, end, text in reversed(edits(data)):
            data = data[:start] + text + data[end:]
        return data

    slots, with_text = _edited(pieces, edits)
    found = []
    for at, slot in enumerate(slots):
        data = slot.piece.data if at in with_text else edited(slot.piece.data)
        if slot.packed is not None:
            data = with_content(slot.packed, data, lambda part: part)
        found.append(Piece(data, slot.piece.is_frame))
    return found
