"""An event as a row of the table `events`, and back."""

from types import NoneType
from typing import Any

from ...errors import LogError
from ...event_shapes import fault_in_row
from ...events import Event

COLUMNS = ", ".join(Event._fields)
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(Event._fields))})"

_VALUES = ", ".join("CAST(? AS TEXT)" if field == "payload" else "?" for field in Event._fields)
INSERT_TEXT = f"INSERT INTO events ({COLUMNS}) VALUES ({_VALUES})"
"""Inserts an event as it is, without a row that is made for it, if its payload is ASCII without NUL."""


_TYPES = {
    (str, int, int, int, str, str, str, exchange, payload, bytes, bytes, int)
    for exchange in (int, NoneType)
    for payload in (str, bytes)
}
"""The types of the columns, in the order of `COLUMNS`."""


def to_row(event: Event) -> tuple[Any, ...]:
    """Return the values of a row, in the order of `COLUMNS`."""
    return (event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.step, event.task, event.exchange,
            to_column(event.payload), event.digest, event.hash, event.schema)  # fmt: skip


def to_column(payload: bytes) -> bytes | str:
    """Return text if the payload is text, so that any SQLite tool shows it, and else bytes."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload
    return payload if "\0" in text else text


def to_event(row: tuple[Any, ...]) -> Event:
    """Return the event of a row. Raises LogError if a value has a type that is never written, because the log was changed."""
    if tuple(map(type, row)) not in _TYPES:
        column = fault_in_row(row)
        where = f"run {row[0]}, event {row[1]}"
        raise LogError(f"{where[:80]!r}: its {column} is not of a type that retold writes; see `retold verify`.")
    run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema = row
    payload = payload.encode() if isinstance(payload, str) else payload
    return Event(run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema)
