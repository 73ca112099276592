"""The agent loop: one conversation of requests, answers and tools, appended to the log as messages.

The loop uses neither the network nor the tools directly: it sends requests to an `Api` and passes tool uses to `Tools`. A live
run and a mock run differ only in these two, so both write the same messages. Times in the result are those of the recording,
in whole microseconds, the precision of a cassette; a mock run at instant timing reports the durations of the recorded run.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from ..recorder import strict_json
from ..recorder.events import Ending
from ..recorder.http.capture import Capture
from ..recorder.log.log import RunWriter
from ..recorder.messages import Session
from .tools import Tools

FALLBACK_STATUSES = frozenset({404, 429, 500, 503, 529})
"""HTTP statuses after which another model may still answer."""

WAYS_OUT = {
    401: "check the key",
    403: "check what the key may do",
    404: "check the model's name and the base URL",
    429: "try again later, or raise retry_config.max_retries",
    529: "try again later, raise retry_config.max_retries, or name a fallback_model",
}
"""Advice for HTTP statuses of the API."""

Cause = Literal["rate_limit", "overloaded", "server_error", "connection", "cut", "timeout", "max_turns", "other"]
"""The cause of a failed conversation, in the terms of `retry_conditions`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The parts of an answer that the loop needs. A broken answer holds the parts that arrived. Times are microseconds of the
    recorded run.
    """

    content: list[dict[str, Any]]
    stop_reason: str | None
    usage: dict[str, Any]
    model: str
    cost_usd: float | None
    ending: Ending
    status: int | None
    error: str | None
    failure: "Cause | None"
    started_us: int
    first_us: int | None
    ended_us: int

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(str(block.get("text", "")) for block in self.content if block.get("type") == "text")

    @property
    def tool_uses(self) -> list[dict[str, Any]]:
        """The `tool_use` blocks."""
        return [block for block in self.content if block.get("type") == "tool_use"]


class Api(Protocol):
    """Answers request bodies of the Messages API and records each exchange as part of a session."""

    async def ask(self, body: dict[str, Any], session: Session) -> Reply:
        """Return the answer to one request, whether it succeeded or failed. Raise MissError in replay."""

    @property
    def unfinished(self) -> Reply | None:
        """The incomplete answer at the time limit, or None."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a conversation ended. `error` is None if it ended well. A later conversation can continue from `messages`."""

    text: str
    turns: int
    stop_reason: str | None
    usage: dict[str, int]
    cost_usd: float | None
    error: str | None
    result: dict[str, Any]
    messages: list[dict[str, Any]] = field(repr=False, default_factory=list)
    failure: Cause | None = None
    started_us: int = 0
    ended_us: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """The first request of a conversation, and the place of its messages in the log."""

    body: dict[str, Any]
    max_turns: int
    writer: RunWriter
    session: Session
    step: str
    task: str = ""
    fallback_model: str | None = None
    cost_tracking: bool = True
    notify: Callable[[str], None] = lambda _: None
    replies: list[Reply] = field(default_factory=list)

    def say(self, message: dict[str, Any]) -> None:
        """Append a message of this conversation to the log."""
        self.writer.note("message", message, step=self.step, task=self.task)

    def failed(self, error: str, failure: Cause, unfinished: Reply | None = None) -> Outcome:
        """Return the outcome of a conversation that ended outside of a complete answer, and append its result message."""
        replies = [*self.replies, *([] if unfinished is None else [unfinished])]
        if replies:
            return replace(_outcome(self, replies, [], "error_during_execution", error), failure=failure)
        result = self.session.result({"subtype": "error_during_execution", "is_error": True, "errors": [error]})
        self.say(result)
        return Outcome("", 0, None, {}, None, error, result, failure=failure)


async def converse(conversation: Conversation, api: Api, tools: Tools) -> Outcome:
    """Hold a conversation until the model ends it, the turns are used up, or it fails. Raise MissError in replay."""
    body = dict(conversation.body)
    messages = list(body["messages"])
    replies = conversation.replies
    error = subtype = failure = None
    while True:
        reply = await _ask(conversation, api, _sendable(body | {"messages": messages}))
        body["model"] = reply.model
        replies.append(reply)
        conversation.notify(f"turn {len(replies)}: {reply.stop_reason or reply.ending}")
        if reply.error is not None:
            error, subtype, failure = reply.error, "error_during_execution", reply.failure
            break
        messages = [*messages, {"role": "assistant", "content": reply.content}]
        if reply.stop_reason == "tool_use":
            messages.append({"role": "user", "content": await _use_tools(conversation, tools, reply)})
        # pause_turn: the API interrupted a long turn; sending it back unchanged continues it.
        elif reply.stop_reason != "pause_turn":
            break
        if len(replies) >= conversation.max_turns:
            error, subtype = f"stopped after {conversation.max_turns} turns (max_turns)", "error_max_turns"
            failure = "max_turns"
            break
    return replace(_outcome(conversation, replies, messages, subtype, error), failure=failure)


