"""Full-text search over everything that was said: newest first, page by page, narrowed by run, step, type, tool, model, time.

The query language is that of FTS5 where it means something: words, "a phrase", beginn*, AND, OR, NOT, parentheses. Whatever
else a person types (claude-3, a/path, it's) is looked for as it stands. Hits are never ranked: to rank a common word FTS5
must look at every row that has it.
"""

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from ..recorder.errors import InputError

MARKS = "\x02", "\x03"
"""Stand around what was found, in the text that the index gives back."""

_TOKEN = re.compile(r'"((?:[^"]|"")*)"(\s*\*)?|([()])|([^\s()"]+)')
_PLAIN = re.compile(r"[\w\u0080-\U0010ffff]+\*?")
_OPERATORS = ("AND", "OR", "NOT")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, `number` from 1, and [start, end) of what was found in it."""

    number: int
    text: str
    found: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """An event whose words fit. `id` is its place in the index, by which the next page goes on."""

    id: int
    run: str
    name: str
    seq: int
    wall_ns: int
    step: str
    type: str
    tool: str
    model: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What a search is narrowed by; times are nanoseconds since the epoch, `before` is a hit's id."""

    run: str | None = None
    step: str | None = None
    type: str | None = None
    tool: str | None = None
    model: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    before: int | None = None


def search(
    index: sqlite3.Connection, query: str, narrowed: Narrowed = Narrowed(), *, limit: int = 20, oldest: bool = False
) -> Iterator[Hit]:
    """Hits in an open index (index.opened), newest first or oldest first. Raises InputError for a query that says nothing."""
    match = f"{{text}} : ({to_fts(query)})"
    for column in ("run", "step", "type", "tool", "model"):
        value = getattr(narrowed, column)
        if value is not None:
            match += f" AND {column} : {_quoted(value)}"
    low = 0 if narrowed.since_ns is None else narrowed.since_ns // 1000
    high = 2**62 if narrowed.until_ns is None else narrowed.until_ns // 1000
    high = high if narrowed.before is None else min(high, narrowed.before)
    statement = (
        "SELECT t.rowid, t.run, ifnull((SELECT name FROM log.runs r WHERE r.run = t.run), ''), t.seq, t.step, t.type, t.tool, "
        "t.model, highlight(texts, 0, ?, ?) FROM texts t "
        f"WHERE texts MATCH ? AND t.rowid >= ? AND t.rowid < ? ORDER BY t.rowid {'ASC' if oldest else 'DESC'}"
    )
    try:
        rows = index.execute(statement, (*MARKS, match, low, high))
        for row in rows:
            hit = _hit(row)
            # The index compares words, so that `Read` also finds `mcp read`; the column says what it is.
            if all(_fits(getattr(narrowed, column), getattr(hit, column)) for column in ("run", "step", "tool", "model")):
                yield hit
                limit -= 1
                if limit == 0:
                    return
    except sqlite3.OperationalError as error:
        if "fts5" not in str(error) and "unterminated" not in str(error):
            raise
        raise InputError(
            f'cannot read the search {query!r}: an operator lacks a word, or a parenthesis its other one. Words, "a phrase", '
            "beginn*, AND, OR, NOT (between words) and parentheses can be used; put an operator in quotes to look for it."
        ) from error


def to_fts(query: str) -> str:
    """A person's search as FTS5 reads it. Raises InputError."""
    parts: list[str] = []
    rest = 0
    for token in _TOKEN.finditer(query):
        if query[rest : token.start()].strip():
            break
        rest = token.end()
        phrase, star, parenthesis, word = token.groups()
        if phrase is not None:
            parts.append(f'"{phrase}"' + ("*" if star else ""))
        elif parenthesis:
            parts.append(parenthesis)
        elif word in _OPERATORS or (_PLAIN.fullmatch(word) and word.rstrip("*") != "NEAR"):
            parts.append(word)
        else:
            parts.append(_quoted(word.removesuffix("*")) + ("*" if word.endswith("*") else ""))
    if query[rest:].strip():
        raise InputError(
            f'cannot read the search {query!r}: a quotation mark lacks its other one. A phrase is written "like this".'
        )
    if not any(re.search(r"\w", part) for part in parts if part not in _OPERATORS):
        raise InputError(f"the search {query!r} has no word to look for.")
    return " ".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _fits(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower() or wanted.lower() in value.lower().split(" ")


def _hit(row: tuple[int, str, str, int, str, str, str, str, str]) -> Hit:
    id_, run, name, seq, step, type_, tool, model, marked = row
    return Hit(id_, run, name, seq, id_ * 1000, step, type_, tool, model, tuple(_lines(marked)))


def _lines(marked: str) -> Iterator[Line]:
    """Marked text as lines; what was found may go on over several."""
    inside = False
    for number, part in enumerate(marked.split("\n"), 1):
        text, found, start = "", [], 0 if inside else -1
        for piece in re.split(f"([{MARKS[0]}{MARKS[1]}])", part):
            if piece == MARKS[0]:
                start, inside = len(text), True
            elif piece == MARKS[1]:
                found.append((max(start, 0), len(text)))
                inside = False
            else:
                text += piece
        if inside:
            found.append((max(start, 0), len(text)))
        yield Line(number, text, tuple(found))


def context(lines: tuple[Line, ...], around: int) -> list[list[Line]]:
    """The lines in which something was found with so many around them, as groups without gaps."""
    last = len(lines) - 1
    spans = [range(max(at - around, 0), min(at + around, last) + 1) for at, line in enumerate(lines) if line.found]
    wanted = sorted({near for span in spans for near in span})
    groups: list[list[Line]] = []
    for at in wanted:
        if groups and groups[-1][-1].number == lines[at].number - 1:
            groups[-1].append(lines[at])
        else:
            groups.append([lines[at]])
    return groups
