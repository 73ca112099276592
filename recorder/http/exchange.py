"""The values of one recorded HTTP exchange: the request, the response in pieces, and the ending.

Log, cassette, matcher and player exchange these values. Times are nanoseconds; offsets count from the exchange's start.

The body of a response comes on a wire: a module that cuts a body into frames and returns the event of the Messages API in a
frame. There are server-sent events (sse.py) and the event stream of Bedrock (event_stream.py). `parser_for` and `frame_json`
choose the wire, so the fold, handlers and pages read events and need no knowledge of wires.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from ..events import Ending
from ..folders import UNKNOWN, Folders
from . import event_stream
from .event_stream import EventStreamParser
from .sse import FrameParser, Piece
from .sse import frame_json as sse_json


class Parser(Protocol):
    """Cuts a body into frames. Joined, all returned bytes equal all fed bytes."""

    def feed(self, data: bytes) -> list[Piece]:
        """Return the pieces that `data` completes."""

    def flush(self) -> list[Piece]:
        """Return the rest at the end of the body."""

    @property
    def is_inside(self) -> bool:
        """Whether a frame has begun and is not complete."""


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was sent, already redacted. `folders` are those of the program that sent it, if they are known."""

    method: str
    uri: str
    headers: Headers = ()
    body: bytes = b""
    folders: Folders = UNKNOWN


class TimedPiece(NamedTuple):
    """A piece of a response body, and its arrival: `offset_ns` after the request was sent."""

    offset_ns: int
    data: bytes
    is_frame: bool


