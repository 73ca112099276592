"""Fold the exchanges of a cassette into the events that a comparison reads, without a log.

The events, and their order, are those of an import (transfer.py), except for the pieces of the bodies: each body is folded as a
whole. The folded
texts are redacted once, not frame by frame, so that no first character of a key is left. Numbers
and times are those of an import, too.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..agent_wire import AgentSession
from ..events import Event, encode
from ..http.capture import MAX_JSON_BODY_BYTES
from ..http.exchange import Exchange, Place, Request, Response, as_started, content_encoding, header, wire_parser
from ..http.fold import Fold
from ..http.platforms import asked_of, model_in
from ..http.refold import RecordedAnswer
from ..http.sessions import sent_messages
from ..http.sse import FrameParser, Piece, Run, cut_body
from ..messages import Session, content_blocks
from ..secrets.redactor import Redactor
from ..secrets.streams import PackedRedactor
from ..strict_json import object_or_empty
from .sessions import parts_of

Recorded = Exchange | AgentSession

Begin = Callable[[Recorded, int], Iterator[int]]
"""Returns the steps of an exchange or session that begins at a time of the run. The steps yield the time of the next one."""

RUN = "cassette"
"""The run of the events."""


class FoldedExchanges:
    """Exchanges that were folded: `events` are their events of the kinds `exchange.started`, `message` and `exchange.ended`.

    A session of the Agent SDK has all of its events.
    """

    def __init__(self, exchanges: Iterable[Recorded]) -> None:
        self.events: list[Event] = []
        self._exchanges: dict[int, Exchange] = {}
        self._first_ns: dict[int, int] = {}
        self._seq = 1  # the first event of an import is `run.started`
        self._t_ns = 0
        self._session = Session()
        self._redactor = Redactor()
        self._open_uses: set[str] = set()
        for _ in interleaved(exchanges, self._steps, lambda: self._t_ns):
            pass

    def answer(self, event: Event) -> RecordedAnswer:
        """Return the redacted answer of the exchange that an event belongs to."""
        answer = RecordedAnswer.of_exchange(self._exchanges[event.exchange or 0])
        return replace(answer, body=self._redactor.data(answer.body))

    def first_piece_ns(self, started: Event) -> int | None:
        """Return the time from the start of an exchange to the first piece of its body; None without a body."""
        return self._first_ns.get(started.seq)

    def _steps(self, exchange: Recorded, began_ns: int) -> Iterator[int]:
        return (
            self._session_steps(exchange, began_ns) if isinstance(exchange, AgentSession) else self._folding(exchange, began_ns)
        )

    def _session_steps(self, session: AgentSession, began_ns: int) -> Iterator[int]:
        """Put the events of a session; yield the time of the next one."""
        number, task = self._seq, "" if session.place is None else session.place.task
        for offset_ns, kind, step, data in parts_of(session):
            if kind != "session.started":
                yield began_ns + offset_ns
            self._put(kind, data, Place(step, task), number, began_ns + offset_ns)

    def _folding(self, exchange: Exchange, began_ns: int) -> Iterator[int]:
        """Fold one exchange step by step; yield the time of the next step."""
        place, session = exchange.place, self._session
        for result in results_in(exchange.request, self._open_uses):
            self._put("message", session.tool_result(result), place, None, began_ns)
        request = self._redactor.request(exchange.request)
        number = self._seq
        self._exchanges[number] = exchange
        self._put("exchange.started", as_started(request, place, exchange.recorded_at), place, number, began_ns)
        if place.attempt == 1 and "/sessions" in request.uri:
            for message in sent_messages(request.method, request.uri, request.body, session):
                self._put("message", message, place, number, began_ns)
        response = exchange.response
        fold = Fold(session, model=model_in(request.uri) if "/model" in request.uri else None)
        body = None
        if response is not None:
            yield began_ns + response.first_ns
            self._seq += 1  # `response.started`
            fold.request_id = header(response.headers, "request-id")
            yield began_ns + response.span_ns[1]
            body = _FoldedBody(response, fold, self._redactor)
            if not body.is_framed:
                self._seq += len(response.pieces)
            first_ns, last_ns = response.span_ns
            if self._pieces(body, body.read(), place, number, began_ns + last_ns):
                self._first_ns[number] = first_ns
        ended_ns = began_ns + exchange.ended_ns - exchange.started_ns
        yield ended_ns
        if body is not None and self._pieces(body, body.rest(), place, number, ended_ns):
            self._first_ns.setdefault(number, ended_ns - began_ns)
        status = None if response is None else response.status
        ending = fold.ending(exchange.ending, status, is_withheld=body is not None and body.is_withheld)
        answered = [] if body is None else body.folded_json()
        for message in answered + (fold.flush() if ending != "complete" else []):
            self._put("message", message, place, number, ended_ns)
        summary = {"ending": ending, "status": status, **fold.summary(), "cost_usd": exchange.cost_usd}
        self._put("exchange.ended", summary, place, number, ended_ns)
        for result in exchange.tool_results:
            self._put("message", session.tool_result(result), place, None, ended_ns)
        known = {result.get("tool_use_id") for result in exchange.tool_results}
        self._open_uses |= {str(b.get("id")) for b in fold.content if b.get("type") == "tool_use"} - known

    def _pieces(self, body: "_FoldedBody", pieces: Iterable[Piece | Run], place: Place, number: int, at_ns: int) -> bool:
        """Put the messages that pieces of a body complete. Return whether the body has a piece so far."""
        for piece in pieces:
            if isinstance(piece, Run):
                self._seq += piece.size
                body.take_run(piece)
                continue
            self._seq += body.is_framed
            for message in body.take(piece):
                self._put("message", message, place, number, at_ns)
        return body.has_pieces

    def _put(self, kind: str, data: dict[str, Any], place: Place, exchange: int | None, at_ns: int) -> None:
        self._t_ns = max(self._t_ns, at_ns)
        payload = self._redactor.data(encode(data))
        step, task = map(self._redactor.label, place.unit)
        self.events.append(Event(RUN, self._seq, self._t_ns, 0, kind, step, task, exchange, payload, b"", b""))
        self._seq += 1


class _FoldedBody:
    """The body of a response, and its fold. `is_framed`: its wire bytes are frames."""

    def __init__(self, response: Response, fold: Fold, redactor: Redactor) -> None:
        self._response = response
        self._fold = fold
        # A compressed body is redacted by its content, which decides about its ending.
        self._packed = PackedRedactor(redactor, response.headers) if content_encoding(response.headers) else None
        self._parser = wire_parser(response.headers, response.body)
        self._json: list[bytes] = []
        self.is_framed = self._parser is not None
        self.has_pieces = not self.is_framed and bool(response.body)

    @property
    def is_withheld(self) -> bool:
        """Whether an import withholds a part of the body."""
        return self._packed is not None and (self._packed.found or self._packed.decoder.exceeded)

    def read(self) -> Iterable[Piece | Run]:
        """Return the pieces of the content, without those that only the end of the body completes."""
        if self._packed is not None:
            return [content for piece in self._response.pieces for content in self._packed.feed(piece.data)[1]]
        body = self._response.body
        if self._parser is not None:
            return cut_body(body, self._parser) if isinstance(self._parser, FrameParser) else self._parser.feed(body)
        return [Piece(body, False)] if body else []

    def rest(self) -> Iterable[Piece]:
        """Return the pieces that the end of the body completes."""
        if self._packed is not None:
            return self._packed.flush()[1]
        return [] if self._parser is None else self._parser.flush()

    def take_run(self, run: Run) -> None:
        """Take plain deltas that follow each other. They complete no message."""
        self.has_pieces = True
        self._fold.deltas.append(run.delta)

    def take(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the messages that a piece completes."""
        self.has_pieces = True
        if piece.is_frame:
            return self._fold.feed(piece.data)
        if self._parser is None and (self._packed is None or not self._packed.has_frames):
            self._json.append(piece.data)
        return []

    def folded_json(self) -> list[dict[str, Any]]:
        """Return the messages of a body without frames."""
        if not self._json or len(self._response.body) > MAX_JSON_BODY_BYTES:
            return []
        return self._fold.feed_json(b"".join(self._json))


