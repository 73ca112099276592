"""Streams of many messages lose nothing, use constant memory, and keep a buffer within its size."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.handlers import make_handler, read_stream
from retold.handlers.base import READ_KINDS
from retold.recorder.messages import Session
from tests.e2e import run_live, step, write_workflow
from tests.messages_server import MessagesServer, Reply, text

MANY = 1_200


def test_a_long_live_stream_reaches_every_handler_completely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Screen and file have one line for each message, in order. The buffer has the last 1,000, and counts the others."""
    options = {
        "async_streaming": True,
        "stream_handler": ["simple", {"file": {"file_path": "w.jsonl", "format": "jsonl"}}, "buffer"],
    }
    flow = write_workflow("w.yaml", step(claude_options=options))
    with MessagesServer([Reply([text(f"Message {number}.", pieces=20) for number in range(MANY)])]) as server:
        live = run_live(monkeypatch, server, flow)
    texts = [f"Message {number}." for number in range(MANY)]
    assert [line.partition("ASSISTANT: ")[2] for line in live.output.splitlines()[:MANY]] == texts
    written = [json.loads(line) for line in Path("w.jsonl").read_text().splitlines()]
    assert [each["message"]["message"]["content"][0]["text"] for each in written[1:-1]] == texts
    *_, buffer = live.result.steps[0].handler_results
    assert (len(buffer["buffered"]), buffer["dropped"], buffer["messages"]) == (1_000, MANY + 2 - 1_000, MANY + 2)
    assert buffer["buffered"] == written[-1_000:]


def recorded(messages: int) -> tuple[retold.EventLog, str]:
    """Return a log and its run: one step with this many messages."""
    session = Session("00000000-0000-4000-8000-000000000000")
    with retold.EventLog(f"{messages}.db") as log, log.start(name="long", mode="live") as writer:
        writer.note("step.started", {"name": "talk"}, step="talk")
        for number in range(messages):
            block = {"type": "text", "text": f"Message {number}. " * 20}
            writer.note("message", session.assistant({"role": "assistant"}, block, None), step="talk")
        writer.note("step.ended", {"name": "talk", "status": "completed", "error": None}, step="talk")
    return log, writer.run


def peak(log: retold.EventLog, run: str, name: str, options: dict[str, Any]) -> int:
    """Return the highest number of bytes in use while a handler reads a run."""
    with open(os.devnull, "w") as out:
        handler = make_handler(name, options, out)
        tracemalloc.start()
        read_stream(log.events(run, kinds=READ_KINDS), handler)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return used


@pytest.mark.stress
def test_memory_does_not_grow_with_the_stream() -> None:
    """A stream four times as long takes no more memory, with any handler (`benchmarks/handlers.py` goes further)."""
    short, long = recorded(1_000), recorded(4_000)
    handlers: dict[str, dict[str, Any]] = {"simple": {}, "file": {"file_path": "f.log"}, "debug": {}, "buffer": {"max_size": 100}}
    for name, options in handlers.items():
        peak(*short, name, options)  # caches that the first use fills
    grown = {name: peak(*long, name, options) / peak(*short, name, options) for name, options in handlers.items()}
    assert {name: by for name, by in grown.items() if by > 1.2} == {}
