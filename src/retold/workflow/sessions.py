"""Named conversations that continue: over the steps of a run, and, read back from the log, over runs."""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..recorder.log.log import EventLog
from ..recorder.messages import Session


@dataclass
class SessionState:
    """A conversation so far: its session, what was said, and how many turns it took."""

    session: Session
    messages: list[dict[str, Any]]
    turns: int = 0

    def as_dict(self, name: str) -> dict[str, Any]:
        """What the end of a step says of its session, so that `session_in` finds it."""
        return {"name": name, "id": self.session.id, "made": self.session.made, "turns": self.turns}


def last_session(log: EventLog, workflow: str, name: str) -> SessionState | None:
    """The conversation of that name as the newest live run of the workflow left it, or None."""
    if not log.path.exists():
        return None
    for info in log.runs():
        if info.name == workflow and info.mode == "live" and (state := session_in(log, info.run, name)) is not None:
            return state
    return None


def session_in(log: EventLog, run: str, name: str) -> SessionState | None:
    """The conversation of that name as a run left it, or None where no step of the run held it and ended well."""
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
    """What had been said when a step without tasks ended: its last request, and the answer to it. None if it was erased."""
    requests = deque(log.events(run, kinds=("exchange.started",), step=step), maxlen=1)  # each repeats the one before it
    if not requests:
        return []
    last = requests[0]
    messages = list(log.events(run, kinds=("message",), exchange=last.seq))
    if any("erased_by" in event.data for event in (last, *messages)):
        return None
    answer = [block for event in messages if event.data.get("type") == "assistant" for block in event.data["message"]["content"]]
    return [*json.loads(last.data["body"])["messages"], {"role": "assistant", "content": answer}]
