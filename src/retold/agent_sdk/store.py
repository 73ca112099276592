"""`LogSessionStore`: the SDK's `SessionStore` over the log, so that a session resumes from a log, on this machine or another.

A session is one run for each process that writes it. The name of the run is the session's id, the `step` of its events is the
project, and the `task` is the subpath of a subagent. Kinds: `session.entry` (a line of a transcript), `session.summary`, and
`session.deleted`. A deletion is an event, too: it hides the entries before it.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from claude_agent_sdk import SessionStore, fold_session_summary

from ..recorder.events import Entry, Event, encode
from ..recorder.log.log import EventLog, RunWriter
from ..recorder.log.runs import RunQuery

KINDS = ("session.entry", "session.summary", "session.deleted")

_VIA = "session-store"


@dataclass(slots=True)
class _Transcript:
    """The entries of one session or subagent. Entries with a uuid that came before count once."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    uuids: set[str] = field(default_factory=set)
    summary: dict[str, Any] | None = None
    written_ns: int = 0

    def add(self, event: Event) -> None:
        entry = event.data
        uuid = entry.get("uuid")
        if uuid is None or uuid not in self.uuids:
            self.entries.append(entry)
            if uuid is not None:
                self.uuids.add(uuid)
        self.written_ns = event.wall_ns


class LogSessionStore(SessionStore):
    """The transcripts of sessions in a log. `close` ends the runs that this store wrote."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._writers: dict[tuple[str, str], RunWriter] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<LogSessionStore {self._log.path}>"

    def close(self) -> None:
        """End the runs. Raises LogError."""
        with self._lock:
            while self._writers:
                self._writers.popitem()[1].end()

    # The protocol of the SDK. Questions and writes run in a thread, because they wait for the disk.

    async def append(self, key: Any, entries: Any) -> None:
        """Append entries to a transcript; each is committed on return. Raises LogError."""
        if entries:
            await _in_thread(self._append, key, list(entries))

    async def load(self, key: Any) -> Any:
        """Return the entries of a transcript, or None if there are none. Raises LogError."""
        found = (await _in_thread(self._found, key["project_key"], key["session_id"])).get(_place(key))
        return None if found is None else found.entries

    async def list_sessions(self, project_key: str) -> Any:
        """Return id and time of the sessions of a project. Raises LogError."""
        found = await _in_thread(self._found, project_key)
        return [{"session_id": id_, "mtime": _ms(each)} for (id_, subpath), each in found.items() if not subpath]

    async def list_session_summaries(self, project_key: str) -> Any:
        """Return the summaries of the sessions of a project. Raises LogError."""
        found = await _in_thread(self._found, project_key)
        return [each.summary for (_, subpath), each in found.items() if not subpath and each.summary is not None]

    async def list_subkeys(self, key: Any) -> list[str]:
        """Return the subpaths of a session: the transcripts of its subagents. Raises LogError."""
        found = await _in_thread(self._found, key["project_key"], key["session_id"])
        return [subpath for _, subpath in found if subpath]

    async def delete(self, key: Any) -> None:
        """Hide a session with its subagents, or one subagent. The log keeps the events; `retold erase` removes them."""
        await _in_thread(self._delete, key)

    # The log

    def _append(self, key: Any, entries: list[Any]) -> None:
        project, (id_, subpath) = key["project_key"], _place(key)
        with self._lock:
            writer = self._writer(project, id_)
            before = None if subpath else self._found(project, id_).get((id_, ""))
            events = writer.append(*(Entry("session.entry", encode(entry), project, subpath) for entry in entries))
            if not subpath:
                known: Any = None if before is None else before.summary
                summary = fold_session_summary(known, key, entries)
                writer.note("session.summary", {**summary, "mtime": events[-1].wall_ns // 1_000_000}, step=project)

    def _delete(self, key: Any) -> None:
        project, (id_, subpath) = key["project_key"], _place(key)
        with self._lock:
            if self._found(project, id_):
                self._writer(project, id_).note("session.deleted", {}, step=project, task=subpath)

    def _writer(self, project: str, id_: str) -> RunWriter:
        if (project, id_) not in self._writers:
            data = {"via": _VIA, "project": project, "session": id_}
            self._writers[project, id_] = self._log.start(name=id_, mode="live", data=data)
        return self._writers[project, id_]

    def _found(self, project: str, id_: str | None = None) -> dict[tuple[str, str], _Transcript]:
        """Return the transcripts of a project, or of one session, by session and subpath, without those that were deleted."""
        if not self._log.exists():
            return {}
        found: dict[tuple[str, str], _Transcript] = {}
        for name, event in self._events(project, id_):
            place = name, event.task
            match event.kind:
                case "session.deleted":
                    found = {at: each for at, each in found.items() if at != place and (event.task or at[0] != name)}
                case "session.summary":
                    if place in found:
                        found[place].summary = event.data
                case _:
                    found.setdefault(place, _Transcript()).add(event)
        return found

    def _events(self, project: str, id_: str | None) -> list[tuple[str, Event]]:
        """Return the events of all runs of sessions with the names of the sessions, in the order in which they were written."""
        events = []
        with self._log.reading() as log:
            for run in log.runs(RunQuery() if id_ is None else RunQuery(name=id_)):
                first = next(log.events(run.run), None)
                if first is not None and first.data.get("via") == _VIA:
                    name = str(first.data["session"])
                    events += [(name, event) for event in log.events(run.run, kinds=KINDS, step=project)]
        return sorted(events, key=lambda each: (each[1].wall_ns, each[1].run, each[1].seq))


async def _in_thread(work: Any, *arguments: Any) -> Any:
    """Return the result of a function that runs in a thread, on either event loop."""
    return await anyio.to_thread.run_sync(work, *arguments)


def _place(key: Any) -> tuple[str, str]:
    return key["session_id"], key.get("subpath") or ""


def _ms(transcript: _Transcript) -> int:
    return transcript.written_ns // 1_000_000
