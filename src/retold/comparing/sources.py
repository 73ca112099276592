"""`compare`, and the sources that it reads: runs, cassettes, log files and stream-json, by name, by path or as values."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from ..formats import agent_cassette
from ..formats.agent_cassette import is_ours as is_tape
from ..formats.imports import holds_talks, import_files
from ..formats.jsonl import is_ours
from ..formats.transcript import is_transcript, subagents_of
from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.folding import Recorded, in_order
from ..recorder.cassette.format import Cassette, cassette_at, cassette_of
from ..recorder.cassette.named import STDIN, bytes_of, is_elsewhere
from ..recorder.cassette.sessions import each_session
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.errors import InputError
from ..recorder.files import open_plain, open_regular, plain_name
from ..recorder.http.exchange import Exchange
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.strict_json import object_in
from .compare import Comparison, compare_sides
from .focus import Focus, parse_tolerances
from .forks import as_fork
from .lines import messages_in
from .reading import Common, Progress, Side, read_exchanges, read_messages, read_run
from .varying import OWN_MANNER, Manner

_SQLITE = b"SQLite format 3\0"
_FILE_SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".ndjson", ".db")


@runtime_checkable
class HasRun(Protocol):
    """An object that has a run and its log, such as a RunResult or a Recording."""

    @property
    def run(self) -> str | None:
        """The id of the run, or None if nothing has been recorded yet."""

    @property
    def log(self) -> EventLog | str:
        """The log of the run, or its path."""


@runtime_checkable
class InUse(Protocol):
    """A cassette in use: the exchanges and sessions that it played, and the run of those that it recorded."""

    @property
    def source(self) -> str:
        """The name of the recording in messages."""

    @property
    def played(self) -> Sequence[Exchange]:
        """The played exchanges."""

    @property
    def played_sessions(self) -> Sequence[AgentSession]:
        """The played sessions."""

    @property
    def run(self) -> str | None:
        """The id of the run, None if nothing was recorded."""

    @property
    def log(self) -> EventLog | None:
        """The log of the run."""


Source = str | os.PathLike[str] | HasRun | InUse | RunInfo | Cassette | Side | Iterable[Mapping[str, Any]]
"""The sources that `compare` accepts: the name or id of a run, `last`, `last~1`; the path of a cassette, of a stream-json file,
or of a log (`FILE.db` is its newest run, `FILE.db:RUN` another one); `-` for stdin; `REV:path`, a
revision in git; a RunResult or RunInfo; a Cassette, or a UsedCassette, such as `retold_cassette`; messages.
"""


def compare(
    a: Source, b: Source, *, ignore: Sequence[str] = (), only: Sequence[str] = (), tolerance: Sequence[str] = (),
    volatile: bool = False, log: EventLog | str | os.PathLike[str] | None = None, progress: Progress = lambda _: None,
) -> Comparison:  # fmt: skip
    """Compare two recordings by meaning and return the differences: `compare("last~1", "last").same`.

    Ids, times, signatures and durations do not count; `volatile=True` lists them too. `ignore` and `only` exclude or select
    parts (`thinking`, `tool_use.input.path`, `request.system`, `totals`, `order`). `tolerance` limits how far totals may differ
    (`duration=20%`, `cost=0.01`). Runs are looked up in `log`, a log or its path, by default `RETOLD_DB` or
    `.retold/log.db`. `progress` is called with the number of events read.

    Raise InputError, or a subclass of it, for a source that cannot be read.
    """
    focus = Focus(tuple(ignore), tuple(only), parse_tolerances(tolerance), volatile)
    one, other = read_sides([a, b], log, progress)
    return compare_sides(one, other, focus)


class Progresses:
    """The progress of several sides that are read one after the other: `progress` gets the sum of their events."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before = self._count = 0

    def next(self) -> Progress:
        """Return the progress of the next side."""
        self._before += self._count
        self._count = 0
        return self._tell

    def _tell(self, count: int) -> None:
        self._count = count
        self._progress(self._before + count)


