"""Inject failures into a recorded stream: failures that the real API cannot produce on demand, the same each time.

    overloaded@call=2              answer the second call with 529; its repetition gets the recorded answer
    rate_limit@call=1,retry_after=2    answer 429 with `retry-after: 2`
    cut@frame=5                    send frames 1 to 4, then break the connection
    error_event@frame=3            send frames 1 and 2, then an `error` event
    stall=30s@frame=4              wait 30 s before frame 4
    slow=0.25x                     play at a quarter of the pace (of the recorded pace if the timing is instant)

A fault without `call` applies to every call; calls count from 1, in the order they are answered. If a fault replaces a recorded
answer, the client can ask for that answer again. Parsing and applying are pure functions: each takes an exchange and returns
another.
"""

import re
import threading
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.http.encodings import decoder_for
from ..recorder.http.exchange import Exchange, Failure, Response, TimedPiece, frame_parser, header
from ..recorder.http.refold import refold_exchange
from .timing.timing import ORIGINAL, Timing, parse_duration_ns, timeline_of

Kind = Literal["overloaded", "rate_limit", "cut", "error_event", "stall", "slow"]

_SPEC = re.compile(r"(?P<kind>\w+)(?:=(?P<value>[^@]+))?(?:@(?P<where>.+))?")
_NUMBER = re.compile(r"[1-9]\d{0,8}")
_TAKES: dict[str, frozenset[str]] = {
    "overloaded": frozenset({"call"}),
    "rate_limit": frozenset({"call", "retry_after"}),
    "cut": frozenset({"call", "frame"}),
    "error_event": frozenset({"call", "frame"}),
    "stall": frozenset({"call", "frame"}),
    "slow": frozenset({"call"}),
}
_ERRORS = {
    "overloaded": (529, "", "overloaded_error", "Overloaded"),
    "rate_limit": (429, "Too Many Requests", "rate_limit_error", "This request would exceed your account's rate limit."),
}
_CUT = Failure(
    "httpx2.RemoteProtocolError", "peer closed connection without sending complete message body (incomplete chunked read)"
)
_ERROR_FRAME = (
    b"event: error\n"
    b'data: {"type":"error","error":{"details":null,"type":"overloaded_error","message":"Overloaded"}              }\n\n'
)
"""The error event exactly as the API sends it, including the padding."""


class Telling(NamedTuple):
    """The exchange to replay for a client, and its pace."""

    exchange: Exchange
    timing: Timing


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure: `spec` as the user wrote it, and its parsed values. `stall_ns` is in nanoseconds, `retry_after` in seconds."""

    spec: str
    kind: Kind
    call: int | None = None
    frame: int = 1
    stall_ns: int = 0
    factor: float = 1.0
    retry_after: int | None = None

    @classmethod
    def parse(cls, spec: str) -> "Fault":
        """Parse one specification. Raise InputError naming the part that is wrong."""
        match = _SPEC.fullmatch(spec.strip())
        kind = next((known for known in get_args(Kind) if match is not None and match["kind"] == known), None)
        if match is None or kind is None:
            raise InputError(f"unknown fault {spec!r}: give {', '.join(get_args(Kind))}, such as cut@frame=5,call=2.")
        where: dict[str, int] = {}
        for part in (match["where"] or "").split(",") if match["where"] else ():
            name, _, number = part.partition("=")
            if name not in _TAKES[kind] or _NUMBER.fullmatch(number) is None:
                raise InputError(f"{part!r} in fault {spec!r}: {kind} takes {' and '.join(sorted(_TAKES[kind]))}, from 1.")
            where[name] = int(number)
        if "frame" in _TAKES[kind] and "frame" not in where:
            raise InputError(f"fault {spec!r} needs a place: {kind}{'=30s' if kind == 'stall' else ''}@frame=5.")
        if (match["value"] is None) == (kind in ("stall", "slow")):
            wanted = {"stall": "needs a duration: stall=30s@frame=4", "slow": "needs a pace: slow=0.25x"}
            raise InputError(f"fault {spec!r} {wanted.get(kind, 'takes no value')}.")
        fault = cls(spec, kind, where.get("call"), where.get("frame", 1), retry_after=where.get("retry_after"))
        if kind == "stall":
            return replace(fault, stall_ns=parse_duration_ns(match["value"]))
        if kind == "slow":
            factor = Timing.parse(match["value"]).speed
            if factor is None:
                raise InputError(f"fault {spec!r} needs a pace, such as slow=0.25x.")
            return replace(fault, factor=factor)
        return fault

    @property
    def destroys(self) -> bool:
        """Whether the client loses the recorded answer, so that it may ask for it again."""
        return self.kind not in ("stall", "slow")

    def on(self, telling: Telling) -> Telling | None:
        """Return the telling with this failure. Return None if the failure does not apply: no stream, or too few frames."""
        exchange, timing = telling
        if self.kind == "slow":
            return Telling(exchange, replace(timing, speed=self.factor * (timing.speed or 1.0)))
        if self.kind in _ERRORS:
            return self._refused(telling)
        exchange = framed(exchange)
        response = exchange.response
        # A refused call has no frames to count.
        if response is None or response.status >= 400 or exchange.ending == "http_error":
            return None
        frames = [number for number, piece in enumerate(response.pieces) if piece.is_frame]
        if len(frames) < self.frame:
            return None
        at = frames[self.frame - 1]
        before, struck = response.pieces[:at], response.pieces[at]
        if self.kind == "stall":
            # The stall is real time: first apply the pace, then add the silence, and play the result unchanged.
            return Telling(_stalled(retimed(exchange, timing), at, self.stall_ns), ORIGINAL)
        ended_ns = exchange.started_ns + struck.offset_ns
        if self.kind == "cut":
            cut = replace(response, pieces=before)
            return Telling(replace(exchange, response=cut, ending="cut", failure=_CUT, ended_ns=ended_ns), timing)
        error = TimedPiece(struck.offset_ns, _ERROR_FRAME, True)
        failed = replace(response, pieces=(*before, error))
        return Telling(replace(exchange, response=failed, ending="error_event", failure=None, ended_ns=ended_ns), timing)

    def _refused(self, telling: Telling) -> Telling:
        """Return the telling of a call that is refused at once, in the API's error envelope."""
        exchange, timing = telling
        status, reason, kind, message = _ERRORS[self.kind]
        given = None if exchange.response is None else header(exchange.response.headers, "request-id")
        body = strict_json.dumps(
            {"type": "error", "error": {"type": kind, "message": message}, "request_id": given}, ensure_ascii=True
        ).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("x-should-retry", "true")]
        if given is not None:
            headers.append(("request-id", given))
        if self.retry_after is not None:
            headers.append(("retry-after", str(self.retry_after)))
            timing = ORIGINAL  # an instant replay would tell the client to repeat the call at once
        response = Response(status, reason, tuple(headers), (TimedPiece(0, body, False),))
        refused = replace(
            exchange, response=response, ending="http_error", failure=None, ended_ns=exchange.started_ns, cost_usd=None
        )
        return Telling(refused, timing)


