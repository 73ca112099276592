"""A scripted API on 127.0.0.1 with message threads and sessions of Managed Agents.

    with ThreadsServer() as server:
        thread = Anthropic(base_url=server.url, api_key="test-key").beta.messages.thread(model=..., max_tokens=64)

Threads follow the beta ``message-threads-2026-08-12``. The server keeps a ``create`` or ``continue`` under the id of its answer,
and each can be continued once, until `expire`. `answer` builds the reply from the whole conversation. A session has one agent,
which answers each ``user.message`` with its text. Streams that request previews get the text in two pieces, followed by the
events of the list.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.messages_server import Block, Json, MessagesServer, Reply, Request, _Handler, _token, http_error, text, tool_use

Answer = Callable[[list[Json]], Reply]

WEATHER: Json = {"name": "get_weather", "description": "The weather.", "input_schema": {"type": "object"}}


def text_in(content: Any) -> str:
    """Return the text of a message's content."""
    return content if isinstance(content, str) else "".join(str(block.get("text", "")) for block in content)


def recall(messages: list[Json]) -> Reply:
    """Return an answer that depends on all prompts of the conversation. A question about the weather uses a tool first."""
    last = messages[-1]["content"] if messages else ""
    if not isinstance(last, str) and last and last[0].get("type") == "tool_result":
        return Reply(
            [text(f"It is {last[0]['content'] if isinstance(last[0]['content'], str) else text_in(last[0]['content'])}.")]
        )
    if "weather" in text_in(last):
        blocks: list[Block] = [text("Let me look."), tool_use("get_weather", {"city": "Paris"})]
        return Reply(blocks, stop_reason="tool_use")
    prompts = [text_in(message["content"]) for message in messages if message["role"] == "user"]
    return Reply([text(f"Turn {len(prompts)}: {' + '.join(prompts)}.")])


class ThreadsServer(MessagesServer):
    """Serve threads and sessions while entered. `cuts` are the numbers of frames after which streams of a session break."""

    def __init__(self, answer: Answer = recall, *, unsupported: bool = False, cuts: tuple[int, ...] = ()) -> None:
        self.answer = answer
        self.unsupported = unsupported
        self.cuts = list(cuts)
        self.held: dict[str, tuple[list[Json], Json]] = {}
        self.continued: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()
        super().__init__(self._reply)

    def expire(self) -> None:
        """Forget all threads, as the API does five minutes after their last request."""
        self.held.clear()

    def _reply(self, request: Request) -> Reply:
        with self._turn:
            body = request.json
            thread = body.get("thread")
            if thread is None:
                return self._answered(body["messages"], None)
            if self.unsupported:
                return refused(400, "invalid_request_error", "thread_unsupported_request", unsupported=["hipaa"])
            if thread["type"] == "create":
                return self._answered(body["messages"], {name: body[name] for name in ("system", "tools") if name in body})
            previous = thread["previous_message_id"]
            if previous in self.continued:
                return refused(400, "invalid_request_error", "thread_already_continued")
            if previous not in self.held:
                return refused(404, "not_found_error", "thread_not_found")
            self.continued.add(previous)
            messages, kept = self.held[previous]
            return self._answered([*messages, *body["messages"]], kept)

    def _answered(self, messages: list[Json], kept: Json | None) -> Reply:
        reply = self.answer(messages)
        message_id = reply.id or _token("msg_01", f"thread/{next(self._numbers)}")
        reply = Reply(reply.blocks, reply.stop_reason, id=message_id, model=reply.model)
        if kept is not None:
            content = reply.message({}, 1)["content"]
            self.held[message_id] = [*messages, {"role": "assistant", "content": content}], kept
        return reply


def refused(status: int, kind: str, code: str, **details: Any) -> Reply:
    """Return an error about a thread, with the details by which clients know it."""
    error = http_error(status, kind, f"refused: {code}")
    return Reply(status=status, error=error.error, headers=error.headers, details={"error_code": code, **details})


