"""How a run gets its last event: from its writer, or, if that died or could not write it, from the process that opens the log
next, or from the export of another log. The event, the run's line in the listing and the entry in the ledger are written in one
transaction."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ...errors import LogError
from ...events import Entry, Event, encode
from .. import ledger
from ..reading import last_row
from ..run_writer import Log, RunWriter, seal_all
from ..runs import COUNTED, count
from .liveness import Liveness
from .rows import INSERT, to_row
from .transaction import Transaction

INSERT_RUN = "INSERT INTO runs (run, name, mode, status, started_ns) VALUES (?, ?, ?, 'running', ?)"

Also = Callable[[sqlite3.Connection, Sequence[Event]], None]
"""What else is written in the transaction of some events."""


def payload(status: str, error: str | None, counts: dict[str, int]) -> bytes:
    """The payload of `run.ended`."""
    return encode({"status": status, "error": error, **counts})


def ending(status: str, error: str | None, counts: dict[str, int]) -> Also:
    """What is written beside the last event of a run: its line in the listing and its entry in the ledger."""

    def end_it(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
        last = events[-1]
        connection.execute(
            "UPDATE runs SET status = ?, error = ?, messages = ?, exchanges = ?, frames = ?, ended_ns = ? WHERE run = ?",
            (status, error, *(counts[key] for key in COUNTED), last.wall_ns, last.run),
        )
        ledger.enter(connection, last.run, "ended", last.seq, last.hash)

    return end_it


def end_left_runs(connection: sqlite3.Connection, log: Log, alive: Liveness, transaction: Callable[[], Transaction]) -> None:
    """End the runs that no living writer will end, so that no run stays open for ever. Raises LogError."""
    # A run's lock file has its id for a name; an id of another shape is a changed cell, which `verify` names.
    query = "SELECT run FROM runs WHERE status = 'running' AND typeof(run) = 'text' AND run NOT GLOB '*[^0-9A-Za-z_-]*'"
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
            writer = RunWriter(log, run, "")
            writer.moved_past([last])
            counts = count(connection, run)
            event = seal_all(writer, [Entry("run.ended", payload(status, error, counts), t_ns=last.t_ns)])[0]
            connection.execute(INSERT, to_row(event))
            # The run ended at an unknown time after its last event, which is the only time there is.
            ending(status, error, counts)(connection, [event._replace(wall_ns=last.wall_ns)])
            alive.forget(run)


def restore_run(connection: sqlite3.Connection, events: Iterable[Event], name: str, mode: str) -> int:
    """Write the events of a run that another log exported, in the caller's transaction; return how many."""
    counts: Counter[str] = Counter()
    for event in events:
        if event.seq == 0:
            connection.execute(INSERT_RUN, (event.run, name, mode, event.wall_ns))
            ledger.enter(connection, event.run, "started", 0, event.hash)
        connection.execute(INSERT, to_row(event))
        if event.kind == "run.ended":
            totals = {key: counts[kind] for key, kind in COUNTED.items()}
            ending(event.data["status"], event.data.get("error"), totals)(connection, [event])
        counts[event.kind] += 1
    return counts.total()
