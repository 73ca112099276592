"""Taking something out of a log while its chains stay valid: payloads replaced, runs removed, each with an event of it.

Of an erased event everything but the payload stays: its place, times, kind, digest and hash. The digest is of the recorded
payload, so the chain of the run holds. The event of the erasure keeps the sha256 of the replacement, so that `verify` can
tell an erasure from an edit. A pruned run goes whole; the event of the removal keeps its last number and hash.

The replacement of a payload has the form that readers of its kind expect and none of the recorded text. The cost of a run
stays: model, usage and cost of an exchange are the account's, not a person's.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any

from ...errors import LogError
from ...events import Entry, encode
from ...strict_json import object_in
from ..log import EventLog
from ..reading import last_row
from ..run_writer import RunWriter
from .rebuild import relist_run
from .rows import to_column

ERASED = "payloads.erased"
REDACTED = "payloads.redacted"
PRUNED = "run.pruned"
AT_ONCE = 500
"""Payloads a transaction: others write in between."""

ERASED_NAME = "erased"
"""The name of a run whose name was erased."""

_KEPT = {
    "run.started": ("mode",),
    "run.ended": ("status", "messages", "exchanges", "frames"),
    "step.started": ("name", "type"),
    "step.ended": ("name", "status"),
    "task.started": ("name", "type", "id"),
    "task.ended": ("name", "status", "id"),
    "exchange.started": ("method", "call", "attempt", "stamped", "recorded_at"),
    "response.started": ("status",),
    "exchange.ended": ("ending", "status", "frames", "bytes", "model", "stop_reason", "usage", "cost_usd"),
}
"""What is kept of a payload, by kind: facts of the recording, nothing that somebody wrote."""

_EMPTY: dict[str, dict[str, Any]] = {
    "run.started": {"name": ERASED_NAME},
    "run.ended": {"error": None},
    "step.ended": {"error": None},
    "task.ended": {"error": None},
    "exchange.started": {"uri": "", "headers": [], "body": "", "variables": {}},
    "response.started": {"reason": "", "headers": []},
    "exchange.ended": {"error": None, "sha256": None, "message_id": None},
}
"""What readers expect beside it, empty."""


def tombstone(kind: str, payload: bytes, by: str) -> bytes:
    """What stands in the place of an erased payload; `by` is the run that says who erased it and why."""
    if kind == "frame":
        return b": erased\n\n"  # a comment: no reader of an event stream takes it for an event
    if kind == "chunk":
        return b""
    data = object_in(payload)
    kept = {key: data[key] for key in _KEPT.get(kind, ()) if key in data}
    if kind == "message":
        kept = {"type": "erased", "subtype": str(data.get("subtype") if data.get("type") == "erased" else data.get("type"))}
    return encode(kept | _EMPTY.get(kind, {}) | {"erased_by": by})


def is_tombstone(kind: str, payload: bytes) -> bool:
    """Whether a payload was erased already."""
    by = "" if kind in ("frame", "chunk") else str(object_in(payload).get("erased_by", ""))
    return tombstone(kind, payload, by) == payload


def replace_payloads(log: EventLog, writer: RunWriter, run: str, payloads: Sequence[tuple[int, bytes]], *, kind: str) -> None:
    """Put other payloads in the place of those of a run, with an event of `kind` in the writer's (audit) run that says so."""
    for at in range(0, len(payloads), AT_ONCE):
        part = payloads[at : at + AT_ONCE]
        said = {"run": run, "payloads": [[seq, sha256(payload).hexdigest()] for seq, payload in part]}

        def change(connection: sqlite3.Connection, part: Sequence[tuple[int, bytes]] = part) -> None:
            connection.executemany("INSERT INTO erasing (run, seq) VALUES (?, ?)", [(run, seq) for seq, _ in part])
            connection.executemany(
                "UPDATE events SET payload = ? WHERE run = ? AND seq = ?", [(to_column(data), run, seq) for seq, data in part]
            )
            connection.execute("DELETE FROM erasing")
            relist_run(connection, run)

        log.amend(writer, Entry(kind, encode(said)), change)


def prune_run(log: EventLog, writer: RunWriter, run: str) -> None:
    """Remove a run whole, with an event in the writer's (audit) run that records it.

    Raises LogError, also if the listing was changed and holds something else in the place of a run's id.
    """
    if not isinstance(run, str):
        raise LogError(f"the listing of {log.path} holds {type(run).__name__} in the place of a run's id; see `retold verify`.")
    with closing(log.reader()) as reading:
        row = last_row(reading, run)  # raises LogError if a cell was changed
    last, own = (-1, b"") if row is None else (row.seq, row.hash)  # a line of the listing without events

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO erasing (run, seq) VALUES (?, NULL)", (run,))
        connection.execute("DELETE FROM events WHERE run = ?", (run,))
        connection.execute("DELETE FROM runs WHERE run = ?", (run,))
        connection.execute("DELETE FROM erasing")

    log.amend(writer, Entry(PRUNED, encode({"run": run, "seq": last, "hash": own.hex()})), change)
