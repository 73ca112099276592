"""The cost of folding a stream into messages, per delta: retold's fold of stored frames, against the SDK on the same bytes.

A mock run folds recorded frames without importing the SDK. A live run folds in parallel to the SDK. `fold` takes frames as the
log stores them. `cut and fold` begins with the bytes of the wire. The SDK decodes server-sent events, parses their JSON,
creates typed events (`create(stream=True)`), and collects those into a message (`messages.stream`).
"""

import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
from anthropic._streaming import SSEDecoder  # private, but the measured function

from benchmarks.measure import Row, folder, ratio, rounds, run
from benchmarks.samples import HEADERS, arguments, frames
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.http.fold import Fold
from retold.recorder.http.sse import FrameParser
from retold.recorder.log.log import EventLog
from retold.recorder.messages import Session

DELTAS = 2_000
ROUNDS = 15
CHUNK = 64 * 1024


def measure() -> list[Row]:
    stored = list(frames(DELTAS))
    body = b"".join(stored)
    chunks = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
    client = anthropic.Anthropic(api_key="test-key", http_client=httpx2.Client(transport=httpx2.MockTransport(_answer(body))))

    def fold() -> Any:
        folded = Fold(Session("session"))
        return [message for frame in stored for message in folded.feed(frame)]

    def cut_and_fold() -> Any:
        folded, parser = Fold(Session("session")), FrameParser()
        return [message for chunk in chunks for piece in parser.feed(chunk) for message in folded.feed(piece.data)]

    def decode() -> Any:
        return list(SSEDecoder().iter_bytes(iter(chunks)))

    def decode_and_parse() -> Any:
        return [event.json() for event in SSEDecoder().iter_bytes(iter(chunks))]

    def create() -> Any:
        with client.messages.create(**arguments(), stream=True) as stream:
            return list(stream)

    def stream() -> Any:
        with client.messages.stream(**arguments()) as stream:
            return stream.get_final_message()

    with folder() as home, EventLog(home / "log.db") as log, log.start(name="fold", mode="live") as writer:

        def capture() -> Any:
            taken = Capture(writer, Request("POST", "/v1/messages"))
            taken.response(200, "OK", HEADERS)
            for frame in stored:
                taken.data(frame)
            taken.end("complete")

        steps = (fold, cut_and_fold, capture, decode, decode_and_parse, create, stream)
        contestants = {step.__name__: _per_delta_us(step) for step in steps}
        rounds(2, contestants)
        found = rounds(ROUNDS, contestants)
    return [
        ratio("fold", found["fold"], "SDK: decode", found["decode"], "us"),
        ratio("fold", found["fold"], "SDK: decode, parse JSON", found["decode_and_parse"], "us"),
        ratio("cut and fold", found["cut_and_fold"], "SDK: decode, parse JSON", found["decode_and_parse"], "us"),
        ratio("cut and fold", found["cut_and_fold"], "SDK: create(stream=True)", found["create"], "us"),
        ratio("cut and fold", found["cut_and_fold"], "SDK: messages.stream", found["stream"], "us"),
        ratio("capture: cut, redact, fold, commit", found["capture"], "SDK: create(stream=True)", found["create"], "us"),
    ]


def _answer(body: bytes) -> Callable[[httpx2.Request], httpx2.Response]:
    return lambda _: httpx2.Response(200, headers=list(HEADERS), stream=httpx2.ByteStream(body))


def _per_delta_us(step: Callable[[], Any]) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        step()
        return (time.perf_counter() - began) / DELTAS * 1e6

    return once


if __name__ == "__main__":
    run(f"fold: from frames to messages, per delta of {DELTAS:,}", measure)
