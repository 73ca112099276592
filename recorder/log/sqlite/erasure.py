"""Replace payloads and remove runs in a transaction, past the triggers that refuse every other change of `events`.

The table `erasing` names the payloads or the run that the transaction may change; it is empty outside.
"""

import sqlite3
from collections.abc import Sequence

from .rebuild import relist_run
from .rows import to_column


def replace_payloads(connection: sqlite3.Connection, run: str, payloads: Sequence[tuple[int, bytes]]) -> None:
    """Replace payloads of a run, given by number, and update its line in the listing."""
    connection.executemany("INSERT INTO erasing (run, seq) VALUES (?, ?)", [(run, seq) for seq, _ in payloads])
    connection.executemany(
        "UPDATE events SET payload = ? WHERE run = ? AND seq = ?", [(to_column(data), run, seq) for seq, data in payloads]
    )
    connection.execute("DELETE FROM erasing")
    relist_run(connection, run)


def prune(connection: sqlite3.Connection, run: str) -> None:
    """Remove the events of a run and its line in the listing."""
    connection.execute("INSERT INTO erasing (run, seq) VALUES (?, NULL)", (run,))
    connection.execute("DELETE FROM events WHERE run = ?", (run,))
    connection.execute("DELETE FROM runs WHERE run = ?", (run,))
    connection.execute("DELETE FROM erasing")
