"""Events as lines of JSON: the format of `retold export --format jsonl` and of shipped pages.

    {"run", "seq", "t_ns", "wall_ns", "kind", "step", "task", "exchange", "payload", "digest", "hash", "schema"}

`payload` is text, or {"base64": …} if it is not UTF-8; `digest` and `hash` are hexadecimal. Reading a line returns the written
event, byte for byte.
"""

import json
from typing import Any

from . import strict_json
from .event_shapes import KNOWN, fault_in_payload, fault_in_row
from .events import Event
from .http.exchange import from_text, to_text

KEYS = Event._fields


def values_of(event: Event) -> dict[str, Any]:
    """Return an event as the JSON object of its line."""
    line: dict[str, Any] = {key: getattr(event, key) for key in KEYS}
    return line | {"payload": to_text(event.payload), "digest": event.digest.hex(), "hash": event.hash.hex()}


def line_of(event: Event) -> bytes:
    """Return the line of an event, with its newline."""
    return strict_json.dumps(values_of(event), separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def event_of(line: bytes) -> Event:
    """Return the event of a line. Raise ValueError if retold cannot have written the line."""
    try:
        data = json.loads(line)
        values = {key: data[key] for key in KEYS}
        values |= {key: bytes.fromhex(data[key]) for key in ("digest", "hash")}
        event = Event(**values | {"payload": from_text(data["payload"])})
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if (column := fault_in_row(event)) is not None:
        raise ValueError(f"event {event.seq} of run {event.run}: its {column} is not of a type that retold writes")
    if event.kind in KNOWN and (fault := fault_in_payload(event.kind, json.loads(event.payload))) is not None:
        raise ValueError(f"its payload {fault}")
    return event
