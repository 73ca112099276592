"""Tables in plain text: columns as wide as their widest cell, cut to the terminal's width."""

import shutil
from collections.abc import Collection, Sequence

from ..recorder.words import one_line

UNKNOWN = "?"
"""The cell of an unknown figure, which is not 0."""


def print_table(rows: Sequence[Sequence[str]], *, cut: bool, right: Collection[int] = ()) -> None:
    """Print rows, of which the first is the header. The columns in `right` are aligned to the right."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    wide = shutil.get_terminal_size().columns if cut else None
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip()[:wide])


def dollars(cost_usd: float | None) -> str:
    """`$0.0123`, `$12.30`, `<$0.0001`; `?` for None."""
    if cost_usd is None:
        return UNKNOWN
    if 0 < cost_usd < 0.00005:
        return "<$0.0001"
    return f"${cost_usd:.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"
