"""JSON Lines: every event of a run as one line (recorder/event_lines.py), with nothing left out.

A run is complete in itself: its chain can be checked line by line, and an import gives a run that is equal to the byte.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from ..recorder.errors import InputError
from ..recorder.event_lines import KEYS, event_of, line_of
from ..recorder.events import GENESIS, SCHEMA, Entry, Event, encode, seal
from ..recorder.files import open_plain
from ..recorder.log import erasure
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.log.store import salvageable


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write every event of the runs."""
    count = 0
    for run in runs:
        for event in log.events(run.run):
            out.write(line_of(event))
            count += 1
    return count


def is_ours(line: dict[str, Any]) -> bool:
    """Return whether a line of JSON is an event of retold."""
    return set(KEYS) <= line.keys()


@dataclass
class Checked:
    """The content of a file: its runs in order, with name and mode, and the digests of replaced payloads.

    `replaced` holds the digests that are found, `recorded` those that the events of erasures give.
    """

    runs: dict[str, tuple[str, str]] = field(default_factory=dict)
    replaced: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    recorded: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a file, line by line. Raises InputError with file and line."""
    with open_plain(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield event_of(line)
            except ValueError as error:
                raise InputError(f"{path}:{number}: not an event of retold: {error}.") from error


def check(path: Path) -> Checked:
    """Read a file to its end and check the chain of every run. Raises InputError with the run and the event."""
    found = Checked()
    for run, events in groupby(read(path), key=lambda event: event.run):
        if run in found.runs:
            raise InputError(f"{path}: the events of run {run} are not adjacent.")
        before, seq = GENESIS, 0
        for event in events:
            _check_event(path, event, seq, before)
            if seq == 0:
                found.runs[run] = str(event.data.get("name", "")), str(event.data.get("mode", "import"))
            now = sha256(event.payload)
            if now.digest() != event.digest:
                found.replaced[run][seq] = now.hexdigest()
                if not erasure.is_tombstone(event.kind, event.payload):
                    found.recorded[run].setdefault(seq, "")
            if event.kind in (erasure.ERASED, erasure.REDACTED):
                found.recorded[event.data["run"]] |= dict(event.data["payloads"])
            before, seq = event.hash, seq + 1
    for run, recorded in found.recorded.items():
        for seq, digest in found.replaced.get(run, {}).items():
            if recorded.get(seq, digest) != digest:
                raise InputError(f"{path}: event {seq} of run {run} was edited; nothing was imported.")
    return found


def _check_event(path: Path, event: Event, seq: int, before: bytes) -> None:
    if event.schema > SCHEMA:
        raise InputError(f"{path} was written by a newer retold (event schema {event.schema}). Update it: pip install -U retold.")
    try:
        own = seal(before, event.schema, event.run, event.seq, event.t_ns, event.wall_ns, event.kind, event.exchange,
                   event.step, event.task, event.digest)  # fmt: skip
    except (TypeError, ValueError):
        own = b""
    if event.seq != seq or own != event.hash:
        raise InputError(f"{path}: event {seq} of run {event.run} was edited, moved or left out; nothing was imported.")
    if seq == 0 and event.kind != "run.started":
        raise InputError(f"{path}: run {event.run} does not begin with its beginning; nothing was imported.")


def restore(log: EventLog, path: Path, checked: Checked, known: set[str]) -> dict[str, int]:
    """Write the runs of a checked file that are new to the log. Return the number of events of each. Raises LogError."""
    written = {}
    for run, events in groupby(read(path), key=lambda event: event.run):
        if run not in known:
            name, mode = checked.runs[run]
            written[run] = salvageable(log.store).restore(events, name=name, mode=mode)
    _restore_erasures(log, checked, set(written))
    return written


def _restore_erasures(log: EventLog, checked: Checked, written: set[str]) -> None:
    """Record each erasure that happened before the export if the file lacks the event of it."""
    missing = {
        run: [[seq, digest] for seq, digest in found.items() if checked.recorded.get(run, {}).get(seq) != digest]
        for run, found in checked.replaced.items()
        if run in written
    }
    if any(missing.values()):
        data = {"who": "import", "why": "erased before it was exported"}
        with log.start(name="import", mode="audit", data=data) as writer:
            for run, payloads in missing.items():
                writer.append(Entry(erasure.ERASED, encode({"run": run, "payloads": payloads})))
