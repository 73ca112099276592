"""Streams to measure: frames as the Messages API sends them, generated one at a time, so that they take no memory."""

import json
from collections.abc import Iterator
from typing import Any

from retold.recorder.http.exchange import Exchange, Request, Response, TimedPiece

MODEL = "claude-sonnet-5-5"
AROUND_DELTAS = 5
"""Frames of an answer of one block that are not deltas."""

HEADERS = (("content-type", "text/event-stream; charset=utf-8"), ("request-id", "req_011CbenchmarkBenchmarkAB"))


def arguments(*, model: str = MODEL, answer: int = 1) -> dict[str, Any]:
    """Return the arguments of the SDK's `messages.create`. Each `answer` has a different request."""
    prompt = f"Say something long, number {answer}."
    return {"model": model, "max_tokens": 1024, "messages": [{"role": "user", "content": prompt}]}


def _frame(event: dict[str, Any], number: int) -> bytes:
    """Return one frame. As in the real API, 0 to 15 spaces precede the last brace."""
    data = json.dumps(event, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data[:-1]}{' ' * (number * 7 % 16)}}}\n\n".encode()


def frames(deltas: int, *, block: int = 1_000_000, answer: int = 1) -> Iterator[bytes]:
    """Yield the frames of one answer of `deltas` text deltas, `block` of them in each content block."""
    usage = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": f"msg_01{answer:022}", "type": "message", "role": "assistant", "model": MODEL, "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    yield _frame({"type": "message_start", "message": message}, 0)
    for index, first in enumerate(range(0, deltas, block)):
        start = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        yield _frame(start, index)
        for number in range(first, min(first + block, deltas)):
            delta = {"type": "text_delta", "text": f"word {number:05} "}
            yield _frame({"type": "content_block_delta", "index": index, "delta": delta}, number)
        yield _frame({"type": "content_block_stop", "index": index}, index)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _frame({"type": "message_delta", "delta": end, "usage": {"output_tokens": deltas}}, 1)
    yield _frame({"type": "message_stop"}, 2)


def exchange(deltas: int, *, gap_ns: int = 0, answer: int = 1) -> Exchange:
    """Return a recorded exchange with frames `gap_ns` apart."""
    body = json.dumps(arguments(answer=answer) | {"stream": True}, separators=(",", ":")).encode()
    pieces = tuple(TimedPiece(number * gap_ns, frame, True) for number, frame in enumerate(frames(deltas, answer=answer)))
    return Exchange(
        request=Request("POST", "https://api.anthropic.com/v1/messages", (("content-type", "application/json"),), body),
        response=Response(200, "OK", HEADERS, pieces),
        recorded_at="2026-11-22T12:00:00.000Z",
        ended_ns=pieces[-1].offset_ns,
    )
