"""The transfer between log and cassette: read exchanges from a run's events, and append exchanges as the events of a run.

Sessions of the Agent SDK (sessions.py) are appended among the exchanges of the same cassette.

An import uses the same capture as a live recording, so its messages are folded in the same way. Its events have the recorded
times.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from ..agent_wire import AgentSession
from ..events import Entry, Event, encode
from ..folders import Folders
from ..http.capture import Capture
from ..http.exchange import Exchange, Failure, Place, Request, Response, TimedPiece, from_text, wall_ns_of
from ..interrupted import DIED, why_unended
from ..log.log import EventLog, RunWriter
from ..log.reading import LogReader
from ..messages import Session, blocks_of
from ..secrets.redactor import Redactor
from .folding import Recorded, interleaved, results_in
from .kept import NOTHING_KEPT, Kept
from .logged import MANY, LoggedPieces
from .sessions import appending as appending_session

INTERRUPTED = Failure("Interrupted", DIED)
"""The failure of an exchange without an end, if the writer of its run died."""

UNENDED = "the recording ended before the exchange did"
"""The reason for an exchange without an end, if the writer ended the run."""


_AROUND = ("exchange.started", "response.started", "exchange.ended")
"""The events of an exchange that hold no part of a body."""


@dataclass
class _Open:
    """An exchange while its events are read."""

    started: Event
    head: Event | None = None
    ended: Event | None = None

    def take(self, event: Event) -> None:
        if event.kind == "response.started":
            self.head = event
        elif event.kind == "exchange.ended":
            self.ended = event


def exchanges_of(log: LogReader, run: str) -> list[Exchange]:
    """Return the exchanges of a run in the order of their starts, as a cassette holds them."""
    return list(_each_exchange(log, run, most=None))


def kept_in(log: LogReader, run: str) -> Kept:
    """Return the rules of matching that a run keeps in its first event."""
    first = next(log.events(run, kinds=("run.started",)), None)
    try:
        return Kept.of(None if first is None else first.data)
    except ValueError:  # data of the user under these names
        return NOTHING_KEPT


def each_exchange(log: LogReader, run: str) -> Iterator[Exchange]:
    """Yield the exchanges of a run in the order of their starts. At most one is in memory, and of a long answer no piece."""
    return _each_exchange(log, run, most=MANY)


def _each_exchange(log: LogReader, run: str, *, most: int | None) -> Iterator[Exchange]:
    """Yield the exchanges of a run. Answers of more than `most` pieces are read from `log` when they are needed."""
    outline, stop = _Outline(), None if most is None else most + 1
    with log.reading() as held:
        for event in held.events(run, kinds=("exchange.started", "message", "exchange.ended", "run.ended")):
            outline.note(event)
        unended = UNENDED if outline.is_ended else outline.error or why_unended(held, run).removeprefix("interrupted: ")
        for seq, end in outline.exchanges.items():
            part: _Open | None = None
            for event in held.events(run, after=seq - 1, until=end, kinds=_AROUND, exchange=seq):
                if event.kind == "exchange.started":
                    part = _Open(event)
                elif part is not None:
                    part.take(event)
            if part is not None:
                pieces: Sequence[TimedPiece] = tuple(islice(LoggedPieces(held, part.started, end), stop))
                if len(pieces) == stop:
                    pieces = LoggedPieces(log, part.started, end)
                results = [_result(held, run, at, id_) for id_, at in outline.results_of(seq)]
                yield replace(_to_exchange(part, pieces, unended), tool_results=tuple(results))


@dataclass
class _Outline:
    """The beginnings and ends of a run's exchanges, and their tool uses. The first exchange that is built needs all of them."""

    exchanges: dict[int, int | None] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    results: list[tuple[str, int]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    is_ended: bool = False
    error: str | None = None

    def note(self, event: Event) -> None:
        if event.kind == "exchange.started":
            self.exchanges[event.seq] = None
            self.held |= {id_ for id_ in self.uses.keys() - self.held if id_.encode() in event.payload}
        elif event.kind == "exchange.ended" and event.exchange in self.exchanges:
            self.exchanges[event.exchange] = event.seq
        elif event.kind == "run.ended":
            self.is_ended = event.data.get("status") != "interrupted"
            self.error = event.data.get("error")
        elif event.kind == "message" and (b"tool_" in event.payload or b"\\u" in event.payload):  # no other has a tool's block
            message = event.data
            for block in blocks_of(message):
                if block.get("type") == "tool_use" and event.exchange is not None:
                    self.uses[str(block.get("id"))] = event.exchange
                elif block.get("type") == "tool_result" and message.get("type") == "user":
                    self.results.append((str(block.get("tool_use_id")), event.seq))

    def results_of(self, exchange: int) -> list[tuple[str, int]]:
        """Return id and event of the tool results that no later request holds, because the run stopped at its last turn."""
        return [(id_, at) for id_, at in self.results if self.uses.get(id_) == exchange and id_ not in self.held]


def _result(log: LogReader, run: str, seq: int, id_: str) -> dict[str, Any]:
    message = next(log.events(run, after=seq - 1)).data
    return next(block for block in blocks_of(message) if str(block.get("tool_use_id")) == id_)


def _to_exchange(part: _Open, pieces: Sequence[TimedPiece], unended: str) -> Exchange:
    started, data = part.started, part.started.data
    ended: dict[str, Any] = {"ending": "cut", "error": None} if part.ended is None else part.ended.data
    failure = None if part.ended is not None else Failure("Interrupted", unended)
    if ended.get("error"):
        failure = Failure(**ended["error"])
    response = None if part.head is None else _to_response(part.head, pieces, started.t_ns)
    # The span of a long answer is read from the log, and only an exchange without an end needs it.
    last_ns = response.span_ns[1] if part.ended is None and response is not None else 0
    return Exchange(
        request=Request(
            data["method"], data["uri"], _pairs(data["headers"]), from_text(data["body"]), Folders.of(data.get("folders"))
        ),
        response=response,
        ending=ended["ending"] if part.head is not None else "no_response",
        failure=failure,
        place=Place(started.step, started.task, data["call"], data["attempt"], data["stamped"], data["variables"]),
        recorded_at=data["recorded_at"],
        started_ns=started.t_ns,
        ended_ns=started.t_ns + last_ns if part.ended is None else part.ended.t_ns,
        cost_usd=ended.get("cost_usd"),
    )


def _to_response(head: Event, pieces: Sequence[TimedPiece], started_ns: int) -> Response:
    data = head.data
    return Response(data["status"], data["reason"], _pairs(data["headers"]), pieces, head.t_ns - started_ns)


def _pairs(headers: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in headers)


def import_exchanges(
    log: EventLog, exchanges: Iterable[Recorded], *, name: str, source: str, data: dict[str, Any] | None = None,
    redactor: Redactor | None = None,
) -> str:  # fmt: skip
    """Append exchanges and sessions as a new run of mode `import`, with their recorded times; return the run's id.

    `data` is kept with `source` in the run's first event. `redactor` removes secrets, by default those of the environment.
    Exchanges that overlap are written interleaved, as they were recorded, because the times of a run never go back.
    """
    run = ""
    for run in importing(log, exchanges, name=name, source=source, data=data, redactor=redactor):  # noqa: B007 - the last value is used
        pass
    return run


def importing(
    log: EventLog, exchanges: Iterable[Recorded], *, name: str, source: str, data: dict[str, Any] | None = None,
    redactor: Redactor | None = None,
) -> Iterator[str]:  # fmt: skip
    """Import exchange by exchange, as `import_exchanges` does; yield the run's id after each, and after the last event."""
    coming = iter(exchanges)
    first = next(coming, None)
    recorded_ns = None if first is None else _recorded_ns(first)
    redactor = redactor or Redactor()
    first_data = {"source": source, **(data or {})}
    with log.start(name=name, mode="import", data=first_data, redactor=redactor, recorded_ns=recorded_ns) as writer:
        session, open_uses = Session(), set[str]()

        def steps(exchange: Recorded, began_ns: int) -> Iterator[int]:
            if isinstance(exchange, AgentSession):
                return appending_session(writer, exchange, began_ns)
            return _appending(writer, exchange, began_ns, session, redactor, open_uses)

        for _ in interleaved(chain([] if first is None else [first], coming), steps, lambda: writer.t_ns):
            yield writer.run
    yield writer.run


def _recorded_ns(first: Recorded) -> int | None:
    """Return the time when the run of an exchange began, since the epoch; None if the exchange has no time of recording."""
    at_ns = wall_ns_of(first.recorded_at)
    return None if at_ns is None else at_ns - first.started_ns


def _appending(
    writer: RunWriter, exchange: Exchange, began_ns: int, session: Session, redactor: Redactor, open_uses: set[str]
) -> Iterator[int]:  # fmt: skip
    """Append a recorded exchange, and the messages folded from it, step by step; yield the time of the next step.

    `open_uses` are the ids of tool uses without a recorded result so far.
    """
    place = exchange.place
    for result in results_in(exchange.request, open_uses):
        writer.append(Entry("message", encode(session.tool_result(result)), place.step, place.task, t_ns=began_ns))
    at = began_ns
    capture = Capture(
        writer,
        exchange.request,
        place=place,
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
        writer.append(Entry("message", encode(session.tool_result(result)), place.step, place.task, t_ns=at))
    answered = {result.get("tool_use_id") for result in exchange.tool_results}
    open_uses |= {str(b.get("id")) for b in capture.fold.content if b.get("type") == "tool_use"} - answered


def append_at_once(writer: RunWriter, exchange: Exchange, session: Session, open_uses: set[str]) -> None:
    """Append a recorded exchange, and the messages folded from it, at the present time of the run. Raise LogError.

    The bytes of its answer are written as they were recorded. They were redacted then.
    """
    response = exchange.response
    if response is not None:
        pieces = tuple(piece._replace(offset_ns=0) for piece in response.pieces)
        response = replace(response, pieces=pieces, first_ns=0)
    now = replace(exchange, response=response, ended_ns=exchange.started_ns)
    for _ in _appending(writer, now, writer.now_ns(), session, Redactor({}), open_uses):
        pass
