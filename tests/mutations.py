"""A log with one row of every kind, and mutations of single cells: any table, any column, any type."""

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retold.audit import erase
from retold.recorder.events import Entry
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.log.memory import MemoryStore
from retold.recorder.log.receiving import Arrival, receiver

KEYS = {"events": ("run", "seq"), "runs": ("id",), "ledger": ("n",), "received": ("run",), "shelves": ("shelf",)}
"""The tables, and the columns that identify a row of each."""

NAMES = {("received", "shelf"), ("received", "source"), ("shelves", "shelf"), ("shelves", "cursor")}
"""The cells that may contain any line of text. SQLite also converts a number in them to text."""

NO_NAMES = ("null", "blob", "empty blob", "empty", "not UTF-8")
"""The values that are not a line of text."""

VALUES: dict[str, object] = {
    "null": None,
    "blob": b"\x00\xff{",
    "empty blob": b"",
    "text": "zzz",
    "number as text": "12",
    "not UTF-8": b"ab\xff",
    "empty": "",
    "zero": 0,
    "negative": -7,
    "huge": 2**63 - 1,
    "least": -(2**63),
    "real": 3.5,
    "infinity": float("inf"),
    "JSON text": '"text"',
    "JSON list": "[1]",
    "JSON object": '{"type": 5, "message": {"content": {"a": 1}}, "payloads": 5, "headers": {"a": 1}, "usage": [1]}',
    "JSON numbers": '{"a": 1e999, "b": NaN, "usage": {"input_tokens": 1' + "0" * 30 + "}}",
    "nested": "[" * 100_000,
}
"""The new values of a cell, by name."""

SSE = (("content-type", "text/event-stream"),)


class Mutation(NamedTuple):
    """A changed cell: its table, the position of its row, its column, and the name of its new value."""

    table: str
    row: int
    column: str
    value: str

    def __str__(self) -> str:
        return "-".join(map(str, self))


def write_varied(path: Path) -> None:
    """Write a log with an ended run of a streamed exchange, an erased run, an import, a received run, and an erasure."""
    with EventLog(path) as log:
        for name in ("first", "erased"):
            with log.start(name=name, mode="live") as writer:
                _exchange(writer, name)
        with log.start(name="said", mode="import") as writer:
            writer.note("message", {"type": "user", "message": {"role": "user", "content": "a question"}}, step="ask")
            block = {"type": "tool_use", "id": "t1", "name": "Read", "input": {"path": "a.txt"}}
            writer.note("message", {"type": "assistant", "message": {"id": "m1", "model": "m", "content": [block]}}, step="ask")
        erase.erase(log, erase.plan_run(log, log.find("erased")), why="a request", by="a test")
        _receive(log)
        with log.start(name="last", mode="live") as writer:
            _exchange(writer, "needle")


def _receive(log: EventLog) -> None:
    """Receive a run of another log."""
    with EventLog(store=MemoryStore()) as other:
        with other.start(name="received", mode="live") as writer:
            writer.append(Entry("frame", b"data: 1\n\n"))
        receiver(log).receive("shelf", [Arrival("a", list(other.events(writer.run)))], "0:1")


def _exchange(writer: RunWriter, text: str) -> None:
    request = Request(
        "POST", "https://api.anthropic.com/v1/messages", (), b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    )
    capture = Capture(writer, request)
    capture.response(200, "OK", SSE)
    start = (
        b'{"type":"message_start","message":{"id":"m1","role":"assistant","model":"m","content":[],"usage":{"input_tokens":3}}}'
    )
    block = b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}' % text.encode()
    stops = b'{"type":"content_block_stop","index":0}', b'{"type":"message_stop"}'
    for data in (start, block, delta, *stops):
        capture.data(b"event: x\ndata: " + data + b"\n\n")
    capture.end("complete")


def each_mutation(path: Path) -> list[Mutation]:
    """Yield every cell of every table with every value, in a fixed order that mixes them."""
    found = []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in KEYS:
            columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
            (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            for column in columns:
                values = NO_NAMES if (table, column) in NAMES else tuple(VALUES)
                found += [Mutation(table, row, column, value) for row in range(rows) for value in values]
    random.Random(12).shuffle(found)
    return found


def mutate(path: Path, mutation: Mutation) -> bool:
    """Change the cell despite the triggers. Return whether SQLite accepts the value and the value differs."""
    table, row, column, name = mutation
    value = VALUES[name]
    new = "CAST(? AS TEXT)" if name == "not UTF-8" else "?"
    key = KEYS[table]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        before = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))
        for trigger in before:
            connection.execute(f"DROP TRIGGER {trigger}")
        order = ", ".join(key)
        where = " AND ".join(f"{each} = ?" for each in key)
        values = connection.execute(f"SELECT {order} FROM {table} ORDER BY {order} LIMIT 1 OFFSET ?", (row,)).fetchone()
        read = f"SELECT typeof({column}), CAST({column} AS BLOB) FROM {table} ORDER BY {order}"
        old = connection.execute(read).fetchall()
        try:
            connection.execute(f"UPDATE {table} SET {column} = {new} WHERE {where}", (value, *values))
        except sqlite3.IntegrityError:
            return False
        changed = connection.execute(read).fetchall() != old
        for sql in before.values():
            connection.execute(sql)
        connection.commit()
        return changed


def sample(path: Path, count: int) -> Iterator[Mutation]:
    """Return this many mutations, including every table and every value."""
    yield from each_mutation(path)[:count]
