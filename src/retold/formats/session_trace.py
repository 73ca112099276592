"""Session traces of the Hugging Face Hub: one conversation as JSON Lines, which the Hub's trace viewer shows.

The format: https://huggingface.co/docs/hub/session-traces-format. The Hub reads transcripts of Claude Code too, so a run that is
one is better exported as `transcript`.

1. The first line names the session. Each further line is a message of the role user, assistant, system or tool.
2. All tasks and subagents of a run are in the one conversation, in the order of their times.
3. A message has texts only. Another block is named in brackets.
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.events import encode
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.messages import result_text
from .turns import Prompt, Said, Tool, turns

HARNESS = "retold"
"""The name of the program that wrote a trace."""


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the trace of one run, and return the number of its messages. Raises LogError."""
    (run,) = runs
    messages = sorted(_messages(log, run), key=lambda timed: timed[0])  # texts only, so all of them are in memory
    if not messages:
        raise InputError(f"run {run.run} ({run.name}) has no messages to export.")
    replay = {"replay": True} if run.mode == "mock" else {}
    out.write(encode({"type": "session", "harness": HARNESS, "id": run.run, "name": run.name, **replay}) + b"\n")
    for at_ns, message in messages:
        out.write(encode({"type": "message", "message": message | {"timestamp": at_ns // 1_000_000}}) + b"\n")
    return len(messages)


def _messages(log: EventLog, run: RunInfo) -> Iterator[tuple[int, dict[str, Any]]]:
    for turn in turns(log, run.run):
        match turn:
            case Prompt():
                if turn.system:
                    yield turn.at_ns, {"role": "system", "content": result_text(turn.system)}
                for message in turn.earlier:
                    yield turn.at_ns, {"role": str(message.get("role")), "content": result_text(message.get("content"))}
                if turn.blocks:
                    yield turn.at_ns, {"role": "user", "content": result_text(turn.blocks)}
            case Said() if turn.blocks:
                yield turn.ended_ns, _answer(turn)
            case Tool() if turn.ended_ns is not None:
                said = {"role": "tool", "toolCallId": turn.id, "content": result_text(turn.result.get("content"))}
                yield max(turn.ended_ns, turn.answer.ended_ns), said


def _answer(turn: Said) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": result_text([b for b in turn.blocks if not _is_apart(b)]),
        "model": turn.model,
    }
    if thought := [str(b.get("thinking", "")) for b in turn.blocks if b.get("type") == "thinking"]:
        message["reasoningContent"] = "\n".join(thought)
    if turn.tools:
        calls = ((tool.id, {"name": tool.name, "arguments": strict_json.dumps(tool.block.get("input"))}) for tool in turn.tools)
        message["toolCalls"] = [{"id": id_, "function": function} for id_, function in calls]
    return message


def _is_apart(block: dict[str, Any]) -> bool:
    kind = str(block.get("type", ""))
    return kind == "thinking" or kind.endswith(("tool_use", "tool_result"))
