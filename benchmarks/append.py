"""The cost of appending one event: 400 bytes, committed when `RunWriter.append` returns.

The peer is the raw sqlite3 module with one INSERT of the same bytes, in WAL mode and with the same `synchronous`. One of its
tables has only the payload. The other has the log's columns and indexes with ready-made values, so the difference is hashing,
stamping and checking. `process` survives the death of the process, `power` a power failure.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Row, folder, quantile, ratio, rounds, run
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.opening import Durability

_FRAME = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}'
PAYLOAD = _FRAME % (b"x" * (400 - len(_FRAME))) + b"\n\n"

EVENTS: dict[Durability, int] = {"process": 6000, "power": 800}
ROUNDS: dict[Durability, int] = {"process": 7, "power": 7}

PAYLOAD_ONLY = "CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)"
SAME_COLUMNS = """
CREATE TABLE events (
    run TEXT NOT NULL, seq INTEGER NOT NULL, t_ns INTEGER NOT NULL, wall_ns INTEGER NOT NULL, kind TEXT NOT NULL,
    step TEXT NOT NULL, task TEXT NOT NULL, exchange INTEGER, payload BLOB NOT NULL, digest BLOB NOT NULL, hash BLOB NOT NULL,
    schema INTEGER NOT NULL, PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE INDEX events_but_frames ON events (run, seq) WHERE kind <> 'frame';
"""

Step = Callable[[int], object]


def _open(path: Path, durability: Durability, tables: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(tables)
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    return connection


def _timed(step: Step, number: int) -> list[float]:
    """Return the microseconds of each of `number` steps."""
    found = []
    for i in range(number):
        began = time.perf_counter_ns()
        step(i)
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


class _Raw:
    """A table filled by plain INSERTs. The numbers continue from round to round."""

    def __init__(self, connection: sqlite3.Connection, insert: str, row: Callable[[int], tuple[object, ...]]) -> None:
        self.connection = connection
        self.insert = insert
        self.row = row
        self.done = 0

    def round(self, number: int) -> list[float]:
        rows = [self.row(self.done + i) for i in range(number)]
        self.done += number
        return _timed(lambda i: self.connection.execute(self.insert, rows[i]), number)


def _durability(home: Path, durability: Durability) -> list[Row]:
    text, number = PAYLOAD.decode(), EVENTS[durability]
    payload_only = _Raw(
        _open(home / f"payload-{durability}.db", durability, PAYLOAD_ONLY),
        "INSERT INTO events (payload) VALUES (?)",
        lambda _: (text,),
    )
    same_columns = _Raw(
        _open(home / f"columns-{durability}.db", durability, SAME_COLUMNS),
        "INSERT INTO events (run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, hash, schema) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        lambda i: ("0123456789abcdef", i, i * 1000, i * 1001, "frame", "step", "", 3, text, bytes(32), bytes(32), 1),
    )
    with EventLog(home / f"log-{durability}.db", durability=durability) as log:
        writer = log.start(name="append", mode="live")
        entry = Entry("frame", PAYLOAD, "step", "", 3)
        found = rounds(ROUNDS[durability], {
            "ours": lambda: _timed(lambda _: writer.append(entry), number),
            "payload only": lambda: payload_only.round(number),
            "same columns": lambda: same_columns.round(number),
        })  # fmt: skip
        writer.end()
    rows = []
    for peer in ("payload only", "same columns"):
        for share in (0.5, 0.99):
            ours = [quantile(samples, share) for samples in found["ours"]]
            theirs = [quantile(samples, share) for samples in found[peer]]
            name = f"{durability}: append, p{share * 100:.0f}"
            is_goal = durability == "process" and peer == "same columns" and share == 0.5
            rows.append(ratio(name, ours, f"INSERT, {peer}", theirs, "us", at_most=1.4 if is_goal else 2))
    return rows


def measure() -> list[Row]:
    with folder() as home:
        return _durability(home, "process") + _durability(home, "power")


if __name__ == "__main__":
    run("append: one event of 400 bytes, appended and committed", measure)
