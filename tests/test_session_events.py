"""Session events of Managed Agents, and the results of batches, become messages of the usual shapes."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.comparing.reading import read_run
from retold.formats import markdown
from retold.pages.run_page import RunFold
from retold.recorder.cassette.format import read_cassette
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Exchange
from retold.recorder.http.fold import Fold
from retold.recorder.http.sessions import SessionPath, events_in, session_path
from retold.recorder.messages import Session
from tests.conftest import SHARED, Cli
from tests.exchanges import JSON, answer, exchange, frames

Json = dict[str, Any]
MANAGED = SHARED / "faults" / "threads" / "managed.yaml"
EVENTS = "https://api.anthropic.com/v1/sessions/sesn_01/events"


def sse(*events: Json) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events)


def preview(event_id: str, *texts: str, index: int = 0) -> list[Json]:
    """Return the start and the deltas of an incomplete message."""
    deltas = [{"type": "content_delta", "index": index, "content": {"type": "text", "text": text}} for text in texts]
    start = {"type": "event_start", "event": {"type": "agent.message", "id": event_id}}
    return [start, *({"type": "event_delta", "event_id": event_id, "delta": delta} for delta in deltas)]


def agent_message(event_id: str, text: str) -> Json:
    return {"type": "agent.message", "id": event_id, "content": [{"type": "text", "text": text}], "processed_at": "2026-11-20"}


def folded(*events: Json, session: Session | None = None) -> list[Json]:
    """Return the messages that a stream of these events completes, without ids."""
    fold = Fold(session or Session("session"))
    messages = [message for frame in frames(sse(*events)) for message in fold.feed(frame)] + fold.flush()
    return [{key: value for key, value in message.items() if key not in ("uuid", "session_id")} for message in messages]


AGENT = {"id": "e1", "type": "message", "role": "assistant"}
SHAPES: dict[str, tuple[Json, Json]] = {
    "agent.message": (
        agent_message("e1", "Hi."),
        {"type": "assistant", "message": {**AGENT, "content": [{"type": "text", "text": "Hi."}]}, "parent_tool_use_id": None},
    ),
    "agent.thinking": (
        {"type": "agent.thinking", "id": "e1"},
        {"type": "assistant", "message": {**AGENT, "content": [{"type": "thinking", "thinking": ""}]}},
    ),
    "agent.tool_use": (
        {"type": "agent.tool_use", "id": "e1", "name": "bash", "input": {"command": "ls"}, "evaluated_permission": "ask"},
        {"message": {**AGENT, "content": [{"type": "tool_use", "id": "e1", "name": "bash", "input": {"command": "ls"}}]},
         "event": {"type": "agent.tool_use", "id": "e1", "evaluated_permission": "ask"}},
    ),
    "agent.mcp_tool_use": (
        {"type": "agent.mcp_tool_use", "id": "e1", "name": "find", "input": {}, "mcp_server_name": "docs"},
        {"message": {**AGENT, "content": [
            {"type": "mcp_tool_use", "id": "e1", "name": "find", "input": {}, "server_name": "docs"}]}},
    ),
    "agent.custom_tool_use of a subagent": (
        {"type": "agent.custom_tool_use", "id": "e1", "name": "ask", "input": {}, "session_thread_id": "sthr_1"},
        {"session_thread_id": "sthr_1", "message": {**AGENT, "content": [
            {"type": "tool_use", "id": "e1", "name": "ask", "input": {}}]}},
    ),
    "agent.tool_result": (
        {"type": "agent.tool_result", "id": "e1", "tool_use_id": "e0", "content": [], "is_error": True},
        {"type": "user", "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "e0", "content": [], "is_error": True}]}},
    ),
    "user.custom_tool_result": (
        {"type": "user.custom_tool_result", "id": "e1", "custom_tool_use_id": "e0", "content": None},
        {"type": "user", "message": {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "e0", "content": None}]}},
    ),
    "user.message": (
        {"type": "user.message", "id": "e1", "content": [{"type": "text", "text": "Hi"}]},
        {"type": "user", "message": {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
         "event": {"type": "user.message", "id": "e1"}},
    ),
    "session.error": (
        {"type": "session.error", "id": "e1", "error": {"type": "billing_error"}},
        {"type": "system", "subtype": "session.error", "id": "e1", "error": {"type": "billing_error"}},
    ),
    "an unknown type": (
        {"type": "agent.hologram", "id": "e1", "shape": {"sides": 6}},
        {"type": "system", "subtype": "agent.hologram", "id": "e1", "shape": {"sides": 6}},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("event", "message"), SHAPES.values(), ids=SHAPES)
def test_a_session_event_becomes_a_message(event: Json, message: Json) -> None:
    """Answers, tools and their results have the usual shapes. Every other type, also an unknown one, is a system message."""
    (found,) = folded(event)
    assert found == found | message


def test_a_preview_becomes_one_message() -> None:
    """After the message has come, its deltas add nothing."""
    messages = folded(*preview("e1", "Hel", "lo."), agent_message("e1", "Hello."))
    assert [message["message"]["content"] for message in messages] == [[{"type": "text", "text": "Hello."}]]


def test_a_preview_without_its_message_is_incomplete() -> None:
    """The API stores no message that broke off, so only its deltas are left."""
    messages = folded(*preview("e1", "Hel", "lo"), *preview("e2", "a"), *preview("e2", "b", index=1))
    assert [(m["message"]["id"], m["message"]["content"][0]["text"], m["incomplete"]) for m in messages] == [
        ("e1", "Hello", True),
        ("e2", "a", True),
        ("e2", "b", True),
    ]


def test_a_repeated_event_is_one_message() -> None:
    """A stream that is opened again, and the list of events, repeat events with their ids. Usage counts once, too."""
    span = {"type": "span.model_request_end", "id": "e2", "model_usage": {"input_tokens": 7, "output_tokens": 2}}
    session = Session("session")
    first, again = Fold(session), Fold(session)
    listed = json.dumps({"data": [span, agent_message("e1", "Hi.")], "next_page": None}).encode()
    assert len([*first.feed_event(sse(agent_message("e1", "Hi."))), *again.feed_json(listed)]) == 2
    assert (first.usage, again.usage) == ({}, {"input_tokens": 7, "output_tokens": 2})
    assert again.feed_event(sse(span)) == []


def test_a_list_in_descending_order_is_read_in_order_of_time() -> None:
    """`order=desc` lists the last event first."""
    events = [
        agent_message("e2", "b") | {"processed_at": "2026-11-20T10:00:02Z"},
        agent_message("e1", "a") | {"processed_at": "2026-11-20T10:00:01Z"},
    ]
    assert [event["id"] for event in events_in({"data": events})] == ["e1", "e2"]
    assert events_in({"data": [{"type": "model", "id": "m"}]}) == events_in({}) == events_in([]) == []


def test_status_and_usage_of_a_session_are_those_of_its_exchange() -> None:
    """The stop reason is that of the last pause. The usage is the sum of the model requests."""
    span = {"type": "span.model_request_end", "model_usage": {"input_tokens": 7, "output_tokens": 2, "speed": "fast"}}
    fold = Fold(Session("session"))
    for event in (span | {"id": "e1"}, span | {"id": "e2"}, {"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}):
        fold.take(event)
    assert (fold.usage, fold.stop_reason, fold.stopped) == ({"input_tokens": 14, "output_tokens": 4}, "end_turn", False)
    fold.take({"type": "session.status_terminated", "id": "e3"})
    assert fold.stopped


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/sessions", ("", "", False)),
        ("/v1/sessions/sesn_1", ("sesn_1", "", False)),
        ("/v1/sessions/sesn_1/events", ("sesn_1", "", True)),
        ("/v1/sessions/sesn_1/events/stream", ("sesn_1", "", True)),
        ("/v1/sessions/sesn_1/threads/sthr_1/stream", ("sesn_1", "sthr_1", True)),
        ("/v1/sessions/sesn_1/resources", None),
        ("/v1/messages", None),
        ("https://gateway.example/prefix/v1/sessions/sesn_1/events?beta=true", ("sesn_1", "", True)),
    ],
)
def test_a_path_names_its_session(path: str, found: tuple[str, str, bool] | None) -> None:
    """Events are read and sent below the path of their session, or of one of its threads."""
    assert session_path(path) == (None if found is None else SessionPath(*found))


def results(*lines: Json) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_the_results_of_a_batch_are_answers() -> None:
    """Each succeeded line is an answer under its custom id, and a failed one has no answer. Tokens add up over the models."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    body = results(
        {"custom_id": "b", "result": {"type": "succeeded", "message": {**message, "content": [{"type": "text", "text": "B"}]}}},
        {"custom_id": "x", "result": {"type": "errored", "error": {"type": "error"}}},
        {"custom_id": "a", "result": {"type": "succeeded", "message": {**message, "content": [{"type": "text", "text": "A"}]}}},
    )
    fold = Fold(Session("session"))
    messages = fold.feed_json(body)
    assert [(m["custom_id"], m["message"]["content"][0]["text"]) for m in messages] == [("b", "B"), ("a", "A")]
    assert (fold.usage, fold.message) == ({"input_tokens": 6, "output_tokens": 2}, {})
    assert len(Fold(Session("session")).feed_json(body[:-20])) == 1


