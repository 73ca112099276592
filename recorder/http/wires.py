"""The wires of Claude: how a body is cut into frames, and which event of the Messages API a frame holds.

A wire is a module that does both: server-sent events (sse.py) and Bedrock's event stream (event_stream.py). The fold, handlers
and pages read events, so they need no knowledge of wires.
"""

from typing import Any, Protocol

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
