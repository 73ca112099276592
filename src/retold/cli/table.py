"""Tables in plain text: columns as wide as their widest cell, cut to the terminal's width."""

import shutil
import sys
from collections.abc import Callable, Collection, Sequence

from ..recorder.words import one_line

Colour = Callable[[int, int], str]
"""Returns the SGR parameters of a cell by its row and column, such as `33`, or an empty text."""

UNKNOWN = "?"
"""The cell of an unknown figure, which is not 0."""


def print_table(
    rows: Sequence[Sequence[str]], *, cut: bool, right: Collection[int] = (), colour: Colour | None = None
) -> None:  # fmt: skip
    """Print rows, of which the first is the header. The columns in `right` are aligned to the right.

    `colour` returns the SGR parameters of a cell by its row and column, or an empty text.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    wide = shutil.get_terminal_size().columns if cut else None
    for number, row in enumerate(rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if colour is None:
            print("  ".join(cells).rstrip()[:wide])
            continue
        line, left = "", sys.maxsize if wide is None else wide
        for column, cell in enumerate(cells):
            shown = (cell if column < len(cells) - 1 else cell.rstrip())[: max(left, 0)]
            sgr = colour(number, column)
            line += (f"\x1b[{sgr}m{shown}\x1b[0m" if sgr and shown else shown) + "  "[: max(left - len(cell), 0)]
            left -= len(cell) + 2
        print(line.rstrip())


def dollars(cost_usd: float | None) -> str:
    """`$0.0123`, `$12.30`, `<$0.0001`; `?` for None."""
    if cost_usd is None:
        return UNKNOWN
    if 0 < cost_usd < 0.00005:
        return "<$0.0001"
    return f"${cost_usd:.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"
