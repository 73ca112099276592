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

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from itertools import product, repeat
from typing import Any, Literal, NamedTuple

from . import strict_json
from .errors import LogError

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


class Frames(NamedTuple):
    """Frames that a writer passes to the log together: entries that differ in their payloads and their exchanges only."""

    payloads: Sequence[bytes]
    exchanges: Sequence[int | None]
    """The exchange of each frame."""
    step: str = ""
    task: str = ""
    t_ns: int | None = None

    def entries(self) -> list[Entry]:
        """Return an entry for each frame."""
        step, task, t_ns = self[2:]
        pairs = zip(self.payloads, self.exchanges, strict=True)
        return [Entry("frame", payload, step, task, exchange, t_ns) for payload, exchange in pairs]


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

        Raise LogError if it does not have the shape of its kind (`fault_in_payload`): the log was changed.
        """
        try:
            value: dict[str, Any] = strict_json.loads(self.payload)
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


as_event: Callable[[tuple[Any, ...]], Event] = partial(tuple.__new__, Event)
"""Returns the event of a row of its values. It is faster than `Event(…)`, which is a function in Python."""


def seal(
    before: bytes, schema: int, run: str, seq: int, t_ns: int, wall_ns: int, kind: str,
    exchange: int | None, step: str, task: str, digest: bytes,
) -> bytes:  # fmt: skip
    """Return the hash of an event. It covers the previous hash, the header and the payload's digest."""
    number = "" if exchange is None else exchange
    header = f"{schema},{run},{seq},{t_ns},{wall_ns},{kind},{number},{len(step)}:{step},{task}"
    return sha256(before + header.encode() + digest).digest()


def seal_frames(
    before: bytes, run: str, seq: int, t_ns: int, wall_ns: int, step: str, task: str,
    exchanges: Iterable[int | None], payloads: Iterable[bytes],
) -> list[bytes]:  # fmt: skip
    """Return digest and hash of each frame by turns, for frames that follow each other. `seal` returns the same hashes.

    The headers of these frames differ in number and exchange only.
    """
    lead, middle, rest = f"{SCHEMA},{run},".encode(), f",{t_ns},{wall_ns},frame,".encode(), f",{len(step)}:{step},{task}".encode()
    seals: list[bytes] = []
    for exchange, payload in zip(exchanges, payloads, strict=True):
        digest, number = sha256(payload).digest(), b"" if exchange is None else b"%d" % exchange
        before = sha256(b"%b%b%d%b%b%b%b" % (before, lead, seq, middle, number, rest, digest)).digest()
        seals += (digest, before)
        seq += 1
    return seals


def encode(data: Any) -> bytes:
    """Return compact JSON as UTF-8 bytes. Lone surrogates, which UTF-8 cannot hold, stay escaped; NaN is null."""
    try:
        return strict_json.dumps(data, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return strict_json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode()


_LEAST, _MOST = -(2**63), 2**63 - 1
_INTEGERS = range(_LEAST, _MOST + 1)

_TEXT, _NUMBER, _OPTIONAL_TEXT = (str,), (int,), (str, type(None))

_FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "run.started": {"name": _TEXT, "mode": _TEXT},
    "run.ended": {"status": _TEXT},
    "step.ended": {"status": _TEXT},
    "exchange.started": {
        "method": _TEXT, "uri": _TEXT, "headers": (list,), "body": (str, dict), "call": _NUMBER, "attempt": _NUMBER,
        "stamped": _TEXT, "variables": (dict,), "recorded_at": _TEXT,
    },
    "response.started": {"status": _NUMBER, "reason": _TEXT, "headers": (list,)},
    "exchange.ended": {"ending": _TEXT},
    "session.started": {"wire": _TEXT, "sdk": _TEXT, "cwd": _TEXT, "home": _TEXT},
    "session.ended": {"ending": _TEXT},
    "payloads.erased": {"run": _TEXT, "payloads": (list,)},
    "payloads.redacted": {"run": _TEXT, "payloads": (list,)},
}  # fmt: skip
"""Required fields, by kind."""

_OPTIONAL: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "run.started": {"fork": (dict,)},
    "run.ended": {"error": _OPTIONAL_TEXT},
    "step.started": {"name": _TEXT, "type": _TEXT},
    "exchange.ended": {"error": (dict, type(None)), "status": (int, type(None)), "usage": (dict, type(None)),
                       "cost_usd": (int, float, type(None)), "api_error": (dict, type(None)), "call": _NUMBER,
                       "attempt": _NUMBER},
    "session.started": {"argv": (list, type(None)), "recorded_at": _TEXT},
    "session.ended": {"error": (dict, type(None)), "exit_code": (int, type(None)), "unread": (list, type(None))},
    "message": {"type": _TEXT, "subtype": _OPTIONAL_TEXT, "usage": (dict, type(None))},
}  # fmt: skip
"""Optional fields by kind, and their types."""

