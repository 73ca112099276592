"""Export and import messages as Claude Code prints them with `--output-format stream-json --verbose`: one JSON object a line.

An import reads three forms:
1. the output of Claude Code;
2. its session transcripts (`~/.claude/projects/…/SESSION.jsonl`), lines with `sessionId` and `uuid`, some of which are no
   messages;
3. the wire of the Agent SDK, `{"t", "d", "m"}` with a message inside.

Each line is kept unchanged. A line that is no message becomes an event of a separate kind.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..recorder.errors import InputError
from ..recorder.events import Entry, encode, fault_in_payload
from ..recorder.files import open_plain
from ..recorder.http.exchange import wall_ns_of
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from .transcript import META, Part

MESSAGES = ("system", "assistant", "user", "result")
"""Types of lines that are messages. A line of another type becomes an event of the kind `stream.TYPE`."""

AT_ONCE = 200
"""Lines in a transaction."""

Line = dict[str, Any]


class Timed(NamedTuple):
    """A line with its time since the epoch in nanoseconds (0 if it is unknown), its step and its task."""

    at_ns: int
    step: str
    task: str
    line: Line


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the messages of the runs, unchanged."""
    count = 0
    for run in runs:
        for event in log.events(run.run, kinds=("message",)):
            strict = b"NaN" not in event.payload and b"Infinity" not in event.payload  # version 0.1 kept them in messages
            out.write((event.payload if strict else encode(event.data)) + b"\n")
            count += 1
    return count


def read(path: Path, on_cut: Callable[[int], None] = lambda _: None) -> Iterator[Line]:
    """Yield the lines of a file. A last line that is cut short is left out, and `on_cut` is called with its number.

    A transcript is imported while it is being written, or after its writer died. Raises InputError with file and line.
    """
    try:
        with open_plain(path) as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                try:
                    line = json.loads(raw)
                except (ValueError, RecursionError) as error:
                    if number > 1 and not raw.endswith(b"\n"):
                        on_cut(number)
                        return
                    raise InputError(f"{path}:{number}: not a line of JSON: {error}.") from error
                if (line := unwrapped(line)) is None:
                    continue
                if not isinstance(line, dict) or not isinstance(line.get("type"), str):
                    raise InputError(f"{path}:{number}: not a line of stream-json or of a session: it has no `type`.")
                if line["type"] in MESSAGES and (fault := fault_in_payload("message", line)) is not None:
                    raise InputError(f"{path}:{number}: this line {fault}.")
                yield line
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}.") from error


class Survey(NamedTuple):
    """A file that was read to its end: the number of its messages, its first time since the epoch in nanoseconds if it has one,
    and the number of a last line that is cut short."""

    messages: int
    began_ns: int | None
    cut_line: int | None


def survey(path: Path) -> Survey:
    """Read a file to its end, so that a damaged line is an error before the log holds half of the run. Raises InputError."""
    messages, began_ns, cut = 0, None, list[int]()
    for line in read(path, cut.append):
        messages += line["type"] in MESSAGES
        if began_ns is None:
            began_ns = _wall_ns(line)
    return Survey(messages, began_ns, cut[0] if cut else None)


def unwrapped(line: Any) -> Any:
    """Return the message in a line of the Agent SDK's wire, or None if it has none. Return any other line unchanged."""
    if not isinstance(line, dict) or not {"t", "d"} <= line.keys() or "type" in line:
        return line
    inner = line.get("m")
    return inner if isinstance(inner, dict) and not str(inner.get("type", "")).startswith("control_") else None


def append(
    log: EventLog,
    path: Path,
    began_ns: int | None,
    *,
    name: str,
    data: dict[str, Any],
    parts: Sequence[tuple[Part, int | None]] = (),
) -> tuple[str, int]:
    """Append the lines of a file as a new run of mode `import`, with their recorded times. Return (run, number of messages).

    `began_ns` is the first time in the file. `parts` are the transcripts of subagents, each with its first time; their lines
    come among the others, by their times.
    """
    parts_lines = [_timed(part.path, first_ns, part.task, part.meta) for part, first_ns in parts]
    lines = merge(_timed(path, began_ns), *parts_lines, key=lambda timed: timed.at_ns) if parts else _timed(path, began_ns)
    return append_lines(log, lines, began_ns, name=name, data={"source": str(path), **data})


def append_lines(
    log: EventLog, lines: Iterable[Timed], began_ns: int | None, *, name: str, data: dict[str, Any]
) -> tuple[str, int]:  # fmt: skip
    """Append lines in the order of their times as a new run of mode `import`. Return (run, number of messages).

    `began_ns` is the time of the first one; None if the times are unknown. Raises LogError.
    """
    count, t_ns = 0, 0
    with log.start(name=name, mode="import", data=data, recorded_ns=began_ns) as writer:
        entries: list[Entry] = []
        for at_ns, step, task, line in lines:
            t_ns = t_ns if began_ns is None else max(t_ns, at_ns - began_ns)
            type_ = line["type"]
            count += type_ in MESSAGES
            kind = "message" if type_ in MESSAGES else f"stream.{type_[:40]}"
            entries.append(Entry(kind, encode(line), step, task, t_ns=t_ns))
            if len(entries) == AT_ONCE:
                writer.append(*entries)
                entries = []
        writer.append(*entries)
    return writer.run, count


def _timed(path: Path, began_ns: int | None, task: str = "", meta: Line | None = None) -> Iterator[Timed]:
    """Yield the lines of a file with their times since the epoch. A line without a time has that of the line before it."""
    at_ns = began_ns or 0
    if meta is not None:
        yield Timed(at_ns, "", task, {"type": META, "meta": meta})
    for line in read(path):
        at_ns = max(at_ns, _wall_ns(line) or 0)
        yield Timed(at_ns, "", task, line)


def _wall_ns(line: Line) -> int | None:
    """Return the time at which a line was written, since the epoch, or None if it has none."""
    stamp = line.get("timestamp")
    return wall_ns_of(stamp) if isinstance(stamp, str) else None