def _stalled(exchange: Exchange, at: int, stall_ns: int) -> Exchange:
    """Return the exchange with silence of `stall_ns` before the piece at index `at`."""
    assert exchange.response is not None
    pieces = exchange.response.pieces
    later = (piece._replace(offset_ns=piece.offset_ns + stall_ns) for piece in pieces[at:])
    response = replace(exchange.response, pieces=(*pieces[:at], *later))
    return replace(exchange, response=response, ended_ns=exchange.ended_ns + stall_ns)


class Faults:
    """The failures of a replay, and the number of calls that it has answered."""

    def __init__(self, specs: tuple[str, ...] = ()) -> None:
        """Parse the specifications. Raise InputError."""
        self._faults = tuple(map(Fault.parse, specs))
        self._happened: set[str] = set()
        self._calls = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Faults {', '.join(fault.spec for fault in self._faults) or 'none'}>"

    def on(self, exchange: Exchange, timing: Timing) -> tuple[Telling, bool]:
        """Return the answer of the next call with its failures applied, and whether one of them destroyed it."""
        with self._lock:
            self._calls += 1
            call = self._calls
        telling, destroyed = Telling(exchange, timing), False
        for fault in self._faults:
            # At most one fault replaces the answer; later ones would have no frames to act on.
            if not destroyed and fault.call in (None, call) and (struck := fault.on(telling)) is not None:
                telling, destroyed = struck, fault.destroys
                self._happened.add(fault.spec)
        return telling, destroyed

    @property
    def unused(self) -> list[str]:
        """The specifications of faults that were never applied: no such call came, or no stream had that many frames."""
        return [fault.spec for fault in self._faults if fault.spec not in self._happened]


def framed(exchange: Exchange) -> Exchange:
    """Return the exchange with its body decompressed and split into frames. An answer without a stream is one frame."""
    response = exchange.response
    if response is None or not response.pieces or any(piece.is_frame for piece in response.pieces):
        return exchange
    decoder = decoder_for(response.headers)
    decoded = [(piece.offset_ns, decoder.decode(piece.data)) for piece in response.pieces]
    last = decoded[-1][0]
    body = b"".join(data for _, data in decoded)
    if (parser := frame_parser(response.headers, body)) is not None:
        pieces = [TimedPiece(at, piece.data, piece.is_frame) for at, data in decoded for piece in parser.feed(data)]
        pieces += [TimedPiece(last, piece.data, piece.is_frame) for piece in parser.flush()]
    else:
        pieces = [TimedPiece(last, body, True)]
    # Both headers describe the compressed body, which is gone.
    headers = tuple(pair for pair in response.headers if pair[0].lower() not in ("content-encoding", "content-length"))
    return replace(exchange, response=replace(response, headers=headers, pieces=tuple(pieces)))


def retimed(exchange: Exchange, timing: Timing) -> Exchange:
    """Return the exchange with the times of a recording made at the pace of `timing`."""
    timeline, started = timeline_of(exchange, timing), exchange.started_ns
    response = exchange.response
    if response is not None:
        pieces = tuple(piece._replace(offset_ns=timeline.at(started + piece.offset_ns)) for piece in response.pieces)
        response = replace(response, pieces=pieces, first_ns=timeline.at(started + response.first_ns))
    return replace(exchange, response=response, ended_ns=started + timeline.at(exchange.ended_ns))


def whole(exchange: Exchange) -> Exchange:
    """Return a streamed answer as the same answer without streaming. Claude Code asks for it after an `error` event ended a
    stream.
    """
    fold = refold_exchange(exchange)
    message = fold.message | {"content": fold.content, "stop_reason": fold.stop_reason, "usage": fold.usage}
    body = strict_json.dumps(message, separators=(",", ":")).encode()
    headers = (("content-type", "application/json"), ("content-length", str(len(body))))
    at = exchange.ended_ns - exchange.started_ns
    return replace(exchange, response=Response(200, "OK", headers, (TimedPiece(at, body, False),), at))
