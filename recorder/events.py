"""The event: one row of the log, as a frozen value.

The format, version 1. An event has a header and a payload. The header says where the event belongs (run, seq, step, task,
exchange), when it happened (`t_ns` since the run began, monotonic; `wall_ns` since the epoch beside it) and what it is
(`kind`). The payload is bytes: for `frame` and `chunk` exactly the bytes that came, for every other kind one JSON object.

Each event is sealed to the one before it in its run:

    digest = sha256(payload)
    hash   = sha256(hash of the event before, or 32 zero bytes | header | digest)
    header = "schema,run,seq,t_ns,wall_ns,kind,exchange,len(step):step,task"   (UTF-8, exchange empty when there is none)

The digest stands apart from the payload so that a payload can be erased while the chain stays valid. Kinds this version does
not know pass through reading, showing and exporting untouched.
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
"""Stands where the first event of a run would name the hash of the one before."""

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
]
"""Kinds that this version writes. `frame` is one server-sent event, `chunk` a piece of any other body."""

Ending = Literal["complete", "closed", "cut", "error_event", "http_error", "no_response"]
"""How an exchange ended.

complete: the whole answer came. closed: the client closed it early. cut: the connection broke. error_event: the stream
carried an `error` event. http_error: the status was 400 or more. no_response: no answer came at all.
"""

ENDINGS: tuple[Ending, ...] = ("complete", "closed", "cut", "error_event", "http_error", "no_response")

OWN_SEQ = -1
"""As an entry's `exchange`: the number this very entry gets. An exchange is named by the seq of its first event."""


class Entry(NamedTuple):
    """What a writer hands to the log: an event before it has a place. `t_ns` None is stamped when it is appended."""

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
        """The payload as JSON; for `frame` and `chunk` read `payload` itself.

        Raises LogError if it is not what its kind promises (event_shapes.py): the log was changed.
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
    """The hash of an event: covers the hash before it, its header and its payload's digest."""
    number = "" if exchange is None else exchange
    header = f"{schema},{run},{seq},{t_ns},{wall_ns},{kind},{number},{len(step)}:{step},{task}"
    return sha256(before + header.encode() + digest).digest()


def encode(data: Any) -> bytes:
    """JSON as UTF-8 bytes, compact; lone surrogates, which UTF-8 cannot hold, stay escaped, NaN is null."""
    try:
        return strict_json.dumps(data, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return strict_json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()
