"""Events as lines of JSON: the format of `retold export --format jsonl` and of shipped pages.

    {"run", "seq", "t_ns", "wall_ns", "kind", "step", "task", "exchange", "payload", "digest", "hash", "schema"}

`payload` is text, or {"base64": …} if it is not UTF-8; `digest` and `hash` are hexadecimal. Reading a line returns the written
event, byte for byte.
"""

import json
from typing import Any

from . import strict_json
from .events import KNOWN, Event, fault_in_payload, fault_in_row
from .http.exchange import from_text, to_text

KEYS = Event._fields


def values_of(event: Event) -> dict[str, Any]:
    """Return an event as the JSON object of its line."""
    line: dict[str, Any] = {key: getattr(event, key) for key in KEYS}
    return line | {"payload": to_text(event.payload), "digest": event.digest.hex(), "hash": event.hash.hex()}


def line_of(event: Event) -> bytes:
    """Return the line of an event, with its newline."""
    run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema = event
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return strict_json.dumps(values_of(event), separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"
    # The same line in a third of the time: a page of a shelf has 200 of them.
    q, number = strict_json.quoted, "null" if exchange is None else exchange
    return (
        f'{{"run":{q(run)},"seq":{seq},"t_ns":{t_ns},"wall_ns":{wall_ns},"kind":{q(kind)},"step":{q(step)},"task":{q(task)},'
        f'"exchange":{number},"payload":{q(text)},"digest":"{digest.hex()}","hash":"{own.hex()}","schema":{schema}}}\n'
    ).encode("utf-8", "surrogatepass")


def event_of(line: bytes) -> Event:
    """Return the event of a line. Raise ValueError if retold cannot have written the line."""
    try:
        return _event(json.loads(line))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def events_of(lines: bytes) -> list[Event]:
    """Return the events of lines, in a third less time than one by one. Raise ValueError as `event_of` does."""
    whole = lines.removesuffix(b"\n")
    try:
        found = json.loads(f"[{whole.decode('utf-8', 'surrogatepass').replace(chr(10), ',')}]")
        if len(found) == whole.count(b"\n") + 1:
            return [_event(data) for data in found]
    except (KeyError, TypeError, RecursionError, ValueError):
        pass  # one of the lines is at fault, or empty: read one by one, each has its own error
    return [event_of(line) for line in lines.split(b"\n") if line]


def _event(data: Any) -> Event:
    """Return the event of a JSON object. Raises KeyError, TypeError, ValueError."""
    event = Event(
        data["run"], data["seq"], data["t_ns"], data["wall_ns"], data["kind"], data["step"], data["task"], data["exchange"],
        from_text(data["payload"]), bytes.fromhex(data["digest"]), bytes.fromhex(data["hash"]), data["schema"],
    )  # fmt: skip
    if (column := fault_in_row(event)) is not None:
        raise ValueError(f"event {event.seq} of run {event.run}: its {column} is not of a type that retold writes")
    if event.kind in KNOWN and (fault := fault_in_payload(event.kind, json.loads(event.payload))) is not None:
        raise ValueError(f"its payload {fault}")
    return event