# In the log, and in commands


def stream(*events: Json, ending: Any = "closed") -> Exchange:
    return exchange(answer(*frames(sse(*events))), body=b"", uri=f"{EVENTS}/stream?event_deltas=agent.message", ending=ending)


def test_a_stream_opened_again_shows_each_message_once() -> None:
    """One run has a stream, a list and another stream. No message is lost or doubled."""
    listed = json.dumps({"data": [agent_message("e1", "one"), agent_message("e2", "two")]}).encode()
    exchanges = [
        stream(agent_message("e1", "one"), *preview("e2", "tw"), ending="cut"),
        exchange(answer(listed, headers=JSON), body=b"", uri=EVENTS),
        stream(agent_message("e2", "two"), *preview("e3", "thr", "ee"), agent_message("e3", "three")),
    ]
    log = retold.EventLog("log.db")
    run = import_exchanges(log, exchanges, name="agent", source="test")
    told = [(m.data["message"]["content"][0]["text"], m.data.get("incomplete", False)) for m in log.messages(run)]
    assert told == [("one", False), ("tw", True), ("two", False), ("three", False)]


def test_a_secret_split_over_deltas_is_not_written() -> None:
    """Redaction searches the previews of a message across their pieces, like the deltas of the Messages API."""
    key = "sk-ant-api03-" + "Ab1" * 10
    log = retold.EventLog("log.db")
    run = import_exchanges(log, [stream(*preview("e1", "key ", key[:9], key[9:], " end"))], name="agent", source="test")
    written = b"".join(event.payload for event in log.events(run))
    assert key.encode() not in written
    assert key[9:].encode() not in written


