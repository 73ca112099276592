"""The answer of a long exchange, read from the log again each time, and its literal block in a cassette.

An exchange of 100,000 frames would otherwise be in memory seven times: its events, their bytes, the body, its text, and the
copies of the YAML writer.
"""

import io
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from secrets import token_hex
from typing import IO, TYPE_CHECKING, Any, overload

from ..events import Event
from ..http.exchange import Response, TimedPiece
from .entry import ms_text
from .writing import dump, is_literal

if TYPE_CHECKING:
    from ..log.reading import LogReader

MANY = 500
"""An answer of more pieces is not kept in memory."""


class LoggedPieces(Sequence[TimedPiece]):
    """The pieces of an answer in the log. Each iteration reads the log again and has one page in memory. Raises LogError.

    There is at least one piece. `until` is the seq of the last event, None for an exchange without an end.
    """

    def __init__(self, log: "LogReader", started: Event, until: int | None) -> None:
        self._log = log
        self._started = started
        self._until = until

    @cached_property
    def _counted(self) -> tuple[int, int]:
        count, last_ns = 0, 0
        for piece in self:
            count, last_ns = count + 1, piece.offset_ns
        return count, last_ns

    @property
    def span_ns(self) -> tuple[int, int]:
        """The times of the first and of the last piece, after the request."""
        return self[0].offset_ns, self._counted[1]

    def __len__(self) -> int:
        return self._counted[0]

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[TimedPiece]:
        began_ns = self._started.t_ns
        for _, t_ns, kind, payload in self._log.parts(self._started.run, self._started.seq, until=self._until):
            yield TimedPiece(t_ns - began_ns, payload, kind == "frame")

    @overload
    def __getitem__(self, index: int) -> TimedPiece: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[TimedPiece, ...]: ...

    def __getitem__(self, index: int | slice) -> TimedPiece | tuple[TimedPiece, ...]:
        return next(iter(self)) if index == 0 else tuple(self)[index]

    def __repr__(self) -> str:
        return f"<LoggedPieces of run {self._started.run[:6]}, exchange {self._started.seq}>"


class LiteralBody:
    """The body of a long answer that YAML can hold in a literal block, and its times. Both are written piece by piece."""

    def __init__(self, pieces: LoggedPieces, offsets_ns: "array[int]", header: str) -> None:
        mark = token_hex(16)
        self.body, self.offsets = f"body-{mark}", f"offsets-{mark}"
        """Texts that take the places of body and times in an entry."""
        self._pieces = pieces
        self._offsets_ns = offsets_ns
        self._header = header

    @classmethod
    def of(cls, response: Response | None) -> "LiteralBody | None":
        """Return the body of a response in the log, None if it is short or no literal block holds it. Read all pieces once."""
        if response is None or not isinstance(response.pieces, LoggedPieces):
            return None
        pieces, offsets_ns, filled, ending = response.pieces, array("q"), 0, b""
        for number, piece in enumerate(pieces):
            if not (piece.is_frame and piece.data.endswith(b"\n") and is_literal(piece.data, first=number == 0)):
                return None
            offsets_ns.append(piece.offset_ns)
            filled += piece.data.strip(b"\n") != b""
            ending = (ending + piece.data)[-2:]
        header = "|+\n" if ending == b"\n\n" else "|\n"
        return cls(pieces, offsets_ns, header) if filled > 1 else None

    def dump(self, entry: dict[str, Any], file: IO[str]) -> None:
        """Write the entry as the item of a list, with body and times in the places of their marks."""
        text = io.StringIO()
        dump([entry], text)
        before, _, rest = text.getvalue().partition(self.body)
        between, _, after = rest.partition(self.offsets)
        line = before[before.rindex("\n") + 1 :]
        file.write(before + self._header)
        self._write_lines(file, b" " * (len(line) - len(line.lstrip()) + 2))
        file.write(between.removeprefix("\n"))
        for start in range(0, len(self._offsets_ns), MANY):
            part = " ".join(map(ms_text, self._offsets_ns[start : start + MANY]))
            file.write(f" {part}" if start else part)
        file.write(after)

    def _write_lines(self, file: IO[str], indent: bytes) -> None:
        for piece in self._pieces:
            file.write(b"\n".join([indent + line if line else b"" for line in piece.data.split(b"\n")]).decode())
