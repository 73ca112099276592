"""Presence: the reports that shippers and pullers leave on a shelf, and the conclusions of the others.

1. A shipper reports for its source, so that a mirror can tell a source that is quiet from one that is gone.
2. A puller reports its cursor, so that the source of an erasure can name the mirrors that have not pulled it.
3. A mirror keeps the reports of its sources in its log, so that `retold ls` needs no shelf.
4. A puller reports the events that are missing on the shelf, so that their source can ship them again.

No report is needed for shipping or pulling. If a shelf keeps none, or the credential cannot write them, `fault` has the reason.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..recorder import strict_json
from ..recorder.errors import LogError, ShelfError
from ..recorder.log.erasure import ERASED, PRUNED, REDACTED
from ..recorder.log.log import EventLog
from ..recorder.log.receiving import Receiver
from ..recorder.log.runs import RunQuery
from ..recorder.log.store import Receiving
from ..recorder.words import plural
from .reports import HEARTBEAT_S, MirrorReport, SourceReport, entry_of, report_of
from .shelf import AttendedShelf, Refused, Shelf, Unreachable
from .ship import Shipper

_KEPT = " fleet"
"""Ends the name under which a mirror keeps the reports of a shelf, among its cursors."""


def send(shelf: Shelf, report: SourceReport | MirrorReport) -> None:
    """Keep a report on the shelf. Raises ShelfError."""
    _attended(shelf).report(*entry_of(report))


def reports_on(shelf: Shelf) -> list[SourceReport | MirrorReport]:
    """Return the newest reports on a shelf, in the order of their names. Raises ShelfError."""
    found = [report_of(key, text) for key, text in sorted(_attended(shelf).reports().items())]
    return [report for report in found if report is not None]


def _attended(shelf: Shelf) -> AttendedShelf:
    if not isinstance(shelf, AttendedShelf):
        raise Refused(f"{shelf.name} keeps no reports.")
    return shelf


# A source


class Heartbeat:
    """Reports for the source of a shipper from a thread, and lets it mend the runs for which a mirror waits.

    `fault` is the reason if the shelf takes no report.
    """

    def __init__(self, shelf: Shelf, shipper: Shipper) -> None:
        self.fault: str | None = None
        self._shelf = shelf
        self._shipper = shipper
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retold-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def stop(self) -> None:
        """Report no more."""
        self._stopped.set()
        self._thread.join()

    def end(self) -> None:
        """Report the regular end, after `stop`, if reports were possible until now."""
        if self.fault is None:
            self._send(ended=True)

    def _run(self) -> None:
        mends = True
        while True:
            self._send(ended=False)
            mends = mends and self._mend()
            if (self.fault is not None and not mends) or self._stopped.wait(HEARTBEAT_S):
                return

    def _send(self, *, ended: bool) -> None:
        try:
            send(self._shelf, SourceReport(self._shelf.source, time.time_ns(), self._shipper.waiting(), ended))
        except (Unreachable, LogError):
            return  # the shipper names both
        except ShelfError as error:
            self.fault = str(error)

    def _mend(self) -> bool:
        """Mend the runs for which mirrors wait; return False if this credential cannot."""
        try:
            found = reports_on(self._shelf)
            self._shipper.mend({run for report in found if isinstance(report, MirrorReport) for run in report.held})
        except (Unreachable, LogError):
            return True
        except ShelfError:
            return False  # the mirror goes on naming the run
        return True


class Behind(NamedTuple):
    """A mirror that has not pulled so many erasures of this log. `at_ns` is the time of its last report."""

    mirror: str
    erasures: int
    at_ns: int

    @property
    def follows(self) -> bool:
        """Whether its last report is so young that it is likely to pull again soon."""
        return time.time_ns() - self.at_ns < 2e9 * HEARTBEAT_S

    def line(self) -> str:
        """Return a sentence about it."""
        return f"mirror {self.mirror} has not pulled {plural(self.erasures, 'erasure')} yet; it reported last {ago(self.at_ns)}"


def ago(at_ns: int, now_ns: int | None = None) -> str:
    """Return how long ago a time was: `5 s ago`, `3 h ago`; `never` for 0."""
    if at_ns == 0:
        return "never"
    seconds = max(0, ((time.time_ns() if now_ns is None else now_ns) - at_ns) // 10**9)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def mirrors_behind(log: EventLog, shelf: Shelf) -> list[Behind]:
    """Return the mirrors that have not pulled every erasure of the log, in the order of their names.

    A mirror that cannot report to the shelf is not among them. Raises ShelfError, LogError.
    """
    erasures = _erasures_of(log)
    if not erasures:
        return []
    found = []
    for mirror in reports_on(shelf):
        if isinstance(mirror, MirrorReport):
            cursor = mirror.cursor
            unread = [run for run in erasures if cursor is None or not _attended(shelf).has_read(cursor, run)]
            if unread:
                found.append(Behind(mirror.name, len(unread), mirror.at_ns))
    return found


def _erasures_of(log: EventLog) -> list[str]:
    """Return the runs of this log, but of no other one, that record an erasure."""
    if not log.exists():
        return []
    with log.store.reading() as store:
        return [
            info.run
            for info in store.runs(RunQuery(mode="audit"))
            if store.source_of(info.run) is None and store.read(info.run, kinds=(ERASED, REDACTED, PRUNED), limit=1)
        ]


# A mirror


def mirror_name(host: str, log: Path) -> str:
    """Return the name of a mirror on its shelves: the host, the name of the file, and a digest of its whole path."""
    stem = re.sub(r"[^0-9A-Za-z_-]+", "-", log.stem)[:40]
    return f"{host[:60]}-{stem}-{hashlib.sha256(str(log.absolute()).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"


class Presence:
    """Reports for a mirror, and keeps the reports of the sources in its log."""

    def __init__(self, shelf: Shelf, name: str, receiver: Receiver) -> None:
        self.fault: str | None = None
        self._shelf = shelf
        self._name = name
        self._receiver = receiver

    def exchange(self, held: Mapping[str, int], refused: int) -> None:
        """Report the cursor and the missing events, and keep the reports of the sources; the puller is at the shelf's end.

        Raises Unreachable, LogError.
        """
        now_ns, sources = time.time_ns(), dict[str, list[int]]()
        report = MirrorReport(self._name, now_ns, self._receiver.cursor(self._shelf.name), dict(held), refused)
        self.fault = None
        try:
            send(self._shelf, report)
        except Unreachable:
            raise
        except ShelfError as error:
            self.fault = str(error)
        try:
            sources = self._sources()
        except Unreachable:
            raise
        except ShelfError as error:
            self.fault = self.fault or str(error)
        state = {"at_ns": now_ns, "sources": sources}
        self._receiver.receive(f"{self._shelf.name}{_KEPT}", [], strict_json.dumps(state))

    def _sources(self) -> dict[str, list[int]]:
        found = [report for report in reports_on(self._shelf) if isinstance(report, SourceReport)]
        return {report.name: [report.at_ns, report.left, int(report.ended)] for report in found}


class Heard(NamedTuple):
    """The last report of a source, as a mirror kept it at `pulled_ns`, when it had read the shelf to its end."""

    report: SourceReport
    pulled_ns: int

    @property
    def is_gone(self) -> bool:
        """Whether the source was silent for too long when the mirror asked last."""
        return self.report.is_gone(self.pulled_ns)


class Pulls(NamedTuple):
    """The sources that a mirror heard of, by name, and the time at which it read each of its shelves to the end."""

    sources: dict[str, Heard]
    shelves: dict[str, int]


def kept_by(log: EventLog) -> Pulls:
    """Return the reports that a mirror keeps; of a source on two shelves the newer one. Raises LogError."""
    pulls = Pulls({}, {})
    if not isinstance(log.store, Receiving) or not log.exists():
        return pulls
    for key, text in sorted(log.store.cursors().items()):
        if not key.endswith(_KEPT):
            continue
        try:
            state = json.loads(text)
            pulled_ns = pulls.shelves[key.removesuffix(_KEPT)] = int(state["at_ns"])
            for name, (at_ns, left, ended) in state["sources"].items():
                heard = Heard(SourceReport(name, int(at_ns), int(left), bool(ended)), pulled_ns)
                if name not in pulls.sources or heard.report.at_ns > pulls.sources[name].report.at_ns:
                    pulls.sources[name] = heard
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # another program changed the row; the next pull writes it anew
    return pulls
