"""Checking a whole log: the chain of every run, the ledger that chains the runs, and what was erased with whose knowledge.

Works while others write: it reads page by page and holds no snapshot, so that the WAL can be reset under it. What is added
after it began is checked as far as it goes.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ..recorder import ledger
from ..recorder.erasure import ERASED, PRUNED, REDACTED
from ..recorder.events import GENESIS
from ..recorder.ledger import Entered, Head
from ..recorder.log import EventLog
from ..recorder.rows import COLUMNS
from .chain import End, Finding, Row, check, payload_digest

PAGE = 1000


@dataclass
class Report:
    """What was checked and what is wrong; `findings` has at most one entry a run, its first wrong row."""

    runs: int = 0
    events: int = 0
    open: int = 0
    erased: int = 0
    redacted: int = 0
    pruned: int = 0
    findings: list[Finding] = field(default_factory=list)
    head: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON, with `ok`."""
        return {"ok": self.ok} | asdict(self)


def verify(
    log: EventLog, run: str | None = None, *, against: Head | None = None, progress: Callable[[int], None] = lambda _: None
) -> Report:
    """Check a log, or one run of it (by its id); `against` is a head kept elsewhere. `progress` is told of events checked.

    Raises LogError where there is no log, InputError where `run` is in neither ledger nor log.
    """
    with closing(log.reader()) as connection:
        return _Verifier.of(connection, progress).report(run, against)


