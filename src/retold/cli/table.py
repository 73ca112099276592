"""Tables in plain text: columns as wide as their widest cell, in the cells of a terminal, where 東 takes two and an accent none.

On a terminal the header is bold, and the widest columns of text are shortened until a row fits. In a pipe every cell is whole.
"""

import csv
import shutil
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..recorder import strict_json, words
from ..recorder.words import clean, one_line
from .common import colours

Colour = Callable[[int, int], str]
"""Returns the SGR parameters of a cell by its row and column, such as `33`, or an empty text."""

UNKNOWN = "?"
"""The cell of an unknown figure, which is not 0."""

LEAST = 8
"""Columns of text are not shortened to fewer cells."""

NARROW = 100
"""Columns of a terminal below which a table leaves out what matters least."""

GAP = "  "

_LEFT_TO_RIGHT = "\u200e"
"""A mark that keeps a terminal from moving the columns beside a text that runs from right to left."""


def print_table(
    rows: Sequence[Sequence[str]], *, right: Collection[int] = (), colour: Colour | None = None, whole: Collection[int] = (),
    has_total: bool = False,
) -> None:  # fmt: skip
    """Print rows, of which the first is the header. The columns in `right` are aligned to the right.

    `colour` returns the SGR parameters of a cell by its row and column, or an empty text. The columns in `right` and in `whole`
    are not shortened. With `has_total` the last row is a sum of the others.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(width_of(row[column]) for row in rows) for column in range(len(rows[0]))]
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if wide is not None:
        _shorten(widths, [column for column in range(len(widths)) if column not in right and column not in whole], wide)
    strong = {0, len(rows) - 1} if has_total else {0}
    for number, row in enumerate(rows):
        cells, left = [], sys.maxsize if wide is None else wide
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            shown = fitted(cell, min(width, left))
            space = " " * (min(width, left) - width_of(shown))
            if wide is not None:
                shown = _in_place(shown)
            sgr = "1" if number in strong else ""
            if colour is not None:
                sgr = sgr or colour(number, column)
            if sgr and shown and colours():
                shown = f"\x1b[{sgr}m{shown}\x1b[0m"
            cells.append(space + shown if column in right else shown + space)
            left = max(left - width - len(GAP), 0)
        print(GAP.join(cells).rstrip())


def is_narrow() -> bool:
    """Return whether stdout is a terminal with little room for a table of many columns."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < NARROW


def width_of(text: str) -> int:
    """Return the number of cells that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # 10 ms, and most tables need it not

    return cell_len(text)


def fitted(text: str, width: int) -> str:
    """Return a text that takes at most so many cells; a shortened one ends in `…`."""
    if width_of(text) <= width:
        return text
    if width < 1:
        return ""
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1).rstrip() + "…"


def _shorten(widths: list[int], columns: Sequence[int], wide: int) -> None:
    """Shorten the widest of some columns until all columns fit into a width, or none can be shortened."""
    excess = sum(widths) + len(GAP) * (len(widths) - 1) - wide
    while excess > 0:
        widest = max(columns, key=lambda column: widths[column], default=None)
        if widest is None or widths[widest] <= LEAST:
            return
        widths[widest] -= 1
        excess -= 1


def _in_place(text: str) -> str:
    """Return a text between marks if it holds characters that run from right to left, such as Hebrew."""
    if text.isascii() or not any(unicodedata.bidirectional(each) in ("R", "AL") for each in text):
        return text
    return f"{_LEFT_TO_RIGHT}{text}{_LEFT_TO_RIGHT}"


def print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print CSV: a line of names unless there are none, then the rows. None is an empty field, and text is cleaned."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if names:
        writer.writerow(names)
    writer.writerows([clean(value) if isinstance(value, str) else value for value in row] for row in rows)


def print_csv_of(objects: Sequence[Mapping[str, Any]]) -> None:
    """Print objects that have the same keys as CSV. A list or an object in one is JSON."""
    if objects:
        rows = ([_plain(value) for value in each.values()] for each in objects)
        print_csv(list(objects[0]), rows)


def _plain(value: Any) -> Any:
    return strict_json.dumps(value) if isinstance(value, dict | list | tuple) else value


def dollars(cost_usd: float | None) -> str:
    """Return a cost in US dollars as `words.dollars` writes it; `?` for None."""
    return UNKNOWN if cost_usd is None else words.dollars(cost_usd)
