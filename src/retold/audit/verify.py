"""Check a whole log: its schema, the ledger that chains the runs, the chain of every run, the listing, and the erasures.

The check works while other processes write: it reads page by page, and holds a snapshot only for short questions and for
SQLite's own check. It may or may not reach rows that are added after its beginning. Its order matters: first the schema must
show that a table is one, and events are read along their primary key, which is the table itself, never through an index.

With the proof of an earlier check (proof.py) it reads the runs that had not ended then. Of each other run it reads the last row.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, get_args

from ..recorder.events import GENESIS
from ..recorder.log.erasure import ERASED, PRUNED, REDACTED
from ..recorder.log.log import EventLog
from ..recorder.log.origin import Origin
from ..recorder.log.runs import Status
from ..recorder.log.sqlite.evidence import Evidence
from ..recorder.log.sqlite.questions import Unreadable
from ..recorder.log.store import Entered, Head, chained
from ..recorder.strict_json import object_in
from .chain import End, Finding, Row, check, payload_digest
from .file_check import check_integrity, check_schema, check_settings
from .forks import Lineage
from .listing_check import Seen, check_line, check_order, check_received
from .proof import Proof

PAGE = 1000

ENDED = get_args(Status)[1:]
"""The statuses of a run that has an end."""


@dataclass(frozen=True, slots=True)
class Before:
    """The runs and events that were not read again, and the times between which they were checked."""

    runs: int
    events: int
    whole_at: str
    at: str


@dataclass
class Report:
    """The counts and findings of a check. `findings` has at most one entry for each run, its first wrong row.

    `runs` and `events` were checked now; `before` is None if that is all of them.
    `forks` counts the forks that share their beginning with their parent. `unproven` has a sentence for each of the others.
    """

    runs: int = 0
    events: int = 0
    open: int = 0
    erased: int = 0
    redacted: int = 0
    pruned: int = 0
    forks: int = 0
    unproven: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    head: str = ""
    before: Before | None = None

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON, with `ok`."""
        return {"ok": self.ok} | asdict(self)


