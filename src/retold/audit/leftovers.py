"""Search the bytes after an erasure: is a text left in the log's files, or in a cassette of its runs?

The tables are searched first (`erase.plan_text`), because only they join split and compressed texts. This module reads every file
as bytes and finds each spelling: with escapes, in any case, with accents composed in any way.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from ..recorder.cassette.format import read_cassette
from ..recorder.errors import RetoldError
from ..recorder.log.log import EventLog
from ..recorder.secrets.shapes import fold
from .occurrences import Matches, contains, texts_of_exchange, texts_of_session

WINDOW_BYTES = 1 << 20
_ESCAPED_BYTES = 16
"""The most bytes of one character, with escapes of escapes."""

_MIN_VALUE_CHARS = 8
"""A shorter value of a pattern may be in a digest or an index by chance."""


def plain(text: str) -> str:
    """Return a text folded, as the search in the windows needs it."""
    return fold(text.encode("utf-8", "surrogatepass")).data.decode("utf-8", "replace")


def any_of(values: Iterable[str]) -> tuple[Matches, int]:
    """Return a search for redacted values and the length of the longest; short ones and numbers are left out."""
    wanted = [plain(value) for value in values if len(value) >= _MIN_VALUE_CHARS and not value.isdecimal()]
    return (lambda text: any(value in text for value in wanted)), max(map(len, wanted), default=0)


def cassettes_of(log: EventLog) -> list[Path]:
    """Return the cassettes that the runs of a log were recorded to and that exist."""
    found: dict[Path, None] = {}
    for info in log.runs():
        for event in log.events(info.run, kinds=("run.started",)):
            name = event.data.get("cassette") if isinstance(event.data, dict) else None
            if isinstance(name, str) and Path(name).is_file():
                found[Path(name)] = None
    return list(found)


def left_behind(log: EventLog, text: str) -> list[str]:
    """Return the names of the log's files with a text in their bytes."""
    return _files_with(log, contains(plain(text)), len(text))


def _files_with(log: EventLog, matches: Matches, chars: int) -> list[str]:
    files = sorted(path for path in log.path.parent.glob(log.path.name + "*") if path.is_file())
    return [path.name for path in files if any(map(matches, _windows(path, chars)))]


def _windows(path: Path, chars: int) -> Iterator[str]:
    """The content of a file, folded, in windows that overlap by the longest spelling of so many characters."""
    overlap, before = chars * _ESCAPED_BYTES, b""
    with open(path, "rb") as file:
        while data := file.read(WINDOW_BYTES):
            window = before + data
            yield fold(window).data.decode("utf-8", "replace")
            before = window[-overlap:]


def check_files(log: EventLog, cassettes: Iterable[Path], matches: Matches, chars: int) -> None:
    """Raise RetoldError with the names of the files in which an erased text is still found."""
    left = _files_with(log, matches, chars)
    if left:
        raise RetoldError(
            f"the text is still found in {', '.join(left)}: in the name of a step or task, which the hash chain covers (prune "
            "those runs), in a run that went on (do the same again), or, being short, by chance."
        )
    held = [str(path) for path in cassettes if _cassette_has(path, matches, chars)]
    if held:
        raise RetoldError(
            f"the log holds the text no longer, but a cassette does: {', '.join(held)}. It is not touched: edit it, or record it "
            "again."
        )


def _cassette_has(path: Path, matches: Matches, chars: int) -> bool:
    if any(map(matches, _windows(path, chars))):
        return True
    try:
        held = read_cassette(path)
    except RetoldError:
        return False  # the file is no cassette, or no longer; its bytes were searched
    texts = chain(*map(texts_of_exchange, held.exchanges), *map(texts_of_session, held.sessions))
    return any(map(matches, texts))
