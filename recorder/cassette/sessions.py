"""Sessions of the Claude Agent SDK in a cassette, under the top-level key `sessions`, which vcrpy ignores.

An entry has the facts of a session (`sdk`, `cwd`, `argv`, `recorded_at`, `started_ms`, `ended_ms`, `ending`, `error`,
`exit_code`, `unread`) and its `lines` as one text. Each line of it is a time in milliseconds after the start, the direction (`>`
sent to Claude Code, `<` received) and the JSON:

    0.212 > {"type":"control_request", …

A session of a workflow also has `steps` (the step of each of its prompts), `task`, `options` and `variables`.

A file goes to other machines, so the working directory and the home folder are written as `/retold/cwd` and `/retold/home`. A
replay puts its own folders in their places (`moved`).
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..agent_wire import SESSION_ENDINGS, WIRE, AgentSession, StepPlace, WireLine, is_prompt, kind_of
from ..events import OWN_SEQ, Entry, Event, encode
from ..folders import FolderMap, Folders, pairs_between
from ..http.exchange import timestamp
from ..log.log import RunWriter
from ..log.reading import LogReader
from .entry import mapping, milliseconds, moment, ms_text, nanoseconds, word

CWD, HOME = "/retold/cwd", "/retold/home"
"""The folders in a file."""

_LINE = re.compile(r"(\d+(?:\.\d+)?) ([<>]) (\{.*\})")


# From the log, and into it


def each_session(log: LogReader, run: str, *, steps: Collection[str] | None = None) -> Iterator[AgentSession]:
    """Yield the sessions of a run in the order of their starts. Raise LogError.

    With `steps`, leave out the sessions that began in other steps, and the lines of other steps.
    """
    with log.reading() as held:
        for started in list(held.events(run, kinds=("session.started",))):
            if steps is None or started.step in steps:
                yield _session(started, [e for e in held.events(run, exchange=started.seq) if steps is None or e.step in steps])


def _session(started: Event, events: Sequence[Event]) -> AgentSession:
    """Return the session of its events."""
    lines: list[WireLine] = []
    prompted: list[str] = []
    ended: dict[str, Any] = {}
    for event in events:
        if event.kind == "session.ended":
            ended = event.data
        elif event.kind == "wire.unsent":
            data = event.data
            at = max(at for at, line in enumerate(lines) if line.is_sent and line.data == data)
            del lines[at]
        elif event.kind != "session.started":
            lines.append(WireLine(event.t_ns - started.t_ns, event.kind == "wire.sent", event.data))
            prompted += [event.step] if is_prompt(lines[-1]) else []
    data, place = started.data, None
    if "options" in data:
        place = StepPlace((started.step, *prompted[1:]), started.task, data["options"], data["variables"])
    unread = ended.get("unread")
    return AgentSession(
        tuple(lines), ended.get("ending", "closed"), ended.get("error"), ended.get("exit_code"),
        data["sdk"], data["cwd"], data["home"],
        None if data.get("argv") is None else tuple(map(str, data["argv"])),
        data.get("recorded_at", timestamp(started.wall_ns)), started.t_ns, events[-1].t_ns,
        None if unread is None else tuple(map(str, unread)), place,
    )  # fmt: skip


def started_data(session: AgentSession) -> dict[str, Any]:
    """Return the payload of the first event of a session."""
    argv = None if session.argv is None else list(session.argv)
    data: dict[str, Any] = {"wire": WIRE, "sdk": session.sdk, "cwd": session.cwd, "home": session.home, "argv": argv}
    if (place := session.place) is not None:
        data |= {"options": place.options, "variables": place.variables}
    return data | {"recorded_at": session.recorded_at}


def parts_of(session: AgentSession) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Yield the events of a session as (time after its start, kind, step, payload). The live recording has the same."""
    later = iter(() if session.place is None else session.place.steps[1:])
    step, prompts = "" if session.place is None else session.place.steps[0], 0
    yield 0, "session.started", step, started_data(session)
    for line in session.lines:
        prompts += is_prompt(line)
        if is_prompt(line) and prompts > 1:
            step = next(later, step)
        yield line.offset_ns, "wire.sent" if line.is_sent else kind_of(line.data), step, line.data
    unread = None if session.unread is None else list(session.unread)
    ended = {"ending": session.ending, "error": session.error, "exit_code": session.exit_code, "unread": unread}
    yield session.ended_ns - session.started_ns, "session.ended", step, ended


