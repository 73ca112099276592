"""Erase, redact and prune. A plan lists the changes first; then they are made and recorded in an event: who, when and why."""

import contextlib
import getpass
import re
import shutil
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..recorder.errors import InputError, LeftOutWarning, LogError, LogSpaceWarning, RetoldError
from ..recorder.events import Event
from ..recorder.http.sse import Piece
from ..recorder.log import erasure
from ..recorder.log.log import EventLog, RunWriter
from ..recorder.log.runs import RunInfo
from ..recorder.log.sqlite.evidence import Evidence
from ..recorder.log.store import erasable
from ..recorder.patience import find_texts
from ..recorder.secrets.redactor import Redactor
from ..recorder.secrets.streams import redact_body
from . import index
from .leftovers import any_of, check_files, plain
from .occurrences import SEPARATOR, Carrier, carriers_of, contains, could_hold, joined

WHOLE_CHARS = 16
"""A shorter text of an erased message, such as `yes`, is searched for only as a whole string, and only in its run."""

ROOM_BYTES = 16 * 1024 * 1024
"""On a disk with less room than this, the index is removed before an erasure."""

Progress = Callable[[int], None]


@dataclass
class Plan:
    """The events to change: their numbers by run, their count by kind, and two counts that an erasure cannot reach.

    `unreadable` counts compressed bodies that cannot be searched, `in_headers` names of steps and tasks with the text.
    """

    events: dict[str, set[int]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    in_headers: int = 0

    def add(self, run: str, kind: str, seqs: Iterable[int]) -> None:
        """Add events of a run."""
        own = self.events.setdefault(run, set())
        before = len(own)
        own.update(seqs)
        self.kinds[kind] += len(own) - before

    @property
    def count(self) -> int:
        """The number of events."""
        return sum(map(len, self.events.values()))


def who() -> str:
    """Return the user on this machine, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _recorded(log: EventLog) -> list[RunInfo]:
    return [info for info in log.runs() if info.mode != "audit"]


# Plans of erasures


def plan_run(log: EventLog, info: RunInfo) -> Plan:
    """Plan to erase every payload of a run. Raises InputError if it is running, or is itself the record of an erasure."""
    if info.mode == "audit":
        raise InputError(f"run {info.run} records a change of the log and cannot be erased.")
    if info.status == "running":
        raise InputError(f"run {info.run} goes on; erase it after its end, or erase a message or a text of it.")
    plan = Plan()
    for event in log.events(info.run):
        if not erasure.is_tombstone(event.kind, event.payload):
            plan.add(info.run, event.kind, [event.seq])
    return plan


def plan_text(log: EventLog, text: str, *, progress: Progress = lambda _: None) -> Plan:
    """Plan to erase every payload of any run that contains a text. Raises InputError if the text is too short."""
    if len(text.strip()) < 3:
        raise InputError(f"the text {text!r} is too short: it would be found everywhere.")
    runs = [info.run for info in log.runs()]
    return _plan_texts(log, runs, _any_contains([text]), progress, could_hold([text]))


def plan_message(log: EventLog, run: str, seq: int, *, progress: Progress = lambda _: None) -> Plan:
    """Plan to erase a message, its frames, and every payload that repeats its text. Raises InputError."""
    event = next(log.events(run, after=seq - 1), None)
    if event is None or event.seq != seq or event.kind not in ("message", "exchange.started", "wire.sent"):
        raise InputError(f"run {run} has no message {seq}; `retold search` and `retold show {run[:8]} --json` name them.")
    texts = {text for text in _texts_of(event) if text.strip()}
    long = [text for text in texts if len(text) >= WHOLE_CHARS]
    elsewhere, could = _any_contains(long), could_hold(long)
    short = texts.difference(long)
    runs = [info.run for info in _recorded(log)]

    def wanted(carrier_run: str, values: list[str]) -> bool:
        return elsewhere(carrier_run, values) or (carrier_run == run and not short.isdisjoint(values))

    plan = _plan_texts(log, runs, wanted, progress, lambda carrier: could(carrier) or (carrier.run == run and bool(short)))
    plan.add(run, event.kind, [seq])
    if event.kind == "message" and event.exchange is not None:
        pieces = [
            e.seq
            for e in log.events(run, exchange=event.exchange, kinds=("frame", "chunk"))
            if not erasure.is_tombstone(e.kind, e.payload)
        ]
        plan.add(run, "body", pieces)
    return plan


def _texts_of(event: Event) -> Iterator[str]:
    """Yield the texts of a message, or of the newest turn of a request, or of a prompt of a session of the Agent SDK."""
    from .texts import text_of_message, text_of_prompt, text_of_request

    match event.kind:
        case "message":
            found = text_of_message(event.data, {})
        case "wire.sent":
            found = text_of_prompt(event.data)
        case _:
            found = text_of_request(event.data)
    if found is not None:
        yield found.text
        yield from found.text.split("\n") if "\n" in found.text else ()


def _readable(log: EventLog, run: str) -> Iterator[Carrier]:
    """Yield the carriers of a run up to an unreadable one. A warning names that one, and other runs are still erased."""
    try:
        yield from carriers_of(log, run)
    except LogError as error:
        warnings.warn(f"{error} The rest of this run is left out.", LeftOutWarning, stacklevel=2)


Wanted = Callable[[str, list[str]], bool]
"""Whether one of the texts in a carrier of a run is wanted."""


def _any_contains(texts: Sequence[str]) -> Wanted:
    """Return a search for texts in those of a carrier, which are searched together if they can be: that takes half the time."""
    searches = [contains(text) for text in texts]
    if any(SEPARATOR in text for text in texts):
        return lambda _, values: any(matches(value) for value in values for matches in searches)
    return lambda _, values: any(matches(together) for together in [joined(values)] for matches in searches)


def _plan_texts(
    log: EventLog, runs: Sequence[str], wanted: Wanted, progress: Progress, could: Callable[[Carrier], bool] | None = None
) -> Plan:
    """Plan to erase each carrier with a wanted text in it. With `could`, a wanted text may be in what is unparsed, too."""
    plan, done = Plan(), 0
    for run in runs:
        for carrier in _readable(log, run):
            if carrier.kind in (erasure.ERASED, erasure.REDACTED, erasure.PRUNED):
                continue  # these hold numbers and digests, which verify needs
            done += len(carrier.seqs)
            progress(done)
            plan.unreadable += carrier.unreadable
            if could is not None and not could(carrier):
                continue
            if wanted(run, carrier.texts()) or (could is not None and wanted(run, [carrier.raw])):
                plan.add(run, carrier.kind, carrier.seqs)
    with Evidence(log) as evidence:
        for name in evidence.header_names():
            plan.in_headers += any(wanted(run, [name]) for run in runs)
    return plan


# Erasures


def erase(log: EventLog, plan: Plan, *, why: str, by: str | None = None, whole: str | None = None) -> str:
    """Erase the events of a plan and return the run that records it. `whole` is a run to erase with its name. Raises LogError."""
    with _audit(log, "erase", why, by, whole) as writer:
        for run, seqs in plan.events.items():
            payloads = [
                (event.seq, erasure.tombstone(event.kind, event.payload, writer.run))
                for event in _those(log, run, seqs)
                if not erasure.is_tombstone(event.kind, event.payload)
            ]
            erasure.replace_payloads(log, writer, run, payloads, kind=erasure.ERASED)
    clean(log)
    return writer.run


def _audit(log: EventLog, action: str, why: str, by: str | None, whole: str | None = None) -> RunWriter:
    # A full disk is a reason to prune. Removing the index makes room; the next search rebuilds it.
    with contextlib.suppress(OSError):  # a read-only disk is reported by the log
        if shutil.disk_usage(log.path.parent).free < ROOM_BYTES:
            index.discard_file(index.path_of(log))
    erasable(log.store).make_room()
    data = {"who": by or who(), "why": why, **({} if whole is None else {"of": whole})}
    return log.start(name=action, mode="audit", data=data)


def _those(log: EventLog, run: str, seqs: set[int]) -> Iterator[Event]:
    first = min(seqs, default=0)
    return (event for event in log.events(run, after=first - 1) if event.seq in seqs)


def clean(log: EventLog) -> None:
    """Remove the last copies of erased payloads: from the index, from free pages of the file, and from the WAL."""
    index.reset(log)
    if not erasable(log.store).vacuum():
        warnings.warn(
            f"the disk of {log.path} has no room for a second copy of the log, so what was taken out was overwritten in place. "
            "The file keeps its length; its unused pages go back to the disk if the file system can punch holes, and the log "
            "uses them again.",
            LogSpaceWarning,
            stacklevel=2,
        )


# Redacting


def plan_pattern(
    log: EventLog, patterns: Sequence[re.Pattern[str]], *, progress: Progress = lambda _: None
) -> tuple[Plan, set[str]]:
    """Plan to redact the payloads that match a pattern, and return the matches. Raises InputError if a pattern takes too long."""
    found: set[str] = set()

    def matches(text: str) -> bool:
        hits = set[str]()
        for pattern in patterns:
            hits |= {found for found in find_texts(pattern, text) if found.strip()}
        found.update(hits)
        return bool(hits)

    runs = [info.run for info in log.runs()]
    return _plan_texts(log, runs, lambda _, values: any(map(matches, values)), progress), found


def redact(
    log: EventLog, plan: Plan, values: set[str], patterns: Sequence[re.Pattern[str]], *, why: str, by: str | None = None
) -> str:  # fmt: skip
    """Replace every match by REDACTED and return the run that records it.

    If a match cannot be replaced (in a compressed body, in JSON in JSON in JSON), its payload is erased. Raises LogError.
    """
    redactor = Redactor({}, extra=values)
    with _audit(log, "redact", why, by) as writer:
        for run, seqs in plan.events.items():
            changed, gone = _redacted(log, run, seqs, redactor, writer.run)
            erasure.replace_payloads(log, writer, run, changed, kind=erasure.REDACTED)
            erasure.replace_payloads(log, writer, run, gone, kind=erasure.ERASED)
        for run, seqs in plan_pattern(log, patterns)[0].events.items():
            gone = [(e.seq, erasure.tombstone(e.kind, e.payload, writer.run)) for e in _those(log, run, seqs)]
            erasure.replace_payloads(log, writer, run, gone, kind=erasure.ERASED)
    clean(log)
    return writer.run


def _redacted(
    log: EventLog, run: str, seqs: set[int], redactor: Redactor, by: str
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Return (number, new payload) of the events to redact, and of those that can only be erased."""
    changed: list[tuple[int, bytes]] = []
    gone: list[tuple[int, bytes]] = []
    bodies: dict[int | None, list[Event]] = {}
    for event in _those(log, run, seqs):
        if event.kind in ("frame", "chunk"):
            bodies.setdefault(event.exchange, []).append(event)
        else:
            changed.append((event.seq, redactor.data(event.payload)))
    for pieces in bodies.values():
        clean = redact_body([Piece(event.payload, event.kind == "frame") for event in pieces], redactor)
        if all(new.data == event.payload for event, new in zip(pieces, clean, strict=True)):
            gone += [(event.seq, erasure.tombstone(event.kind, event.payload, by)) for event in pieces]
        else:
            changed += [(event.seq, new.data) for event, new in zip(pieces, clean, strict=True) if new.data != event.payload]
    before = {event.seq: event.payload for event in _those(log, run, {seq for seq, _ in changed})}
    return [(seq, payload) for seq, payload in changed if before[seq] != payload], gone


# Pruning


def plan_prune(log: EventLog, before_ns: int, *, keep: int = 0) -> list[RunInfo]:
    """Return the ended runs that began before a time, oldest first, without the newest `keep` runs of any age."""
    old = [info for info in _recorded(log)[keep:] if 0 < info.started_ns < before_ns and info.status != "running"]
    return old[::-1]


def prune(log: EventLog, runs: Sequence[RunInfo], *, why: str, by: str | None = None, progress: Progress = lambda _: None) -> str:
    """Remove whole runs and return the run that records it. Raises LogError."""
    with _audit(log, "prune", why, by) as writer:
        for done, info in enumerate(runs, 1):
            erasure.prune_run(log, writer, info.run)
            progress(done)
    clean(log)
    return writer.run


def check_gone(log: EventLog, text: str, cassettes: Iterable[Path] = ()) -> None:
    """Raise RetoldError if a text is still found in the log, in the bytes of its files, or in one of the cassettes."""
    _check_tables(log, plan_text(log, text))
    check_files(log, cassettes, contains(plain(text)), len(text))


def check_redacted(
    log: EventLog, patterns: Sequence[re.Pattern[str]], values: Iterable[str], cassettes: Iterable[Path] = ()
) -> None:  # fmt: skip
    """Raise RetoldError if a pattern still matches in the log, or if its files or a cassette hold a value."""
    _check_tables(log, plan_pattern(log, patterns)[0])
    check_files(log, cassettes, *any_of(values))


def _check_tables(log: EventLog, left: Plan) -> None:
    places = []
    for run, seqs in left.events.items():
        kept = [event for event in _those(log, run, seqs) if not erasure.is_tombstone(event.kind, event.payload)]
        places += [f"{run}#{event.seq} ({event.kind})" for event in kept]
    if places:
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        raise RetoldError(f"the text is still found in {', '.join(places[:5])}{more}: erase those events or prune their runs.")
