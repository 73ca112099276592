"""Sessions of the Claude Agent SDK in a cassette, under the top-level key `sessions`, which vcrpy ignores.

An entry has the facts of a session (`sdk`, `cwd`, `argv`, `recorded_at`, `started_ms`, `ended_ms`, `ending`, `error`,
`exit_code`, `unread`) and its `lines` as one text. Each line of it is a time in milliseconds after the start, the direction (`>`
sent to Claude Code, `<` received) and the JSON:

    0.212 > {"type":"control_request", …

A file goes to other machines, so the working directory and the home folder are written as `/retold/cwd` and `/retold/home`. A
replay puts its own folders in their places (`moved`).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..agent_wire import SESSION_ENDINGS, WIRE, AgentSession, WireLine, kind_of
from ..events import OWN_SEQ, Entry, Event, encode
from ..folders import FolderMap, Folders, pairs_between
from ..http.exchange import timestamp
from ..log.reading import LogReader
from ..log.run_writer import RunWriter
from .forms import mapping, milliseconds, moment, ms_text, nanoseconds, word

CWD, HOME = "/retold/cwd", "/retold/home"
"""The folders in a file."""

_LINE = re.compile(r"(\d+(?:\.\d+)?) ([<>]) (\{.*\})")


# From the log, and into it


def each_session(log: LogReader, run: str) -> Iterator[AgentSession]:
    """Yield the sessions of a run in the order of their starts. Raise LogError."""
    with log.reading() as held:
        for started in list(held.events(run, kinds=("session.started",))):
            lines: list[WireLine] = []
            last, ended = started, None
            for event in held.events(run, exchange=started.seq):
                if event.kind == "session.ended":
                    ended = event.data
                elif event.kind == "wire.unsent":
                    data = event.data
                    at = max(at for at, line in enumerate(lines) if line.is_sent and line.data == data)
                    del lines[at]
                elif event.kind != "session.started":
                    lines.append(WireLine(event.t_ns - started.t_ns, event.kind == "wire.sent", event.data))
                last = event
            yield _session(started, tuple(lines), last, ended or {})


def _session(started: Event, lines: tuple[WireLine, ...], last: Event, ended: dict[str, Any]) -> AgentSession:
    data, unread = started.data, ended.get("unread")
    return AgentSession(
        lines, ended.get("ending", "closed"), ended.get("error"), ended.get("exit_code"), data["sdk"], data["cwd"], data["home"],
        None if data.get("argv") is None else tuple(map(str, data["argv"])),
        data.get("recorded_at", timestamp(started.wall_ns)), started.t_ns, last.t_ns,
        None if unread is None else tuple(map(str, unread)),
    )  # fmt: skip


def parts_of(session: AgentSession) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the events of a session as (time after its start, kind, payload). The live recording of the session has the same."""
    argv = None if session.argv is None else list(session.argv)
    started = {"wire": WIRE, "sdk": session.sdk, "cwd": session.cwd, "home": session.home, "argv": argv}
    yield 0, "session.started", started | {"recorded_at": session.recorded_at}
    for line in session.lines:
        yield line.offset_ns, "wire.sent" if line.is_sent else kind_of(line.data), line.data
    unread = None if session.unread is None else list(session.unread)
    ended = {"ending": session.ending, "error": session.error, "exit_code": session.exit_code, "unread": unread}
    yield session.ended_ns - session.started_ns, "session.ended", ended


def appending(writer: RunWriter, session: AgentSession, began_ns: int) -> Iterator[int]:
    """Append a recorded session to a run, event by event; yield the time of the next event. Raise LogError."""
    exchange = OWN_SEQ
    for offset_ns, kind, data in parts_of(session):
        if kind != "session.started":
            yield began_ns + offset_ns
        (event,) = writer.append(Entry(kind, encode(data), exchange=exchange, t_ns=began_ns + offset_ns))
        exchange = event.exchange if event.exchange is not None else OWN_SEQ


# Folders


def moved(session: AgentSession, cwd: str, home: str) -> AgentSession:
    """Return a session as if it had been recorded in another working directory, with another home folder."""
    folders = FolderMap(pairs_between(Folders(session.cwd, session.home), Folders(cwd, home)))
    if not folders:
        return session
    lines = tuple(replace(line, data=folders.value(line.data)) for line in session.lines)
    argv = None if session.argv is None else tuple(folders.value(list(session.argv)))
    return replace(session, lines=lines, argv=argv, error=folders.value(session.error), cwd=cwd, home=home)


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
        None if unread is None else tuple(word(unread).split()),
    )  # fmt: skip


def _line(number: int, text: str) -> WireLine:
    found = _LINE.fullmatch(text)
    if found is None:
        raise ValueError(f"line {number} of a session should be `TIME < {{JSON}}` or `TIME > {{JSON}}`, and is {text[:60]!r}")
    return WireLine(nanoseconds(found[1]), found[2] == ">", json.loads(found[3]))
