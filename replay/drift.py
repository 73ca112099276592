"""Compare the API's answers of today with the recorded ones, by meaning: ids, times, signatures and token counts do not count."""

from typing import Any

from ..recorder.capture import Capture
from ..recorder.encodings import decoder_for
from ..recorder.exchange import Exchange, is_event_stream
from ..recorder.fold import Fold
from ..recorder.messages import Session
from ..recorder.sse import FrameParser
from .matcher import differences

_VOLATILE = frozenset({"id", "signature", "tool_use_id", "encrypted_content", "encrypted_index", "data"})


def fold_of(exchange: Exchange) -> Fold:
    """Return the recorded answer of an exchange, folded."""
    fold = Fold(Session("recorded"))
    response = exchange.response
    if response is None:
        return fold
    body = decoder_for(response.headers).decode(response.body)
    if is_event_stream(response.headers, body):
        parser = FrameParser()
        for piece in (*parser.feed(body), *parser.flush()):
            fold.feed(piece.data)
    else:
        fold.feed_json(body)
    return fold


def drift_between(recorded: Exchange | None, capture: Capture) -> list[str]:
    """Return the differences between a recorded answer and a fresh one, one line a place. An unrecorded request is one line."""
    what = f"call {capture.place.call}"
    if recorded is None:
        return [f"{what}: not recorded"]
    status = None if recorded.response is None else recorded.response.status
    before = _meaning(status, recorded.ending, fold_of(recorded))
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