def verify(
    log: EventLog, run: str | None = None, *, against: Head | None = None, proof: Proof | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Check a log, or one run of it (by its id). `against` is a head of the log that was kept elsewhere.

    With `proof`, the runs that it covers are not read again, nor SQLite's own check of the whole file made.
    `progress` gets the number of events checked so far. Raises LogError if there is no log.
    """
    with Evidence(log) as evidence:
        return _Verifier(evidence, progress, proof).report(run, against)


@dataclass
class _Verifier:
    evidence: Evidence
    progress: Callable[[int], None]
    proof: Proof | None = None
    entries: list[Entered] = field(default_factory=list)
    erasures: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    pruned: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    result: Report = field(default_factory=Report)

    def report(self, run: str | None, against: Head | None) -> Report:
        try:
            findings, readable = check_schema(self.evidence)
            self.result.findings += findings
            if readable:
                self._check_tables(run, against)
        except Unreadable as error:
            self._found(Finding("", None, "damaged", f"the file cannot be read further: {error}; see `retold recover`"))
        return self.result

    def _check_tables(self, run: str | None, against: Head | None) -> None:
        self.result.findings += check_settings(self.evidence)
        with self.evidence.snapshot():
            self.entries = self.evidence.entries()
            if self._check_ledger():
                self.result.head = str(self.evidence.head_of(self.entries))
        self._read_erasures()
        if against is not None:
            self._check_head(against)
        self._check_runs(run, self._proved())
        if self.proof is None:
            self.result.findings += check_integrity(self.evidence)

    def _proved(self) -> set[str]:
        """Return the runs that the proof covers: they had ended, and were not changed by an erasure since."""
        if self.proof is None:
            return set()
        head, found = Head.parse(self.proof.head), len(self.result.findings)
        self._check_head(head)
        if len(self.result.findings) > found:
            return set()
        proved = {entry.run for entry in self.entries[: head.n] if entry.what == "ended"}
        return {run for run in proved if all(audit in proved for audit, _ in self.erasures.get(run, ()))}

    def _found(self, finding: Finding) -> None:
        self.result.findings.append(finding)

    def _read_erasures(self) -> None:
        """Note the runs that erasures changed, and the events that record them."""
        self.erasures = defaultdict(list)
        self.result.erased = self.result.redacted = self.result.pruned = 0
        for run, seq, kind, payload in self.evidence.audit_events():
            if not isinstance(run, str) or not isinstance(seq, int) or not _is_utf8(run):
                continue  # the check of this row finds the changed cell
            data = object_in(payload)
            if kind == ERASED:
                self.erasures[str(data.get("run"))].append((run, seq))
                self.result.erased += len(_replacements(data))
            elif kind == REDACTED:
                self.erasures[str(data.get("run"))].append((run, seq))
                self.result.redacted += len(_replacements(data))
            elif kind == PRUNED:
                self.pruned[str(data.get("run"))] = (data.get("seq", -1), _bytes(data.get("hash")))
                self.result.pruned += 1

    def _check_ledger(self) -> bool:
        """Check the entries up to the first wrong one. Return whether none is wrong; else keep the entries of the right types."""
        before = GENESIS
        for n, entry in enumerate(self.entries, 1):
            if entry.n != n:
                detail = f"entry {n} is missing"
            elif not entry.is_whole or chained(before, n, entry.run, entry.what, entry.seq, entry.hash) != entry.chain:
                detail = f"entry {n} was changed"
            else:
                before = entry.chain
                continue
            known = entry.is_whole and entry.n == n
            self._found(Finding(entry.run if known else "", entry.seq if known else None, "ledger", detail))
            self.entries = [entry for entry in self.entries if entry.is_whole]
            return False
        return True

    def _check_head(self, head: Head) -> None:
        """Find missing parts that the head covers. Changes of the other parts break a chain."""
        if head.n > len(self.entries):
            detail = (
                f"the log is older than the head, or its end is gone: the head has {head.n} entries, the log {len(self.entries)}"
            )
            return self._found(Finding("", None, "cut off", detail))
        if head.n and self.entries[head.n - 1].chain != head.chain:
            return self._found(Finding("", None, "ledger", f"the log is not the one of the head: entry {head.n} differs"))
        for run, seq, own in head.open:
            row = self.evidence.event(run, seq)
            if row is None and run not in self.pruned:
                self._found(Finding(run, seq, "cut off", "the head covers this event, which is missing"))
            elif row is not None and row.hash != own:
                self._found(Finding(run, seq, "edited", "the head covers another event here: the run was rewritten"))
        return None

    def _check_runs(self, only: str | None, proved: Collection[str]) -> None:
        started = {entry.run: entry for entry in self.entries if entry.what == "started"}
        beginnings = {entry.hash: entry.run for entry in started.values()}
        ends = {entry.run: End(entry.seq, entry.hash) for entry in self.entries if entry.what == "ended"}
        before = [ends[run] for run in started if run in proved and run not in self.pruned]
        if self.proof is not None:
            events = sum(end.seq + 1 for end in before)
            self.result.before = Before(len(before), events, self.proof.whole_at, self.proof.at)
        for run, entry in started.items():
            if only not in (None, run):
                continue
            if run in proved and run not in self.pruned:
                finding = self._check_end(run, ends[run])
            else:
                finding = self._check_run(run, entry.hash, ends.get(run), beginnings)
            if finding is not None:
                self._read_erasures()
                if run not in self.pruned:  # else another process pruned it during this check
                    self._found(finding)
        self._check_forks(started, alone=only is not None)
        if only is None:
            for name in self.evidence.runs_not_entered():
                self._found(Finding(name, 0, "unknown run", "the ledger has no entry for its beginning: it was inserted"))
            self._check_order()

    def _check_end(self, run: str, end: End) -> Finding | None:
        """Check only the last row of a run that was checked before."""
        row = self.evidence.event(run, end.seq)
        if row is None:
            return Finding(run, end.seq, "cut off", "the ledger has its end, but this event is missing")
        return None if row.hash == end.hash else Finding(run, end.seq, "edited", "its end differs from the ledger")

    def _check_forks(self, started: Collection[str], *, alone: bool) -> None:
        """Compare each fork with its parent. If a fork was checked `alone`, check the chain of its parent now."""
        wrong = {finding.run for finding in self.result.findings}
        for run, origin in self.origins.items():
            parent = origin.parent
            if run in wrong or run in self.pruned:
                continue
            if alone and parent in started and parent not in self.pruned and not self._is_whole(parent):
                wrong.add(parent)
            whole = {*started} - wrong - self.pruned.keys()
            found = Lineage(self.evidence, whole, self.pruned, lambda each: bool(self.erasures.get(each))).check(run, origin)
            if isinstance(found, Finding):
                self._found(found)
            elif found is None:
                self.result.forks += 1
            else:
                self.result.unproven.append(f"run {run} is a fork, and cannot be compared with its parent: {found}")

    def _is_whole(self, run: str) -> bool:
        end = self._end_of(run)
        return not isinstance(check(run, partial(self._rows, run), end, self._allowed(run), counted=lambda _: None), Finding)

    def _check_run(self, run: str, first: bytes, end: End | None, beginnings: dict[bytes, str]) -> Finding | None:
        found = self.evidence.first_event(run)
        if found is None:
            if run not in self.pruned:
                return Finding(run, None, "missing run", "the ledger has its beginning, but its events are gone")
            if end is not None and self.pruned[run] != (end.seq, end.hash):
                return Finding(run, None, "missing run", "the pruned run is not the one in the ledger")
            return None
        self.result.runs += 1
        if (origin := Origin.of(object_in(found.payload))) is not None:
            self.origins[run] = origin
        own = found.hash
        if found.seq == 0 and own != first and own in beginnings:
            return Finding(run, 0, "reordered", f"these are the events of run {beginnings[own]}")
        events = self.result.events
        while True:
            seen = Seen()
            self.result.events = events
            last = check(run, partial(self._rows, run), end, self._allowed(run), counted=partial(self._count, seen))
            if isinstance(last, Finding):
                return last
            if own != first:
                return Finding(run, 0, "edited", "the run was rewritten: its beginning differs from the ledger")
            with self.evidence.snapshot():
                now = self._end_of(run)
                if now == end:
                    return self._check_line(run, object_in(found.payload), last, end, seen)
            end = now  # it ended during this check: check it again, up to its end

    def _end_of(self, run: str) -> End | None:
        """Return the present end of a run in the ledger. The check of the ledger finds changed entries."""
        row = self.evidence.entered_end(run)
        return None if row is None or not isinstance(row[0], int) or not isinstance(row[1], bytes) else End(*row)

    def _check_line(self, run: str, started: dict[str, Any], last: End, end: End | None, seen: Seen) -> Finding | None:
        event, line = self.evidence.event(run, last.seq), self.evidence.line(run)
        ended = object_in(event.payload) if event is not None and event.kind == "run.ended" else None
        if end is None and ended is None and line is not None and line["status"] in ENDED:
            return Finding(run, last.seq + 1, "cut off", f"the run is listed as {line['status']}, but its end is missing")
        self.result.open += ended is None
        return check_line(line, run, started, ended, seen)

    def _check_order(self) -> None:
        """Compare the listing's lines and the received runs with the order in which the runs began, at one moment."""
        with self.evidence.snapshot():
            self._read_erasures()
            started = [entry.run for entry in self.evidence.entries() if entry.is_whole and entry.what == "started"]
            finding = check_order(self.evidence.places(), started, self.pruned)
            self.result.findings += check_received(self.evidence.received(), self.evidence.shelves(), set(started))
        if finding is not None and not any(each.run == finding.run for each in self.result.findings):
            self._found(finding)

    def _rows(self, run: str, at: int | None) -> Iterator[Row]:
        for cells in self.evidence.rows(run, at):
            yield Row._make((*cells[:8], payload_digest(cells[8]), *cells[9:]))

    def _count(self, seen: Seen, row: Row) -> None:
        seen.note(row)
        self.result.events += 1
        if self.result.events % PAGE == 0:
            self.progress(self.result.events)

    def _allowed(self, run: str) -> Callable[[int], bytes | None]:
        """Return a function with the digests of replaced payloads of a run. They are read when a payload has another digest."""
        found: dict[int, bytes] | None = None

        def allowed(seq: int) -> bytes | None:
            nonlocal found
            if found is None or seq not in found:
                self._read_erasures()  # an erasure may have been written since
                found = self._replaced(run)
            return found.get(seq)

        return allowed

    def _replaced(self, run: str) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for audit, seq in self.erasures[run]:
            if (event := self.evidence.event(audit, seq)) is not None:
                found |= _replacements(object_in(event.payload))
        return found


def _replacements(data: dict[str, Any]) -> dict[int, bytes]:
    """Return the new digests that an event of an erasure records, by event number; none if that event was changed."""
    pairs = data.get("payloads")
    found: dict[int, bytes] = {}
    for pair in pairs if isinstance(pairs, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], int):
            found[pair[0]] = _bytes(pair[1])
    return found


def _is_utf8(text: str) -> bool:
    """Return whether a text that was read with surrogateescape is UTF-8, so that SQLite takes it as a parameter."""
    return not any("\udc80" <= char <= "\udcff" for char in text)


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""
