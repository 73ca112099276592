"""The event: one row of the log, as a frozen value.

The format, version 1. An event has a header and a payload. The header holds the place of the event (run, seq, step, task,
exchange), its time (`t_ns` since the run began, monotonic, and `wall_ns` since the epoch) and its `kind`. The payload is bytes:
for `frame` and `chunk` exactly the received bytes, for every other kind one JSON object.

Each event is sealed to the one before it in its run:

    digest = sha256(payload)
    hash   = sha256(hash of the event before, or 32 zero bytes | header | digest)
    header = "schema,run,seq,t_ns,wall_ns,kind,exchange,len(step):step,task"   (UTF-8, exchange empty when there is none)

The digest is kept separately from the payload, so that a payload can be erased while the chain stays valid. Events of unknown
kinds are read, shown and exported unchanged.
"""

import json
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from . import strict_json
from .errors import LogError
from .event_shapes import fault_in_payload

SCHEMA = 1
"""Version of the event format that this module writes."""

GENESIS = bytes(32)
"""Takes the place of the previous hash in the first event of a run."""

Kind = Literal[
    "run.started",
    "run.ended",
    "step.started",
    "step.skipped",
    "step.resumed",
    "step.ended",
    "task.started",
    "task.ended",
    "exchange.started",
    "response.started",
    "frame",
    "chunk",
    "exchange.ended",
    "message",
    "session.started",
    "wire.sent",
    "wire.unsent",
    "wire.received",
    "session.ended",
    "session.entry",
    "session.summary",
    "session.deleted",
]
"""Kinds that this version writes. `frame` is one server-sent event, `chunk` a piece of any other body.

A session of the Agent SDK also has events of the kinds `stream.TYPE`, named by the types of its lines (agent_wire.py).
"""

Ending = Literal["complete", "closed", "cut", "error_event", "http_error", "no_response"]
"""The ending of an exchange.

complete: the whole answer was received. closed: the client closed it early. cut: the connection broke. error_event: the stream
held an `error` event. http_error: the status was 400 or more. no_response: no answer was received.
"""

ENDINGS: tuple[Ending, ...] = ("complete", "closed", "cut", "error_event", "http_error", "no_response")

OWN_SEQ = -1
"""As the `exchange` of an entry: the entry's own seq. The seq of its first event identifies an exchange."""


class Entry(NamedTuple):
    """An event that a writer passes to the log, before it has a position. If `t_ns` is None, the log uses the current time."""

    kind: str
    payload: bytes
    step: str = ""
    task: str = ""
    exchange: int | None = None
    t_ns: int | None = None


class Event(NamedTuple):
    """One row of the log. (run, seq) is its key, without gaps; times are nanoseconds."""

    run: str
    seq: int
    t_ns: int
    wall_ns: int
    kind: str
    step: str
    task: str
    exchange: int | None
    payload: bytes
    digest: bytes
    hash: bytes
    schema: int = SCHEMA

    @property
    def data(self) -> dict[str, Any]:
        """The payload as JSON; for `frame` and `chunk`, use `payload` itself.

        Raise LogError if it does not have the shape of its kind (event_shapes.py): the log was changed.
        """
        try:
            value: dict[str, Any] = json.loads(self.payload)
            if self.kind == "message" and isinstance(value, dict):  # unknown shapes pass through: handlers show them
                return value
            fault = fault_in_payload(self.kind, value)
        except (ValueError, RecursionError):
            fault = "is not JSON"
        if fault is not None:
            raise LogError(f"run {self.run}, event {self.seq}: this {self.kind} {fault}; see `retold verify`.")
        return value

    def __repr__(self) -> str:
        shown = self.payload[:60].decode("utf-8", "replace") + ("…" if len(self.payload) > 60 else "")
        return f"<{self.run[:6]}#{self.seq} {self.kind} +{self.t_ns / 1e6:.1f}ms {shown!r}>"


def seal(
    before: bytes, schema: int, run: str, seq: int, t_ns: int, wall_ns: int, kind: str,
    exchange: int | None, step: str, task: str, digest: bytes,
) -> bytes:  # fmt: skip
    """Return the hash of an event. It covers the previous hash, the header and the payload's digest."""
    number = "" if exchange is None else exchange
    header = f"{schema},{run},{seq},{t_ns},{wall_ns},{kind},{number},{len(step)}:{step},{task}"
    return sha256(before + header.encode() + digest).digest()


def encode(data: Any) -> bytes:
    """Return compact JSON as UTF-8 bytes. Lone surrogates, which UTF-8 cannot hold, stay escaped; NaN is null."""
    try:
        return strict_json.dumps(data, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return strict_json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()
