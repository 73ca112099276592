"""console: a header box, the content, and a box with statistics. Plain text if the output is not a terminal.

It respects the rule of colours (colour.py) and the width of the terminal. Rich takes 20 ms to import, so it is imported only
for a terminal.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..recorder import strict_json
from ..recorder.colour import in_colour
from ..recorder.events import Event
from ..recorder.http.prompts import PROMPT_KINDS
from ..recorder.messages import Message, result_text, usage_of
from ..recorder.words import clean, clock, cut, dollars, one_line, plural, seconds
from .base import STREAMED_KINDS, Handler, Options, StreamEnd, StreamStart
from .text import INCOMPLETE, LABELS, PROMPT_CHARS, trouble_in, under
from .typed import Opening, Typed, dim

if TYPE_CHECKING:
    from rich.console import Console as Screen

RESULT_CHARS = 200
INPUT_CHARS = 60


def _begun(text: str) -> str | None:
    """Return the beginning of a typed text, or None if it may still become a line like one of the console's own."""
    return None if any(label.startswith(text) for label in LABELS) else told_apart(text)


def told_apart(text: str) -> str:
    """Return a model's text, prefixed with `ASSISTANT: ` if it begins like a line of the console's own."""
    return f"ASSISTANT: {text}" if text.lstrip().startswith(LABELS) else text


class ConsoleOptions(Options):
    """The parts of a stream that console shows."""

    show_header: bool = True
    show_stats: bool = True
    show_tool_use: bool = True
    show_timestamps: bool = True
    show_tool_results: bool = False
    show_prompts: bool = False
    show_thinking: bool = False
    partial: bool = False


