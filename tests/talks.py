"""Recorded conversations for the tests of comparing and showing: scripted answers as exchanges, with chosen ids and times."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.events import Ending
from retold.recorder.http.exchange import Exchange, Place, Request
from retold.recorder.log.log import EventLog
from tests.exchanges import JSON, SSE, URL, answer
from tests.messages_server import Reply


def talk(
    *replies: Reply, prompt: str = "Please begin.", results: Sequence[str] = (), seed: int = 0, step_ns: int = 1_000_000,
    started_ns: int = 0, step: str = "", **options: Any,
) -> list[Exchange]:  # fmt: skip
    """Return one conversation: each reply answers a request that repeats the conversation so far.

    `results` are the results of the tools, in the order of their calls. `seed` changes every id.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    pending = iter(results)
    found: list[Exchange] = []
    for number, reply in enumerate(replies, 1):
        body = {"model": "claude-test", "max_tokens": 100, **options, "messages": messages, "stream": True}
        request = Request("POST", URL, JSON, json.dumps(body).encode())
        message = reply.message(body, number + 1000 * seed)
        if reply.status != 200:
            error = {"type": "error", "error": {"type": reply.error[0], "message": reply.error[1]}}
            response = answer(json.dumps(error).encode(), headers=JSON, status=reply.status, step_ns=step_ns)
        else:
            response = answer(*reply.frames(message)[: reply.cut_after], headers=SSE, step_ns=step_ns)
        ending: Ending = (
            "http_error" if reply.status != 200 else "error_event" if reply.error_event_after is not None else "complete"
        )
        ended_ns = started_ns + response.pieces[-1].offset_ns
        exchange = Exchange(
            request, response, "cut" if reply.cut_after is not None else ending, place=Place(call=number, step=step),
            started_ns=started_ns, ended_ns=ended_ns,
        )  # fmt: skip
        started_ns = ended_ns + step_ns
        uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        answers = [{"type": "tool_result", "tool_use_id": use, "content": next(pending, "done")} for use in uses]
        messages = [*messages, {"role": "assistant", "content": message["content"]}]
        if answers:
            messages.append({"role": "user", "content": answers})
        found.append(exchange if number < len(replies) else replace(exchange, tool_results=tuple(answers)))
    return found


def recorded(exchanges: Sequence[Exchange], name: str = "talk", folder: Path = Path()) -> tuple[EventLog, str]:
    """Return a log in the folder with the exchanges as a run. A log may get several runs."""
    with EventLog(folder / "talks.db") as log:
        return log, import_exchanges(log, exchanges, name=name, source="a test")
