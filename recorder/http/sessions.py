"""The wire of Managed Agents: fold session events into messages, in the same shapes as all messages.

`GET /v1/sessions/{id}/events/stream` sends session events as server-sent events, the list of events and the answer to sent
events hold them as JSON (shapes of anthropic 2.14). `event_start` and `event_delta` preview an `agent.message` and are in no
list of events, so they are kept as frames, and a preview without a message becomes an incomplete message.

| event | message |
|---|---|
| `agent.message`, `agent.thinking` | `assistant`, one for each block |
| `agent.tool_use`, `agent.custom_tool_use`, `agent.mcp_tool_use` | `assistant` with a block `tool_use` or `mcp_tool_use` |
| `agent.tool_result`, `agent.mcp_tool_result`, `user.tool_result`, `user.custom_tool_result` | `user` with a `tool_result` |
| `user.message` | `user` |
| any other, unknown ones included | `system`, with the type of the event as its subtype |

Fields of the event without a place in these shapes are kept under `event`. Events that were streamed and listed, or streamed
again after a reconnect, have the same id and become messages once.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .. import strict_json
from ..messages import Session, content_blocks
from ..strict_json import object_in, object_or_empty

_TYPE = re.compile(r"(?:agent|user|system|session|span|workflow_run)\.\w[\w.]*|event_start|event_delta")
_PATH = re.compile(r".*/v1/sessions(?:/([^/]+)(?:/threads/([^/]+))?(?:/(events|stream|events/stream))?)?/?")

_ADDED = ("id", "processed_at", "session_thread_id", "outcome_id")

_RESULT_OF = {
    "agent.tool_result": "tool_use_id",
    "agent.mcp_tool_result": "mcp_tool_use_id",
    "user.tool_result": "tool_use_id",
    "user.custom_tool_result": "custom_tool_use_id",
}
"""Events that hold the result of a tool, and the field that names its use."""


class SessionPath(NamedTuple):
    """A path below `/v1/sessions`: its session and thread, empty if it has none, and whether it reads or takes events."""

    session: str
    thread: str
    has_events: bool


def session_path(uri: str) -> SessionPath | None:
    """Return the session that a URL, or a path of one, belongs to, or None for another one."""
    found = _PATH.fullmatch(urlsplit(uri).path)
    return None if found is None else SessionPath(found[1] or "", found[2] or "", found[3] is not None)


def is_session_event(event: Any) -> bool:
    """Return whether a JSON value is a session event, of a known or an unknown type of its families."""
    return isinstance(event, dict) and isinstance(kind := event.get("type"), str) and _TYPE.fullmatch(kind) is not None


def events_in(body: Any) -> list[dict[str, Any]]:
    """Return the session events of a JSON body (a list of events, or the answer to sent ones), in the order of time."""
    listed = body.get("data") if isinstance(body, dict) else None
    events = [event for event in listed if is_session_event(event)] if isinstance(listed, list) else []
    times = [event["processed_at"] for event in events if isinstance(event.get("processed_at"), str)]
    return events[::-1] if times and times[0] > times[-1] else events  # ISO 8601 in UTC; `order=desc` lists the last first


def sent_messages(method: str, uri: str, body: bytes, session: Session) -> list[dict[str, Any]]:
    """Return the messages of the events that a request sends to a session; none for any other request."""
    if method.upper() != "POST" or b'"events"' not in body:
        return []
    path = session_path(uri)
    events = object_in(body).get("events") if path is not None and path.has_events else None
    sent = [event for event in events if is_session_event(event)] if isinstance(events, list) else []
    messages = [message for event in sent for message in SessionFold(session).feed(event)]
    for event in sent:
        session.note_sent(_repeated(event))
    return messages


def _repeated(event: dict[str, Any]) -> str:
    """Return a text that a sent event shares with its repetition, to which the API adds an id and a time."""
    own = {key: value for key, value in event.items() if key not in _ADDED and value is not None}
    return strict_json.dumps(own, sort_keys=True)


def text_delta(event: dict[str, Any]) -> str:
    """Return the text that an `event_delta` adds to the preview of a message, empty for any other event."""
    if event.get("type") != "event_delta":
        return ""
    content = object_or_empty(object_or_empty(event.get("delta")).get("content"))
    return content["text"] if content.get("type") == "text" and isinstance(content.get("text"), str) else ""


class SessionFold:
    """The fold of one response's session events. `usage` sums the requests to the model that they report."""

    def __init__(self, session: Session, request_id: str | None = None) -> None:
        self.usage: dict[str, int] = {}
        self.stop_reason: str | None = None
        self.is_over = False
        self._session = session
        self._request_id = request_id
        self._previews: dict[str, dict[int, list[str]]] = {}

    def feed(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take one event; return the messages that it completes. An event with a known id completes none."""
        kind = event["type"]
        if kind == "event_start":
            started = object_or_empty(event.get("event"))
            if started.get("type") == "agent.message":
                self._previews.setdefault(str(started.get("id")), {})
            return []
        if kind == "event_delta":
            index = object_or_empty(event.get("delta")).get("index")
            preview = self._previews.setdefault(str(event.get("event_id")), {})
            preview.setdefault(index if isinstance(index, int) else 0, []).append(text_delta(event))
            return []
        self._previews.pop(str(event.get("id")), None)
        if kind == "session.status_idle":
            self.stop_reason = object_or_empty(event.get("stop_reason")).get("type")
        self.is_over = kind in ("session.status_terminated", "session.deleted")
        if isinstance(event.get("id"), str) and (not self._session.is_new(event["id"]) or self._repeats(event)):
            return []
        if kind == "span.model_request_end":
            counts = {name: count for name, count in object_or_empty(event.get("model_usage")).items() if isinstance(count, int)}
            self.usage |= {name: self.usage.get(name, 0) + count for name, count in counts.items()}
        return self._messages(kind, event)

    def flush(self) -> list[dict[str, Any]]:
        """Return the previews without a message, as incomplete messages."""
        messages = []
        for event_id, blocks in self._previews.items():
            for index in sorted(blocks):
                if text := "".join(blocks[index]):
                    message = _answer({"type": "agent.message", "id": event_id})
                    block = {"type": "text", "text": text}
                    messages.append(self._session.assistant(message, block, self._request_id, incomplete=True))
        self._previews.clear()
        return messages

    def _repeats(self, event: dict[str, Any]) -> bool:
        return event["type"].startswith(("user.", "system.")) and self._session.was_sent(_repeated(event))

    def _messages(self, kind: str, event: dict[str, Any]) -> list[dict[str, Any]]:
        if kind == "agent.message":
            return [self._said(event, block) for block in content_blocks(event.get("content"))]
        if kind == "agent.thinking":
            return [self._said(event, {"type": "thinking", "thinking": ""})]
        if kind in ("agent.tool_use", "agent.custom_tool_use", "agent.mcp_tool_use"):
            use = {"type": "tool_use", "id": event.get("id"), "name": event.get("name"), "input": event.get("input")}
            if kind == "agent.mcp_tool_use":
                use |= {"type": "mcp_tool_use", "server_name": event.get("mcp_server_name")}
            return [self._said(event, use)]
        if kind in _RESULT_OF:
            result = {"type": "tool_result", "tool_use_id": event.get(_RESULT_OF[kind]), "content": event.get("content")}
            if event.get("is_error") is not None:
                result["is_error"] = event["is_error"]
            return [self._session.user([result], **_origin(event, "content", "is_error", _RESULT_OF[kind]))]
        if kind == "user.message":
            return [self._session.user(list(content_blocks(event.get("content"))), **_origin(event, "content"))]
        return [self._session.system(kind, {key: value for key, value in event.items() if key != "type"})]

    def _said(self, event: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
        message = self._session.assistant(_answer(event), block, self._request_id)
        return message | _origin(event, "content", "input", "name", "mcp_server_name")


def _answer(event: dict[str, Any]) -> dict[str, Any]:
    """Return the message of the Messages API for an event of the agent, without its content."""
    return {"id": event.get("id"), "type": "message", "role": "assistant", "content": []}


def _origin(event: dict[str, Any], *used: str) -> dict[str, Any]:
    """Return the fields of an event that the message does not hold already, and the thread of its subagent."""
    thread = event.get("session_thread_id")
    own = {} if thread is None else {"session_thread_id": thread}
    return own | {"event": {key: value for key, value in event.items() if key not in used}}