def read_sides(
    sources: Sequence[Source], log: EventLog | str | os.PathLike[str] | None = None, progress: Progress = lambda _: None
) -> list[Side]:  # fmt: skip
    """Read sides that are to be compared, by the rules of all of them. Folders are named only if all sides have them.

    `progress` is called with the number of events of all sides that were read. Raise InputError, CassetteError or LogError.
    """
    counts = Progresses(progress)

    def counted(source: Source, manner: Manner = OWN_MANNER) -> Side:
        return read_side(source, log, counts.next(), manner, common)

    common = Common()
    sides = [counted(source) for source in sources]
    kept = reduce(lambda one, other: one if one == other else one.with_(other), (side.kept for side in sides))
    manner = Manner(kept=kept, with_folders=len({side.has_folders for side in sides}) == 1)

    def is_alike(side: Side) -> bool:
        same_rules = set(side.kept.ignore + side.kept.mask) == set(manner.kept.ignore + manner.kept.mask)
        return same_rules and (manner.with_folders or not side.has_folders)

    # Messages have no requests, so no such rule concerns them.
    return [
        side if is_alike(side) or "request" not in side.kinds else counted(source, manner)
        for source, side in zip(sources, sides, strict=True)
    ]


def read_side(
    source: Source, log: EventLog | str | os.PathLike[str] | None = None, progress: Progress = lambda _: None,
    manner: Manner = OWN_MANNER, common: Common | None = None,
) -> Side:  # fmt: skip
    """Read one side of a comparison. Open the log only for a run. Raise InputError, CassetteError or LogError.

    `common` holds the parts of sides that were read before.
    """
    common = common or Common()
    if isinstance(source, Side):
        return source
    if isinstance(source, Cassette):
        return read_exchanges(_checked(source), title=str(source.path), progress=progress, manner=manner, kept=source.kept)
    if isinstance(source, str | os.PathLike):
        return _read_named(os.fspath(source), log, progress, manner, common)
    if isinstance(source, InUse):
        return _read_in_use(source, progress, manner)
    if isinstance(source, RunInfo):
        return _read_run(_log_of(log), source.run, progress, manner)
    if isinstance(source, HasRun):
        if source.run is None:
            raise InputError(f"{source!r} has not recorded anything yet.")
        return _read_run(_log_of(source.log), source.run, progress, manner)
    return read_messages(source, title="messages", progress=progress, common=common)


def _read_in_use(used: InUse, progress: Progress, manner: Manner) -> Side:
    """Read the exchanges of a block so far: the played ones, and the recorded ones from the log. A replay needs no log."""
    exchanges, sessions = list(used.played), list(used.played_sessions)
    if used.run is not None and used.log is not None:
        log = EventLog(used.log.path)  # the log of a block that has ended is closed
        if not exchanges and not sessions:
            return _read_run(log, used.run, progress, manner)
        exchanges += [each for each in exchanges_of(log, used.run) if each.place.stamped != "replay"]
        sessions += [each for each in each_session(log, used.run) if each not in sessions]
    if not exchanges and not sessions:
        raise InputError(f"{used.source} has played and recorded nothing so far; there is nothing to read.")
    return read_exchanges(in_order(exchanges, sessions), title=used.source, progress=progress, manner=manner)


def _log_of(log: EventLog | str | os.PathLike[str] | None) -> EventLog:
    return log if isinstance(log, EventLog) else EventLog(log)