@pytest.mark.skipif(not MANAGED.exists(), reason="needs the folder of inputs beside the working copy")
def test_a_recorded_session_is_shown_and_found(cli: Cli) -> None:
    """`show` prints its messages, with `--partial` piece by piece. `search` finds answer and prompt."""
    assert cli("import", MANAGED).returncode == 0
    assert "ASSISTANT: Hello." in cli("show", "last").stdout
    assert "] Hello.\n" in cli("show", "last", "--partial").stdout
    assert "Hello." in cli("search", "Hello").stdout
    assert "Hi" in cli("search", "Hi", "--type", "user").stdout
    assert len(read_cassette(Path(MANAGED)).exchanges) == 3


def test_a_sent_message_is_recorded_once() -> None:
    """A prompt becomes a message when it is sent. The response and the stream may both repeat it with an id."""
    log = retold.EventLog("log.db")
    for options in ({}, {"echo": False}, {"split": True}):
        run = import_exchanges(log, conversation("01", **options), name="agent", source="test")
        texts = [block["text"] for message in log.messages(run) for block in message.blocks]
        assert texts == ["Hi", "Hello.", "Bye", "See you."]
        out = io.BytesIO()
        markdown.write(log, [log.find(run)], out)
        assert [line for line in out.getvalue().decode().splitlines() if line.startswith("> ")] == ["> Hi", "> Bye"]
        kinds = [said["kind"] for said in folded_page(log, run)["messages"] if said["kind"] in ("prompt", "text")]
        assert kinds == ["prompt", "text"] * 2


def folded_page(log: retold.EventLog, run: str) -> Json:
    page = RunFold(log, log.find(run))
    for event in log.events(run):
        page.event(event)
    return page.data()


def test_the_page_types_the_texts_of_a_session() -> None:
    """The pieces of each preview belong to the message that they become, or to the incomplete message that remains."""
    events = [
        *preview("e1", "Hel", "lo 😀"),
        agent_message("e1", "Hello 😀"),
        agent_message("e2", "whole"),
        *preview("e3", "bro", "ken"),
    ]
    log = retold.EventLog("log.db")
    page = folded_page(log, import_exchanges(log, [stream(*events, ending="cut")], name="agent", source="test"))
    texts = [
        (said["text"], said.get("block"), said.get("incomplete", False)) for said in page["messages"] if said["kind"] == "text"
    ]
    assert texts == [("Hello 😀", 0, False), ("whole", None, False), ("broken", 1, True)]
    sizes = list(zip(*page["frames"], strict=True))
    assert [sum(size for *_, block, size in sizes if block == number) for number in (0, 1)] == [8, 6]
    assert page["exchanges"][0]["first"] is not None


def test_a_retried_request_sends_its_events_once() -> None:
    """The SDK repeats a request after a 529. Its prompt is one message."""
    first, second = (replace(each, place=replace(each.place, call=1, attempt=attempt)) for each, attempt in
                     zip([conversation("01")[1]] * 2, (1, 2), strict=True))  # fmt: skip
    log = retold.EventLog("log.db")
    assert len([*log.messages(import_exchanges(log, [first, second], name="agent", source="test"))]) == 1


