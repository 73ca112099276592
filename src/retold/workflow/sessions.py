"""Named conversations that continue over the steps of a run and, read back from the log, over runs."""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..recorder.log.log import EventLog
from ..recorder.messages import Session, blocks_of
from ..recorder.strict_json import object_or_empty
from .claude_code import spoken
from .schema import DEFAULT_ENGINE, Engine


@dataclass
class SessionState:
    """The current state of a conversation: its session, its messages, and its number of turns."""

    session: Session
    messages: list[dict[str, Any]]
    turns: int = 0
    engine: Engine = DEFAULT_ENGINE

    def as_dict(self, name: str) -> dict[str, Any]:
        """Return the session's part of the end of a step, which `session_in` reads."""
        return {"name": name, "id": self.session.id, "made": self.session.made, "turns": self.turns, "engine": self.engine}


def last_session(log: EventLog, workflow: str, name: str, engine: Engine) -> SessionState | None:
    """Return the conversation of that name on an engine from the newest live run of the workflow, or None."""
    if not log.path.exists():
        return None
    for info in log.runs():
        state = session_in(log, info.run, name) if info.name == workflow and info.mode == "live" else None
        if state is not None and state.engine == engine:
            return state
    return None


def session_in(log: EventLog, run: str, name: str) -> SessionState | None:
    """Return the conversation of that name at the end of a run, or None if no successful step of the run held it."""
    found: dict[str, Any] | None = None
    steps: list[str] = []
    for event in log.events(run, kinds=("step.ended",)):
        said = event.data.get("session")
        if said is not None and said["name"] == name and event.data["status"] == "completed":
            found, steps = said, [*steps, event.step]
    if found is None:
        return None
    engine: Engine = found.get("engine", DEFAULT_ENGINE)
    # A request to the Messages API repeats all earlier steps.
    parts = [said_in(log, run, step) for step in (steps[-1:] if engine == DEFAULT_ENGINE else steps)]
    if None in parts:
        return None
    messages = [message for part in parts for message in part or ()]
    return SessionState(Session(found["id"], made=found["made"]), messages, found["turns"], engine)


def said_in(log: EventLog, run: str, step: str) -> list[dict[str, Any]] | None:
    """Return the messages at the end of a step without tasks: its last request and the answer. Return None if it was erased.

    Return those of the step alone if Claude Code held it.
    """
    requests = deque(log.events(run, kinds=("exchange.started",), step=step), maxlen=1)  # each repeats the previous one
    if not requests:
        return _said_to_claude_code(log, run, step)
    last = requests[0]
    messages = list(log.events(run, kinds=("message",), exchange=last.seq))
    if any("erased_by" in event.data for event in (last, *messages)):
        return None
    answer = [block for event in messages if event.data.get("type") == "assistant" for block in blocks_of(event.data)]
    return [*json.loads(last.data["body"])["messages"], {"role": "assistant", "content": answer}]


def _said_to_claude_code(log: EventLog, run: str, step: str) -> list[dict[str, Any]] | None:
    """Return the prompts and answers of a step that Claude Code held; None if one of them was erased."""
    found: list[dict[str, Any]] = []
    for event in log.events(run, kinds=("wire.sent", "message"), step=step):
        data = event.data
        if "erased_by" in data:
            return None
        if event.kind == "message":
            found += spoken([data])
        elif data.get("type") == "user":
            found.append({"role": "user", "content": object_or_empty(data.get("message")).get("content", "")})
    return found
