"""Search the text of all messages: newest first, page by page, narrowed by run, step, type, tool, model and time.

1. A query is an expression of FTS5: words, "a phrase", beginn*, AND, OR, NOT, parentheses.
2. Any other text (claude-3, a/path, it's, foo.bar() is searched for literally.
3. A search without a word (=>) reads every text.

Hits are never ranked: to rank a common word, FTS5 must read every row that has it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..recorder.errors import InputError
from .index import FACETS, LAST, MARKS, Index, IndexedText, TextQuery, quoted
from .texts import readable, storable

_TOKEN = re.compile(r'"((?:[^"]|"")*)"(\s*\*)?(?![^\s()])|([()])|([^\s()]+(?:\([^\s()]*\)?[^\s()]*)*)')
"""A phrase with or without a star, a parenthesis, or a word, which may contain parentheses: `foo.bar(baz)`."""

_PLAIN = re.compile(r"[\w\u0080-\U0010ffff]+\*?")
_OPERATORS = ("AND", "OR", "NOT")


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of a text, `number` from 1, and [start, end) of each match in it."""

    number: int
    text: str
    found: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A matching event. `id` is its place in the index; the next page continues from it."""

    id: int
    run: str
    name: str
    seq: int
    wall_ns: int
    step: str
    type: str
    tool: str
    model: str
    lines: tuple[TextLine, ...]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Limits of a search. Times are nanoseconds since the epoch, `before` is the id of a hit, `runs` are ids."""

    run: str | None = None
    step: str | None = None
    type: str | None = None
    tool: str | None = None
    model: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    before: int | None = None
    runs: frozenset[str] | None = None


def search(index: Index, query: str, narrowed: Narrowed = Narrowed(), *, limit: int = 20, oldest: bool = False) -> Iterator[Hit]:
    """Yield hits in an open index, newest first or oldest first. Raises InputError for an empty query."""
    words = to_fts(query)
    facets = {column: value for column in FACETS if (value := getattr(narrowed, column)) is not None}
    high = LAST if narrowed.until_ns is None else narrowed.until_ns // 1000
    wanted = TextQuery(
        words=words,
        signs="" if words is not None else storable(query.strip().strip('"')),
        facets=tuple(facets.items()),
        low=0 if narrowed.since_ns is None else narrowed.since_ns // 1000,
        high=high if narrowed.before is None else min(high, narrowed.before),
        oldest=oldest,
        runs=narrowed.runs,
    )
    for found in index.texts(wanted):
        # The index compares words, so `Read` also finds the tool `mcp read`. Compare with the whole value of the column.
        if all(_fits(value, getattr(found, column)) for column, value in facets.items() if column != "type"):
            yield _hit(found)
            limit -= 1
            if limit == 0:
                return


def to_fts(query: str) -> str | None:
    """Return a user's search in the language of FTS5, or None if it has only signs and no word. Raises InputError if it is blank.

    A search that is no expression (an operator without a word, an unbalanced parenthesis) is a list of words.
    """
    if not query.strip().strip('"').strip():
        raise InputError(f"the search {query!r} is empty.")
    parser = _Parser(list(_TOKEN.finditer(query)))
    found = parser.expression()
    if parser.rest:
        words = [_word(each, each.removesuffix("*") != each) for each in query.replace('"', " ").split()]
        found = " AND ".join(filter(None, words))
    return found or None


class _Parser:
    """Parses `expression = group {(AND | OR | NOT) group}`. A group is a sequence of words. `rest` are the tokens after it."""

    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self.rest = tokens
        self._depth = 0

    def expression(self) -> str:
        """Return the parsed expression in the language of FTS5. Operators with a side without words are left out."""
        found = self._group() if self._can_begin(0) else ""
        while found and self.rest and (operator := self.rest[0][0]) in _OPERATORS and self._can_begin(1):
            del self.rest[0]
            other = self._group()
            found = f"{found} {operator} {other}" if other else found
        return found

    def _can_begin(self, at: int) -> bool:
        """Return whether a group can begin with a token, which is then neither an operator nor a closing parenthesis."""
        return at < len(self.rest) and self.rest[at][0] not in (*_OPERATORS, ")")

    def _group(self) -> str:
        parts: list[str] = []
        while self._can_begin(0):
            token = self.rest[0]
            phrase, star, parenthesis, word = token.groups()
            if parenthesis:
                before = self.rest
                self.rest = before[1:]
                inner = self.expression()
                if not self.rest or self.rest[0][0] != ")":
                    self.rest = before
                    break
                parts.append(f"({inner})" if inner else "")
            else:
                parts.append(
                    _word(phrase.replace('""', '"'), bool(star)) if phrase is not None else _word(word, word.endswith("*"))
                )
            del self.rest[0]
        words = list(filter(None, parts))
        if len(words) > 1:
            return f"({' AND '.join(words)})"
        return words[0] if words else ""


def _word(text: str, is_beginning: bool) -> str:
    """Return a word or a phrase in the language of FTS5, empty if the tokenizer finds no word in it."""
    text = storable(text.rstrip("*") if is_beginning else text)
    if not any(character.isalnum() or "\ue000" <= character <= "\uf8ff" for character in text):
        return ""
    plain = _PLAIN.fullmatch(text) and text not in (*_OPERATORS, "NEAR")
    return (text if plain else quoted(text)) + ("*" if is_beginning else "")


def _fits(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower() or wanted.lower() in value.lower().split(" ")


def _hit(found: IndexedText) -> Hit:
    lines = tuple(_lines(found.marked))
    return Hit(
        found.id, found.run, found.name, found.seq, found.id * 1000, found.step, found.type, found.tool, found.model, lines
    )


def _lines(marked: str) -> Iterator[TextLine]:
    """Yield the lines of a marked text. A match may continue over several lines."""
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
                text += readable(piece)
        if inside:
            found.append((max(start, 0), len(text)))
        yield TextLine(number, text, tuple(found))


def context(lines: tuple[TextLine, ...], around: int) -> list[list[TextLine]]:
    """Return the lines with matches and so many lines around them, as groups without gaps."""
    last = len(lines) - 1
    spans = [range(max(at - around, 0), min(at + around, last) + 1) for at, line in enumerate(lines) if line.found]
    wanted = sorted({near for span in spans for near in span})
    groups: list[list[TextLine]] = []
    for at in wanted:
        if groups and groups[-1][-1].number == lines[at].number - 1:
            groups[-1].append(lines[at])
        else:
            groups.append([lines[at]])
    return groups
