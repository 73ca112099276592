"""Type incomplete text into a terminal: wrap words at the edge and indent further lines."""

import re
from collections.abc import Iterator

from rich.cells import cell_len, chop_cells

TAB = " " * 4
"""A tab is written as spaces, because its width on a terminal depends on its place."""

LONG_WORD = 24
"""A longer word, in cells, is written at once, because it may belong to a script without spaces."""

_NO_SPACES = "\u2e80-\u303f\u3041-\ua4cf\uac00-\ud7ff\uf900-\ufaff\uff01-\uff60"
_PIECES = re.compile(
    rf"\n|[^\S\n]+|[{_NO_SPACES}][\u3001\u3002\u300d\u300f\u3011\uff01\uff09\uff0c\uff0e\uff1f]*|[^\s{_NO_SPACES}]+"
)
"""Chinese, Japanese and Korean lines may break between any two characters, but not before a closing mark."""


class Typist:
    """Takes pieces of a text and returns the characters to write now.

    The last word waits for the next piece, because it may grow. Spaces and empty lines wait too, because they are dropped at
    the end of the text. `width` is the width of the terminal, `indent` that of the space before further lines, and `column` that
    of the text before the first line (the indent, if None), all in cells.
    """

    def __init__(self, width: int, indent: int, column: int | None = None) -> None:
        self._indent = indent
        self._column = indent if column is None else column
        self._waiting = ""
        self.resize(width)

    def resize(self, width: int) -> None:
        """Wrap further text at another width."""
        self._width = max(width, self._indent + 1)

    def type(self, text: str) -> str:
        """Add characters and return the text to write now."""
        text = self._waiting + text.replace("\t", TAB)
        spaces = len(text)
        # All text up to the last space is complete; the word after it may still grow.
        while spaces and not text[spaces - 1].isspace():
            spaces -= 1
        sure = len(text[:spaces].rstrip()) if cell_len(text[spaces:]) <= LONG_WORD else len(text)
        self._waiting = text[sure:]
        return self._placed(text[:sure])

    def end(self) -> str:
        """Return the text that was still waiting. Call it once, at the end."""
        last, self._waiting = self._waiting.rstrip(), ""
        return self._placed(last)

    def _placed(self, text: str) -> str:
        return "".join(part for piece in _PIECES.findall(text) for part in self._lines(piece))

    def _lines(self, piece: str) -> Iterator[str]:
        cells = cell_len(piece)
        if piece == "\n":
            yield self._next_line()
        elif piece.isspace():
            if self._column + cells < self._width:
                self._column += cells
                yield piece
            else:
                # The spaces are dropped, and the line is full: no word that follows may join the one before.
                self._column = self._width
        elif self._column + cells <= self._width:
            self._column += cells
            yield piece
        elif cells <= self._width - self._indent:
            yield self._next_line() + piece
            self._column += cells
        else:
            # A word wider than a line is cut at the edge.
            for part in chop_cells(piece, self._width - self._indent):
                if self._column > self._indent:
                    yield self._next_line()
                self._column += cell_len(part)
                yield part

    def _next_line(self) -> str:
        self._column = self._indent
        return "\n" + " " * self._indent
