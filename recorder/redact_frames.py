"""Secrets split over several pieces of a body: found across them, and removed before any of them is written.

A piece whose text ends in what may be the beginning of a secret is held back from the log (never from the client) until the
next ones tell; pieces behind it wait with it, so that their order stays. What turns out to be ordinary text is written as it
came, byte for byte. Of a secret at most three characters can have been written before it was recognisable.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .redact import REDACTED, Redactor
from .sse import PLAIN_DELTA, Piece, text_of_delta

_MIN_PREFIX = 4
"""A shorter beginning says too little: every `s` could begin a key."""

_INDEX = re.compile(rb'"index"\s*:\s*(\d+)')
_SHAPE_PREFIX = re.compile(rb"sk-a(?:n(?:t(?:-[A-Za-z0-9_\-]{0,7})?)?)?")
_LONGEST_PREFIX = len(b"sk-ant-") + 7
_SHAPE_REST = re.compile(rb"[A-Za-z0-9_\-]*")


@dataclass
class _Slot:
    """A piece on its way to the log, and where in it the text of a block stands, as JSON has it escaped."""

    piece: Piece
    start: int = 0
    text: bytes = b""
    settled: bool = True

    def put(self, text: bytes) -> None:
        data = self.piece.data
        self.piece = Piece(data[: self.start] + text + data[self.start + len(self.text) :], self.piece.is_frame)
        self.text = text


@dataclass
class _Block:
    """A text that goes on over several pieces: the end of what is settled, and the pieces that are not."""

    tail: bytes = b""
    open: list[_Slot] = field(default_factory=list)
    swallowing: bool = False

    def settle(self, text: bytes) -> None:
        self.tail = (self.tail + text)[-(_MIN_PREFIX - 1) :]
        for slot in self.open:
            slot.settled = True
        self.open = []


class FrameRedactor:
    """Takes the pieces of one uncompressed body in order and gives them back scrubbed, when nothing in them is in doubt."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        starts = {b"sk-a", *(secret[:_MIN_PREFIX] for secret in redactor.secrets)}
        either = b"|".join(map(re.escape, starts))
        self._start = re.compile(either)
        # Looked for at every place: one beginning may hide inside another (escapes of escapes).
        self._starts = re.compile(b"(?=" + either + b")")
        self._queue: deque[_Slot] = deque()
        self._blocks: dict[bytes, _Block] = {}

    def feed(self, piece: Piece) -> list[Piece]:
        """Take a piece; returns what may be written now: nothing, this piece, or those held before it too."""
        if piece.is_frame and not self._queue and self._is_ordinary(piece.data):
            return [piece]
        slot = _Slot(piece)
        if not piece.is_frame:
            slot.text = piece.data
            self._text(self._blocks.setdefault(b"", _Block()), slot)
        elif (found := text_of_delta(piece.data)) is not None:
            slot.start, slot.text = found
            number = _INDEX.search(piece.data)
            self._text(self._blocks.setdefault(b"" if number is None else number[1], _Block()), slot)
        elif b"content_block_stop" in piece.data:
            number = _INDEX.search(piece.data)
            self._end(self._blocks.pop(b"" if number is None else number[1], None))
        self._queue.append(slot)
        return self._drained()

    def _is_ordinary(self, frame: bytes) -> bool:
        """Whether a frame is a delta in which no secret begins or goes on: the rule, at the cost of three searches."""
        if self._start.search(frame) is not None or (delta := PLAIN_DELTA.fullmatch(frame)) is None:
            return False
        index, _, text = delta.groups()
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block()
        if block.swallowing or (block.tail and self._start.search(block.tail + text[: _MIN_PREFIX - 1]) is not None):
            return False
        block.tail = (block.tail + text)[-(_MIN_PREFIX - 1) :]
        return True

    def flush(self) -> list[Piece]:
        """The body is over: what is still held is not a whole secret."""
        for block in self._blocks.values():
            self._end(block)
        return self._drained()

    def _drained(self) -> list[Piece]:
        pieces = []
        while self._queue and self._queue[0].settled:
            piece = self._queue.popleft().piece
            pieces.append(Piece(self._redactor.json(piece.data), piece.is_frame))
        return pieces

    def _end(self, block: _Block | None) -> None:
        if block is not None:
            block.settle(b"")

    def _text(self, block: _Block, slot: _Slot) -> None:
        if block.swallowing:
            _swallow(block, slot)
        parts = [*block.open, slot]
        combined = block.tail + b"".join(part.text for part in parts)
        at = 0
        while (match := self._redactor.search(combined, at)) is not None:
            # What stands in the tail is written already; of a match there only the rest can still be removed.
            low, high = match.start() - len(block.tail), match.end() - len(block.tail)
            _remove(parts, max(low, 0), high)
            block.swallowing = match["shape"] is not None and match.end() == len(combined)
            combined = block.tail + b"".join(part.text for part in parts)
            at = match.end() if high <= 0 else len(block.tail) + max(low, 0) + len(REDACTED)
        if self._in_doubt(combined):
            slot.settled = False
            block.open = parts
        else:
            block.settle(b"".join(part.text for part in parts))

    def _in_doubt(self, text: bytes) -> bool:
        """Whether a secret may have begun that is not whole yet."""
        secrets = self._redactor.secrets
        longest = max((len(secret) for secret in secrets), default=0)
        for start in self._starts.finditer(text, max(0, len(text) - max(longest, _LONGEST_PREFIX))):
            rest = text[start.start() :]
            if _SHAPE_PREFIX.fullmatch(rest) or any(s.startswith(rest) and s != rest for s in secrets):
                return True
        return False


def _swallow(block: _Block, slot: _Slot) -> None:
    """The rest of a key whose end no pattern knows: as long as it goes on, it goes on being removed."""
    rest = _SHAPE_REST.match(slot.text)
    assert rest is not None
    block.swallowing = rest.end() == len(slot.text)
    slot.put(slot.text[rest.end() :])


def _remove(parts: list[_Slot], start: int, end: int) -> None:
    """Take [start:end) of the joined text out of the pieces it stands in; the first of them says REDACTED."""
    mark, at = REDACTED.encode(), 0
    for part in parts:
        size = len(part.text)
        low, high = max(start - at, 0), min(end - at, size)
        if low < high:
            part.put(part.text[:low] + mark + part.text[high:])
            mark = b""
        at += size


def redact_body(pieces: Sequence[Piece], redactor: Redactor) -> list[Piece]:
    """All pieces of a body that is whole, scrubbed: nothing waits here, so that not even a first character is left."""
    slots = [_Slot(piece) for piece in pieces]
    blocks: dict[bytes, list[_Slot]] = {}
    for slot in slots:
        if not slot.piece.is_frame:
            slot.text = slot.piece.data
            blocks.setdefault(b"", []).append(slot)
        elif (found := text_of_delta(slot.piece.data)) is not None:
            slot.start, slot.text = found
            number = _INDEX.search(slot.piece.data)
            blocks.setdefault(b"" if number is None else number[1], []).append(slot)
    for parts in blocks.values():
        at = 0
        while (match := redactor.search(b"".join(part.text for part in parts), at)) is not None:
            _remove(parts, match.start(), match.end())
            at = match.start() + len(REDACTED)
    return [Piece(redactor.json(slot.piece.data), slot.piece.is_frame) for slot in slots]
