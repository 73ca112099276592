"""Match requests of message threads by the whole conversations that they are equal to.

A request that continues a thread names a recorded answer. Its whole request (recorder/http/threads.py) is compared with the
whole requests of the recording, so the id itself does not count. A recording with whole histories answers a client with threads,
and the other way round. If only the client itself can send the whole history, it gets the errors with which the API asks for it.
The SDK and Claude Code then repeat the call without the thread.

1. `thread_not_found` (404): no recorded answer has the id, or the client may send a history that differs from the recorded one.
2. `thread_unsupported_request` (400): the rules compare raw bytes, and only the request without `thread` can have those.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ...recorder import strict_json
from ...recorder.http.exchange import Exchange, Headers, Request, Response, TimedPiece
from ...recorder.http.refold import refold_exchange
from ...recorder.http.threads import MESSAGES_PATHS, Histories, in_one_form, is_thread_error, previous_id, turn_of
from .rules import path

_BETA = "message-threads-"
_JSON: Headers = (("content-type", "application/json"),)


class ThreadIndex:
    """The exchanges of a recording by their whole requests. `key` returns the text that requests of equal meaning share.
    `has_threads` is whether a recorded request belongs to a thread.

    The index is built for the first request that needs it. A recording without threads and a client without threads never do.
    """

    def __init__(self, exchanges: Sequence[Exchange], key: Callable[[Request], str], *, has_threads: bool) -> None:
        self._exchanges = exchanges
        self._key = key
        self._has_threads = has_threads
        self._histories = Histories()
        self._by_key: dict[str, list[Exchange]] | None = None

    def concerns(self, request: Request) -> bool:
        """Return whether threads play a part in matching this request."""
        return (self._has_threads or is_threaded(request)) and path(request.uri) in MESSAGES_PATHS

    def candidates(self, request: Request) -> list[Exchange]:
        """Return the exchanges with the same whole request, those of the same kind of turn first, else in recorded order."""
        whole = self.whole(request)
        if whole is None or self._by_key is None:
            return []
        turn = turn_of(_body(request) or {})
        found = self._by_key.get(self._key(whole), [])
        return sorted(found, key=lambda exchange: turn_of(_body(exchange.request) or {}) != turn)

    def whole(self, request: Request) -> Request | None:
        """Return the whole request for a request, or None if it continues an answer that is not in the recording."""
        if self._by_key is None:
            self._by_key = self._built()
        body = _body(request)
        whole = None if body is None else self._histories.whole(body)
        return None if whole is None else _with(request, whole)

    def _built(self) -> dict[str, list[Exchange]]:
        found: dict[str, list[Exchange]] = {}
        for exchange in self._exchanges:
            body = _body(exchange.request) if path(exchange.request.uri) in MESSAGES_PATHS else None
            whole = None if body is None else self._histories.whole(body)
            if body is None or whole is None:
                continue
            found.setdefault(self._key(_with(exchange.request, whole)), []).append(exchange)
            # In recorded order: a later request of the thread continues this answer. Only an answer can be continued.
            if exchange.response is not None and exchange.response.status == 200:
                fold = refold_exchange(exchange)
                if isinstance(message_id := fold.message.get("id"), str):
                    self._histories.hold(message_id, body, fold.content)
        return found

    def refused_with(self, exchange: Exchange) -> list[Exchange]:
        """Return the recorded attempts of the same whole request that the API refused because of their thread."""
        groups = () if self._by_key is None else self._by_key.values()
        group = next((group for group in groups if any(other is exchange for other in group)), [])
        return [other for other in group if other is not exchange and is_refused_thread(other)]

    def refusal(self, request: Request, waiting: Iterable[Exchange], *, raw: bool) -> Exchange | None:
        """Return the API's error that asks the client of an unmatched request for the whole history, or None for a miss.

        `waiting` are the exchanges that are not played yet. `raw` means that the rules compare raw bytes.
        """
        body = _body(request) or {}
        turn, previous = turn_of(body), previous_id(body)
        if turn is None or path(request.uri) not in MESSAGES_PATHS:
            return None
        self.whole(request)  # builds the index
        # Each of these errors makes a client send its whole history, which may match. Without a chance of that, report a miss.
        if previous is not None and previous not in self._histories:
            return _error(request, 404, "thread_not_found", f"no answer of this recording has the id {previous}")
        if not any(_ends_alike(_body(exchange.request) or {}, body) for exchange in waiting):
            return None
        if raw:
            return _error(request, 400, "thread_unsupported_request", "the recording holds whole histories")
        if previous is not None:
            return _error(request, 404, "thread_not_found", f"the recording holds another history before {previous}")
        return None


def is_continued(request: Request) -> bool:
    """Return whether a request continues a thread."""
    return turn_of(_body(request) or {}) == "continue"


def is_refused_thread(exchange: Exchange) -> bool:
    """Return whether the API answered an exchange with an error about its thread."""
    if exchange.response is None or exchange.response.status < 400:
        return False
    return is_thread_error(refold_exchange(exchange).error)


def is_threaded(request: Request) -> bool:
    """Return whether a request begins or continues a thread."""
    return b'"thread"' in request.body and turn_of(_body(request) or {}) is not None


def _ends_alike(recorded: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Return whether a recorded request has a whole history that ends with the new messages of a thread."""
    new, messages = wanted.get("messages"), recorded.get("messages")
    if turn_of(recorded) == "continue" or not isinstance(new, list) or not isinstance(messages, list):
        return False
    return bool(new) and messages[-len(new) :] == new


def _body(request: Request) -> dict[str, Any] | None:
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _with(request: Request, body: dict[str, Any]) -> Request:
    """Return a request with another body, and without the beta of threads among its headers."""
    headers = tuple(
        (name, ",".join(beta for beta in value.split(",") if not beta.strip().startswith(_BETA)))
        if name.lower() == "anthropic-beta"
        else (name, value)
        for name, value in request.headers
    )
    headers = tuple(pair for pair in headers if pair[0].lower() != "anthropic-beta" or pair[1])
    return replace(request, headers=headers, body=strict_json.dumps(in_one_form(body)).encode("utf-8", "surrogatepass"))


def _error(request: Request, status: int, code: str, why: str) -> Exchange:
    message = f"retold: {why}. Send the whole conversation, as this error of the API asks for."
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    error = {"type": kind, "message": message, "details": {"error_code": code}}
    body = strict_json.dumps({"type": "error", "error": error}).encode()
    headers = (*_JSON, ("x-should-retry", "false"))
    response = Response(status, "Not Found" if status == 404 else "Bad Request", headers, (TimedPiece(0, body, False),))
    return Exchange(request, response, "http_error")
