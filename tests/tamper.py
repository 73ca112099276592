"""Logs to tamper with, and SQL that changes their files without the triggers."""

import contextlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from retold.audit.chain import Finding
from retold.audit.verify import Report, verify
from retold.recorder.events import Entry, encode
from retold.recorder.log.log import EventLog
from retold.recorder.log.store import Head

FIELDS = "t_ns, wall_ns, kind, step, task, exchange, payload, digest, hash, schema"
"""The columns of a row except its key."""


def write_log(path: Path, *, runs: int = 4, events: int = 250) -> list[str]:
    """Write a log of this many runs of this many events each, and return the runs."""
    written = []
    with EventLog(path) as log:
        for number in range(runs):
            with log.start(name=f"run {number}", mode="live") as writer:
                writer.note("message", {"type": "user", "message": {"role": "user", "content": f"question {number}"}}, step="ask")
                entries = [Entry("frame", b"event: x\ndata: %d/%d\n\n" % (number, at), "ask") for at in range(events - 4)]
                writer.append(*entries)
                writer.append(Entry("x.unknown", encode({"bytes": "\u00e9"}), "ask", "t1", exchange=1))
            written.append(writer.run)
    return written


def tamper(path: Path, *statements: str, values: tuple[object, ...] = (), each: Sequence[tuple[object, ...]] = ()) -> None:
    """Run SQL on a log as an attacker with write access can: drop the triggers and put them back."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.executemany(statement, each or [values]) if "?" in statement else connection.execute(statement)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for _, sql in triggers:
            if sql.partition(" ON ")[2].split()[0] in tables:
                connection.execute(sql)
        connection.commit()


def copied(path: Path, to: Path) -> Path:
    """Return a copy of a log at rest, to tamper with."""
    shutil.copy(path, to)
    return to


def swap(table: str, where: str, first: int, second: int) -> list[str]:
    """Swap the numbers of two rows."""
    move = f"UPDATE {table} SET seq = %s WHERE {where} AND seq = %s"
    return [move % (-9, first), move % (first, second), move % (second, -9)]


def findings(path: Path, against: Head | None = None) -> list[Finding]:
    return report(path, against).findings


def report(path: Path, against: Head | None = None) -> Report:
    """Return the report of `verify`, which must not change the file."""
    before = path.read_bytes()
    result = verify(EventLog(path), against=against)
    assert path.read_bytes() == before
    return result
