"""Conversations with a model as in a log: answers in small deltas, tools, and requests that repeat the conversation."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Exchange
from retold.recorder.log.log import EventLog
from tests.exchanges import GZIP, JSON, SSE, answer, exchange, frames

MODEL = "claude-test-1"
USAGE = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2}


def block_frames(index: int, block: dict[str, Any], width: int = 4) -> list[dict[str, Any]]:
    """Return the events of a content block, with its text or input in deltas of this many characters."""
    key, delta, whole = block["type"], f"{block['type']}_delta", block.get(block["type"], "")
    start: dict[str, Any] = {**block, key: ""}
    if block["type"] == "tool_use":
        key, delta, whole, start = "partial_json", "input_json_delta", json.dumps(block["input"]), {**block, "input": {}}
    pieces = [whole[at : at + width] for at in range(0, len(whole), width)]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": {"type": delta, key: piece}} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def stream(*blocks: dict[str, Any], model: str = MODEL, stop: str = "end_turn") -> bytes:
    """Return a streamed answer of these blocks."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": USAGE}
    events = [{"type": "message_start", "message": message}]
    for index, block in enumerate(blocks):
        events += block_frames(index, block)
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": USAGE["output_tokens"]}})
    events.append({"type": "message_stop"})
    return b"".join(b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)  # type: ignore[attr-defined]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def tool_use(name: str, id_: str, **values: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": values}


def tool_result(id_: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": content, **more}


def asked(*messages: Any, model: str = MODEL) -> bytes:
    """Return a request: the texts of the user and of the model in turns, the user first."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(messages)]
    return json.dumps({"model": model, "messages": turns, "stream": True}).encode()


def turn(request: bytes, *blocks: dict[str, Any], model: str = MODEL, **fields: Any) -> Exchange:
    """Return an exchange: a request and its streamed answer, one frame per millisecond."""
    return exchange(answer(*frames(stream(*blocks, model=model)), headers=SSE), body=request, **fields)


def packed(made: Exchange) -> Exchange:
    """Return the same exchange with a compressed body."""
    assert made.response is not None
    return replace(made, response=answer(gzip.compress(made.response.body, mtime=0), headers=GZIP))


def unstreamed(request: bytes, *blocks: dict[str, Any], model: str = MODEL, **fields: Any) -> Exchange:
    """Return an exchange with an unstreamed JSON answer."""
    body = {"id": "msg_2", "type": "message", "role": "assistant", "model": model, "content": list(blocks), "usage": USAGE}
    return exchange(answer(json.dumps(body).encode(), headers=JSON), body=request, **fields)


def record(path: str | Path, *exchanges: Exchange, name: str = "talk") -> str:
    """Append exchanges as a run of a log, and return the run."""
    with EventLog(path) as log:
        return import_exchanges(log, exchanges, name=name, source="tests")
