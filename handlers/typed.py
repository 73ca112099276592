"""Type the texts of a stream while their pieces arrive: one text at a time, so that concurrent answers do not mix in a line.

1. The first text to begin is typed. It ends with its message.
2. Texts of other exchanges are kept meanwhile, and whole lines wait. Both follow, in order, when the typed text ends.
3. A kept text that is complete before its turn is a message like any other, which the handler writes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from shutil import get_terminal_size
from typing import TYPE_CHECKING, NamedTuple, TextIO

from ..recorder.colour import in_colour
from ..recorder.messages import Message
from ..recorder.words import clean, indent

if TYPE_CHECKING:
    from .typist import Typist


class Opening(NamedTuple):
    """The beginning of a text: `head` precedes its first piece, further lines get `margin` spaces; `sgr` is its style."""

    head: str
    margin: int
    sgr: str = ""


@dataclass(slots=True)
class _Text:
    """A text whose message is not complete. `written` is whether its head has been written."""

    head: str
    margin: int
    sgr: str
    is_thinking: bool
    waiting: str = ""
    written: bool = False
    typist: "Typist | None" = None


@dataclass(slots=True)
class Typed:
    """The incomplete texts of one stream, by exchange. `out` is the screen.

    `begins` gets the beginning of a text and returns the text to type, or None if it has to grow first. Lines wrap only on a
    terminal.
    """

    out: TextIO
    begins: Callable[[str], str | None] = lambda text: text
    _texts: dict[int | None, _Text] = field(default_factory=dict)
    _typing: bool = False
    _lines: list[Callable[[], None]] = field(default_factory=list)

    def piece(self, exchange: int | None, text: str, opening: Callable[[], Opening], *, is_thinking: bool = False) -> None:
        """Add a piece to the text of an exchange. `opening` is called if it is the first one."""
        if not (text.isascii() and text.isprintable()):
            text = clean(text)
        if (found := self._texts.get(exchange)) is not None and found.is_thinking != is_thinking:
            self.complete(exchange, is_thinking=found.is_thinking)
            found = None
        if found is None:
            found = self._texts[exchange] = _Text(*opening(), is_thinking)
        found.waiting += text
        if found is self._first():
            self._type(found)

    def complete(self, exchange: int | None, mark: str = "", *, is_thinking: bool = False) -> bool:
        """End the text of an exchange, and `mark` it. Return False if it was not typed, so that the caller writes its message.

        A message without an exchange completes the text that is being typed.
        """
        key = next(iter(self._texts), None) if exchange is None else exchange
        found = self._texts.get(key)
        if found is None or found.is_thinking != is_thinking:
            return False
        typed = found.written
        if typed:
            ending = mark if found.typist is None else found.typist.type(mark) + found.typist.end()
            self._write(_styled(found, ending) + "\n")
            self._typing = False
        del self._texts[key]
        if typed:
            self._go_on()
        return typed

    def completed_by(self, message: Message, mark: str = "", *, is_thinking: bool = False) -> bool:
        """End the text of a message as `complete` does. The messages of subagents have no typed text."""
        if message.data.get("parent_tool_use_id") is not None:
            return False
        return self.complete(message.exchange, mark, is_thinking=is_thinking)

    def say(self, lines: Callable[[], None]) -> None:
        """Call a function that writes whole lines, now or after the text that is being typed."""
        if self._typing:
            self._lines.append(lines)
        else:
            lines()

    def line(self, text: str, *, head: str, margin: int, sgr: str = "") -> None:
        """Write a whole text, now or after the text that is being typed, wrapped like a typed one."""

        def write() -> None:
            whole = _Text(head, margin, sgr, is_thinking=False)
            typist = self._typist(whole)
            wrapped = indent(clean(text), margin) if typist is None else typist.type(clean(text)) + typist.end()
            self._write(f"{head}{_styled(whole, wrapped.rstrip())}\n")

        self.say(write)

    def end(self) -> None:
        """End all texts, because no further piece comes. A text that has not been typed is dropped: no message holds it."""
        while self._typing:
            first = next(iter(self._texts))
            self.complete(first, is_thinking=self._texts[first].is_thinking)
        self._texts.clear()

    def _go_on(self) -> None:
        """Write the lines that waited, then type the next text."""
        lines, self._lines = self._lines, []
        for each in lines:
            each()
        if (following := self._first()) is not None and following.waiting:
            self._type(following)

    def _first(self) -> _Text | None:
        return next(iter(self._texts.values()), None)

    def _type(self, text: _Text) -> None:
        head = ""
        if not text.written:
            begun = text.waiting if text.is_thinking else self.begins(text.waiting)
            if begun is None:
                return
            text.waiting, text.written, text.typist = begun, True, self._typist(text)
            head = text.head
        self._typing = True
        if text.typist is not None:
            text.typist.resize(get_terminal_size().columns)
        now = text.waiting
        if text.typist is not None:
            now = text.typist.type(now)
        elif "\n" in now:
            now = indent(now, text.margin)
        text.waiting = ""
        self._write(head + _styled(text, now))

    def _typist(self, text: _Text) -> "Typist | None":
        if not self.out.isatty():
            return None
        from rich.cells import cell_len

        from .typist import Typist

        return Typist(get_terminal_size().columns, text.margin, cell_len(text.head))

    def _write(self, now: str) -> None:
        self.out.write(now)
        self.out.flush()


def _styled(text: _Text, now: str) -> str:
    return f"\x1b[{text.sgr}m{now}\x1b[0m" if text.sgr and now else now


def dim(out: TextIO) -> str:
    """Return the SGR parameter of thinking in an output."""
    return "2" if in_colour(out) else ""
