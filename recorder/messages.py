"""Messages: the complete units that handlers show and count, in the shapes of Claude Code's stream-json.

Shapes as printed by Claude Code 2.1 with `--output-format stream-json --verbose`: one content block per `assistant` line,
lines of one answer share its message id; tool results come in `user` lines; `system`/`init` opens and `result` closes.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .events import Event
from .strict_json import object_or_empty
from .words import clean, one_line

BRIEF_CHARS = 60
"""Characters of a text in the repr of its message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message with its place in the log. `data` is the message itself, unknown types and fields included.

    `exchange` is the seq of the first event of its exchange, or None if it belongs to none.
    """

    run: str
    seq: int
    t_ns: int
    wall_ns: int
    step: str
    task: str
    data: dict[str, Any]
    exchange: int | None = None

    @classmethod
    def of(cls, event: Event) -> "Message":
        """Return the message in an event of the kind `message`."""
        return cls(event.run, event.seq, event.t_ns, event.wall_ns, event.step, event.task, event.data, event.exchange)

    def __repr__(self) -> str:
        kind = f"{self.type}:{self.subtype}" if self.subtype else self.type
        shown = ", ".join(map(_brief, self.blocks))
        return f"<Message {self.seq} {kind}{': ' if shown else ''}{shown}>"

    @property
    def type(self) -> str:
        """`system`, `assistant`, `user`, `result`, or another name of its source; empty if there is none."""
        return str(self.data.get("type", ""))

    @property
    def subtype(self) -> str | None:
        """`init`, `success` and so on, if it has one."""
        return self.data.get("subtype")

    @property
    def blocks(self) -> Iterator[dict[str, Any]]:
        """The content blocks; a plain string counts as one text block."""
        return iter(blocks_of(self.data))


def _brief(block: Mapping[str, Any]) -> str:
    """Return the beginning of a text, or the type and name of another block, on one line."""
    if block.get("type") != "text":
        return clean(" ".join(str(block[key]) for key in ("type", "name") if key in block))
    text = one_line(str(block.get("text", "")))
    return text if len(text) <= BRIEF_CHARS else f"{text[:BRIEF_CHARS]}…"


def content_blocks(content: Any) -> list[dict[str, Any]]:
    """Return the blocks of a content. A string counts as one text block; items of a list that are no objects are left out."""
    if isinstance(content, list):
        return [block for block in content if isinstance(block, dict)]
    return [{"type": "text", "text": content}] if isinstance(content, str) else []


def blocks_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the content blocks of a stream-json message, such as `{"type": "user", "message": {"content": "Hi"}}`."""
    return content_blocks(object_or_empty(data.get("message")).get("content"))


def usage_of(data: dict[str, Any]) -> dict[str, int]:
    """Return the token counts of a message or a result; none if it holds a value of another type there."""
    return {key: value for key, value in object_or_empty(data.get("usage")).items() if isinstance(value, int)}


def result_text(content: Any) -> str:
    """Return the text of a tool_result's content, which is a string or a list of blocks. Only text blocks count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [
        str(block.get("text", "")) if block.get("type") == "text" else f"[{block.get('type')}]"
        for block in content
        if isinstance(block, dict)
    ]
    return "\n".join(parts)


class Session:
    """Makes the messages of one conversation: each carries its session's id and an id of its own.

    `made` is the number of messages so far. The ids of the messages are derived from the session's id, so that a replayed
    session with the same id has identical messages.
    """

    def __init__(self, session_id: str | None = None, *, made: int = 0) -> None:
        self.id = session_id or str(uuid.uuid4())
        self._made = made
        self._seen: set[str] = set()
        self._sent: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Session {self.id} {self._made} messages>"

    @property
    def made(self) -> int:
        """The number of messages so far."""
        return self._made

    def is_new(self, event_id: str) -> bool:
        """Return whether the id of an event is new. The API may send an event in several responses."""
        if event_id in self._seen:
            return False
        self._seen.add(event_id)
        return True

    def note_sent(self, event: str) -> None:
        """Note an event that the client sent, by a text that its repetition by the API shares."""
        self._sent[event] += 1

    def was_sent(self, event: str) -> bool:
        """Return whether an event repeats one that the client sent, once for each time that it was sent."""
        found = self._sent[event] > 0
        self._sent[event] -= found
        return found

    def _finish(self, data: dict[str, Any]) -> dict[str, Any]:
        self._made += 1
        return data | {"session_id": self.id, "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.id}/{self._made}"))}

    def take(self, message: Mapping[str, Any]) -> None:
        """Count a message that another program made, and take its session's id."""
        self._made += 1
        self.id = str(message.get("session_id") or self.id)

    def system(self, subtype: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return a message of the recorder itself, not of the conversation."""
        return self._finish({"type": "system", "subtype": subtype} | fields)

    def init(self, *, model: str, tools: list[str], cwd: str, permission_mode: str) -> dict[str, Any]:
        """Return the message that opens a session."""
        return self._finish(
            {
                "type": "system",
                "subtype": "init",
                "cwd": cwd,
                "tools": tools,
                "mcp_servers": [],
                "model": model,
                "permissionMode": permission_mode,
            }
        )

    def assistant(
        self, message: dict[str, Any], block: dict[str, Any], request_id: str | None, *, incomplete: bool = False
    ) -> dict[str, Any]:
        """Return the message of one content block of an answer; `incomplete` marks a block that the stream did not finish."""
        data: dict[str, Any] = {
            "type": "assistant",
            "message": message | {"content": [block]},
            "parent_tool_use_id": None,
        }
        if request_id is not None:
            data["request_id"] = request_id
        if incomplete:
            data["incomplete"] = True
        return self._finish(data)

    def tool_result(self, block: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a tool as a user message."""
        return self._finish({"type": "user", "message": {"role": "user", "content": [block]}, "parent_tool_use_id": None})

    def user(self, content: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Return a message of the user as the API reports it, with further fields."""
        message = {"role": "user", "content": content}
        return self._finish({"type": "user", "message": message, "parent_tool_use_id": None} | fields)

    def result(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the message that ends a conversation, with these fields."""
        return self._finish({"type": "result"} | fields)
