"""Remove content from a log while its chains stay valid: replace payloads, remove runs, and record each change as an event.

Of an erased event everything but the payload stays: its place, times, kind, digest and hash. The digest is of the recorded
payload, so the chain of the run holds. The event of the erasure keeps the sha256 of the replacement, by which `verify`
distinguishes an erasure from an edit. A pruned run goes whole; the event of the removal keeps its last number and hash.

The replacement of a payload has the form that readers of its kind expect and none of the recorded text. The cost of a run
stays: model, usage and cost belong to the account, not to a person. An exchange has them in its last event. A session has them in
its messages, whose replacement keeps them under `account`.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from ..errors import LogError
from ..events import Entry, Event, encode
from ..strict_json import object_in, object_or_empty
from .log import EventLog, RunWriter
from .store import Erasable

ERASED = "payloads.erased"
REDACTED = "payloads.redacted"
PRUNED = "run.pruned"
AT_ONCE = 250
"""Payloads in one transaction: other processes write in between, and on a full disk the reserve has room for the WAL."""

ERASED_NAME = "erased"
"""The name of a run whose name was erased."""

_KEPT = {
    "run.started": ("mode", "fork"),
    "run.ended": ("status", "messages", "exchanges", "frames"),
    "step.started": ("name", "type"),
    "step.ended": ("name", "status"),
    "task.started": ("name", "type", "id"),
    "task.ended": ("name", "status", "id"),
    "exchange.started": ("method", "call", "attempt", "stamped", "recorded_at"),
    "response.started": ("status",),
    "exchange.ended": ("ending", "status", "frames", "bytes", "model", "stop_reason", "usage", "cost_usd", "call", "attempt"),
    "session.started": ("wire", "sdk", "recorded_at"),
    "session.ended": ("ending", "exit_code"),
}
"""The kept fields of a payload, by kind: facts of the recording, no text of a person."""

_EMPTY: dict[str, dict[str, Any]] = {
    "run.started": {"name": ERASED_NAME},
    "run.ended": {"error": None},
    "step.ended": {"error": None},
    "task.ended": {"error": None},
    "exchange.started": {"uri": "", "headers": [], "body": "", "variables": {}},
    "response.started": {"reason": "", "headers": []},
    "exchange.ended": {"error": None, "sha256": None, "message_id": None},
    "session.started": {"cwd": "", "home": "", "argv": None},
    "session.ended": {"error": None, "unread": None},
}
"""Further fields that readers expect, empty."""


def tombstone(kind: str, payload: bytes, by: str) -> bytes:
    """Return the replacement of an erased payload; `by` is the run that records who erased it and why."""
    if kind == "frame":
        return b": erased\n\n"  # a comment: no reader of an event stream takes it for an event
    if kind == "chunk":
        return b""
    data = object_in(payload)
    kept = {key: data[key] for key in _KEPT.get(kind, ()) if key in data}
    if kind == "message":
        account = account_of(data)
        kept = {"type": "erased", "subtype": str(data.get("subtype") if data.get("type") == "erased" else data.get("type"))}
        kept |= {"account": account} if account else {}
    return encode(kept | _EMPTY.get(kind, {}) | {"erased_by": by})


def account_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return the model, the tokens and the costs in a message, in its own shape without its texts; empty if it has none.

    The id of an answer, which its lines share, becomes a digest. Of the replacement of a message, return what it keeps.
    """
    if message.get("type") == "erased":
        return object_or_empty(message.get("account"))
    inner = object_or_empty(message.get("message"))
    if message.get("type") == "assistant" and isinstance(inner.get("model"), str) and (usage := _numbers(inner.get("usage"))):
        digest = sha256(str(inner.get("id")).encode()).hexdigest()[:16]
        return {"message": {"id": digest, "model": inner["model"], "usage": usage}}
    name = next((name for name in _SPENT if isinstance(message.get(name), dict)), None)
    if message.get("type") != "result" or name is None:
        return {}
    return {name: {str(model): _numbers(usage) for model, usage in message[name].items()}}


_SPENT = ("model_usage_since_last_result", "modelUsage")
"""The fields of a result with the usage of a session by model; the first one counts."""


_COUNTS = (
    "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
    "inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens", "costUSD",
)  # fmt: skip


def _numbers(value: Any) -> dict[str, Any]:
    counts = object_or_empty(value)
    return {key: n for key in _COUNTS if isinstance(n := counts.get(key), int | float) and not isinstance(n, bool)}


def is_tombstone(kind: str, payload: bytes) -> bool:
    """Return whether a payload was erased already."""
    by = "" if kind in ("frame", "chunk") else str(object_in(payload).get("erased_by", ""))
    return tombstone(kind, payload, by) == payload


def replace_payloads(log: EventLog, writer: RunWriter, run: str, payloads: Sequence[tuple[int, bytes]], *, kind: str) -> None:
    """Replace payloads of a run by others, with an event of `kind` in the writer's (audit) run that records it.

    Raises LogError.
    """
    for at in range(0, len(payloads), AT_ONCE):
        part = payloads[at : at + AT_ONCE]
        data = {"run": run, "payloads": [[seq, sha256(payload).hexdigest()] for seq, payload in part]}

        def replace(store: Erasable, record: Event, part: Sequence[tuple[int, bytes]] = part) -> None:
            store.replace_payloads(run, part, record)

        log.amend(writer, Entry(kind, encode(data)), replace)


def prune_run(log: EventLog, writer: RunWriter, run: str) -> None:
    """Remove a run whole, with an event in the writer's (audit) run that records it.

    Raises LogError, also if the listing was changed and holds something else in the place of a run's id.
    """
    if not isinstance(run, str):
        raise LogError(f"the listing of {log.path} holds {type(run).__name__} in the place of a run's id; see `retold verify`.")
    event = log.last(run)  # raises LogError if a cell was changed
    last, own = (-1, b"") if event is None else (event.seq, event.hash)  # a line of the listing without events
    data = {"run": run, "seq": last, "hash": own.hex()}
    log.amend(writer, Entry(PRUNED, encode(data)), lambda store, record: store.prune(run, record))
