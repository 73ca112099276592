"""Compare the API's answers of today with the recorded ones, by meaning: ids, times, signatures and token counts do not count."""

from typing import Any

from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange
from ..recorder.http.fold import Fold
from ..recorder.http.refold import refold_exchange
from ..replay.matching.differences import differences

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


def _meaning(status: int | None, ending: str, fold: Fold) -> dict[str, Any]:
    return {
        "status": status,
        "ending": ending,
        "model": fold.message.get("model"),
        "stop_reason": fold.stop_reason,
        "error": None if fold.error is None else fold.error.get("type"),
        "content": [{key: value for key, value in block.items() if key not in _VOLATILE} for block in fold.content],
    }
