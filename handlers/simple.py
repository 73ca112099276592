"""simple: one timestamped line for each text, tool use and tool result.

[12:34:56] ASSISTANT: I'll analyze this code for you...
[12:34:57] TOOL USE: Read
[12:34:58] TOOL RESULT: File contents loaded

✓ Stream completed: 5 messages (3 shown) in 3.2s
"""

from collections.abc import Iterator

from ..recorder.events import Event
from ..recorder.messages import Message, result_text
from ..recorder.words import clean, one_line, plural
from .base import Handler, Options, StreamEnd
from .text import clock, cut, seconds, under

RESULT_CHARS = 50
"""A tool result is cut to this many characters."""


class SimpleOptions(Options):
    """The parts of a stream that simple shows."""

    show_timestamps: bool = True
    show_tool_use: bool = True
    show_tool_results: bool = True


class Simple(Handler):
    """Writes lines as in the module's docstring. The time is that of the event, in local time."""

    name = "simple"
    Options = SimpleOptions
    options: SimpleOptions

    def message(self, message: Message) -> bool:
        stamp = clock(message.wall_ns) if self.options.show_timestamps else ""
        if lines := lines_of(message, self.options, stamp):
            self.write(lines)
        return bool(lines)

    def call_failed(self, event: Event, error: str) -> None:
        if not event.step:
            self.write(lines_of_error(event, error, clock(event.wall_ns) if self.options.show_timestamps else ""))

    def end(self, end: StreamEnd, count: int, shown: int) -> None:
        said = f"{shown} shown" if shown or not count else f"0 of {count} shown; try stream_handler: debug"
        self.write(f"\n{footer(end, count, said)}\n")


def footer(end: StreamEnd, count: int, said: str) -> str:
    """Return the line under a stream."""
    if end.error is not None:
        return f"✗ Stream error: {one_line(end.error)} after {plural(count, 'message')}"
    return f"✓ Stream completed: {plural(count, 'message')} ({said}) in {seconds(end.duration_ns)}"


def lines_of(message: Message, options: SimpleOptions, stamp: str) -> str:
    """Return the lines that show a message, each with its time and task, or an empty text if the message is not shown."""
    head = f"[{stamp}] " if stamp else ""
    if message.task:
        head += f"[{one_line(message.task)}] "
    return "".join(f"{head}{under(clean(text).rstrip(chr(10)), len(head))}\n" for text in _texts(message, options))


def lines_of_error(event: Event, error: str, stamp: str) -> str:
    """Return the line that shows a failed call: `[12:34:56] ERROR: 400 invalid_request_error: max_tokens: too large`."""
    return f"{f'[{stamp}] ' if stamp else ''}{f'[{one_line(event.task)}] ' if event.task else ''}ERROR: {one_line(error)}\n"


def trouble_in(message: Message) -> str | None:
    """Return the failure that a message reports while its stream continues: a failed task, or an attempt to be repeated.

    The footer reports the failure of a whole stream.
    """
    data = message.data
    if message.type == "result" and message.task and data.get("is_error"):
        return f"ERROR: {next(iter(data.get('errors') or ()), data.get('subtype'))}"
    if message.type == "system" and message.subtype == "step_retry":
        attempt = f"attempt {int(data['attempt']) + 1} of {int(data['max_retries']) + 1}"
        return f"RETRY: {attempt} in {int(data['retry_delay_ms']) / 1000:g}s, after {data['error']}"
    return None


def _texts(message: Message, options: SimpleOptions) -> Iterator[str]:
    if (trouble := trouble_in(message)) is not None:
        yield trouble
    for block in message.blocks if message.type in ("assistant", "user") else ():
        match block.get("type"):
            case "text" if message.type == "assistant":
                mark = " [incomplete]" if message.data.get("incomplete") else ""
                yield f"ASSISTANT: {block.get('text') or ''}{mark}"
            case "tool_use" | "server_tool_use" if options.show_tool_use:
                yield f"TOOL USE: {block.get('name')}"
            case "tool_result" if options.show_tool_results:
                failed = "(error) " if block.get("is_error") else ""
                yield f"TOOL RESULT: {failed}{cut(result_text(block.get('content')), RESULT_CHARS)}"
