"""The table of docs/ways.md: each way to call Claude with the SDK is recorded, replayed and shown as its row claims."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

import retold
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Exchange
from tests.clients import MODEL, NOWHERE, client
from tests.conftest import ROOT
from tests.messages_server import Reply, Request, text
from tests.threads_server import ThreadsServer

pytestmark = pytest.mark.needs("anthropic>=2.12")

PAGE = ROOT / "docs" / "ways.md"
CASSETTE = Path("c.yaml")
CALL: dict[str, Any] = {"model": MODEL, "max_tokens": 64}
HI: Any = [{"role": "user", "content": "Hi"}]

Way = Callable[[Anthropic], Any]


def as_json(*models: Any) -> list[Any]:
    return [json.loads(model.to_json()) for model in models]


def create(asking: Anthropic) -> Any:
    return as_json(asking.messages.create(**CALL, messages=HI))


def stream(asking: Anthropic) -> Any:
    with asking.messages.stream(**CALL, messages=HI) as events:
        return [*events.text_stream, *as_json(events.get_final_message())]


def thread(asking: Anthropic) -> Any:
    held = asking.beta.messages.thread(**CALL)
    return as_json(held.send(HI[0]), held.send({"role": "user", "content": "Again"}))


def runner(**options: Any) -> Way:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"rainy in {city}"

    question: Any = [{"role": "user", "content": "The weather?"}]
    return lambda asking: as_json(*asking.beta.messages.tool_runner(**CALL, tools=[get_weather], messages=question, **options))


def count_tokens(asking: Anthropic) -> Any:
    return as_json(asking.messages.count_tokens(model=MODEL, messages=HI))


def batches(asking: Anthropic) -> Any:
    asked: Any = [{"custom_id": "one", "params": {**CALL, "messages": HI}}]
    made = asking.messages.batches.create(requests=asked)
    results = asking.messages.batches.results(asking.messages.batches.retrieve(made.id).id)
    return as_json(made, *results)


def files(asking: Anthropic) -> Any:
    return as_json(asking.beta.files.upload(file=("a.txt", b"Hi", "text/plain")), *asking.beta.files.list())


def models(asking: Anthropic) -> Any:
    return as_json(*asking.models.list())


def session(asking: Anthropic) -> Any:
    events = asking.beta.sessions.events
    made = asking.beta.sessions.create(agent="agent_01", environment_id="env_01")
    got: list[Any] = []
    with events.stream(made.id, event_deltas=["agent.message"]) as stream:
        events.send(made.id, events=[{"type": "user.message", "content": [{"type": "text", "text": "Hi"}]}])
        for event in stream:
            got += as_json(event)
            if event.type == "session.status_idle":
                break
    return [*got, *as_json(*events.list(made.id))]


def fallback(asking: Anthropic) -> Any:
    from anthropic.lib.middleware import BetaFallbackState, BetaRefusalFallbackMiddleware

    falling = asking.with_options(middleware=[BetaRefusalFallbackMiddleware([{"model": "claude-second"}])])
    with BetaFallbackState():
        return as_json(falling.beta.messages.create(**CALL, messages=HI))


WAYS: dict[str, Way] = {
    "`messages.create`": create,
    "`messages.stream`": stream,
    "`messages.count_tokens`": count_tokens,
    "`messages.batches`": batches,
    "`models.list`": models,
    "`beta.files`": files,
    "`beta.messages.thread`": thread,
    "`beta.messages.tool_runner`": runner(),
    "`beta.messages.tool_runner(thread=False)`": runner(thread=False),
    "`BetaRefusalFallbackMiddleware`": fallback,
    "`beta.sessions.events`": session,
}
"""The program for each row of the table."""


class Api(ThreadsServer):
    """The scripted API with a batch and a file, and a model that refuses if the request allows a second one."""

    def __init__(self) -> None:
        super().__init__()
        batch = {"id": "msgbatch_01", "type": "message_batch", "processing_status": "ended", "request_counts": {},
                 "results_url": f"{self.url}/v1/messages/batches/msgbatch_01/results"}  # fmt: skip
        answer = Reply([text("Hello from a batch.")], id="msg_b1").message(CALL, 1)
        result = {"custom_id": "one", "result": {"type": "succeeded", "message": answer}}
        file = {"id": "file_01", "type": "file", "filename": "a.txt", "mime_type": "text/plain", "size_bytes": 2}
        for place, (kind, value) in {
            ("POST", "messages/batches"): ("application/json", batch),
            ("GET", "messages/batches/msgbatch_01"): ("application/json", batch),
            ("GET", "messages/batches/msgbatch_01/results"): ("application/x-jsonl", result),
            ("POST", "files"): ("application/json", file),
            ("GET", "files"): ("application/json", {"data": [file], "has_more": False}),
        }.items():
            self.routes[place] = kind, json.dumps(value).encode() + b"\n"

    def _reply(self, request: Request) -> Reply:
        if "fallback" in request.headers.get("x-stainless-helper", "") and request.json["model"] == MODEL:
            return Reply([], stop_reason="refusal")
        return super()._reply(request)


def rows() -> dict[str, list[str]]:
    """Return the cells of the table by its first column."""
    lines = [line.strip("| ") for line in PAGE.read_text().splitlines() if line.startswith(("| `", "| boto3"))]
    cells = [re.split(r"\s*\|\s*", line) for line in lines]
    return {first: rest for first, *rest in cells}


def test_every_row_has_a_program() -> None:
    """The table and the programs of this module have the same rows. Other tests run the rows of other clients."""
    assert [*WAYS] == [row for row in rows() if row in WAYS]
    assert set(WAYS) <= set(rows())


def counted(items: Iterable[str]) -> str:
    """Count each item, in order of first occurrence: `2 assistant, 1 user`."""
    found: dict[str, int] = {}
    for item in items:
        found[item] = found.get(item, 0) + 1
    return ", ".join(f"{count} {item}" for item, count in found.items()) or "-"


@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_recorded_replayed_and_shown_as_in_the_table(way: str) -> None:
    """The replay gives equal results without an API. The cells are counted from the cassette and its messages."""
    with Api() as server, retold.use_cassette(CASSETTE, record_mode="rewrite"), client(server.url) as asking:
        results = WAYS[way](asking)
    with retold.use_cassette(CASSETTE) as cassette, client(NOWHERE) as asking:
        assert WAYS[way](asking) == results
    assert cassette.unplayed == []
    assert rows()[way] == cells_of(cassette.exchanges)


def cells_of(exchanges: Sequence[Exchange]) -> list[str]:
    """Return the cells of a row with equal replay results, counted from the exchanges and their messages."""
    forms = counted("stream" if any(piece.is_frame for piece in each.response.pieces) else "body"
                    for each in exchanges if each.response is not None)  # fmt: skip
    with retold.EventLog("shown.db") as log:
        run = import_exchanges(log, exchanges, name="shown", source="test")
        shown = counted(message.type for message in log.messages(run))
    forms = re.sub(r"([2-9]|\d\d) (?:bod)y", r"\1 bodies", forms)
    forms = re.sub(r"([2-9]|\d\d) stream", r"\1 streams", forms)
    return [forms, "equal", shown]
