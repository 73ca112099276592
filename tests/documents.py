"""The pages of the documentation, and their code blocks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "STREAMING_GUIDE.md"])

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A code block: its language, its text without indentation, and its first line."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """Return the file that its first line names (`# hello.py`), or None."""
        match = re.fullmatch(r"# (\S+\.(?:py|yaml|ini))", self.text.partition("\n")[0])
        return None if match is None else match[1]


def blocks_of(page: Path) -> Iterator[Block]:
    """Return every fenced block of a page."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        indent = len(match[1])
        lines = [line[indent:] for line in match[3].splitlines(keepends=True)]
        yield Block(match[2], "".join(lines), text.count("\n", 0, match.start()) + 1)


def prose_of(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))
