"""Compare the listing (`runs`), which is a projection, and the list of received runs with the ledger and the events."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..recorder.log.runs import COUNTED
from ..recorder.log.sqlite.questions import Cells
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
        """Note the next event."""
        if not self.kinds:
            self.started_ns = row.wall_ns
        self.kinds[row.kind] += 1
        self.before_end_ns, self.ended_ns = self.ended_ns, row.wall_ns


def check_line(
    found: dict[str, Any] | None, run: str, started: dict[str, Any], ended: dict[str, Any] | None, seen: Seen
) -> Finding | None:
    """Compare each column of a run's line with its events. `started` and `ended` are the payloads of the first and the last."""
    if found is None:
        return Finding(run, None, "listing", f"the listing has no line for it; {AGAIN}")
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
        expected["ended_ns"] = seen.before_end_ns  # the last event of the writer that died
    wrong = [column for column, value in expected.items() if not _equal(column, value, found[column])]
    if wrong:
        return Finding(run, None, "listing", f"its line in the listing differs from its events in {', '.join(wrong)}; {AGAIN}")
    return None


def _equal(column: str, expected: Any, found: Any) -> bool:
    if type(expected) is type(found) and expected == found:
        return True
    # Early versions wrote names and errors into the listing before secrets were taken out of them.
    return column in ("name", "error") and isinstance(found, str) and Redactor().text(found) == expected


def check_order(lines: Sequence[Cells], started: Sequence[str], pruned: Collection[str]) -> Finding | None:
    """Compare the (number, run) of the lines with the runs in the order of the ledger. The numbers rise no faster than that."""
    places = {run: place for place, run in enumerate(started, 1)}
    expected = [run for run in started if run not in pruned]
    id_before = place_before = 0
    for (id_, run), wanted in zip(lines, [*expected, *[None] * len(lines)], strict=False):
        if run not in places:
            return Finding(_shown(run), None, "listing", f"the listing has a line for a run that is not in the ledger; {AGAIN}")
        step = id_ - id_before
        if run != wanted or not 1 <= step <= places[run] - place_before:
            detail = f"the listing has no line, or another place, for it; {AGAIN}"
            return Finding(run if wanted is None else wanted, None, "listing", detail)
        id_before, place_before = id_, places[run]
    if len(lines) < len(expected):
        return Finding(expected[len(lines)], None, "listing", f"the listing has no line for it; {AGAIN}")
    return None


def check_received(received: Sequence[Cells], shelves: Sequence[Cells], started: Collection[str]) -> Iterator[Finding]:
    """Check (run, shelf, source) of the received runs, and (shelf, cursor) of the shelves.

    Only a run can be compared: with the ledger. A name or a cursor that another text replaced is not found.
    """
    for run, shelf, source in received:
        if run not in started:
            yield Finding(_shown(run), None, "received", "it is listed as received, but is not in the ledger")
        elif not (_is_name(shelf) and _is_name(source)):
            yield Finding(run, None, "received", "its shelf or its source is no name")
    for shelf, cursor in shelves:
        if not (_is_name(shelf) and _is_name(cursor)):
            yield Finding("", None, "received", f"the cursor of the shelf {_shown(shelf)} was changed; pull into a new log")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _shown(run: object) -> str:
    return run if isinstance(run, str) else repr(run)