def _read_named(
    name: str, log: EventLog | str | os.PathLike[str] | None, progress: Progress, manner: Manner, common: Common
) -> Side:  # fmt: skip
    file, _, run = name.rpartition(":")
    if file and _is_log(Path(file)):
        return _read_run(EventLog(file), run or "last", progress, manner, file)
    path = Path(name)
    if is_elsewhere(name):
        return _read_elsewhere(name, progress, manner, common)
    if path.is_dir():
        raise InputError(f"{name} is a folder; name a cassette, a stream-json file or a log in it, or a run.")
    if not path.exists():
        if "/" in name or path.suffix in _FILE_SUFFIXES:
            raise InputError(f"no file {name}. Give a file, or a run of the log {_log_of(log).path}; `retold ls` lists them.")
        return _read_run(_log_of(log), name, progress, manner)
    if _is_log(path):
        return _read_run(EventLog(path), "last", progress, manner, name)
    if not plain_name(path).endswith((".jsonl", ".ndjson")):
        if path.suffix == ".json" and holds_talks(path, {}):
            return _read_imported(path, progress, manner)
        held = cassette_at(path, shared=common.exchanges)
        return read_exchanges(_checked(held), title=name, progress=progress, manner=manner, kept=held.kept)
    try:
        with TextIOWrapper(open_plain(path), encoding="utf-8-sig") as lines:
            first = lines.readline()
            if is_tape(object_in(first)):
                session = agent_cassette.read(path)
                return read_exchanges([session], title=name, progress=progress, manner=manner)
            has_parts = is_transcript(object_in(first)) and bool(subagents_of(path))
            if not _is_event(first) and not has_parts and not holds_talks(path, object_in(first)):
                lines.seek(0)
                return _read_stream_json(lines, name, progress, common)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error
    return _read_imported(path, progress, manner)


def _read_elsewhere(name: str, progress: Progress, manner: Manner, common: Common) -> Side:
    """Read a cassette or stream-json from stdin, an open pipe or a revision. Stream-json begins with a line that is a message."""
    data, title = bytes_of(name), "stdin" if name in STDIN else name
    first, _, _ = data.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    value = object_in(first.decode("utf-8", "replace"))
    if data.strip() and "interactions" not in value and (value or plain_name(name).endswith((".jsonl", ".ndjson"))):
        if is_ours(value) or is_tape(value):
            raise InputError(f"{title} holds lines of `retold export`; save them in a file to compare them.")
        try:
            return _read_stream_json(StringIO(data.decode("utf-8-sig"), newline="\n"), title, progress, common)
        except UnicodeDecodeError as error:
            raise InputError(f"cannot read {title}: {error}.") from error
    held = cassette_of(Path(title), data, shared=common.exchanges)
    return read_exchanges(_checked(held), title=title, progress=progress, manner=manner, kept=held.kept)


def _is_event(line: str) -> bool:
    """Return True if the line comes from `retold export`, which writes events."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and is_ours(value)


def _is_log(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def _read_run(log: EventLog, ref: str, progress: Progress, manner: Manner, file: str = "") -> Side:
    found = log.find(ref)
    where = f"{file}: " if file else ""
    title = f"{where}{found.name} ({found.run[:8]}, {found.mode})"
    side = read_run(log, found.run, title=title, progress=progress, manner=manner)
    if not side.streams:
        raise InputError(f"run {found.run[:8]} ({found.name}) holds no messages and no exchanges; there is nothing to compare.")
    return replace(as_fork(side, log, found.run), status=found.status)


def _checked(cassette: Cassette) -> Iterator[Recorded]:
    if cassette.is_empty:
        raise InputError(f"{cassette.path} holds no interactions; there is nothing to compare.")
    return in_order(cassette.exchanges, cassette.sessions)


def _read_imported(path: Path, progress: Progress, manner: Manner) -> Side:
    """Read the newest run of an export, a trace or a trajectory, or a session with its subagents."""
    with tempfile.TemporaryDirectory(prefix="retold-") as folder, EventLog(Path(folder) / "log.db") as log:
        import_files(log, [path])
        return replace(_read_run(log, "last", progress, manner, str(path)), source=str(path))


def _read_stream_json(lines: TextIO, name: str, progress: Progress, common: Common) -> Side:
    side = read_messages(messages_in(lines, name), title=name, source=name, progress=progress, common=common)
    if not side.streams:
        raise InputError(f"{name} holds no messages; there is nothing to compare.")
    return side
