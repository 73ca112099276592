"""Named conversations that continue over the steps of a run and, read back from the log, over runs."""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..recorder.log.log import EventLog
from ..recorder.messages import Session, blocks_of


@dataclass
class SessionState:
    """The current state of a conversation: its session, its messages, and its number of turns."""

    session: Session
    messages: list[dict[str, Any]]
    turns: int = 0

    def as_dict(self, name: str) -> dict[str, Any]:
        """Return the session's part of the end of a step, which `session_in` reads."""
        return {"name": name, "id": self.session.id, "made": self.session.made, "turns": self.turns}


def last_session(log: EventLog, workflow: str, name: str) -> SessionState | None:
    """Return the conversation of that name from the newest live run of the workflow, or None."""
    if not log.path.exists():
        return None
    for info in log.runs():
        if info.name == workflow and info.mode == "live" and (state := session_in(log, info.run, name)) is not None:
            return state
    return None


def session_in(log: EventLog, run: str, name: str) -> SessionState | None:
    """Return the conversation of that name at the end of a run, or None if no successful step of the run held it."""
    found: dict[str, Any] | None = None
    step = ""
    for event in log.events(run, kinds=("step.ended",)):
        said = event.data.get("session")
        if said is not None and said["name"] == name and event.data["status"] == "completed":
            found, step = said, event.step
    if found is None or (said := said_in(log, run, step)) is None:
        return None
    return SessionState(Session(found["id"], made=found["made"]), said, found["turns"])


def said_in(log: EventLog, run: str, step: str) -> list[dict[str, Any]] | None:
    """Return the messages at the end of a step without tasks: its last request and the answer. Return None if it was erased."""
    requests = deque(log.events(run, kinds=("exchange.started",), step=step), maxlen=1)  # each repeats the previous one
    if not requests:
        return []
    last = requests[0]
    messages = list(log.events(run, kinds=("message",), exchange=last.seq))
    if any("erased_by" in event.data for event in (last, *messages)):
        return None
    answer = [block for event in messages if event.data.get("type") == "assistant" for block in blocks_of(event.data)]
    return [*json.loads(last.data["body"])["messages"], {"role": "assistant", "content": answer}]