@dataclass
class _Verifier:
    connection: sqlite3.Connection
    progress: Callable[[int], None]
    entries: list[Entered]
    erasures: dict[str, list[tuple[str, int]]]
    pruned: dict[str, tuple[int, bytes]]
    result: Report

    @classmethod
    def of(cls, connection: sqlite3.Connection, progress: Callable[[int], None]) -> Self:
        # Text that is no UTF-8 any more is a finding, not an exception.
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        return cls(connection, progress, [], {}, {}, Report())

    def report(self, run: str | None, against: Head | None) -> Report:
        try:
            self.entries = list(ledger.entries(self.connection))
            self.result.head = str(ledger.head(self.connection))
            self._read_erasures()
            self._check_ledger()
            if against is not None:
                self._check_head(against)
            self._check_runs(run)
        except sqlite3.Error as error:
            self._found(Finding("", None, "damaged", f"the file cannot be read further: {error}; see `retold recover`"))
        return self.result

    def _found(self, finding: Finding) -> None:
        self.result.findings.append(finding)

    def _read_erasures(self) -> None:
        """Which runs were touched by erasures, and where the events stand that say so."""
        self.erasures = defaultdict(list)
        query = (
            "SELECT e.run, e.seq, e.kind, e.payload FROM runs r JOIN events e ON e.run = r.run AND e.kind <> 'frame' "
            "WHERE r.mode = 'audit' ORDER BY r.id, e.seq"
        )
        for run, seq, kind, payload in self.connection.execute(query):
            data = _json(payload)
            if kind in (ERASED, REDACTED):
                self.erasures[str(data.get("run"))].append((run, seq))
                count = len(data.get("payloads") or ())
                if kind == ERASED:
                    self.result.erased += count
                else:
                    self.result.redacted += count
            elif kind == PRUNED:
                self.pruned[str(data.get("run"))] = (data.get("seq", -1), _bytes(data.get("hash")))
                self.result.pruned += 1

    def _check_ledger(self) -> None:
        before = GENESIS
        for n, entry in enumerate(self.entries, 1):
            if entry.n != n:
                return self._found(Finding("", None, "ledger", f"entry {n} is missing"))
            if ledger.chained(before, n, entry.run, entry.what, entry.seq, entry.hash) != entry.chain:
                return self._found(Finding(entry.run, entry.seq, "ledger", f"entry {n} is not as it was written"))
            before = entry.chain
        return None

    def _check_head(self, head: Head) -> None:
        """That everything the head covers is still there; that it is unchanged, the chains show."""
        if head.n > len(self.entries):
            detail = (
                f"the log is older than the head, or its end is gone: the head has {head.n} entries, the log {len(self.entries)}"
            )
            return self._found(Finding("", None, "cut off", detail))
        if head.n and self.entries[head.n - 1].chain != head.chain:
            return self._found(Finding("", None, "ledger", f"the log is not the one of the head: entry {head.n} differs"))
        for run, seq, own in head.open:
            row = self.connection.execute("SELECT hash FROM events WHERE run = ? AND seq = ?", (run, seq)).fetchone()
            if row is None and run not in self.pruned:
                self._found(Finding(run, seq, "cut off", "the head knows this event"))
            elif row is not None and row[0] != own:
                self._found(Finding(run, seq, "edited", "the head knows another event here: the run was rewritten"))
        return None

    def _check_runs(self, only: str | None) -> None:
        started = {entry.run: entry for entry in self.entries if entry.what == "started"}
        ends = {entry.run: End(entry.seq, entry.hash) for entry in self.entries if entry.what == "ended"}
        beginnings = {entry.hash: entry.run for entry in started.values()}
        for run, entry in started.items():
            if only in (None, run) and (finding := self._check_run(run, entry.hash, ends.get(run), beginnings)) is not None:
                self._reread_erasures()
                if run not in self.pruned:  # else it was pruned while we were reading
                    self._found(finding)
        begun = "SELECT 1 FROM ledger WHERE run = CAST(? AS TEXT)"  # asked again: it may have begun while we were reading
        for run in self._runs_of_events() if only is None else ():
            if run not in started and self.connection.execute(begun, (_raw(run),)).fetchone() is None:
                name = _raw(run).decode("utf-8", "backslashreplace")
                self._found(Finding(name, 0, "unknown run", "the ledger does not know that it began: it was inserted"))
        if only is None:
            self._check_listing(list(started))

    def _runs_of_events(self) -> Iterator[str]:
        """Every run that has events, by one look-up each."""
        query, last = "SELECT min(run) FROM events WHERE run > CAST(? AS TEXT)", ""
        while (found := self.connection.execute(query, (_raw(last),)).fetchone()[0]) is not None:
            yield (last := found)

    def _check_run(self, run: str, first: bytes, end: End | None, beginnings: dict[bytes, str]) -> Finding | None:
        query = "SELECT seq, hash, payload FROM events WHERE run = ? ORDER BY seq LIMIT 1"
        found = self.connection.execute(query, (run,)).fetchone()
        if found is None:
            if run not in self.pruned:
                return Finding(run, None, "missing run", "the ledger knows that it began; its events are gone")
            if end is not None and self.pruned[run] != (end.seq, end.hash):
                return Finding(run, None, "missing run", "what was pruned is not the run that the ledger knows")
            return None
        self.result.runs += 1
        seq, own, payload = found
        if seq == 0 and own != first and own in beginnings:
            return Finding(run, 0, "reordered", f"these are the events of run {beginnings[own]}")
        last = check(run, lambda at: self._rows(run, at), end, self._allowed(run), counted=self._count)
        if isinstance(last, Finding):
            return last
        if own != first:
            return Finding(run, 0, "edited", "the run was rewritten: it begins otherwise than the ledger says")
        return self._check_line(run, _json(payload), last, end)

    def _check_line(self, run: str, started: dict[str, Any], last: End, end: End | None) -> Finding | None:
        """That the run's line in the listing says what its first and last event say, and that its end is there."""
        line = self.connection.execute("SELECT name, mode, status FROM runs WHERE run = ?", (run,)).fetchone()
        if line is None:
            return Finding(run, None, "listing", "the listing has no line for it; `retold recover` makes it again")
        name, mode, status = line
        query = "SELECT kind, payload FROM events WHERE run = ? AND seq = ?"
        kind, payload = self.connection.execute(query, (run, last.seq)).fetchone()
        ended = _json(payload).get("status") if kind == "run.ended" else None
        if ended is None and status != "running":
            query = "SELECT 1 FROM ledger WHERE run = ? AND what = 'ended'"
            if end is None and self.connection.execute(query, (run,)).fetchone() is not None:
                return None  # it ended while we were reading
            return Finding(run, last.seq + 1, "cut off", f"the run is listed as {status}, but its end is missing")
        self.result.open += ended is None
        if (name, mode) != (started.get("name"), started.get("mode")) or (ended is not None and status != ended):
            detail = "its line in the listing says otherwise than its events; `retold recover` makes it again"
            return Finding(run, None, "listing", detail)
        return None

    def _check_listing(self, started: list[str]) -> None:
        """That `runs` has a line for each run, in the order in which they began."""
        listed = [run for (run,) in self.connection.execute("SELECT run FROM runs ORDER BY id")]
        known = set(started)
        there = [run for run in listed if run in known]
        expected = [run for run in started if run not in self.pruned]
        for run, found in zip(expected, there + [""] * len(expected), strict=False):
            if run != found:
                detail = "the listing has no line, or another place, for it; `retold recover` makes it again"
                return self._found(Finding(run, None, "listing", detail))
        return None

    def _rows(self, run: str, at: int) -> Iterator[Row]:
        query = f"SELECT {COLUMNS} FROM events WHERE run = ? AND seq >= ? ORDER BY seq LIMIT {PAGE}"
        while page := self.connection.execute(query, (run, at)).fetchall():
            for values in page:
                yield Row._make((*values[:8], payload_digest(values[8]), *values[9:]))
            at = page[-1][1] + 1

    def _count(self) -> None:
        self.result.events += 1
        if self.result.events % PAGE == 0:
            self.progress(self.result.events)

    def _allowed(self, run: str) -> Callable[[int], bytes | None]:
        """What erasures put in the place of payloads of a run; read when the first one does not fit."""
        found: dict[int, bytes] | None = None

        def allowed(seq: int) -> bytes | None:
            nonlocal found
            if found is None or seq not in found:
                self._reread_erasures()
                found = self._replaced(run)
            return found.get(seq)

        return allowed

    def _reread_erasures(self) -> None:
        """An erasure may have been written since."""
        self.result.erased = self.result.redacted = self.result.pruned = 0
        self._read_erasures()

    def _replaced(self, run: str) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for audit, seq in self.erasures[run]:
            query = "SELECT payload FROM events WHERE run = ? AND seq = ?"
            (payload,) = self.connection.execute(query, (audit, seq)).fetchone()
            found |= {number: _bytes(digest) for number, digest in _json(payload).get("payloads", ())}
        return found


def _json(payload: str | bytes) -> dict[str, Any]:
    """The payload of an audit event; one that was made unreadable says nothing, and is itself found by its digest."""
    try:
        data = json.loads(payload)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""


def _raw(text: str) -> bytes:
    """Text that may have been tampered with as the bytes it is."""
    return text.encode("utf-8", "surrogateescape")