class Session:
    """The events of one session, and the streams that follow them."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.events: list[Json] = []
        self.changed = threading.Condition()
        self._numbers = itertools.count(1)

    def add(self, type: str, **fields: Any) -> Json:
        number = next(self._numbers)
        event = {"type": type, "id": f"sevt_{self.id[5:]}_{number}", "processed_at": f"2026-11-20T10:{number:02d}:00Z", **fields}
        self.events.append(event)
        return event

    def send(self, sent: list[Json]) -> list[Json]:
        """Append events of the client, let the agent answer, and return the client's events with their ids."""
        with self.changed:
            taken = [self.add(**event) for event in sent]
            for event in taken:
                if event["type"] == "user.message" and "weather" in text_in(event["content"]):
                    use = self.add("agent.custom_tool_use", name="get_weather", input={"city": "Paris"})
                    self.add("session.status_idle", stop_reason={"type": "requires_action", "event_ids": [use["id"]]})
                elif event["type"] == "user.message":
                    self._answer(f"You said {text_in(event['content'])}.")
                elif event["type"] == "user.custom_tool_result":
                    self._answer(f"It is {text_in(event['content'])}.")
            self.changed.notify_all()
        return taken

    def _answer(self, reply: str) -> None:
        self.add("session.status_running")
        start = self.add("span.model_request_start")
        preview = {"type": "agent.message", "id": f"sevt_{self.id[5:]}_{len(self.events) + 1}"}
        message = self.add("agent.message", content=[{"type": "text", "text": reply}])
        assert message["id"] == preview["id"]
        pieces = [{"type": "event_start", "event": preview}]
        for piece in (reply[:5], reply[5:]):
            delta = {"type": "content_delta", "index": 0, "content": {"type": "text", "text": piece}}
            pieces.append({"type": "event_delta", "event_id": preview["id"], "delta": delta})
        message["_preview"] = pieces
        usage = {"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        self.add("span.model_request_end", model_request_start_id=start["id"], is_error=False, model_usage=usage)
        self.add("session.status_idle", stop_reason={"type": "end_turn"})

    def frames(self, deltas: list[str], closed: Callable[[], bool]) -> Iterator[Json]:
        """Follow the events from now on, with previews if requested, until `closed`."""
        at = len(self.events)
        while not closed():
            with self.changed:
                if len(self.events) == at:
                    self.changed.wait(0.02)
                news = self.events[at:]
            at += len(news)
            for event in news:
                if event["type"] in deltas:
                    yield from event.get("_preview", ())
                yield public(event)


def public(event: Json) -> Json:
    return {key: value for key, value in event.items() if not key.startswith("_")}


class _SessionHandler(_Handler):
    server: ThreadsServer

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        names = parts.path.removeprefix("/v1/").split("/")
        if names[0] != "sessions":
            super().do_POST()
            return
        self.request_id = _token("req_011C", self.path, 20)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        match self.command, names[1:]:
            case "POST", []:
                session = Session(f"sesn_{len(self.server.sessions) + 1:02d}")
                self.server.sessions[session.id] = session
                self._json(200, {"id": session.id, "type": "session", "status": "idle", "metadata": body.get("metadata", {})})
            case "GET", [id, "events"]:
                self._json(200, {"data": [public(event) for event in self.server.sessions[id].events], "next_page": None})
            case "POST", [id, "events"]:
                self._json(200, {"data": [public(event) for event in self.server.sessions[id].send(body["events"])]})
            case "GET", [id, "events", "stream"]:
                query = parse_qs(parts.query)
                self._follow(self.server.sessions[id], [*query.get("event_deltas[]", ()), *query.get("event_deltas", ())])
            case _:
                self._json(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})

    do_GET = do_POST

    def _follow(self, session: Session, deltas: list[str]) -> None:
        limit = self.server.cuts.pop(0) if self.server.cuts else None
        self._head(200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        self.wfile.flush()
        for event in itertools.islice(session.frames(deltas, lambda: self.server.closing), limit):
            frame = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        self.close_connection = True  # without the last chunk: a stream of a session never ends by itself


ThreadsServer.handler = _SessionHandler