@dataclass(frozen=True, slots=True)
class Response:
    """A response as it was received: wire bytes in pieces. `first_ns` is the time from the request to the response's head."""

    status: int
    reason: str = ""
    headers: Headers = ()
    pieces: Sequence[TimedPiece] = ()
    first_ns: int = 0

    @property
    def body(self) -> bytes:
        """All wire bytes of the body."""
        # The pieces of a cassette hold the complete body, from which they are cut later.
        whole: bytes | None = getattr(self.pieces, "body", None)
        return b"".join(piece.data for piece in self.pieces) if whole is None else whole

    @property
    def span_ns(self) -> tuple[int, int]:
        """The times of the first and of the last piece of the body, after the request; `first_ns` if there is none."""
        span: tuple[int, int] | None = getattr(self.pieces, "span_ns", None)
        if span is not None:
            return span
        return (self.pieces[0].offset_ns, self.pieces[-1].offset_ns) if self.pieces else (self.first_ns, self.first_ns)

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name, in any case; None if there is none."""
        return header(self.headers, name)


@dataclass(frozen=True, slots=True)
class Failure:
    """The exception that ended an exchange: the full name of its type, and its text."""

    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Place:
    """The place of an exchange in its run.

    `call` numbers the calls of a run from 1; 0 if they were not counted. Retries of one call are attempts 1, 2, … of it.
    `stamped` names the origin of the arrival times: `pull` (a client read the chunk), `arrival` (the proxy received it) or
    `replay`. `variables` are the values that the workflow put into the request and that change every run, by name.
    """

    step: str = ""
    task: str = ""
    call: int = 0
    attempt: int = 1
    stamped: str = "pull"
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> tuple[str, str]:
        """Step and task: the part of a workflow to which the exchange belongs."""
        return self.step, self.task


NOWHERE = Place()
"""The place of an exchange outside of a workflow whose calls were not counted."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response, with their place in a run.

    `started_ns` and `ended_ns` count from the beginning of the run. `recorded_at` is the wall time of the request, such as
    `2026-11-22T14:29:35.123Z`. `cost_usd` is None if the price was not known. `tool_results` are results of its tool uses that
    no later request holds.
    """

    request: Request
    response: Response | None
    ending: Ending = "complete"
    failure: Failure | None = None
    place: Place = NOWHERE
    recorded_at: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    cost_usd: float | None = None
    tool_results: tuple[dict[str, Any], ...] = ()

    def __repr__(self) -> str:
        status = "no response" if self.response is None else self.response.status
        size = 0 if self.response is None else len(self.response.body)
        digest = sha256(b"" if self.response is None else self.response.body).hexdigest()[:8]
        return f"<Exchange {self.request.method} {self.request.uri} {status} {size} bytes {digest} {self.ending}>"


def header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """Return the first value of a header, in any case of its name; None if there is none."""
    return next((value for key, value in headers if key.lower() == name), None)


def parser_for(kind: str | None, beginning: bytes) -> Parser | None:
    """Return a parser for a body, or None if it is no stream of frames.

    `kind` is its content type. If it is None, the beginning of the body decides.
    """
    if kind is None:
        if beginning.startswith((b"event:", b"data:")):
            return FrameParser()
        return EventStreamParser() if event_stream.total_of(beginning) is not None else None
    kind = kind.lower()
    if kind.startswith("text/event-stream"):
        return FrameParser()
    return EventStreamParser() if kind.startswith(event_stream.TYPE) else None


def frame_json(frame: bytes) -> dict[str, Any] | None:
    """Return the event in a frame of any wire, or None if the frame holds no JSON object."""
    if frame[:1] > b"\1":  # text: a frame of Bedrock begins with its length
        return sse_json(frame)
    return event_stream.event_of(frame) if event_stream.is_frame(frame) else sse_json(frame)


def frame_parser(headers: Iterable[tuple[str, str]], beginning: bytes) -> Parser | None:
    """Return a parser for a decoded stream of frames: by its type, or by its beginning if the type was stripped."""
    return parser_for(header(headers, "content-type"), beginning)


def wire_parser(headers: Headers, beginning: bytes) -> Parser | None:
    """Return a parser for a body whose wire bytes themselves are frames: an event stream that is not compressed."""
    return frame_parser(headers, beginning) if content_encoding(headers) == "" else None


def has_frames(headers: Headers, beginning: bytes) -> bool:
    """Return whether the wire bytes themselves are frames."""
    return wire_parser(headers, beginning) is not None


def content_encoding(headers: Iterable[tuple[str, str]]) -> str:
    """Return the content encoding, lower case; empty for identity."""
    encoding = (header(headers, "content-encoding") or "").strip().lower()
    return "" if encoding == "identity" else encoding


def pieces_of(body: bytes, headers: Headers) -> Iterator[Piece]:
    """Cut a complete body as recording would: into the frames of an event stream, or one piece of any other body."""
    parser = wire_parser(headers, body)
    if parser is None:
        if body:
            yield Piece(body, False)
        return
    yield from parser.feed(body)
    yield from parser.flush()


def to_text(data: bytes) -> str | dict[str, str]:
    """Return bytes in a form for JSON: text if they are UTF-8, else base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def as_started(request: Request, place: Place, recorded_at: str) -> dict[str, Any]:
    """Return the payload of the first event of an exchange."""
    return {
        "method": request.method,
        "uri": request.uri,
        "headers": request.headers,
        "body": to_text(request.body),
        "call": place.call,
        "attempt": place.attempt,
        "stamped": place.stamped,
        "variables": place.variables,
        "recorded_at": recorded_at,
        **({"folders": request.folders.as_dict()} if request.folders is not UNKNOWN and request.folders else {}),
    }


def from_text(value: str | dict[str, str]) -> bytes:
    """Return the bytes of `to_text`, its inverse."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def wall_ns_of(stamp: str) -> int | None:
    """Return nanoseconds since the epoch of an ISO 8601 time with a zone, or None for any other text.

    A time before 1970 or after 2261 is not accepted: other languages write zero times (`0001-01-01`), which no clock showed.
    """
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return int(at.timestamp() * 1e6) * 1000 if at.tzinfo is not None and 1970 <= at.year <= 2261 else None


def timestamp(wall_ns: int) -> str:
    """Return nanoseconds since the epoch as ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
