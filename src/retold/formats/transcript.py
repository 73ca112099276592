"""Transcripts of Claude Code and of the Agent SDK (`~/.claude/projects/PROJECT/SESSION.jsonl`), with those of their subagents.

Claude Code writes a subagent into a file of its own, `SESSION/subagents/agent-ID.jsonl`, beside a file `agent-ID.meta.json`. In
the log the `task` of an event is the subpath of its file without the ending, as in a session store, and empty for the session
itself. A line is a `message` or an event `stream.TYPE`, so an export gives each file again, line by line.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..recorder.errors import InputError
from ..recorder.events import Event, encode
from ..recorder.files import open_regular, replacing
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo

META = "subagent-meta"
"""The type of the line that stands for a file `agent-ID.meta.json`."""


class Part(NamedTuple):
    """A file of a session: the transcript of a subagent, and the facts about the subagent if there are any."""

    task: str
    path: Path
    meta: dict[str, Any] | None


def is_transcript(line: dict[str, Any]) -> bool:
    """Return whether a line of JSON is one of a transcript."""
    return isinstance(line.get("sessionId"), str)


def subagents_of(path: Path) -> list[Part]:
    """Return the transcripts of the subagents of a session. Raise InputError if the facts about one cannot be read."""
    folder = path.with_suffix("")
    found = []
    for file in sorted(folder.glob("subagents/**/*.jsonl")):
        about = file.with_suffix(".meta.json")
        meta = None
        if about.is_file():
            try:
                with open_regular(about) as data:
                    meta = json.load(data)
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"cannot read {about}: {error}.") from error
            if not isinstance(meta, dict):
                raise InputError(f"{about} is not the file of a subagent: it should hold a JSON object.")
        found.append(Part(str(file.relative_to(folder).with_suffix("")), file, meta))
    return found


def tasks_of(log: EventLog, run: RunInfo) -> list[str]:
    """Return the subpaths of the files of a run, in order. The session itself has the empty one."""
    return sorted({event.task for event in _events(log, run)})


def _events(log: EventLog, run: RunInfo) -> Iterator[Event]:
    return (event for event in log.events(run.run) if event.kind == "message" or event.kind.startswith("stream."))


def write_part(log: EventLog, run: RunInfo, task: str, out: BinaryIO) -> int:
    """Write one file of a session, and return the number of its lines."""
    count = 0
    for event in _events(log, run):
        if event.task == task and event.kind != f"stream.{META}":
            out.write(encode(event.data) + b"\n")
            count += 1
    return count


def write(log: EventLog, runs: Any, out: BinaryIO) -> int:
    """Write the transcript of the session of one run, without its subagents. Raise InputError if the run has none."""
    (run,) = runs
    _check(log, run)
    return write_part(log, run, "", out)


def write_files(log: EventLog, run: RunInfo, path: Path) -> int:
    """Write the transcript of a session to `path`, and those of its subagents into the folder beside it. Raise InputError."""
    _check(log, run)
    count = 0
    tasks = tasks_of(log, run)
    for task in tasks:  # a run may come from another machine
        if task and (task.startswith("/") or "\0" in task or ".." in task.split("/")):
            raise InputError(f"run {run.run} names the file of a subagent {task!r}, outside of the folder. Nothing was written.")
    for task in tasks:
        file = path.with_suffix("") / f"{task}.jsonl" if task else path
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, mode=0o600) as out:
            count += write_part(log, run, task, out)
        for event in _events(log, run):
            if event.task == task and event.kind == f"stream.{META}":
                with replacing(file.with_suffix(".meta.json"), mode=0o600) as out:
                    out.write(encode(event.data["meta"]))
    return count


def _check(log: EventLog, run: RunInfo) -> None:
    if not any(is_transcript(event.data) for event in _events(log, run)):
        raise InputError(f"run {run.run} ({run.name}) is no transcript of a session. Export it as stream-json.")