def appending(writer: RunWriter, session: AgentSession, began_ns: int) -> Iterator[int]:
    """Append a recorded session to a run, event by event; yield the time of the next event. Raise LogError."""
    exchange, task = OWN_SEQ, "" if session.place is None else session.place.task
    for offset_ns, kind, step, data in parts_of(session):
        if kind != "session.started":
            yield began_ns + offset_ns
        (event,) = writer.append(Entry(kind, encode(data), step, task, exchange, t_ns=began_ns + offset_ns))
        exchange = event.exchange if event.exchange is not None else OWN_SEQ


# Folders


def moved(session: AgentSession, cwd: str, home: str) -> AgentSession:
    """Return a session as if it had been recorded in another working directory, with another home folder."""
    folders = FolderMap(pairs_between(Folders(session.cwd, session.home), Folders(cwd, home)))
    if not folders:
        return session
    lines = tuple(replace(line, data=folders.value(line.data)) for line in session.lines)
    argv = None if session.argv is None else tuple(folders.value(list(session.argv)))
    place = session.place
    if place is not None:
        place = replace(place, options=folders.value(place.options))
    return replace(session, lines=lines, argv=argv, error=folders.value(session.error), cwd=cwd, home=home, place=place)


# The file


def session_to_entry(session: AgentSession) -> dict[str, Any]:
    """Return a session as YAML or JSON hold it."""
    session = moved(session, CWD, HOME)
    entry: dict[str, Any] = {
        "wire": WIRE,
        "sdk": session.sdk,
        "cwd": session.cwd,
        "home": session.home,
        "argv": None if session.argv is None else list(session.argv),
        "recorded_at": session.recorded_at,
        "started_ms": milliseconds(session.started_ns),
        "ended_ms": milliseconds(session.ended_ns - session.started_ns),
        "ending": session.ending,
        "error": session.error,
        "exit_code": session.exit_code,
        "unread": None if session.unread is None else " ".join(session.unread),
    }
    if (place := session.place) is not None:
        entry |= {"steps": list(place.steps), "task": place.task or None}
        entry |= {"options": place.options, "variables": place.variables or None}
    lines = (f"{ms_text(line.offset_ns)} {'>' if line.is_sent else '<'} {encode(line.data).decode()}\n" for line in session.lines)
    return {key: value for key, value in entry.items() if value is not None} | {"lines": "".join(lines)}


def entry_to_session(entry: Any) -> AgentSession:
    """Return the session of one entry. Raise the errors of `entry.DAMAGE` if it is damaged."""
    entry = mapping(entry, "a session")
    if entry.get("wire") != WIRE:
        raise ValueError(f"unknown wire {str(entry.get('wire'))[:40]!r}; this version reads {WIRE}")
    ending = word(entry["ending"])
    if ending not in SESSION_ENDINGS:
        raise ValueError(f"unknown ending {ending!r}; one of {', '.join(SESSION_ENDINGS)}")
    error = entry.get("error")
    if error is not None and not {"type", "message"} <= mapping(error, "error").keys():
        raise ValueError("error should have a type and a message")
    exit_code = entry.get("exit_code")
    if exit_code is not None and not isinstance(exit_code, int):
        raise ValueError(f"exit_code should be a whole number, and is {str(exit_code)[:40]!r}")
    argv = entry.get("argv")
    if argv is not None and not isinstance(argv, list):
        raise ValueError("argv should be a list")
    unread = entry.get("unread")
    started_ns = nanoseconds(entry.get("started_ms"))
    return AgentSession(
        tuple(_line(at, text) for at, text in enumerate(word(entry["lines"]).split("\n"), 1) if text),
        ending, error, exit_code,
        word(entry.get("sdk", "")), word(entry.get("cwd", CWD)), word(entry.get("home", HOME)),
        None if argv is None else tuple(map(word, argv)),
        moment(entry.get("recorded_at")), started_ns, started_ns + nanoseconds(entry.get("ended_ms")),
        None if unread is None else tuple(word(unread).split()), _place(entry),
    )  # fmt: skip


def _place(entry: dict[str, Any]) -> StepPlace | None:
    """Return the place in a workflow; None for a session of another program."""
    if "steps" not in entry:
        return None
    steps, variables = entry["steps"], mapping(entry.get("variables", {}), "variables")
    if not isinstance(steps, list) or not steps:
        raise ValueError("steps should be a list with at least one name")
    return StepPlace(
        tuple(map(word, steps)), word(entry.get("task", "")), mapping(entry.get("options", {}), "options"),
        {name: word(value) for name, value in variables.items()},
    )  # fmt: skip


def _line(number: int, text: str) -> WireLine:
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError(f"line {number} of a session should be `TIME < {{JSON}}` or `TIME > {{JSON}}`, and is {text[:60]!r}")
    return WireLine(nanoseconds(found[1]), found[2] == ">", json.loads(found[3]))
