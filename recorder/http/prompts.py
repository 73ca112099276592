"""The prompts of a recording: the texts of the user in a request to the Messages API, or in a line to a session."""

from typing import Any

from ..events import Event
from ..messages import blocks_of, content_blocks
from .platforms import asked_of

PROMPT_KINDS = ("exchange.started", "wire.sent")
"""The kinds of events that hold prompts."""


def request_in(started: dict[str, Any]) -> dict[str, Any]:
    """Return the request of an `exchange.started` in the shape of the Messages API; empty if it has no JSON body."""
    body = started.get("body")
    return asked_of(str(started.get("uri", "")), body) if isinstance(body, str) else {}


def prompt_of(event: Event) -> str:
    """Return the prompt in an event of any of PROMPT_KINDS, or an empty text if it holds none."""
    return prompt_of_line(event.data) if event.kind == "wire.sent" else prompt_of_request(event.data)


def prompt_of_request(started: dict[str, Any], request: dict[str, Any] | None = None) -> str:
    """Return the user's texts after the last answer in the request of an `exchange.started`. A retry has none.

    Results of tools do not count, because they are messages of their own. `request` is `request_in(started)`, if the caller has
    it.
    """
    if started.get("attempt", 1) != 1:
        return ""
    request = request_in(started) if request is None else request
    messages = request.get("messages")
    words: list[str] = []
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict) or message.get("role") != "user":
            break
        words[:0] = [str(b.get("text", "")) for b in content_blocks(message.get("content")) if b.get("type") == "text"]
    if isinstance(request.get("prompt"), str):  # /v1/complete
        words.append(request["prompt"])
    return "\n".join(filter(None, words))


def prompt_of_line(line: dict[str, Any]) -> str:
    """Return the text of a user message that a program wrote to a session; empty for any other line that it wrote."""
    if line.get("type") != "user":
        return ""
    return "\n".join(str(block.get("text", "")) for block in blocks_of(line) if block.get("type") == "text")
