"""Tapes of the package claude-agent-cassette: the wire of one session of the Agent SDK, a line of JSON for each line of it.

    {"dir": "write", "data": "…"}    the text that the SDK wrote: a line of JSON
    {"dir": "read", "frame": {…}}    a line of Claude Code

A tape has no times, no options and no ending, so an import has the times 0 and the ending `complete`. Its working directory and
the version of Claude Code are those of its first `init`. A line of another form is kept as it is, and named. (A file of frames
alone is stream-json.)
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..recorder import strict_json
from ..recorder.agent_wire import END_INPUT, AgentSession, WireLine
from ..recorder.cassette.sessions import each_session
from ..recorder.errors import InputError
from ..recorder.files import open_plain
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.strict_json import object_in

_OTHER = "other"
"""The key under which the log holds a line that is no JSON object."""


def is_ours(line: dict[str, Any]) -> bool:
    """Return whether a line of JSON is one of a tape."""
    return line.get("dir") in ("read", "write") and ("frame" in line or "data" in line)


def read(path: Path, on_unknown: Callable[[int], None] = lambda _: None) -> AgentSession:
    """Return the session of a tape. Call `on_unknown` with the number of each line of another form. Raise InputError."""
    lines: list[WireLine] = []
    with open_plain(path) as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                entry = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: not a line of JSON: {error}.") from error
            found = _lines_of(entry)
            if found is None:
                on_unknown(number)
                found = [WireLine(0, False, entry if isinstance(entry, dict) else {_OTHER: entry})]
            lines += found
    init = next((line.data for line in lines if line.data.get("subtype") == "init"), {})
    return AgentSession(tuple(lines), "complete", cwd=str(init.get("cwd") or ""))


def _lines_of(entry: Any) -> list[WireLine] | None:
    """Return the lines of the wire in an entry, or None if it has another form."""
    if not isinstance(entry, dict):
        return None
    if entry.keys() == {"dir", "frame"} and entry["dir"] == "read" and _is_line(entry["frame"]):
        return [WireLine(0, False, entry["frame"])]
    if entry.keys() == {"dir", "data"} and entry["dir"] == "write" and isinstance(entry["data"], str):
        sent = [object_in(text) for text in entry["data"].split("\n") if text.strip()]
        if sent and all(map(_is_line, sent)):
            return [WireLine(0, True, line) for line in sent]
    return None


def _is_line(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the session of a run as a tape, and return the number of its lines. Raise InputError unless the run has one."""
    (run,) = runs
    sessions = list(each_session(log, run.run))
    if len(sessions) != 1:
        held = f"{len(sessions)} sessions of the Agent SDK; a tape holds one" if sessions else "no session of the Agent SDK"
        raise InputError(f"run {run.run} ({run.name}) has {held}. A cassette holds any number of them.")
    count = 0
    for entry in _entries(sessions[0].lines):
        out.write(strict_json.dumps(entry, ensure_ascii=True).encode() + b"\n")
        count += 1
    return count


def _entries(lines: Iterable[WireLine]) -> Iterable[Any]:
    for line in lines:
        if line.data == END_INPUT:
            continue  # a tape has no such line
        if line.is_sent:
            yield {"dir": "write", "data": strict_json.dumps(line.data, ensure_ascii=True) + "\n"}
        elif "type" in line.data:
            yield {"dir": "read", "frame": line.data}
        else:
            yield line.data[_OTHER] if line.data.keys() == {_OTHER} else line.data
