"""Message threads: the request with a whole history that a request of a thread is equal to.

With the beta `message-threads-2026-08-12` the server holds a conversation between its turns. The first request carries
`thread: {"type": "create"}`. A later one carries `thread: {"type": "continue", "previous_message_id": ID}` and only the new
messages, without `system` and `tools`, and the server adds the history of the answer with that id (shapes of anthropic 2.14).

`Histories` does the same from a recording: it keeps the conversation behind each answer, and returns the whole request for a
request that continues one. Comparing and matching therefore need no knowledge of threads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..messages import content_blocks
from ..strict_json import object_or_empty

INHERITED = ("system", "tools")
"""Fields that a thread keeps from the request that created it. A `continue` must not repeat them."""

MESSAGES_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
"""Paths of requests that a thread can continue."""

Turn = Literal["create", "continue"]


def turn_of(body: Mapping[str, Any]) -> Turn | None:
    """Return whether a request creates or continues a thread, or None if it has a whole history of its own."""
    kind = object_or_empty(body.get("thread")).get("type")
    return kind if kind in ("create", "continue") else None


def previous_id(body: Mapping[str, Any]) -> str | None:
    """Return the id of the answer that a request continues, or None if it continues none."""
    return str(object_or_empty(body.get("thread")).get("previous_message_id")) if turn_of(body) == "continue" else None


def is_thread_error(error: Any) -> bool:
    """Return whether an error of the API is about a thread: such a call is made again with its whole history."""
    code = object_or_empty(object_or_empty(error).get("details")).get("error_code")
    return isinstance(code, str) and code.startswith("thread_")


@dataclass(frozen=True, slots=True)
class _Held:
    """The conversation up to one answer: the conversation before it, and the messages that its turn added."""

    before: "_Held | None"
    added: Sequence[Any]
    inherited: dict[str, Any]

    def messages(self) -> list[Any]:
        turns: list[_Held] = []
        at: _Held | None = self
        while at is not None:
            turns.append(at)
            at = at.before
        return [message for turn in reversed(turns) for message in turn.added]


class Histories:
    """The conversations behind the answers of a recording, by the ids of the answers."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def __repr__(self) -> str:
        return f"<Histories {len(self._held)} answers>"

    def __contains__(self, message_id: str) -> bool:
        return message_id in self._held

    def hold(self, message_id: str, body: Mapping[str, Any], content: Sequence[Any]) -> None:
        """Keep the conversation that ends with an answer. `body` is the request as it was sent, `content` the answer's blocks."""
        previous = previous_id(body)
        before = None if previous is None else self._held.get(previous)
        if previous is not None and before is None:
            return  # the beginning of the conversation is not in the recording
        inherited = {name: body[name] for name in INHERITED if name in body}
        answer = {"role": "assistant", "content": list(content)}
        added = [*_messages(body), answer]
        self._held[message_id] = _Held(before, added, inherited if before is None else before.inherited | inherited)

    def whole(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a request with its whole history and without `thread`, or None if it continues an unknown answer."""
        own = {name: value for name, value in body.items() if name != "thread"}
        previous = previous_id(body)
        if previous is None:
            return own
        held = self._held.get(previous)
        if held is None:
            return None
        return held.inherited | own | {"messages": [*held.messages(), *_messages(body)]}


def _messages(body: Mapping[str, Any]) -> list[Any]:
    messages = body.get("messages")
    return messages if isinstance(messages, list) else []


def in_one_form(body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole request in which answers have one form, however its client sends them back.

    A client may send the text of an answer alone, or its blocks with fields that are null.
    """
    messages = [
        message | {"content": [_without_null(block) for block in content_blocks(message.get("content"))]}
        if isinstance(message, dict) and message.get("role") == "assistant"
        else message
        for message in _messages(body)
    ]
    return body | {"messages": messages}


def _without_null(value: Any) -> Any:
    """Return a block without its null fields, except in the input of a tool."""
    if isinstance(value, dict):
        return {key: item if key == "input" else _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value
