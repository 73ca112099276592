"""An event as a row of the table `events`. `reading.py` reads it."""

from typing import Any

from ...events import Event

COLUMNS = ", ".join(Event._fields)
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(Event._fields))})"

_VALUES = ", ".join("CAST(? AS TEXT)" if field == "payload" else "?" for field in Event._fields)
INSERT_TEXT = f"INSERT INTO events ({COLUMNS}) VALUES ({_VALUES})"
"""Inserts an event as it is, without a row that is made for it, if its payload is ASCII without NUL."""


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
