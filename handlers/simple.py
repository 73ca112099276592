"""simple: one timestamped line for each text, tool use and tool result.

[12:34:56] ASSISTANT: I'll analyze this code for you...
[12:34:57] TOOL USE: Read
[12:34:58] TOOL RESULT: File contents loaded

✓ Stream completed: 5 messages (3 shown) in 3.2s
"""

from collections.abc import Iterator

from ..recorder.messages import Message, result_text
from .base import Handler, Options, StreamEnd
from .text import clean, clock, cut, indent, plural, seconds

RESULT_CHARS = 50
"""A tool result is cut to this many characters."""


class SimpleOptions(Options):
    """What simple shows."""

    show_timestamps: bool = True
    show_tool_use: bool = True
    show_tool_results: bool = True


class Simple(Handler):
    """Lines as in the module's docstring; the time is the event's own, local."""

    name = "simple"
    Options = SimpleOptions
    options: SimpleOptions

    def message(self, message: Message) -> bool:
        lines = [self._line(message, text) for text in self._texts(message)]
        if lines:
            self.write("".join(lines))
        return bool(lines)

    def end(self, end: StreamEnd, count: int, shown: int) -> None:
        if end.error is not None:
            self.write(f"\n✗ Stream error: {clean(end.error)} after {plural(count, 'message')}\n")
            return
        said = f"{shown} shown" if shown or not count else f"0 of {count} shown; try stream_handler: debug"
        self.write(f"\n✓ Stream completed: {plural(count, 'message')} ({said}) in {seconds(end.duration_ns)}\n")

    def _texts(self, message: Message) -> Iterator[str]:
        for block in message.blocks if message.type in ("assistant", "user") else ():
            match block.get("type"):
                case "text" if message.type == "assistant":
                    mark = " [incomplete]" if message.data.get("incomplete") else ""
                    yield f"ASSISTANT: {block.get('text', '')}{mark}"
                case "tool_use" | "server_tool_use" if self.options.show_tool_use:
                    yield f"TOOL USE: {block.get('name')}"
                case "tool_result" if self.options.show_tool_results:
                    failed = "(error) " if block.get("is_error") else ""
                    yield f"TOOL RESULT: {failed}{cut(result_text(block.get('content')), RESULT_CHARS)}"

    def _line(self, message: Message, text: str) -> str:
        head = f"[{clock(message.wall_ns)}] " if self.options.show_timestamps else ""
        if message.task:
            head += f"[{clean(message.task)}] "
        return f"{head}{indent(clean(text).rstrip(chr(10)), len(head))}\n"