# Compared


def conversation(ids: str, *, previews: bool = True, echo: bool = True, split: bool = False) -> list[Exchange]:
    """Record a session: it is created, asked twice, and read with or without previews, in one or two streams."""
    root = "https://api.anthropic.com/v1/sessions"
    uri, session = f"{root}/sesn_{ids}1/events", {"id": f"sesn_{ids}1", "type": "session", "created_at": f"2026-11-{ids}"}

    def send(text: str, number: int) -> Exchange:
        event = {"type": "user.message", "content": [{"type": "text", "text": text}]}
        taken = [event | {"id": f"u{ids}{number}"}] if echo else []
        return exchange(answer(json.dumps({"data": taken}).encode(), headers=JSON), json.dumps({"events": [event]}).encode(), uri)

    def read(*events: Json, ending: Any = "closed") -> Exchange:
        return exchange(answer(*frames(sse(*events))), b"", f"{uri}/stream", ending=ending)

    def turn(number: int, prompt: str, said_: str) -> list[Json]:
        message = agent_message(f"m{ids}{number}", said_)
        asked = {"type": "user.message", "id": f"u{ids}{number}", "content": [{"type": "text", "text": prompt}]}
        shown = preview(f"m{ids}{number}", said_) if previews else []
        idle = {"type": "session.status_idle", "id": f"s{ids}{number}", "processed_at": ids, "stop_reason": {"type": "end_turn"}}
        return [asked, *shown, message, idle]

    one, two = turn(1, "Hi", "Hello."), turn(2, "Bye", "See you.")
    created = exchange(answer(json.dumps(session).encode(), headers=JSON), json.dumps({"agent": "agent_01"}).encode(), root)
    listed = exchange(answer(json.dumps({"data": one}).encode(), headers=JSON), b"", uri)
    streams = [listed, read(*two)] if split else [read(*two)]
    made = [created, send("Hi", 1), read(*one), send("Bye", 2), *streams]
    return [replace(each, request=replace(each.request, method="POST" if each.request.body else "GET")) for each in made]


def compared(a: list[Exchange], b: list[Exchange]) -> list[str]:
    """Return the differences of two recordings as `kind item`."""
    sides = []
    for exchanges in (a, b):
        with retold.EventLog("compared.db") as log:
            sides.append(read_run(log, import_exchanges(log, exchanges, name="agent", source="test")))
    return [f"{difference.kind} {difference.what}" for difference in retold.compare(*sides).differences]


@pytest.mark.parametrize("options", [{}, {"previews": False}, {"echo": False}, {"split": True}], ids=str)
def test_a_session_is_one_conversation_for_every_way_of_reading(options: Json) -> None:
    """Ids, times, previews, repeated events and opening a stream again do not count."""
    assert compared(conversation("01"), conversation("02", **options)) == []


def test_a_changed_answer_of_a_session_is_the_only_difference() -> None:
    """The other turn, the prompts and the request that created the session are equal."""
    other = conversation("02")
    body = other[4].response.body.replace(b"See you.", b"So long.") if other[4].response is not None else b""
    other[4] = replace(other[4], response=answer(*frames(body)))
    assert compared(conversation("01"), other) == ["changed text"]


def test_a_cut_stream_and_a_refused_request_are_items_of_their_session() -> None:
    """The way of reading a session does not count. Failures do."""
    a, b = conversation("01"), conversation("02")
    b[4] = replace(b[4], ending="cut")
    error = b'{"type": "error", "error": {"type": "not_found_error", "message": "gone"}}'
    b.append(replace(b[3], response=answer(error, headers=JSON, status=404, reason=""), ending="http_error"))
    assert compared(a, b) == ["added answer", "added prompt", "added answer", "changed totals"]


def test_subagents_of_a_session_have_separate_conversations() -> None:
    """Events that name a thread, and streams of a thread, belong to that agent."""
    events = [agent_message("e1", "main"), agent_message("e2", "sub") | {"session_thread_id": "sthr_1"}]
    own = exchange(answer(*frames(sse(agent_message("e3", "sub again")))), b"", f"{EVENTS[:-7]}/threads/sthr_1/stream")
    with retold.EventLog("compared.db") as log:
        made = [replace(each, request=replace(each.request, method="GET")) for each in (stream(*events), own)]
        read = read_run(log, import_exchanges(log, made, name="agent", source="test"))
    told = {str(one.label): [item.value["text"] for item in one.items if item.kind == "text"] for one in read.streams}
    assert told == {"": ["main"], "agent 1": ["sub", "sub again"]}