def _sendable(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without parts that an answer may contain and the API rejects.

    These are blank text blocks, turns without content, and halves of surrogate pairs, which become `?`. They can also come
    from a kept session.
    """
    body = body | {"messages": [sent for message in body["messages"] if (sent := _sendable_turn(message)) is not None]}
    try:
        strict_json.dumps(body).encode()
    except UnicodeEncodeError:
        made: dict[str, Any] = json.loads(strict_json.dumps(body).encode("utf-8", "replace"))
        return made
    return body


def _sendable_turn(message: dict[str, Any]) -> dict[str, Any] | None:
    """Return an assistant turn without its blank text blocks, or None if it has no others. Return any other turn unchanged."""
    content = message["content"]
    if message["role"] != "assistant" or isinstance(content, str):
        return message
    kept = [block for block in content if block.get("type") != "text" or str(block.get("text", "")).strip()]
    return message | {"content": kept} if kept else None


async def _ask(conversation: Conversation, api: Api, body: dict[str, Any]) -> Reply:
    """Send a request. If the model fails and a fallback model is configured, ask that model, and use it from then on."""
    reply = replace(await api.ask(body, conversation.session), model=body["model"])
    fallback = conversation.fallback_model
    if reply.ending == "http_error" and reply.status in FALLBACK_STATUSES and fallback not in (None, body["model"]):
        conversation.notify(f"{body['model']} cannot answer ({reply.error}); falling back to {fallback}")
        reply = replace(await api.ask(body | {"model": fallback}, conversation.session), model=fallback)
    return reply


async def _use_tools(conversation: Conversation, tools: Tools, reply: Reply) -> list[dict[str, Any]]:
    results = []
    for use in reply.tool_uses:
        result = await tools.run(use)
        conversation.say(conversation.session.tool_result(result))
        results.append(result)
    return results


def _outcome(
    conversation: Conversation, replies: list[Reply], messages: list[dict[str, Any]], subtype: str | None, error: str | None
) -> Outcome:
    """Return the result of a conversation and append its result message."""
    first, last = replies[0], replies[-1]
    usage = sum_usage([reply.usage for reply in replies])
    costs = [reply.cost_usd for reply in replies if reply.usage]
    known = conversation.cost_tracking and costs and None not in costs
    cost_usd = round(sum(cost for cost in costs if cost is not None), 10) if known else None
    fields: dict[str, Any] = {
        "subtype": subtype or "success",
        "is_error": error is not None,
        "duration_ms": round((last.ended_us - first.started_us) / 1000),
        "duration_api_ms": round(sum(reply.ended_us - reply.started_us for reply in replies) / 1000),
        "ttft_ms": None if first.first_us is None else round((first.first_us - first.started_us) / 1000),
        "num_turns": len(replies),
        "stop_reason": last.stop_reason,
        "total_cost_usd": cost_usd,
        "usage": usage,
        "permission_denials": [],
    }
    fields |= {"result": last.text} if error is None else {"errors": [error]}
    result = conversation.session.result(fields)
    conversation.say(result)
    return Outcome(
        last.text, len(replies), last.stop_reason, usage, cost_usd, error, result, messages,
        started_us=first.started_us, ended_us=last.ended_us,
    )  # fmt: skip


def sum_usage(usages: list[dict[str, Any]]) -> dict[str, int]:
    """Return the sums of token counts. Counts that no answer reported are omitted."""
    total: dict[str, int] = {}
    for usage in usages:
        for key, value in usage.items():
            if isinstance(value, int) and not isinstance(value, bool):
                total[key] = total.get(key, 0) + value
    return total


def reply_of(capture: Capture, *, started_ns: int, first_ns: int | None, ended_ns: int) -> Reply:
    """Return the reply of a finished capture. `first_ns` and `ended_ns` count from `started_ns`."""
    fold = capture.fold
    started_us = round(started_ns / 1000)
    return Reply(
        content=[*fold.content, *fold.incomplete],
        stop_reason=fold.stop_reason,
        usage=fold.usage,
        model=str(fold.message.get("model", "")),
        cost_usd=capture.cost_usd,
        ending=capture.ending or "cut",
        status=capture.status,
        error=_error(capture),
        failure=_cause(capture),
        started_us=started_us,
        first_us=None if first_ns is None else started_us + round(first_ns / 1000),
        ended_us=started_us + round(ended_ns / 1000),
    )


def _error(capture: Capture) -> str | None:
    """Return the error of an answer as one line, or None. An answer is complete only if its last event arrived."""
    said = capture.fold.error or {}
    what = ": ".join(str(said[key]) for key in ("type", "message") if said.get(key))
    match capture.ending:
        case "complete":
            return None if capture.fold.stopped else "the stream ended before the answer was whole"
        case "http_error":
            way_out = WAYS_OUT.get(capture.status or 0)
            return f"HTTP {capture.status}{' ' + what if what else ''}{f' ({way_out})' if way_out else ''}"
        case "error_event":
            return what or "the stream carried an error event"
        case "no_response":
            detail = "" if capture.failure is None else f": {capture.failure.message or capture.failure.type}"
            return f"no response from the API{detail}"
        case "cut":
            detail = "" if capture.failure is None else f": {capture.failure.message}"
            return f"the stream was cut{detail}"
    return "the stream was closed early"


def _cause(capture: Capture) -> Cause | None:
    said = (capture.fold.error or {}).get("type")
    match capture.ending:
        case "complete":
            return None if capture.fold.stopped else "cut"
        case "no_response":
            return "connection"
        case "cut":
            return "cut"
        case "closed":
            return "timeout"
    return cause_of(capture.status, said)


def cause_of(status: int | None, said: object) -> Cause:
    """Return the cause of a failure from the HTTP status and the type of the API's error. An error event has the status 200."""
    if status == 429 or said == "rate_limit_error":
        return "rate_limit"
    if status == 529 or said == "overloaded_error":
        return "overloaded"
    return "server_error" if (status or 0) >= 500 or said == "api_error" else "other"
