"""Write the readable part of a damaged log to a new one; the damaged one stays unchanged.

All rows on a damaged page are lost. The rows of a run are numbered without gaps, so if a query for many rows fails, each can be
asked for alone, and the missing ones can be named.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import opening as store
from .questions import integrity_lines
from .rows import COLUMNS, INSERT

PAGE = 500
DAMAGE_LINES = 20
GIVEN_UP_AFTER = 5_000
"""Numbers in a row that cannot be read, after which a run whose end is not known counts as over."""


@dataclass
class Salvaged:
    """The number of events that were read, and (run, first, last) of those that could not be read."""

    events: int = 0
    lost: list[tuple[str, int, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def damage(path: Path) -> list[str]:
    """Return at most twenty findings of SQLite's own check of a file."""
    try:
        with closing(store.open_for_reading(path)) as connection:
            return integrity_lines(connection, DAMAGE_LINES)
    except sqlite3.DatabaseError as error:
        return [str(error)]


def salvage(path: Path, to: Path, progress: Callable[[int], None] = lambda _: None) -> Salvaged:
    """Write the readable part of the log at `path` to a new one. Raises LogError if not even its beginning can be read."""
    found = Salvaged()
    with closing(store.open_for_reading(path)) as old, closing(store.open_for_writing(to, "process")) as new:
        new.execute("BEGIN IMMEDIATE")
        entries = _readable(old, "SELECT n, run, what, seq, hash, chain FROM ledger WHERE n > ? ORDER BY n LIMIT 1", 0)
        ends: dict[str, int | None] = {}
        # The ledger gives the number of the last event of each ended run, so a gap at its end is found, too.
        for entry in entries:
            new.execute("INSERT INTO ledger (n, run, what, seq, hash, chain) VALUES (?, ?, ?, ?, ?, ?)", entry)
            ends[entry[1]] = entry[3] if entry[2] == "ended" else ends.get(entry[1])
        for run in [*ends, *(run for run in _runs(old, found) if run not in ends)]:
            for row in _rows(old, run, ends.get(run), found):
                new.execute(INSERT, row)
                found.events += 1
                if found.events % PAGE == 0:
                    progress(found.events)
        new.execute("COMMIT")
    return found


def _readable(old: sqlite3.Connection, query: str, after: int) -> Iterator[tuple[Any, ...]]:
    """Yield numbered rows one by one, and skip those that cannot be read."""
    failed = 0
    while failed < GIVEN_UP_AFTER:
        try:
            row = old.execute(query, (after,)).fetchone()
        except sqlite3.DatabaseError:
            failed, after = failed + 1, after + 1
            continue
        if row is None:
            return
        failed, after = 0, row[0]
        yield row


def _runs(old: sqlite3.Connection, found: Salvaged) -> list[str]:
    """Return the runs in the listing and in the events; either may be unreadable."""
    runs: dict[str, None] = {}
    last = ""
    try:
        runs |= {run: None for (run,) in old.execute("SELECT run FROM runs ORDER BY id")}
    except sqlite3.DatabaseError as error:
        found.unread.append(f"the listing: {error}")
    try:
        while (last := old.execute("SELECT min(run) FROM events WHERE run > ?", (last,)).fetchone()[0]) is not None:
            runs[last] = None
    except sqlite3.DatabaseError as error:
        found.unread.append(f"runs that neither ledger nor listing know: {error}")
    return list(runs)


def _rows(old: sqlite3.Connection, run: str, end: int | None, found: Salvaged) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a run in order: many at once if that works, and one by one around damaged pages."""
    many = f"SELECT {COLUMNS} FROM events WHERE run = ? AND seq >= ? ORDER BY seq LIMIT {PAGE}"
    one = f"SELECT {COLUMNS} FROM events WHERE run = ? AND seq = ?"
    seq, missing = 0, -1
    while end is None or seq <= end:
        try:
            page = old.execute(many, (run, seq)).fetchall()
            if not page:
                break
        except sqlite3.DatabaseError:
            page = []
            for number in range(seq, seq + PAGE):
                try:
                    page += old.execute(one, (run, number)).fetchall()
                except sqlite3.DatabaseError:
                    continue
        if not page:
            # A whole page of numbers is unreadable. Go on behind it: to the known end, or until too many are missing in a row.
            missing = seq if missing < 0 else missing
            seq += PAGE
            if end is None and seq - missing > GIVEN_UP_AFTER:
                break
            continue
        for row in page:
            if row[1] > seq or missing >= 0:  # a gap ends here, which may have begun in earlier pages
                first = seq if missing < 0 else missing
                if row[1] > first:
                    found.lost.append((run, first, row[1] - 1))
                missing = -1
            seq = row[1] + 1
            yield row
    if end is not None and (seq <= end or missing >= 0):
        found.lost.append((run, seq if missing < 0 else missing, end))
    elif end is None and missing >= 0:  # the run may have had no further event: report one number
        found.lost.append((run, missing, missing))
