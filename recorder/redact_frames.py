"""Secrets split over several deltas of a stream: found across frames, and removed before any of them is written.

A frame whose text ends in what may be the beginning of a secret is held back from the log (never from the client) until the
next frames tell; frames behind it wait with it, so that their order stays. What turns out to be ordinary text is written as
it came, byte for byte. Of a secret at most three characters can have been written before it was recognisable.
"""

import re
from dataclasses import dataclass

from .redact import REDACTED, Redactor
from .sse import Piece

_MIN_PREFIX = 4
"""A shorter beginning says too little: every `s` could begin a key."""

_DELTA = re.compile(
    rb'"delta"\s*:\s*\{[^}]*?"(?!type")\w+"\s*:\s*"((?:[^"\\]|\\.)*)"|"completion"\s*:\s*"((?:[^"\\]|\\.)*)"', re.DOTALL
)
_INDEX = re.compile(rb'"index"\s*:\s*(\d+)')
_SHAPE_PREFIX = re.compile(rb"sk-a(?:n(?:t(?:-[A-Za-z0-9_\-]{0,7})?)?)?")
_SHAPE_REST = re.compile(rb"[A-Za-z0-9_\-]*")


@dataclass
class _Delta:
    """A frame with text of a block: where the text stands in it, as JSON has it escaped."""

    piece: Piece
    start: int
    text: bytes

    def put(self, text: bytes) -> None:
        data = self.piece.data
        self.piece = Piece(data[: self.start] + text + data[self.start + len(self.text) :], True)
        self.text = text


class FrameRedactor:
    """Takes the pieces of one response in order and gives them back scrubbed, as soon as nothing in them is in doubt."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        starts = {b"sk-a", *(secret[:_MIN_PREFIX] for secret in redactor.secrets)}
        self._starts = re.compile(b"|".join(re.escape(start) for start in starts))
        self._held: list[Piece | _Delta] = []
        self._index: bytes | None = None
        self._open: list[_Delta] = []
        self._before = b""
        self._tails: dict[bytes, bytes] = {}
        self._swallowing: set[bytes] = set()

    def feed(self, piece: Piece) -> list[Piece]:
        """Take a piece; returns what may be written now: nothing, this piece, or everything held and this piece."""
        piece = Piece(self._redactor.data(piece.data), piece.is_frame)
        found = _DELTA.search(piece.data) if piece.is_frame else None
        if found is None:
            return self._other(piece)
        group = 1 if found[1] is not None else 2
        number = _INDEX.search(piece.data)
        index = b"" if number is None else number[1]
        delta = _Delta(piece, found.start(group), found[group])
        if index in self._swallowing:
            self._swallow(index, delta)
        if self._open and index != self._index:
            self._held.append(delta)  # another block, in between: its own beginnings are not looked for while this one is open
            return []
        return self._text(index, delta)

    def flush(self) -> list[Piece]:
        """The stream is over: what is still held is not a whole secret."""
        return self._release()

    def _other(self, piece: Piece) -> list[Piece]:
        if b"content_block_stop" in piece.data or b"message_stop" in piece.data or not piece.is_frame:
            return [*self._release(), piece]
        if self._held:
            self._held.append(piece)
            return []
        return [piece]

    def _text(self, index: bytes, delta: _Delta) -> list[Piece]:
        if not self._open:
            self._index, self._before = index, self._tails.get(index, b"")
        parts = [*self._open, delta]
        combined = self._before + b"".join(part.text for part in parts)
        match = self._redactor.search(combined)
        if match is not None and match.end() > len(self._before):
            _remove(parts, match.start() - len(self._before), match.end() - len(self._before))
            if match.end() == len(combined):
                self._swallowing.add(index)
            return self._settle(index, delta)
        if self._in_doubt(combined):
            self._open.append(delta)
            self._held.append(delta)
            return []
        return self._settle(index, delta)

    def _settle(self, index: bytes, delta: _Delta) -> list[Piece]:
        """Nothing is in doubt any more: give back what was held, and this frame."""
        pieces = self._release()
        self._tails[index] = (self._tails.get(index, b"") + delta.text)[-(_MIN_PREFIX - 1) :]
        return [*pieces, delta.piece]

    def _in_doubt(self, text: bytes) -> bool:
        """Whether a secret may have begun that is not whole yet."""
        for start in self._starts.finditer(text):
            rest = text[start.start() :]
            if _SHAPE_PREFIX.fullmatch(rest) or any(s.startswith(rest) and s != rest for s in self._redactor.secrets):
                return True
        return False

    def _swallow(self, index: bytes, delta: _Delta) -> None:
        """The rest of a key whose end no pattern knows: as long as it goes on, it goes on being removed."""
        rest = _SHAPE_REST.match(delta.text)
        assert rest is not None
        if rest.end() < len(delta.text):
            self._swallowing.discard(index)
        delta.put(delta.text[rest.end() :])

    def _release(self) -> list[Piece]:
        pieces = [part.piece if isinstance(part, _Delta) else part for part in self._held]
        if self._open and self._index is not None:
            text = self._before + b"".join(part.text for part in self._open)
            self._tails[self._index] = text[-(_MIN_PREFIX - 1) :]
        self._held, self._open = [], []
        return pieces


def _remove(parts: list[_Delta], start: int, end: int) -> None:
    """Take [start:end) of the joined text out of the frames it stands in; the first of them says REDACTED."""
    mark, at = REDACTED.encode(), 0
    for part in parts:
        size = len(part.text)
        low, high = max(start - at, 0), min(end - at, size)
        if low < high:
            part.put(part.text[:low] + mark + part.text[high:])
            mark = b""
        at += size
