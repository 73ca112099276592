"""Rebuild the listing, which is a projection of the ledger and the events."""

import sqlite3

from ...strict_json import object_in
from . import rows
from .listing import count


def relist(connection: sqlite3.Connection) -> None:
    """Write `runs` again, in the transaction of the caller: the runs of the ledger in its order, then any that it lacks."""
    started = [entry.run for entry in rows.entries(connection) if entry.what == "started"]
    known = set(started)
    started += [run for run in runs_with_events(connection) if run not in known]
    connection.execute("DELETE FROM runs")
    insert = (
        "INSERT INTO runs (run, name, mode, status, started_ns, ended_ns, messages, exchanges, frames, error) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    for run in started:
        ends = "SELECT kind, payload, wall_ns FROM events WHERE run = ? ORDER BY seq"
        first = connection.execute(f"{ends} LIMIT 1", (run,)).fetchone()
        if first is None:
            continue  # pruned, or gone: verify says which
        last = connection.execute(f"{ends} DESC LIMIT 1", (run,)).fetchone()
        began, ended = object_in(first[1]), object_in(last[1]) if last[0] == "run.ended" else {}
        ended_ns = last[2] if ended else None
        counts = tuple(count(connection, run).values()) if ended else (0, 0, 0)
        name, mode, status = began.get("name", ""), began.get("mode", "live"), ended.get("status", "running")
        connection.execute(insert, (run, name, mode, status, first[2], ended_ns, *counts, ended.get("error")))


def relist_run(connection: sqlite3.Connection, run: str) -> None:
    """Copy name and error from the first and last event of a run into its line, after one of the two was erased."""
    ends = "SELECT payload FROM events WHERE run = ? AND kind = ? AND kind <> 'frame' ORDER BY seq LIMIT 1"
    for column, kind in (("name", "run.started"), ("error", "run.ended")):
        row = connection.execute(ends, (run, kind)).fetchone()
        if row is not None:
            connection.execute(f"UPDATE runs SET {column} = ? WHERE run = ?", (object_in(row[0]).get(column), run))


def runs_with_events(connection: sqlite3.Connection) -> list[str]:
    """Return every run that has events, by one look-up each."""
    runs = [""]
    while (found := connection.execute("SELECT min(run) FROM events WHERE run > ?", (runs[-1],)).fetchone()[0]) is not None:
        runs.append(found)
    return runs[1:]
