"""Read session traces of the Hugging Face Hub (session_trace.py): each message becomes a line of a talk. A trace has no usage."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..recorder.errors import InputError
from ..recorder.files import open_regular
from ..recorder.messages import Session, content_blocks
from ..recorder.strict_json import object_in, object_or_empty
from .talks import Talk

_ROLES = ("user", "assistant", "system", "tool")
_UNIT = ("", "")


def is_ours(line: dict[str, Any]) -> bool:
    """Return whether a line of JSON is the first one of a trace. Sessions of Pi have no messages of this form."""
    return line.get("type") == "session" and isinstance(line.get("harness"), str)


def read(path: Path) -> Talk:
    """Return the messages of a trace. Raises InputError with file and line."""
    talk, at_ns = Talk(path.name.partition(".")[0]), 0
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if line.get("type") == "session":
            talk.name = str(line.get("name") or talk.name)
            talk.session = Session(f"trace {line.get('harness')} {line.get('id')}")
            continue
        message = object_or_empty(line.get("message"))
        content = message.get("content")
        if line.get("type") != "message" or message.get("role") not in _ROLES or not isinstance(content, str | list):
            raise InputError(f"{where}: a message should have a role ({', '.join(_ROLES)}) and a content; nothing was imported.")
        stamp = message.get("timestamp")
        if isinstance(stamp, int | float) and 0 < stamp < 9e12:
            at_ns = max(at_ns, int(stamp * 1_000_000))
        _take(talk, at_ns, message, list(content_blocks(content)), number)
    if not talk.lines:
        raise InputError(f"{path} holds no messages; there is nothing to import.")
    return talk


def _take(talk: Talk, at_ns: int, message: dict[str, Any], said: list[dict[str, Any]], number: int) -> None:
    match message["role"]:
        case "user":
            talk.user(at_ns, _UNIT, said)
        case "system":
            talk.system(at_ns, _UNIT, said)
        case "tool":
            result = {"type": "tool_result", "tool_use_id": str(message.get("toolCallId", "")), "content": message["content"]}
            talk.user(at_ns, _UNIT, [result])
        case _:
            thought = message.get("reasoningContent")
            blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": str(thought)}] if thought else []
            blocks += [block for block in said if block.get("text") != ""]
            for call in message.get("toolCalls") or ():
                function = object_or_empty(object_or_empty(call).get("function"))
                use = {"type": "tool_use", "id": str(object_or_empty(call).get("id", "")), "name": str(function.get("name", ""))}
                blocks.append(use | {"input": object_in(str(function.get("arguments") or "{}"))})
            talk.answer(at_ns, _UNIT, {"id": f"{talk.session.id} {number}", "model": message.get("model")}, blocks)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_regular(path) as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: not a line of JSON: {error}.") from error
            yield number, object_or_empty(line)
