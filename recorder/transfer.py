"""Between log and cassette: exchanges read out of a run's events, and exchanges appended as the events of a run.

An import goes through the same capture as a live recording, so that its messages are folded in the same way; its events
carry the recorded times.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any

from .capture import Capture, Place
from .events import Entry, Event, encode
from .exchange import Exchange, Failure, Request, Response, TimedPiece, from_text
from .log import EventLog
from .messages import Session
from .redact import Redactor
from .writer import RunWriter

INTERRUPTED = Failure("Interrupted", "the recording process died")
"""Stands as the failure of an exchange whose end was never written."""


@dataclass
class _Open:
    """An exchange being put together from its events."""

    started: Event
    head: Event | None = None
    pieces: list[Event] = field(default_factory=list)
    ended: Event | None = None
    tool_uses: set[str] = field(default_factory=set)


def exchanges_of(log: EventLog, run: str) -> list[Exchange]:
    """The exchanges of a run in the order they were started, as a cassette holds them."""
    found: dict[int, _Open] = {}
    results: list[dict[str, Any]] = []
    for event in log.events(run):
        if event.kind == "exchange.started":
            found[event.seq] = _Open(event)
            continue
        exchange = None if event.exchange is None else found.get(event.exchange)
        match event.kind:
            case "response.started" if exchange is not None:
                exchange.head = event
            case "frame" | "chunk" if exchange is not None:
                exchange.pieces.append(event)
            case "exchange.ended" if exchange is not None:
                exchange.ended = event
            case "message":
                _note_tools(event.data, exchange, results)
    exchanges = [_to_exchange(part) for part in found.values()]
    return _with_tool_results(exchanges, [part.tool_uses for part in found.values()], results)


def _note_tools(message: dict[str, Any], exchange: _Open | None, results: list[dict[str, Any]]) -> None:
    content = (message.get("message") or {}).get("content")
    for block in content if isinstance(content, list) else ():
        if block.get("type") == "tool_use" and exchange is not None:
            exchange.tool_uses.add(str(block.get("id")))
        elif block.get("type") == "tool_result" and message.get("type") == "user":
            results.append(block)


def _with_tool_results(exchanges: list[Exchange], uses: list[set[str]], results: list[dict[str, Any]]) -> list[Exchange]:
    """Attach to each exchange the results of its tools that no later request holds (the run stopped at its last turn)."""
    complete = []
    for number, exchange in enumerate(exchanges):
        later = [e.request.body for e in exchanges[number + 1 :]]
        own = [
            result
            for result in results
            if result.get("tool_use_id") in uses[number]
            and not any(str(result["tool_use_id"]).encode() in body for body in later)
        ]
        complete.append(replace(exchange, tool_results=tuple(own)) if own else exchange)
    return complete


def _to_exchange(part: _Open) -> Exchange:
    started, data = part.started, part.started.data
    ended: dict[str, Any] = {"ending": "cut", "error": None} if part.ended is None else part.ended.data
    failure = INTERRUPTED if part.ended is None else None
    if ended.get("error"):
        failure = Failure(**ended["error"])
    last = part.ended or (part.pieces[-1] if part.pieces else part.head or started)
    return Exchange(
        request=Request(data["method"], data["uri"], _pairs(data["headers"]), from_text(data["body"])),
        response=None if part.head is None else _to_response(part.head, part.pieces, started.t_ns),
        ending=ended["ending"] if part.head is not None else "no_response",
        failure=failure,
        call=data["call"],
        attempt=data["attempt"],
        step=started.step,
        task=started.task,
        recorded_at=data["recorded_at"],
        started_ns=started.t_ns,
        ended_ns=last.t_ns,
        stamped=data["stamped"],
        cost_usd=ended.get("cost_usd"),
        variables=data["variables"],
    )


def _to_response(head: Event, pieces: list[Event], started_ns: int) -> Response:
    data = head.data
    timed = tuple(TimedPiece(event.t_ns - started_ns, event.payload, event.kind == "frame") for event in pieces)
    return Response(data["status"], data["reason"], _pairs(data["headers"]), timed, head.t_ns - started_ns)


def _pairs(headers: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers)


def import_exchanges(
    log: EventLog, exchanges: Iterable[Exchange], *, name: str, source: str, data: dict[str, Any] | None = None
) -> str:  # fmt: skip
    """Append exchanges as a new run of mode `import`, with the times they were recorded at; returns the run's id.

    `data` is kept beside `source` in the run's first event. Those that overlap are written interleaved, as they were when they
    were recorded: the times of a run never go back.
    """
    coming = iter(exchanges)
    first = next(coming, None)
    recorded_ns = None if first is None else _recorded_ns(first)
    with log.start(name=name, mode="import", data={"source": source, **(data or {})}, recorded_ns=recorded_ns) as writer:
        session, redactor, open_uses = Session(), Redactor(), set[str]()
        running: list[tuple[int, int, Iterator[int]]] = []
        shift_ns, before_ns = 0, -1
        for number, exchange in enumerate(chain([] if first is None else [first], coming)):
            if exchange.started_ns <= before_ns:  # of another recording than the one before it, or nobody knows when
                _advance(running)
                shift_ns = writer.t_ns - exchange.started_ns
            before_ns = exchange.started_ns
            began_ns = exchange.started_ns + shift_ns
            _advance(running, began_ns)
            steps = _appending(writer, exchange, began_ns, session, redactor, open_uses)
            heapq.heappush(running, (next(steps), number, steps))
        _advance(running)
    return writer.run


def _recorded_ns(first: Exchange) -> int | None:
    """When the run of an exchange began, since the epoch, where the exchange says when it was recorded."""
    try:
        at = datetime.fromisoformat(first.recorded_at)
    except ValueError:
        return None
    return None if at.tzinfo is None else int(at.timestamp() * 1e6) * 1000 - first.started_ns


def _advance(running: list[tuple[int, int, Iterator[int]]], until_ns: int | None = None) -> None:
    """Take the steps of exchanges that are due until then, or all there are, in the order in which they are due."""
    while running and (until_ns is None or running[0][0] <= until_ns):
        _, number, steps = running[0]
        due_ns = next(steps, None)
        if due_ns is None:
            heapq.heappop(running)
        else:
            heapq.heapreplace(running, (due_ns, number, steps))


def _appending(
    writer: RunWriter, exchange: Exchange, began_ns: int, session: Session, redactor: Redactor, open_uses: set[str]
) -> Iterator[int]:
    """Append a recorded exchange, and the messages folded from it, step by step; yields when the next step is due.

    `open_uses` are the ids of the tools that were asked for and whose results are not recorded yet.
    """
    for result in results_in(exchange.request.body, open_uses):
        writer.append(Entry("message", encode(session.tool_result(result)), exchange.step, exchange.task, t_ns=began_ns))
    at = began_ns
    capture = Capture(
        writer,
        exchange.request,
        place=Place(exchange.step, exchange.task, exchange.call, exchange.attempt, exchange.stamped, exchange.variables),
        session=session,
        redactor=redactor,
        cost_usd=exchange.cost_usd,
        clock=lambda: at,
        recorded_at=exchange.recorded_at,
    )
    if exchange.response is not None:
        at = began_ns + exchange.response.first_ns
        yield at
        capture.response(exchange.response.status, exchange.response.reason, exchange.response.headers)
        for piece in exchange.response.pieces:
            at = began_ns + piece.offset_ns
            yield at
            capture.data(piece.data)
    at = began_ns + exchange.ended_ns - exchange.started_ns
    yield at
    capture.end(exchange.ending, failure=exchange.failure)
    for result in exchange.tool_results:
        writer.append(Entry("message", encode(session.tool_result(result)), exchange.step, exchange.task, t_ns=at))
    answered = {result.get("tool_use_id") for result in exchange.tool_results}
    open_uses |= {str(b.get("id")) for b in capture.fold.content if b.get("type") == "tool_use"} - answered


def results_in(body: bytes, open_uses: set[str]) -> list[dict[str, Any]]:
    """The tool results in a request that answer tools of earlier exchanges; each is taken once."""
    if not open_uses or b"tool_result" not in body:
        return []
    try:
        messages = json.loads(body).get("messages", [])
    except (ValueError, AttributeError):
        return []
    found = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "tool_result" and block.get("tool_use_id") in open_uses:
                open_uses.discard(block["tool_use_id"])
                found.append(block)
    return found
