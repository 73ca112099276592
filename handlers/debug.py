"""debug: all messages of all types, unknown ones too, with their number in the log, time and main fields."""

from collections.abc import Iterator
from typing import Any

from ..recorder import strict_json
from ..recorder.events import Event
from ..recorder.messages import Message, result_text, usage_of
from ..recorder.words import clean, indent, one_line, plural, seconds
from .base import Handler, Options, StreamEnd, StreamStart

_SAID_ELSEWHERE = frozenset({"type", "subtype", "uuid", "message", "parent_tool_use_id"})


class DebugOptions(Options):
    """The parts of a message that debug shows."""

    show_timestamps: bool = True
    show_tool_use: bool = True
    show_tool_results: bool = True


class Debug(Handler):
    """Writes blocks of lines between `=== DEBUG STREAM START` and `=== DEBUG STREAM END`."""

    name = "debug"
    Options = DebugOptions
    options: DebugOptions

    def start(self, start: StreamStart) -> None:
        self._t_ns = start.t_ns
        self.write(f"=== DEBUG STREAM START: {one_line(start.title)} (run {start.run[:8]}, {start.mode}) ===\n")

    def message(self, message: Message) -> bool:
        kind = one_line(message.type + (f":{message.subtype}" if message.subtype else ""))
        place, offset = self._head(message)
        lines = [f"{place} {kind}{offset}"]
        lines += [f"    {one_line(name)}: {indent(clean(value), 6)}" for name, value in self._fields(message)]
        self.write("\n".join(lines) + "\n")
        return True

    def call_failed(self, event: Event, error: str) -> None:
        place, offset = self._head(event)
        self.write(f"{place} ERROR: {one_line(error)}{offset}\n")

    def end(self, end: StreamEnd, count: int, shown: int) -> None:  # noqa: ARG002 - debug shows every message
        if end.error is not None:
            self.write(f"!!! {one_line(end.error)}\n")
        self.write(f"=== DEBUG STREAM END: {plural(count, 'message')} in {seconds(end.duration_ns)} ===\n")

    def _head(self, at: Message | Event) -> tuple[str, str]:
        """Return the number and the task of an event, and the time since the stream began."""
        offset = f" +{(at.t_ns - self._t_ns) / 1e9:.3f}s" if self.options.show_timestamps else ""
        return f"[{at.seq}]{f' [{one_line(at.task)}]' if at.task else ''}", offset

    def _fields(self, message: Message) -> Iterator[tuple[str, str]]:
        inner = message.data.get("message")
        if isinstance(inner, dict):
            yield from ((key, str(inner[key])) for key in ("id", "model", "stop_reason") if inner.get(key) is not None)
            for block in message.blocks:
                yield from self._block(block)
            if inner.get("usage"):
                yield "usage", _usage(inner)
        for key, value in message.data.items():
            if key == "usage" and isinstance(value, dict):
                yield "usage", _usage(message.data)
            elif key not in _SAID_ELSEWHERE and value not in (None, [], {}):
                yield key, value if isinstance(value, str) else strict_json.dumps(value)

    def _block(self, block: dict[str, Any]) -> Iterator[tuple[str, str]]:
        match block.get("type"):
            case "text":
                yield "text", str(block.get("text") or "")
            case "thinking":
                yield "thinking", str(block.get("thinking", ""))
            case "tool_use" | "server_tool_use":
                if self.options.show_tool_use:
                    yield "tool", f"{block.get('name')} ({block.get('id')})"
                    yield "input", strict_json.dumps(block.get("input"))
            case "tool_result":
                if self.options.show_tool_results:
                    name = "error" if block.get("is_error") else "result"
                    yield f"{name} ({block.get('tool_use_id')})", result_text(block.get("content"))
            case kind:
                yield str(kind), strict_json.dumps({k: v for k, v in block.items() if k != "type"})


def _usage(data: dict[str, Any]) -> str:
    numbers = {key.removesuffix("_tokens"): value for key, value in usage_of(data).items() if value}
    return ", ".join(f"{key} {value}" for key, value in numbers.items()) or "none"
