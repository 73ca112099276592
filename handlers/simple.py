"""simple: one timestamped line for each text, tool use and tool result.

[12:34:56] ASSISTANT: I'll analyze this code for you...
[12:34:57] TOOL USE: Read
[12:34:58] TOOL RESULT: File contents loaded

✓ Stream completed: 5 messages (3 shown) in 3.2s
"""

from collections.abc import Iterator

from ..recorder.events import Event
from ..recorder.http.prompts import PROMPT_KINDS
from ..recorder.messages import Message, result_text
from ..recorder.words import clean, clock, cut, one_line, plural, seconds
from .base import STREAMED_KINDS, Handler, Options, StreamEnd, StreamStart
from .text import INCOMPLETE, PROMPT_CHARS, arguments, trouble_in, under
from .typed import Opening, Typed, dim

RESULT_CHARS = 50
"""A tool result is cut to this many characters."""


class LineOptions(Options):
    """The parts of a stream that become lines."""

    show_timestamps: bool = True
    show_tool_use: bool = True
    show_tool_results: bool = True


class SimpleOptions(LineOptions):
    """The parts of a stream that simple shows. With `partial` a text appears while its frames arrive."""

    show_steps: bool = False
    show_prompts: bool = False
    show_thinking: bool = False
    show_tool_input: bool = False
    partial: bool = False


class Simple(Handler):
    """Writes lines as in the module's docstring. The time is that of the event, in local time."""

    name = "simple"
    Options = SimpleOptions
    options: SimpleOptions

    @property
    def kinds(self) -> tuple[str, ...]:
        prompts = PROMPT_KINDS if self.options.show_prompts else ()
        return (*super().kinds, *prompts, *(STREAMED_KINDS if self.options.partial else ()))

    def start(self, start: StreamStart) -> None:
        self._typed = Typed(self.out)
        self._is_screen = self.out.isatty()
        self._prompts: set[str] = set()
        if self.options.show_steps and start.step:
            self.write(f"STEP: {one_line(start.step)}\n")

    def message(self, message: Message) -> bool:
        texts = list(_texts(message, self.options))
        if message.type == "user":  # a session repeats what the program wrote to it
            texts = [text for text in texts if text not in self._prompts]
        for text in texts:
            if not text.startswith(("ASSISTANT: ", "THINKING: ")) or not self._was_typed(message, text):
                self._say(message, text)
        return bool(texts)

    def delta(self, event: Event, text: str) -> None:
        if self.options.partial:
            self._type(event, text, "ASSISTANT: ")

    def thought(self, event: Event, text: str) -> None:
        if self.options.partial and self.options.show_thinking:
            self._type(event, text, "THINKING: ", is_thinking=True)

    def prompt(self, event: Event, text: str) -> None:
        line = f"USER: {cut(text, PROMPT_CHARS)}"
        self._prompts.add(line)
        self._say(event, line)

    def exchange_ended(self, event: Event) -> None:
        for is_thinking in (True, False):
            self._typed.complete(event.exchange, is_thinking=is_thinking)

    def call_failed(self, event: Event, error: str) -> None:
        if not event.step:
            self._typed.say(lambda: self.write(lines_of_error(event, error, self._stamp(event))))

    def end(self, end: StreamEnd, count: int, shown: int) -> None:
        self._typed.end()
        said = f"{shown} shown" if shown or not count else f"0 of {count} shown; try stream_handler: debug"
        self.write(f"\n{footer(end, count, said)}\n")

    def _stamp(self, at: Message | Event) -> str:
        return clock(at.wall_ns) if self.options.show_timestamps else ""

    def _say(self, at: Message | Event, text: str) -> None:
        head = _head(at.task, self._stamp(at))
        if self._is_screen:
            self._typed.line(text, head=head, margin=len(head) or 2, sgr=dim(self.out) if text.startswith("THINKING: ") else "")
        else:
            self._typed.say(lambda: self.write(_line(head, text)))

    def _type(self, event: Event, text: str, label: str, *, is_thinking: bool = False) -> None:
        def opening() -> Opening:
            head = _head(event.task, self._stamp(event))
            return Opening(head + label, len(head) or 2, dim(self.out) if is_thinking else "")

        self._typed.piece(event.exchange, text, opening, is_thinking=is_thinking)

    def _was_typed(self, message: Message, text: str) -> bool:
        mark = INCOMPLETE if message.data.get("incomplete") else ""
        return self._typed.completed_by(message, mark, is_thinking=text.startswith("THINKING: "))


def footer(end: StreamEnd, count: int, said: str) -> str:
    """Return the line under a stream."""
    if end.error is not None:
        return f"✗ Stream error: {one_line(end.error)} after {plural(count, 'message')}"
    return f"✓ Stream completed: {plural(count, 'message')} ({said}) in {seconds(end.duration_ns)}"


def lines_of(message: Message, options: LineOptions, stamp: str) -> str:
    """Return the lines that show a message, each with its time and task, or an empty text if the message is not shown."""
    head = _head(message.task, stamp)
    return "".join(_line(head, text) for text in _texts(message, options))


def lines_of_error(event: Event, error: str, stamp: str) -> str:
    """Return the line that shows a failed call: `[12:34:56] ERROR: 400 invalid_request_error: max_tokens: too large`."""
    return f"{_head(event.task, stamp)}ERROR: {one_line(error)}\n"


def _head(task: str, stamp: str) -> str:
    return f"{f'[{stamp}] ' if stamp else ''}{f'[{one_line(task)}] ' if task else ''}"


def _line(head: str, text: str) -> str:
    return f"{head}{under(clean(text).rstrip(chr(10)), len(head))}\n"


_NOTHING_FURTHER = SimpleOptions.model_construct()
"""The options of lines that show nothing more than LineOptions ask for. To make one takes longer than to make a line."""


def _texts(message: Message, options: LineOptions) -> Iterator[str]:
    further = options if isinstance(options, SimpleOptions) else _NOTHING_FURTHER
    if (trouble := trouble_in(message)) is not None:
        yield trouble
    kind = message.type
    for block in message.blocks if kind in ("assistant", "user") else ():
        match block.get("type"):
            case "text" if kind == "assistant":
                yield f"ASSISTANT: {block.get('text') or ''}{INCOMPLETE if message.data.get('incomplete') else ''}"
            case "text" if further.show_prompts:
                yield f"USER: {cut(str(block.get('text') or ''), PROMPT_CHARS)}"
            case "thinking" if further.show_thinking and block.get("thinking"):
                yield f"THINKING: {block['thinking']}{INCOMPLETE if message.data.get('incomplete') else ''}"
            case "tool_use" | "server_tool_use" if options.show_tool_use:
                given = f" {arguments(block.get('input'))}" if further.show_tool_input and block.get("input") else ""
                yield f"TOOL USE: {block.get('name')}{given}"
            case "tool_result" if options.show_tool_results:
                failed = "(error) " if block.get("is_error") else ""
                yield f"TOOL RESULT: {failed}{cut(result_text(block.get('content')), RESULT_CHARS)}"
