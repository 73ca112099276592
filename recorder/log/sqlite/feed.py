"""Feed: the parts of a log that an index of it follows, as cells, so that one unreadable row does not hide the others."""

from collections.abc import Sequence

from ... import strict_json
from ..erasure import ERASED, PRUNED, REDACTED
from ..reading import LogReader
from ..runs import RunQuery
from .questions import Cells, Questions


class Feed(Questions):
    """The events of some kinds in a log. Frames cannot be among them."""

    def __init__(self, log: LogReader, kinds: Sequence[str]) -> None:
        super().__init__(log, "replace")
        self._log = log
        self._kinds = kinds
        # `kind <> 'frame'` repeats the condition of an index, so that SQLite uses it. It also needs `ORDER BY seq` and no upper
        # limit but `+seq`: for two limits, or for any row, it would read the frames with the table.
        self._chosen = f"kind <> 'frame' AND kind IN ({', '.join('?' * len(kinds))})"

    def chain(self, n: int) -> bytes | None:
        """Return the chain of an entry of the ledger, or None if it is missing."""
        row = self._row("SELECT chain FROM ledger WHERE n = ?", n)
        return None if row is None else row[0]

    def newest_entry(self) -> Cells:
        """Return (n, chain) of the newest entry of the ledger; (0, no bytes) in an empty log."""
        return self._row("SELECT n, chain FROM ledger ORDER BY n DESC LIMIT 1") or (0, b"")

    def erasures(self) -> int:
        """Return the number of events that record an erasure, a redaction or a pruning."""
        query = (
            "SELECT count(*) FROM runs r JOIN events e ON e.run = r.run "
            "WHERE r.mode = 'audit' AND e.kind <> 'frame' AND e.kind IN (?, ?, ?)"
        )
        (row,) = self._rows(query, ERASED, REDACTED, PRUNED)
        return int(row[0])

    def runs(self, after: int, most: int) -> list[Cells]:
        """Return (number, run) of the lines of the listing with a number above `after`, in order, at most so many."""
        return self._rows("SELECT id, run FROM runs WHERE id > ? ORDER BY id LIMIT ?", after, most)

    def run(self, id_: int, run: str) -> Cells | None:
        """Return (name, mode, started_ns) of the run with this number, or None if it was pruned."""
        return self._row("SELECT name, mode, started_ns FROM runs WHERE id = ? AND run = ?", id_, run)

    def name(self, run: str) -> str:
        """Return the name of a run; empty if the listing has no line for it."""
        row = self._row("SELECT name FROM runs WHERE run = ?", run)
        return "" if row is None else str(row[0])

    def status(self, run: str) -> str:
        """Return the status of a run now: one without an end is running or interrupted. Raises LogError."""
        found = self._log.runs(RunQuery(run=run), limit=1)
        return found[0].status if found else "unknown"

    def has_more(self, run: str, after: int) -> bool:
        """Return whether a run has an event after `after`."""
        query = f"SELECT 1 FROM events WHERE run = ? AND seq > ? AND {self._chosen} ORDER BY seq LIMIT 1"
        return self._row(query, run, after, *self._kinds) is not None

    def rows(self, run: str, after: int, until: int, most: int) -> list[Cells]:
        """Return at most so many events of a run with a number above `after` and at most `until`, in order.

        A row is (seq, t_ns, wall_ns, kind, step, task, exchange, payload).
        """
        query = (
            "SELECT seq, t_ns, wall_ns, kind, step, task, exchange, payload FROM events "
            f"WHERE run = ? AND seq > ? AND +seq <= ? AND {self._chosen} ORDER BY seq LIMIT ?"
        )
        return self._rows(query, run, after, until, *self._kinds, most)

    def first_content_ns(self, run: str, answers: Sequence[tuple[int, int]]) -> list[int | None]:
        """Return the time of the first piece with content of each answer: a delta of a stream, or the body of another response.

        An answer is the numbers of the first and the last event of its exchange.
        """
        query = (
            "SELECT (SELECT t_ns FROM events WHERE run = ? AND seq > first AND seq < last AND exchange = first "
            "AND (kind = 'chunk' OR kind = 'frame' AND instr(payload, 'content_block_delta')) ORDER BY seq LIMIT 1) "
            "FROM (SELECT json_extract(value, '$[0]') AS first, json_extract(value, '$[1]') AS last "
            "FROM json_each(?) ORDER BY key)"
        )
        return [t_ns if isinstance(t_ns, int) else None for (t_ns,) in self._rows(query, run, strict_json.dumps(answers))]
