"""Calls within a call: the SDK's refusal fallback asks another model if the first refuses, inside one call of the program.

`BetaRefusalFallbackMiddleware` (anthropic 2.14) tags each of its requests in the header `x-stainless-helper`. The next model gets
the same question, at times with the unfinished answer of the model before at its end. Such requests are attempts of one call.
"""

from dataclasses import dataclass
from hashlib import sha256

from ..recorder import strict_json
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Request, header
from ..recorder.strict_json import object_in

TAG = "fallback-refusal-middleware"

MAX_CALLS = 1000
"""The number of calls that are remembered. The next model is asked at once, so older calls are over."""

_FAILED = ("http_error", "no_response")


@dataclass(slots=True)
class _Tried:
    """The last attempt of a call, and the models asked so far."""

    capture: Capture
    models: set[str]


class Fallbacks:
    """The calls of one recording that may ask a further model. The caller holds a lock around every method."""

    def __init__(self) -> None:
        self._tried: dict[str, _Tried] = {}

    def continued(self, request: Request) -> tuple[int, int] | None:
        """Return the call and the attempt of a request that asks a further model, or None for any other request."""
        question, model = _question(request)
        tried = self._tried.get(question)
        if tried is None or model in tried.models:
            return None
        last = tried.capture
        if last.fold.stop_reason != "refusal" and last.ending not in _FAILED:
            return None
        return last.place.call, last.place.attempt + 1

    def note(self, request: Request, capture: Capture) -> None:
        """Take a request that was sent. `capture` has its place."""
        question, model = _question(request)
        if not question:
            return
        tried = self._tried.pop(question, None)
        models = tried.models if tried is not None and tried.capture.place.call == capture.place.call else set[str]()
        self._tried[question] = _Tried(capture, models | {model})
        while len(self._tried) > MAX_CALLS:
            del self._tried[next(iter(self._tried))]


def _question(request: Request) -> tuple[str, str]:
    """Return a digest of the messages up to the last one of the user, and the model; an empty digest without the tag."""
    if TAG not in (header(request.headers, "x-stainless-helper") or ""):
        return "", ""
    body = object_in(request.body)
    messages = body.get("messages")
    asked = list(messages) if isinstance(messages, list) else []
    while asked and isinstance(asked[-1], dict) and asked[-1].get("role") == "assistant":
        asked.pop()
    return sha256(strict_json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest(), str(body.get("model"))
