"""Comparing the listing (`runs`) with the ledger and the events that it is a projection of."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..recorder.log.runs import COLUMNS, COUNTED
from ..recorder.secrets.redactor import Redactor
from .chain import Finding, Row

AGAIN = "`retold recover` writes it again"


@dataclass
class Seen:
    """The parts of a run's events that its line repeats, noted while the events are checked."""

    kinds: Counter[str] = field(default_factory=Counter)
    started_ns: int = 0
    ended_ns: int = 0
    before_end_ns: int = 0

    def note(self, row: Row) -> None:
        """Take the next event."""
        if not self.kinds:
            self.started_ns = row.wall_ns
        self.kinds[row.kind] += 1
        self.before_end_ns, self.ended_ns = self.ended_ns, row.wall_ns


def check_line(
    connection: sqlite3.Connection, run: str, started: dict[str, Any], ended: dict[str, Any] | None, seen: Seen
) -> Finding | None:
    """Compare each column of a run's line with its events; `started` and `ended` are the payloads of the first and last."""
    line = connection.execute(f"SELECT {COLUMNS} FROM runs WHERE run = ?", (run,)).fetchone()
    if line is None:
        return Finding(run, None, "listing", f"the listing has no line for it; {AGAIN}")
    found = dict(zip(COLUMNS.split(", "), line, strict=True))
    expected: dict[str, Any] = {
        "run": run,
        "name": started.get("name", ""),
        "mode": started.get("mode", found["mode"]),
        "status": "running" if ended is None else ended.get("status"),
        "started_ns": seen.started_ns,
        "ended_ns": None if ended is None else seen.ended_ns,
        **{column: 0 if ended is None else seen.kinds[kind] for column, kind in COUNTED.items()},
        "error": None if ended is None else ended.get("error"),
    }
    if expected["status"] == "interrupted" and found["ended_ns"] == seen.before_end_ns:
        expected["ended_ns"] = seen.before_end_ns  # the last sign of the writer that died
    wrong = [column for column, value in expected.items() if not _equal(column, value, found[column])]
    if wrong:
        return Finding(run, None, "listing", f"its line in the listing differs from its events in {', '.join(wrong)}; {AGAIN}")
    return None


def _equal(column: str, expected: Any, found: Any) -> bool:
    if type(expected) is type(found) and expected == found:
        return True
    # Early versions wrote names and errors into the listing before secrets were taken out of them.
    return column in ("name", "error") and isinstance(found, str) and Redactor().text(found) == expected


def check_order(connection: sqlite3.Connection, started: Sequence[str], pruned: Collection[str]) -> Finding | None:
    """Compare the lines with the order in which the ledger has the runs begin: the listing's numbers rise no faster."""
    places = {run: place for place, run in enumerate(started, 1)}
    expected = [run for run in started if run not in pruned]
    id_before = place_before = 0
    lines = connection.execute("SELECT id, run FROM runs NOT INDEXED ORDER BY id").fetchall()
    for (id_, run), wanted in zip(lines, [*expected, *[None] * len(lines)], strict=False):
        if run not in places:
            return Finding(_shown(run), None, "listing", f"the listing has a line for a run that never began; {AGAIN}")
        step = id_ - id_before
        if run != wanted or not 1 <= step <= places[run] - place_before:
            detail = f"the listing has no line, or another place, for it; {AGAIN}"
            return Finding(run if wanted is None else wanted, None, "listing", detail)
        id_before, place_before = id_, places[run]
    if len(lines) < len(expected):
        return Finding(expected[len(lines)], None, "listing", f"the listing has no line for it; {AGAIN}")
    return None


def _shown(run: object) -> str:
    return run if isinstance(run, str) else repr(run)
