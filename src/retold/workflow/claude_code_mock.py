"""Claude Code in a mock run: the lines of recorded sessions, at their times, without the SDK, Claude Code or a network.

The options and the prompt of a step are compared with the recorded ones; volatile values are replaced by their names on both
sides. A session without a recording, or with another prompt, is a miss.
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

from ..recorder import strict_json
from ..recorder.agent_wire import AgentSession, WireCapture, is_prompt, kind_of
from ..recorder.cassette.sessions import moved, started_data
from ..recorder.errors import MissError, RunError
from ..recorder.log.log import RunWriter
from ..recorder.strict_json import object_or_empty
from ..replay.matching.differences import differences
from ..replay.matching.rules import named
from .claude_code import ClaudeTurn, agent_options
from .mock import Playback
from .prompt_job import Unit
from .tools import TimedOut

MAX_DIFFERENCES = 5
"""The number of differences that a miss lists."""


def death_of(error: dict[str, Any] | None) -> str:
    """Return the reason why a session has no result, from the error that it ended with."""
    if error is None:
        return "Claude Code ended without a result"
    lines = [line for line in str(error.get("stderr", "")).split("\n") if line.strip()]
    code = error.get("exit_code")
    return f"Claude Code failed{'' if code is None else f' (exit code {code})'}: {lines[-1] if lines else error['message']}"


class _PlayedSession:
    """A recorded session while it is played."""

    def __init__(self, session: AgentSession, writer: RunWriter, recording: Playback, unit: Unit) -> None:
        self.session = session
        self._recording = recording
        self._began_ns = writer.started_ns
        self._at = 0
        self._capture = WireCapture(writer, started_data(session), step=unit.step, task=unit.task)

    async def play(self, turn: ClaudeTurn, *, keeps: bool) -> None:
        """Play the lines of one prompt: to its result, or to the end of the session."""
        await self._play_to_prompt(turn)
        lines = self.session.lines
        while self._at < len(lines) and not is_prompt(lines[self._at]) and not (keeps and turn.result is not None):
            await self._next(turn)
        if not keeps or (self._at == len(lines) and turn.result is None):
            await self._until(self.session.ended_ns)
            self.close()

    async def _play_to_prompt(self, turn: ClaudeTurn) -> None:
        lines = self.session.lines
        while self._at < len(lines) and not is_prompt(lines[self._at]):
            await self._next(None)
        if self._at == len(lines):
            return
        line = lines[self._at]
        await self._until(self.session.started_ns + line.offset_ns)
        self._capture.step = turn.unit.step
        self._capture.sent(line.data | {"message": {"role": "user", "content": turn.unit.prompt}})
        turn.asked(self._at_us(line.offset_ns))
        self._at += 1

    @property
    def prompt(self) -> Any:
        """The content of the next recorded message of the user; None if there is none."""
        rest = (line for line in self.session.lines[self._at :] if is_prompt(line))
        return next((object_or_empty(line.data.get("message")).get("content") for line in rest), None)

    async def _next(self, turn: ClaudeTurn | None) -> None:
        line = self.session.lines[self._at]
        await self._until(self.session.started_ns + line.offset_ns)
        if line.is_sent:
            self._capture.sent(line.data)
        else:
            self._capture.received(line.data)
            if turn is not None and kind_of(line.data) == "message":
                turn.take(line.data, self._at_us(line.offset_ns))
        self._at += 1

    def _at_us(self, offset_ns: int) -> int:
        return round(self.session.started_ns / 1000) + round(offset_ns / 1000)

    async def _until(self, recorded_ns: int) -> None:
        await self._recording.until(self._began_ns, self._recording.timeline.at(recorded_ns))

    def close(self) -> None:
        """Append the lines that are left, and the recorded ending."""
        for line in self.session.lines[self._at :]:
            (self._capture.sent if line.is_sent else self._capture.received)(line.data)
        self._at = len(self.session.lines)
        unread = None if self.session.unread is None else list(self.session.unread)
        self._capture.end(self.session.ending, self.session.error, self.session.exit_code, unread)


class MockClaudeCode:
    """Holds the conversations of a mock run. A named session is played on by the steps that continue it."""

    def __init__(self, recording: Playback, writer: RunWriter, source: str) -> None:
        self._recording = recording
        self._writer = writer
        self._source = source
        self._kept: dict[str, _PlayedSession] = {}

    def __repr__(self) -> str:
        return f"<MockClaudeCode {self._source} {len(self._kept)} open sessions>"

    async def hold(self, turn: ClaudeTurn, timeout_ms: int | None) -> None:
        """Play one conversation of a unit, or the next part of its session. Raise MissError, TimedOut, RunError."""
        unit = turn.unit
        played = self._session(unit)
        if played.prompt is not None:  # else the recorded session failed before it
            self._compare(unit, {"prompt": played.prompt}, {"prompt": unit.prompt})
        await played.play(turn, keeps=bool(unit.session_name))
        if turn.result is not None:
            return
        self._kept.pop(unit.session_name, None)
        if played.session.ending == "closed" and timeout_ms is not None:
            raise TimedOut(timeout_ms)  # the recorded run closed the session at its time limit
        raise RunError(death_of(played.session.error))

    async def close(self) -> None:
        """End the open sessions."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _session(self, unit: Unit) -> _PlayedSession:
        """Return the session of a unit: the next one that was recorded for it, or the one that its session continues."""
        found = self._recording.take_session(self._writer.redactor.label(unit.step), self._writer.redactor.label(unit.task))
        kept = self._kept.get(unit.session_name)
        if found is None:
            if kept is None or kept.prompt is None:
                task = f", task {unit.task!r}" if unit.task else ""
                raise MissError(f"{self._source} holds no further session with Claude Code for step {unit.step!r}{task}.")
            return kept
        if kept is not None:
            kept.close()
        session = moved(found, str(unit.workdir), os.path.expanduser("~"))
        assert session.place is not None
        self._compare(unit, session.place.options, json.loads(strict_json.dumps(agent_options(unit))))
        played = _PlayedSession(session, self._writer, self._recording, unit)
        if unit.session_name:
            self._kept[unit.session_name] = played
        return played

    def _compare(self, unit: Unit, recorded: dict[str, Any], own: dict[str, Any]) -> None:
        """Raise MissError if values of this run are not the recorded ones."""
        names = self._recording.variables | {value: name for name, value in unit.volatile.items() if value}
        pattern = re.compile("|".join(re.escape(text) for text in sorted(names, key=len, reverse=True)) or r"(?!)")
        before, now = named(recorded, pattern, names), named(own, pattern, names)
        if found := differences(before, now):
            raise MissError(self._recording.redactor.text(self._report(found)))

    def _report(self, found: Sequence[str]) -> str:
        shown = "".join(f"\n  {line}" for line in found[:MAX_DIFFERENCES])
        more = "" if len(found) <= MAX_DIFFERENCES else f"\n  … and {len(found) - MAX_DIFFERENCES} more places"
        return f"{self._source} holds another session with Claude Code than this one.\nIt differs in:{shown}{more}"
