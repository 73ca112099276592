"""An event as a row of the table `events`, and back."""

from typing import Any

from .events import Event

COLUMNS = ", ".join(Event._fields)
INSERT = f"INSERT INTO events ({COLUMNS}) VALUES ({', '.join('?' * len(Event._fields))})"


def to_row(event: Event) -> tuple[Any, ...]:
    """The values of a row, in the order of `COLUMNS`."""
    return (event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.step, event.task, event.exchange,
            to_column(event.payload), event.digest, event.hash, event.schema)  # fmt: skip


def to_column(payload: bytes) -> bytes | str:
    """Text where it is text, so that any SQLite tool shows it; bytes where it is not."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return payload
    return payload if "\0" in text else text


def to_event(row: tuple[Any, ...]) -> Event:
    """The inverse of `to_row`."""
    run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema = row
    payload = payload.encode() if isinstance(payload, str) else payload
    return Event(run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, own, schema)