KNOWN = _FIELDS.keys() | _OPTIONAL.keys()
"""The kinds whose payloads have a shape."""

_CHECKED: Mapping[str, tuple[str, ...]] = {
    kind: (*_FIELDS.get(kind, ()), *_OPTIONAL.get(kind, ())) for kind in KNOWN
}  # fmt: skip
"""The fields whose types are checked, by kind."""

STATUSES = frozenset({"completed", "failed", "cancelled", "interrupted"})
"""The possible endings of a run."""


def fault_in_row(values: tuple[Any, ...]) -> str | None:
    """Return the name of the first column in an event's row with a type or a size that is never written, or None.

    The order is that of `Event`; a payload is text or bytes.
    """
    if tuple(map(type, values)) in _ROWS:
        _, seq, t_ns, wall_ns, _, _, _, exchange, _, _, _, schema = values
        few = _LEAST <= seq <= _MOST and _LEAST <= (exchange or 0) <= _MOST and _LEAST <= schema <= _MOST
        if few and _LEAST <= t_ns <= _MOST and _LEAST <= wall_ns <= _MOST:
            return None
    for column, value in zip(_COLUMNS, values, strict=True):
        if type(value) not in _COLUMNS[column] or (isinstance(value, int) and value not in _INTEGERS):
            return column
    return None


_COLUMNS: Mapping[str, tuple[type, ...]] = {
    "run": _TEXT, "seq": _NUMBER, "t_ns": _NUMBER, "wall_ns": _NUMBER, "kind": _TEXT, "step": _TEXT, "task": _TEXT,
    "exchange": (int, type(None)), "payload": (str, bytes), "digest": (bytes,), "hash": (bytes,), "schema": _NUMBER,
}  # fmt: skip


_ROWS = frozenset(product(*_COLUMNS.values()))
"""The types of all columns, for each row that is written: a look into this set is faster than one at each column."""


def fault_in_payload(kind: str, data: Any) -> str | None:
    """Return the fault of a payload as a sentence without a subject, or None if the payload has its shape."""
    if not isinstance(data, dict):
        return "is not a JSON object"
    fields = _CHECKED.get(kind)
    if fields is None:
        return None
    fault = _fault_in_types(kind, *map(type, map(data.get, fields, repeat(_ABSENT))))
    if fault is not None:
        return fault
    if kind == "message":
        return _fault_in_message(data)
    if kind == "run.ended" and data["status"] not in STATUSES:
        return f"ends with no known status: {data['status'][:40]!r}"
    if kind in ("exchange.started", "response.started") and not all(map(_is_pair, data["headers"])):
        return "has headers that are not pairs of texts"
    if kind == "exchange.ended" and data.get("error") and not _fits_failure(data["error"]):
        return "has an error without type and message"
    if kind == "exchange.started" and isinstance(data["body"], dict) and not isinstance(data["body"].get("base64"), str):
        return "has no usable 'body'"
    return None


class _Absent:
    """The type of a field that a payload does not have."""


_ABSENT = _Absent()


@lru_cache(maxsize=1024)
def _fault_in_types(kind: str, *types: type) -> str | None:
    """Return the fault of a payload whose fields in `_CHECKED` have these types, or None. Most payloads of a log share a few."""
    required, optional = _FIELDS.get(kind, {}), _OPTIONAL.get(kind, {})
    for field, found in zip(_CHECKED[kind], types, strict=True):
        allowed = required[field] if field in required else (*optional[field], _Absent)
        if found not in allowed:
            return f"has no usable {field!r}"
    return None


def _fault_in_message(data: dict[str, Any]) -> str | None:
    if data.get("type") not in ("assistant", "user"):
        return None
    inner = data.get("message", {})
    if not isinstance(inner, dict):
        return "is a message whose 'message' is not an object"
    content = inner.get("content", [])
    if isinstance(content, str):
        return None
    for block in content if isinstance(content, list) else (None,):
        if not isinstance(block, dict):
            return "is a message whose content is neither text nor a list of content blocks"
    return None


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str)


def _fits_failure(error: dict[str, Any]) -> bool:
    return error.keys() == {"type", "message"} and all(isinstance(value, str) for value in error.values())


def ending(status: str, error: str | None, counts: dict[str, int]) -> bytes:
    """Return the payload of `run.ended`."""
    return encode({"status": status, "error": error, **counts})
