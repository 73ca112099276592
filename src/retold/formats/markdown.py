"""Export a run as a transcript in Markdown: prompts, answers, tool uses and their results."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..recorder import strict_json
from ..recorder.events import Event
from ..recorder.http.call_errors import CallCounts, call_error, outcome
from ..recorder.http.exchange import timestamp
from ..recorder.http.prompts import PROMPT_KINDS, prompt_of
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.messages import Message, result_text
from ..recorder.words import clean, plural, seconds


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the transcripts of the runs, one after the other."""
    count = 0
    for number, run in enumerate(runs):
        if number:
            out.write(b"\n---\n\n")
        out.write(_head(run, _calls(log, run)).encode())
        step = ""
        for event in log.events(run.run, kinds=("message", "exchange.ended", *PROMPT_KINDS)):
            if event.step != step:
                step = event.step
                out.write(f"\n## {_inline(step)}\n".encode())
            for part in _parts(event):
                out.write(("\n" + part + "\n").encode("utf-8", "replace"))
            count += event.kind == "message"
    return count


def _calls(log: EventLog, run: RunInfo) -> CallCounts:
    calls = CallCounts()
    for event in log.events(run.run, kinds=("exchange.ended",)):
        calls.ended(event.exchange, event.step, event.task, event.data)
    return calls


def _head(run: RunInfo, calls: CallCounts) -> str:
    took = "" if run.ended_ns is None else f", {seconds(run.ended_ns - run.started_ns)}"
    status = outcome(run.status, calls.count, calls.failed)
    summary = f"run `{run.run}`, {run.mode}, {status}, {timestamp(run.started_ns)}{took}, {plural(run.messages, 'message')}"
    return f"# {_inline(run.name) or run.run}\n\n{summary}\n"


def _parts(event: Event) -> Iterator[str]:
    if event.kind == "exchange.ended":
        if (error := call_error(event.data)) is not None:
            yield f"**ERROR:** {_inline(error)}"
        return
    if event.kind != "message":
        yield from _prompt(event)
        return
    message = Message.of(event)
    if message.type == "result":
        if message.data.get("is_error"):
            yield f"**Error** {_inline(str(message.data.get('result') or message.data.get('errors') or ''))}"
        return
    if message.type == "erased":
        yield "*[erased]*"
    for block in message.blocks:
        yield _block(block, message.type, incomplete=bool(message.data.get("incomplete")))


def _prompt(event: Event) -> Iterator[str]:
    if text := prompt_of(event):
        yield f"**User**\n\n{_quote(text)}"


def _block(block: dict[str, Any], type_: str, *, incomplete: bool) -> str:
    kind = block.get("type")
    mark = " *(incomplete)*" if incomplete else ""
    if kind == "text":
        who, text = (
            ("User", _quote(str(block.get("text", "")))) if type_ == "user" else ("Assistant", clean(str(block.get("text", ""))))
        )
        return f"**{who}**{mark}\n\n{text}"
    if kind == "thinking":
        return f"**Thinking**{mark}\n\n{_quote(str(block.get('thinking', '')))}"
    if str(kind).endswith("tool_use"):
        shown = strict_json.dumps(block.get("input"), indent=2)
        return f"**Tool use** `{_inline(str(block.get('name', '')))}`{mark}\n\n{_fenced(shown, 'json')}"
    if str(kind).endswith("tool_result"):
        failed = " *(error)*" if block.get("is_error") else ""
        return f"**Tool result**{failed}\n\n{_fenced(result_text(block.get('content')))}"
    return f"**{_inline(str(kind))}**"


def _inline(text: str) -> str:
    """Return text on one line, escaped for Markdown."""
    return re.sub(r"([\\`*_<>\[\]#|])", r"\\\1", clean(text).replace("\n", " "))


def _quote(text: str) -> str:
    return "\n".join(f"> {line}" for line in clean(text).split("\n"))


def _fenced(text: str, language: str = "") -> str:
    """Return text in a fence that is longer than any fence in it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{clean(text)}\n{fence}"
