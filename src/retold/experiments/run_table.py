"""A run as a table of a few columns, with one row marked."""

from collections.abc import Iterator, Sequence

from ..recorder.words import one_line
from .facts import TableRow

BEFORE, AFTER = 15, 5
"""The rows that are shown before and after the marked one."""


def run_table(rows: Sequence[TableRow], marked: int, *, width: int, colour: bool) -> Iterator[str]:
    """Yield the lines of a table of at most `width` columns around a marked row. The last row is always there."""
    marked = min(marked, len(rows) - 1)
    first, end = max(marked - BEFORE, 0), min(marked + AFTER + 1, len(rows))
    shown = [*range(first, end), *([len(rows) - 1] if end < len(rows) else [])]
    cells = [(one_line(rows[n].place), str(rows[n].turn or ""), one_line(rows[n].what)) for n in shown]
    header = ("where", "turn", "what")
    has_places = any(place for place, _, _ in cells)
    columns = [n for n in range(3) if n or has_places]
    widths = {n: max(len(header[n]), *(len(cell[n]) for cell in cells)) for n in columns}
    yield "  " + "  ".join([*(header[n].ljust(widths[n]) for n in columns), "content"])
    if first:
        yield f"  … {first} rows before"
    for number, cell in zip(shown, cells, strict=True):
        if number == len(rows) - 1 and end < len(rows) - 1:
            yield f"  … {len(rows) - 1 - end} rows"
        head = ("> " if number == marked else "  ") + "  ".join(cell[n].ljust(widths[n]) for n in columns) + "  "
        line = f"{head}{_cut(one_line(rows[number].content), max(width - len(head), 20))}".rstrip()
        yield f"\x1b[1;31m{line}\x1b[0m" if colour and number == marked else line


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
