"""Failed calls: the failure of an exchange as one line, and the number of calls of a run that failed.

A call fails if its last attempt fails. An attempt that failed before a better one of the same call is healed: the program got
its answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..strict_json import object_or_empty

FAILED = ("http_error", "error_event", "cut", "no_response")
"""Endings that count as failures. A client that closes a stream early has not failed."""

_NO_ANSWER = {"cut": "the stream was cut", "no_response": "no response"}


def call_error(ended: Mapping[str, Any]) -> str | None:
    """Return the failure in the payload of an `exchange.ended`, or None if the exchange did not fail.

    For example `400 invalid_request_error: max_tokens: too large (req_1)`. A recording of retold 0.1 has only the status.
    """
    ending = ended.get("ending")
    if ending not in FAILED:
        return None
    if ending in _NO_ANSWER:
        failure = object_or_empty(ended.get("error"))
        return ": ".join(filter(None, (_NO_ANSWER[ending], failure.get("type"), failure.get("message"))))
    said = object_or_empty(ended.get("api_error"))
    status = ended.get("status")
    parts = [": ".join(filter(None, (said.get("type"), said.get("message"))))]
    if ending == "http_error" and status is not None:
        parts.insert(0, str(status))
    if said.get("request_id"):
        parts.append(f"({said['request_id']})")
    return " ".join(filter(None, parts)) or "the stream carried an error event"


def error_kind(ended: Mapping[str, Any]) -> str:
    """Return the kind of the failure in the payload of an `exchange.ended`, or an empty text if the exchange did not fail.

    For example `429 rate_limit_error`, `cut` or `no_response`.
    """
    ending = ended.get("ending")
    if ending not in FAILED or ending in _NO_ANSWER:
        return str(ending) if ending in FAILED else ""
    status = ended.get("status") if ending == "http_error" else None
    kind = object_or_empty(ended.get("api_error")).get("type")
    return " ".join(str(each) for each in (status, kind) if each) or str(ending)


@dataclass(slots=True)
class CallCounts:
    """Counts the calls of a run from the ends of its exchanges, in the order of the log."""

    _failed_attempts: dict[tuple[object, ...], int] = field(default_factory=dict)
    _failed: dict[tuple[object, ...], bool] = field(default_factory=dict)

    def ended(self, exchange: int | None, step: str, task: str, data: Mapping[str, Any], call: int | None = None) -> None:
        """Take the end of an exchange. `data` has its `ending` and its `call`.

        A recording of retold 0.1 has the call at the start of the exchange only: then `call` is passed.
        """
        call = data.get("call", call)
        key = (step, task, call) if call else (exchange,)
        self._failed[key] = data.get("ending") in FAILED
        self._failed_attempts[key] = self._failed_attempts.get(key, 0) + self._failed[key]

    @property
    def count(self) -> int:
        """The number of calls."""
        return len(self._failed)

    @property
    def failed(self) -> int:
        """The number of calls that failed."""
        return sum(self._failed.values())

    @property
    def healed(self) -> int:
        """The number of failed attempts of calls that did not fail."""
        return sum(count for key, count in self._failed_attempts.items() if not self._failed[key])

    def __str__(self) -> str:
        return f"{self.failed} of {self.count} calls failed"


def outcome(status: str, calls: int, failed: int) -> str:
    """Return the status of a run with its failed calls: `completed, 2 of 3 calls failed`."""
    return f"{status}, {failed} of {calls} calls failed" if failed and status != "failed" else status
