"""The log as any SQLite tool sees it: rows from a separate connection, and a hash chain recomputed from the written rule."""

import contextlib
import os
import sqlite3
import tempfile
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.store import SqliteStore
from tests import forks

COLUMNS = "run, seq, t_ns, wall_ns, kind, step, task, exchange, payload, digest, hash, schema"


def store_of(log: EventLog) -> SqliteStore:
    """Return the store of a log in a file, to inspect its locks and checkpoints."""
    assert isinstance(log.store, SqliteStore)
    return log.store


def query(path: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Return rows from a new connection, so every row is committed."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()


def rows(path: Path, run: str) -> list[dict[str, Any]]:
    """Return the rows of a run in order, as dicts with payloads as bytes."""
    found = []
    for values in query(path, f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY seq", run):
        row = dict(zip(COLUMNS.split(", "), values, strict=True))
        payload = row["payload"]
        found.append(row | {"payload": payload.encode() if isinstance(payload, str) else payload})
    return found


def stored_chain(events: list[dict[str, Any]]) -> list[tuple[int, bytes, bytes]]:
    """Return (seq, digest, hash) of each row, as stored."""
    return [(row["seq"], row["digest"], row["hash"]) for row in events]


def computed_chain(events: list[dict[str, Any]]) -> list[tuple[int, bytes, bytes]]:
    """Return (seq, digest, hash) by the rule in recorder/events.py, from the first event on, without gaps."""
    chain, before = [], b"\x00" * 32
    for seq, row in enumerate(events):
        digest = sha256(row["payload"]).digest()
        exchange = "" if row["exchange"] is None else str(row["exchange"])
        step = f"{len(row['step'])}:{row['step']}"
        fields = [row["schema"], row["run"], seq, row["t_ns"], row["wall_ns"], row["kind"], exchange, step, row["task"]]
        before = sha256(before + ",".join(map(str, fields)).encode("utf-8") + digest).digest()
        chain.append((seq, digest, before))
    return chain


class Child:
    """A separate Python process that runs `script`. Leaving the context kills it and closes its pipes."""

    def __init__(self, script: str, *arguments: object) -> None:
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - `finish` closes it
        (typed, to_child), (of_child, printed) = os.pipe(), os.pipe()
        self.stdin, self.stdout = os.fdopen(to_child, "w"), os.fdopen(of_child)
        try:
            files = (typed, printed, self.errors.fileno())
            self.process = forks.start("-c", script, *map(str, arguments), env=os.environ, files=files)
        finally:
            os.close(typed)
            os.close(printed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.finish()

    def line(self) -> str:
        """Return the next printed line."""
        return self.stdout.readline().rstrip("\n")

    def send_line(self, line: str = "") -> None:
        """Send a line to its input."""
        self.stdin.write(line + "\n")
        self.stdin.flush()

    def hang_up(self) -> None:
        """End its input."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()

    def finish(self) -> tuple[int, str, str]:
        """End its input and wait for its end. Return the exit code, the rest of its output, and its errors."""
        self.hang_up()
        out = "" if self.stdout.closed else self.stdout.read()
        self.stdout.close()
        code = self.process.wait(120)
        if self.errors.closed:
            return code, out, ""
        with self.errors:
            self.errors.seek(0)
            return code, out, self.errors.read()