class Console(Handler):
    """Styled output for a person, and the same words without boxes and colours for a pipe.

    With `partial` a text appears as its frames arrive.
    """

    name = "console"
    Options = ConsoleOptions
    options: ConsoleOptions

    def __init__(self, options: Any, out: TextIO, folder: Path = Path()) -> None:
        super().__init__(options, out, folder)
        self._rich: Screen | None = None
        if out.isatty() or in_colour(out):
            from rich import console

            self._rich = console.Console(
                file=out, highlight=False, emoji=False, markup=False, force_terminal=True, no_color=not in_colour(out)
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        prompts = PROMPT_KINDS if self.options.show_prompts else ()
        return (*super().kinds, *prompts, *(STREAMED_KINDS if self.options.partial else ()))

    def start(self, start: StreamStart) -> None:
        self._start = start
        self._first_ns: int | None = None
        self._results: list[dict[str, Any]] = []
        self._answers: dict[object, dict[str, int]] = {}
        self._typed = Typed(self.out, _begun)
        if self.options.show_header:
            self._box(one_line(start.title), [f"{start.mode} run {start.run[:8]}, {clock(start.wall_ns)}"], "cyan")

    def message(self, message: Message) -> bool:
        if self._first_ns is None and message.type not in ("system", "result"):
            self._first_ns = message.t_ns
        if message.type == "result":
            self._results.append(message.data)
        elif message.type == "assistant" and isinstance(answer := message.data.get("message"), dict):
            self._answers[answer.get("id") or message.seq] = usage_of(answer)
        shown = (trouble := trouble_in(message)) is not None
        if trouble is not None:
            self._say(message.wall_ns, message.task, trouble, "red")
        for block in message.blocks if message.type in ("assistant", "user") else ():
            shown |= self._block(message, block)
        return shown

    def delta(self, event: Event, text: str) -> None:
        if self.options.partial:
            self._type(event, text)

    def thought(self, event: Event, text: str) -> None:
        if self.options.partial and self.options.show_thinking:
            self._type(event, text, is_thinking=True)

    def prompt(self, event: Event, text: str) -> None:
        self._say(event.wall_ns, event.task, f"USER: {cut(text, PROMPT_CHARS)}", "cyan")

    def exchange_ended(self, event: Event) -> None:
        for is_thinking in (True, False):
            self._typed.complete(event.exchange, is_thinking=is_thinking)

    def call_failed(self, event: Event, error: str) -> None:
        if not event.step:
            self._say(event.wall_ns, event.task, f"ERROR: {one_line(error)}", "red")

    def end(self, end: StreamEnd, count: int, shown: int) -> None:
        self._typed.end()
        if end.error is not None:
            self._line(f"✗ Stream error: {one_line(end.error)} after {plural(count, 'message')}", "bold red")
        elif count and not shown:
            self._line(f"0 of {count} shown; try stream_handler: debug", "yellow")
        if self.options.show_stats:
            title = "Stream failed" if end.error is not None else "Stream completed"
            self._box(title, self._statistics(end, count, shown), "red" if end.error is not None else "green")

    def _block(self, message: Message, block: dict[str, Any]) -> bool:
        match block.get("type"):
            case "text" if message.type == "assistant":
                mark = INCOMPLETE if message.data.get("incomplete") else ""
                if not self._typed.completed_by(message, mark):
                    self._say(message.wall_ns, message.task, told_apart(str(block.get("text") or "")) + mark, "")
            case "thinking" if self.options.show_thinking and block.get("thinking"):
                mark = INCOMPLETE if message.data.get("incomplete") else ""
                if not self._typed.completed_by(message, mark, is_thinking=True):
                    self._say(message.wall_ns, message.task, f"THINKING: {block['thinking']}{mark}", "dim")
            case "tool_use" | "server_tool_use" if self.options.show_tool_use:
                given = cut(strict_json.dumps(block.get("input")), INPUT_CHARS)
                self._say(message.wall_ns, message.task, f"TOOL USE: {block.get('name')} {given}", "yellow")
            case "tool_result" if self.options.show_tool_results:
                failed = bool(block.get("is_error"))
                text = f"TOOL RESULT: {'(error) ' if failed else ''}{cut(result_text(block.get('content')), RESULT_CHARS)}"
                self._say(message.wall_ns, message.task, text, "red" if failed else "dim")
            case _:
                return False
        return True

    def _statistics(self, end: StreamEnd, count: int, shown: int) -> list[str]:
        first_ns = (self._first_ns or self._start.t_ns) - self._start.t_ns
        # Sum the result messages; if there are none (a test), the exchanges; if none either (an import), the answers.
        usages = [usage_of(result) for result in self._results] or [end.usage or _summed(self._answers.values())]
        tokens_in, tokens_out = (sum(u.get(key, 0) for u in usages) for key in ("input_tokens", "output_tokens"))
        costs = [_cost_of(result) for result in self._results if result.get("usage")]
        costs = costs if self._results else [end.cost_usd]
        cost = None if None in costs or not costs else sum(filter(None, costs))
        return [
            f"Messages               {count} ({shown} shown)",
            f"Tokens                 {f'{tokens_in} in, {tokens_out} out' if any(usages) else 'unknown'}",
            f"Cost                   {'unknown' if cost is None else dollars(cost)}",
            f"Duration               {seconds(end.duration_ns)}",
            f"Average per message    {end.duration_ns / max(count, 1) / 1e6:.0f} ms",
            f"Time to first message  {first_ns / 1e6:.0f} ms",
        ]

    def _head(self, wall_ns: int, task: str) -> str:
        stamp = f"[{clock(wall_ns)}] " if self.options.show_timestamps else ""
        return f"{stamp}[{one_line(task)}] " if task else stamp

    def _type(self, event: Event, text: str, *, is_thinking: bool = False) -> None:
        def opening() -> Opening:
            head = self._head(event.wall_ns, event.task)
            return Opening(f"{head}THINKING: " if is_thinking else head, len(head) or 2, dim(self.out) if is_thinking else "")

        self._typed.piece(event.exchange, text, opening, is_thinking=is_thinking)

    def _say(self, wall_ns: int, task: str, text: str, style: str) -> None:
        self._typed.say(lambda: self._lines(self._head(wall_ns, task), text, style))

    def _lines(self, head: str, text: str, style: str) -> None:
        body = clean(text).rstrip("\n")
        if self._rich is None:
            self.write(f"{head}{under(body, len(head))}\n")
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=0)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_row(Text(head, "dim"), Text(body if head else under(body, 0), style))
        self._rich.print(grid)
        self.out.flush()

    def _line(self, text: str, style: str) -> None:
        if self._rich is None:
            self.write(f"{text}\n")
        else:
            self._rich.print(text, style=style)

    def _box(self, title: str, lines: list[str], style: str) -> None:
        if self._rich is None:
            self.write("\n".join([f"=== {title} ===", *lines]) + "\n")
            return
        from rich.panel import Panel
        from rich.text import Text

        self._rich.print(Panel(Text("\n".join(lines)), title=Text(title, "bold"), title_align="left", border_style=style))
        self.out.flush()


def _summed(usages: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, usages), Counter[str]()))


def _cost_of(result: dict[str, Any]) -> float | None:
    cost = result.get("total_cost_usd")
    return cost if isinstance(cost, int | float) else None
