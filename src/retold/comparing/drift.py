"""Compare the API's answers of today with the recorded ones, by meaning: ids, times, signatures and token counts do not count."""

from typing import Any

from ..recorder.agent_wire import AgentSession
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange
from ..recorder.http.fold import Fold
from ..recorder.http.refold import refold_exchange
from ..replay.matching.differences import differences
from .compare import Difference, compare_sides
from .focus import Focus
from .reading import read_exchanges
from .text import noun

_VOLATILE = frozenset({"id", "signature", "tool_use_id", "encrypted_content", "encrypted_index", "data"})


def drift_between(recorded: Exchange | None, capture: Capture) -> list[str]:
    """Return the differences between a recorded answer and a fresh one, one line a place. An unrecorded request is one line."""
    what = f"call {capture.place.call}"
    if recorded is None:
        return [f"{what}: not recorded"]
    status = None if recorded.response is None else recorded.response.status
    before = _meaning(status, recorded.ending, refold_exchange(recorded))
    now = _meaning(capture.status, capture.ending or "cut", capture.fold)
    return [f"{what}: {line}" for line in differences(before, now)]


_IN_A_SESSION = Focus(only=("text", "thinking", "tool_use", "tool_result", "answer", "result", "init.model"))
"""The parts of a session that Claude decides. The lines of Claude Code about itself change with its version."""


def drift_between_sessions(recorded: AgentSession | None, new: AgentSession, number: int) -> list[str]:
    """Return the differences between a recorded session of the Agent SDK and a fresh one, which is the one of this number."""
    if recorded is None:
        return [f"session {number}: not recorded"]
    before, now = (read_exchanges([session], title="") for session in (recorded, new))
    found = compare_sides(before, now, _IN_A_SESSION).differences
    return [f"session {number}: {line}" for difference in found for line in _lines(difference)]


def _lines(difference: Difference) -> list[str]:
    before, now = difference.a, difference.b
    if difference.what == "totals" or (item := before or now) is None:
        return []
    where = f"turn {item.turn}, {noun(difference.what, item)}"
    if difference.kind == "changed" and before is not None and now is not None:
        return [f"{where}: {line}" for line in differences(before.value, now.value)]
    if difference.kind == "moved":
        return [f"{where}: moved"]
    return differences({} if before is None else {where: before.text}, {} if now is None else {where: now.text})


def _meaning(status: int | None, ending: str, fold: Fold) -> dict[str, Any]:
    return {
        "status": status,
        "ending": ending,
        "model": fold.message.get("model"),
        "stop_reason": fold.stop_reason,
        "error": None if fold.error is None else fold.error.get("type"),
        "content": [{key: value for key, value in block.items() if key not in _VOLATILE} for block in fold.content],
    }
