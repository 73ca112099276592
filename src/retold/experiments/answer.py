"""An answer of the user's, in place of the model's: read from a file, and written as the API would send it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.events import encode
from ..recorder.files import read_text
from ..recorder.http.exchange import Exchange, Response, TimedPiece
from ..recorder.http.platforms import model_path
from ..recorder.messages import content_blocks
from ..recorder.strict_json import object_in
from .branch import ANSWERED

Message = dict[str, Any]


def read_answer(path: Path) -> Message:
    """Return the message in a file: a message of the Messages API as JSON, or a plain text. Raise InputError."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the answer {path}: {getattr(error, 'strerror', None) or error}.") from error
    return message_of(text, str(path))


def message_of(answer: str | Message, source: str = "answer") -> Message:
    """Return a complete message. A text that is a JSON object is a message, any other text is the text of the answer.

    Absent fields are filled in: an id, no usage, and the stop reason `tool_use` if the message uses a tool, else `end_turn`.
    Raise InputError with `source` as the name of the answer.
    """
    given = _object(answer) if isinstance(answer, str) else answer
    if given is None:
        given = {"content": [{"type": "text", "text": str(answer).removesuffix("\n")}]}
    if "content" not in given:
        raise InputError(f"{source} is no message of the Messages API: it has no `content`.")
    content = list(content_blocks(given["content"]))
    if not content or not all(isinstance(block.get("type"), str) for block in content):
        raise InputError(f"{source} is no answer: `content` should be a text or a list of blocks with a `type`, and not empty.")
    if given.get("role", "assistant") != "assistant":
        raise InputError(f"{source} is no answer: its role is {given['role']!r}, not 'assistant'.")
    for block in content:
        if block["type"] == "tool_use" and not (isinstance(block.get("name"), str) and isinstance(block.get("input", {}), dict)):
            raise InputError(f"{source}: a tool_use needs a `name`, and an `input` that is an object.")
    digest = sha256(strict_json.dumps(given, sort_keys=True).encode("utf-8", "replace")).hexdigest()[:24]
    content = [_with_id(block, f"toolu_{digest[:18]}{number:02}") for number, block in enumerate(content)]
    uses_tool = any(block["type"] == "tool_use" for block in content)
    usage = {"input_tokens": 0, "output_tokens": 0}
    filled = {
        "id": f"msg_{digest}",
        "type": "message",
        "role": "assistant",
        "stop_reason": "tool_use" if uses_tool else "end_turn",
    }
    return filled | {"stop_sequence": None, "usage": usage} | given | {"content": content}


def answered(exchange: Exchange, message: Message) -> Exchange:
    """Return an exchange with this answer to its request, as a stream if the request asks for one. Raise InputError."""
    if model_path(exchange.request.uri) is not None:
        raise InputError("an answer of your own cannot replace one of Bedrock or Vertex; fork before the request instead.")
    asked = object_in(exchange.request.body)
    whole = {"model": asked.get("model", "")} | message
    streams = asked.get("stream") is True
    body = b"".join(_frames(whole)) if streams else encode(whole)
    kind = "text/event-stream; charset=utf-8" if streams else "application/json"
    pieces = tuple(TimedPiece(0, frame, True) for frame in _frames(whole)) if streams else (TimedPiece(0, body, False),)
    headers = (("content-type", kind), *(() if streams else (("content-length", str(len(body))),)))
    return replace(
        exchange, response=Response(200, "OK", headers, pieces), ending="complete", failure=None, tool_results=(), cost_usd=0.0,
        ended_ns=exchange.started_ns, place=replace(exchange.place, stamped=ANSWERED),
    )  # fmt: skip


def _object(text: str) -> Message | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _with_id(block: Message, id_: str) -> Message:
    return {"id": id_, "input": {}} | block if block["type"] == "tool_use" else block


def _frames(message: Message) -> Iterator[bytes]:
    """Yield the frames of a message as the API streams it."""
    usage = message["usage"] if isinstance(message["usage"], dict) else {}
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 0}}
    yield _frame({"type": "message_start", "message": start})
    for index, block in enumerate(message["content"]):
        begun, deltas = _parts(block)
        yield _frame({"type": "content_block_start", "index": index, "content_block": begun})
        for delta in deltas:
            yield _frame({"type": "content_block_delta", "index": index, "delta": delta})
        yield _frame({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _frame({"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage.get("output_tokens", 0)}})
    yield _frame({"type": "message_stop"})


def _parts(block: Message) -> tuple[Message, list[Message]]:
    """Return a block as it begins, and its deltas. A block of another type comes whole in its beginning."""
    match block["type"]:
        case "text":
            return block | {"text": ""}, [{"type": "text_delta", "text": block.get("text", "")}]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": block.get("thinking", "")}]
            deltas.append({"type": "signature_delta", "signature": block.get("signature", "")})
            return block | {"thinking": "", "signature": ""}, deltas
        case "tool_use":
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": strict_json.dumps(block["input"])}]
    return block, []


def _frame(data: Message) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + encode(data) + b"\n\n"
