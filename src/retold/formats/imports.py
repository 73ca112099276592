"""Import files. Their content decides about their format, all are read before the first is written, and each is imported once."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..recorder.cassette.folding import in_order
from ..recorder.cassette.foreign import named_line
from ..recorder.cassette.format import Cassette, cassette_of, read_cassette
from ..recorder.cassette.named import bytes_of, is_elsewhere, stem_of
from ..recorder.cassette.transfer import import_exchanges
from ..recorder.errors import InputError
from ..recorder.files import open_plain, open_regular, plain_name, read_regular
from ..recorder.log.log import EventLog
from ..recorder.log.sqlite.evidence import Evidence
from ..recorder.strict_json import object_in, object_or_empty
from . import agent_cassette, atif_reading, jsonl, otlp_reading, session_trace_reading, stream_json
from .talks import Talk
from .transcript import Part, is_transcript, subagents_of

LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Imported:
    """A run from an import; `new` is False if an earlier import wrote it. `cut_line` is the number of an incomplete last line,
    which was left out. `unknown_lines` are the numbers of lines of an unknown form, which were kept. `sessions`
    are the sessions of the Agent SDK in a cassette, beside its exchanges."""

    run: str
    name: str
    file: str
    count: int
    counts: str
    new: bool
    cut_line: int | None = None
    sessions: int = 0
    unknown_lines: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Source:
    """A file that was read without an error: its form, and the parts that are kept until it is written."""

    path: Path
    form: str
    sha256: str
    cassette: Cassette | None = None
    checked: jsonl.Checked | None = None
    lines: stream_json.Survey | None = None
    unknown: list[int] = field(default_factory=list)
    parts: Sequence[tuple[Part, int | None]] = ()
    talks: Sequence[Talk] = ()


def import_files(log: EventLog, paths: Sequence[Path], *, name: str | None = None, again: bool = False) -> list[Imported]:
    """Import files: exports in JSON Lines as the runs in them, any other file as one run. Skip files that were imported before.

    All are read before the first is written. Raises InputError, CassetteError, LogError.
    """
    sources = [_read(path) for path in paths]
    known = _known(log)
    return [imported for source in sources for imported in _import(log, source, name, known, again)]


def _read(path: Path) -> _Source:
    if is_elsewhere(str(path)):
        data = bytes_of(str(path))
        return _Source(path, "cassette", sha256(data).hexdigest(), cassette=_filled(cassette_of(path, data)))
    if not plain_name(path).endswith(LINES):
        if holds_talks(path, {}):
            return _Source(path, "talks", _digest(path), talks=_talks_in(path, {}))
        held = _filled(read_cassette(path))  # first, because its error names the file
        return _Source(path, "cassette", _digest(path), cassette=held)
    if not path.exists():
        raise InputError(f"no file at {path}.")
    first = _first_line(path)
    if (kind := named_line(first)) is not None:
        raise InputError(f"{path}: {kind}")
    if jsonl.is_ours(first):
        return _Source(path, "jsonl", _digest(path), checked=jsonl.check(path))
    if holds_talks(path, first):
        return _Source(path, "talks", _digest(path), talks=_talks_in(path, first))
    if agent_cassette.is_ours(first):
        unknown: list[int] = []
        session = agent_cassette.read(path, unknown.append)
        return _Source(path, "agent-cassette", _digest(path), cassette=Cassette(path, (), (session,)), unknown=unknown)
    found = stream_json.survey(path)
    if not found.messages:
        raise InputError(f"{path} holds no messages; there is nothing to import.")
    parts = [(part, stream_json.survey(part.path).began_ns) for part in (subagents_of(path) if is_transcript(first) else [])]
    return _Source(path, "stream-json", _digest(path, *(part.path for part, _ in parts)), lines=found, parts=parts)


def holds_talks(path: Path, first: dict[str, Any]) -> bool:
    """Return whether a file is a trace, a trajectory or a session trace. `first` is the object in its first line, or empty."""
    if path.suffix in LINES:
        return otlp_reading.is_ours(first) or session_trace_reading.is_ours(first)
    if path.suffix != ".json" or not path.is_file():
        return False
    data = read_regular(path)
    is_trace = otlp_reading.may_be(data) and b'"interactions"' not in data
    return is_trace or atif_reading.is_ours(atif_reading.beginning(data))


def _talks_in(path: Path, first: dict[str, Any]) -> list[Talk]:
    if session_trace_reading.is_ours(first):
        return [session_trace_reading.read(path)]
    is_trace = path.suffix in LINES or otlp_reading.may_be(read_regular(path))
    if is_trace and not atif_reading.is_ours(atif_reading.beginning(read_regular(path))):
        return otlp_reading.read(path)
    return [atif_reading.read(path)]


def _filled(found: Cassette) -> Cassette:
    """Return the cassette. Raise InputError if it holds nothing."""
    if found.is_empty:
        raise InputError(f"{found.path} holds no interactions; there is nothing to import.")
    return found


def _first_line(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            for raw in file:
                if raw.strip():
                    return object_or_empty(json.loads(raw))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:1: not a line of JSON: {error}.") from error
    raise InputError(f"{path} is empty; there is nothing to import.")


def _digest(*paths: Path) -> str:
    digest = sha256()
    for path in paths:
        with open_regular(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _known(log: EventLog) -> dict[str, str]:
    """Return the runs of earlier imports by the sha256 of the file, and every run by its id."""
    if not log.path.exists():
        return {}
    with Evidence(log) as evidence:
        known = {run: run for _, run in evidence.places()}
        for run, payload in evidence.beginnings("import", "completed"):  # the newest import of a file counts
            digest = object_in(payload).get("sha256")
            if isinstance(digest, str):
                known[digest] = run
    return known


def _import(log: EventLog, source: _Source, name: str | None, known: dict[str, str], again: bool) -> list[Imported]:
    if source.checked is not None:
        runs = source.checked.runs
        written = jsonl.restore(log, source.path, source.checked, set(known))
        known |= {run: run for run in written}
        file = str(source.path)
        return [Imported(run, title, file, written.get(run, 0), "event", run in written) for run, (title, _) in runs.items()]
    if source.talks:
        return [_import_talk(log, source, talk, name, known, again) for talk in source.talks]
    title, held = name or stem_of(source.path), source.cassette
    sessions = 0 if held is None else len(held.sessions)
    if not again and (run := known.get(source.sha256)) is not None:
        info = log.find(run)
        counted = (info.messages, "message") if held is None else (info.exchanges, "exchange")
        return [Imported(run, info.name, str(source.path), *counted, new=False, sessions=sessions)]
    data: dict[str, Any] = {"sha256": source.sha256}
    if held is not None:
        recorded, data = in_order(held.exchanges, held.sessions), data | held.kept.as_dict()
        run = import_exchanges(log, recorded, name=title, source=str(source.path), data=data)
        unknown = tuple(source.unknown)
        counted = len(held.exchanges), "exchange"
        made = Imported(run, title, str(source.path), *counted, new=True, sessions=sessions, unknown_lines=unknown)
    else:
        assert source.lines is not None
        run, count = stream_json.append(log, source.path, source.lines.began_ns, name=title, data=data, parts=source.parts)
        made = Imported(run, title, str(source.path), count, "message", new=True, cut_line=source.lines.cut_line)
    known[source.sha256] = run
    return [made]


def _import_talk(log: EventLog, source: _Source, talk: Talk, name: str | None, known: dict[str, str], again: bool) -> Imported:
    digest = sha256(f"{source.sha256} {talk.key}".encode()).hexdigest() if talk.key else source.sha256
    file = str(source.path)
    if not again and (run := known.get(digest)) is not None:
        info = log.find(run)
        return Imported(run, info.name, file, info.messages, "message", new=False)
    title, lines = name or talk.name, sorted(talk.lines, key=lambda line: line.at_ns)
    began_ns = next((line.at_ns for line in lines if line.at_ns), None)
    data = {"source": file, "sha256": digest}
    run, count = stream_json.append_lines(log, lines, began_ns, name=title, data=data)
    known[digest] = run
    return Imported(run, title, file, count, "message", new=True)
