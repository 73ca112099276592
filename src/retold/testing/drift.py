"""Record mode `verify`: compare the API's answers with the recorded ones."""

import warnings

from ..recorder.agent_wire import AgentSession
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange

__tracebackhide__ = True


class DriftWarning(UserWarning):
    """In record mode `verify`, the API answers otherwise than it was recorded."""


def drift_of(
    pairs: list[tuple[Exchange | None, Capture]], sessions: list[tuple[AgentSession | None, AgentSession]], source: str
) -> list[str]:  # fmt: skip
    """Return the differences between recorded exchanges or sessions and new ones, and warn. None stands for an unrecorded one."""
    if not pairs and not sessions:
        return []
    from ..comparing.drift import drift_between, drift_between_sessions  # slow, and only record mode verify needs it

    found = [line for recorded, capture in pairs for line in drift_between(recorded, capture)]
    for number, (before, now) in enumerate(sessions, 1):
        found += drift_between_sessions(before, now, number)
    if found:
        text = f"{source}: the API answers otherwise than recorded:\n" + "\n".join(f"  {line}" for line in found)
        # The frames: drift_of, close of the session, __exit__ of the use, the caller's.
        warnings.warn(text, DriftWarning, stacklevel=4)
    return found
