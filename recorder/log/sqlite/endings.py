"""The last event of a run, its line in the listing and its entry in the ledger, which one transaction writes.

They come from the writer of the run. If that died or could not write them, they come from the process that opens the log next;
and in a run that another log exported they come from the export.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

from ...clock import wall_ns
from ...errors import LogError
from ...events import SCHEMA, Event, ending, seal
from ...secrets.redactor import Redactor
from ..runs import COUNTED, RunInfo
from ..store import Batch
from . import erasure, rows
from .listing import INSERT_RUN, count
from .reading import last_row
from .rows import INSERT, Transaction, to_row
from .sharing import Liveness


def count_events(connection: sqlite3.Connection, run: str) -> int:
    """Return the number of events that a run holds now."""
    (number,) = connection.execute("SELECT count(*) FROM events WHERE run = ?", (run,)).fetchone()
    return int(number)


def finish(connection: sqlite3.Connection, last: Event, run: RunInfo) -> None:
    """Write the line of a run that ends, and its entry in the ledger."""
    counts = {"messages": run.messages, "exchanges": run.exchanges, "frames": run.frames}
    _finish(connection, last, run.status, run.error, counts)


def _finish(connection: sqlite3.Connection, last: Event, status: str, error: str | None, counts: dict[str, int]) -> None:
    connection.execute(
        "UPDATE runs SET status = ?, error = ?, messages = ?, exchanges = ?, frames = ?, ended_ns = ? WHERE run = ?",
        (status, error, *(counts[key] for key in COUNTED), last.wall_ns, last.run),
    )
    rows.enter(connection, last.run, "ended", last.seq, last.hash)


def end_left_runs(connection: sqlite3.Connection, alive: Liveness, transaction: Callable[[], Transaction]) -> None:
    """End the runs that no living writer will end, so that no run stays open for ever. Raises LogError."""
    # A run's lock file has its id for a name; an id of another shape is a changed cell, which `verify` names.
    # A run that was received has its writer elsewhere, and its end comes from there.
    query = (
        "SELECT run FROM runs WHERE status = 'running' AND typeof(run) = 'text' AND run NOT GLOB '*[^0-9A-Za-z_-]*' "
        "AND run NOT IN (SELECT run FROM received)"
    )
    if all(alive.is_alive(run) for (run,) in connection.execute(query).fetchall()):
        return
    with transaction():
        # Read again under the write lock: another process may be doing the same.
        for (run,) in connection.execute(query).fetchall():
            status, error = alive.status(run)
            try:
                last = last_row(connection, run)
            except LogError:
                continue  # a row that was changed: `verify` names it, and no other run waits for it
            if status == "running" or last is None or last.kind == "run.ended":
                continue  # a line that another program wrote or changed: there is no such run, or it has its end
            counts = count(connection, run)
            event = _left(last, Redactor().data(ending(status, error, counts)))
            connection.execute(INSERT, to_row(event))
            # The run ended at an unknown time after its last event, which is the only time there is.
            _finish(connection, event._replace(wall_ns=last.wall_ns), status, error, counts)
            alive.forget(run)


def _left(last: Event, payload: bytes) -> Event:
    """Return the end of a run that its writer left, sealed to its last event."""
    run, seq, now_ns, digest = last.run, last.seq + 1, wall_ns(), sha256(payload).digest()
    own = seal(last.hash, SCHEMA, run, seq, last.t_ns, now_ns, "run.ended", None, "", "", digest)
    return Event(run, seq, last.t_ns, now_ns, "run.ended", "", "", None, payload, digest, own)


def receive(connection: sqlite3.Connection, batch: Batch) -> None:
    """Write a batch of events that other logs record, in the caller's transaction. Raises Conflict."""
    for run, info in batch.begun.items():
        connection.execute(INSERT_RUN, (run, info.name, info.mode, info.started_ns))
        connection.execute("INSERT INTO received (run, shelf, source) VALUES (?, ?, ?)", (run, batch.shelf, batch.sources[run]))
    connection.executemany(INSERT, [to_row(event) for event in batch.events])
    # The ledger has the runs in the order of the batch.
    for event in batch.events:
        if event.seq == 0:
            rows.enter(connection, event.run, "started", event.seq, event.hash)
        if event.run in batch.ended and event.kind == "run.ended":
            finish(connection, event, batch.ended[event.run])
    for run, payloads in batch.erased.items():
        erasure.replace_payloads(connection, run, list(payloads.items()))
    for run in batch.pruned:
        erasure.prune(connection, run)
        connection.execute("DELETE FROM received WHERE run = ?", (run,))
    if batch.cursor is not None:
        kept = "INSERT INTO shelves (shelf, cursor) VALUES (?, ?) ON CONFLICT DO UPDATE SET cursor = excluded.cursor"
        connection.execute(kept, (batch.shelf, batch.cursor))


def restore_run(connection: sqlite3.Connection, events: Iterable[Event], name: str, mode: str) -> int:
    """Write the events of a run that another log exported, in the caller's transaction; return their number."""
    counts: Counter[str] = Counter()
    for event in events:
        if event.seq == 0:
            connection.execute(INSERT_RUN, (event.run, name, mode, event.wall_ns))
            rows.enter(connection, event.run, "started", event.seq, event.hash)
        connection.execute(INSERT, to_row(event))
        if event.kind == "run.ended":
            totals = {key: counts[kind] for key, kind in COUNTED.items()}
            data: dict[str, Any] = event.data
            _finish(connection, event, data["status"], data.get("error"), totals)
        counts[event.kind] += 1
    return counts.total()