def in_order(exchanges: Iterable[Exchange], sessions: Iterable[AgentSession]) -> Iterator[Recorded]:
    """Yield exchanges and sessions in the order in which they were recorded. Both keep their own order."""
    return heapq.merge(exchanges, sessions, key=lambda each: (each.recorded_at, each.started_ns))


def interleaved(exchanges: Iterable[Recorded], begin: Begin, now_ns: Callable[[], int]) -> Iterator[None]:
    """Take the steps of exchanges in the order of their times; yield after the steps before the next exchange.

    `begin` returns the steps of an exchange that begins at a time of the run, `now_ns` the time of the newest step.
    """
    running: list[tuple[int, int, Iterator[int]]] = []
    shift_ns, before_ns = 0, -1
    for number, exchange in enumerate(exchanges):
        if exchange.started_ns <= before_ns:  # from another recording than the one before it, or from an unknown time
            _advance(running)
            shift_ns = now_ns() - exchange.started_ns
        before_ns = exchange.started_ns
        began_ns = exchange.started_ns + shift_ns
        _advance(running, began_ns)
        steps = begin(exchange, began_ns)
        heapq.heappush(running, (next(steps), number, steps))
        yield
    _advance(running)
    yield


def _advance(running: list[tuple[int, int, Iterator[int]]], until_ns: int | None = None) -> None:
    """Take the steps of exchanges that are due until a time, or all of them, in the order of their times."""
    while running and (until_ns is None or running[0][0] <= until_ns):
        _, number, steps = running[0]
        due_ns = next(steps, None)
        if due_ns is None:
            heapq.heappop(running)
        else:
            heapq.heapreplace(running, (due_ns, number, steps))


def results_in(request: Request, open_uses: set[str]) -> list[dict[str, Any]]:
    """Return the tool results in a request for tool uses of earlier exchanges, each once."""
    if not open_uses or not (b"tool_result" in request.body or b"toolResult" in request.body):
        return []
    messages = asked_of(request.uri, request.body).get("messages")
    found = []
    for message in messages if isinstance(messages, list) else []:
        for block in content_blocks(object_or_empty(message).get("content")):
            if block.get("type") == "tool_result" and block.get("tool_use_id") in open_uses:
                open_uses.discard(block["tool_use_id"])
                found.append(block)
    return found
