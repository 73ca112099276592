"""Fold a recorded response again, from an exchange or from its events in the log.

Live recording folds while it captures (capture.py). These functions give the same fold for a response that is already recorded.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..events import Event
from ..messages import Session
from .encodings import decoder_for
from .exchange import Exchange, Headers, frame_parser
from .fold import Fold
from .platforms import model_in
from .sse import FrameParser

REFOLDED = ("response.started", "frame", "chunk")
"""The kinds of events that `refold_events` needs."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """The decoded body of a recorded response. `is_framed`: its pieces were frames, even if its type is lost."""

    body: bytes = b""
    headers: Headers = ()
    is_framed: bool = False
    model: str | None = None

    @classmethod
    def of_exchange(cls, exchange: Exchange) -> "RecordedAnswer":
        """Return the answer of an exchange; an empty one if it has no response."""
        response = exchange.response
        if response is None:
            return cls()
        body = decoder_for(response.headers).decode(response.body)
        is_framed = any(piece.is_frame for piece in response.pieces)
        return cls(body, response.headers, is_framed, model_in(exchange.request.uri))

    @classmethod
    def of_events(cls, events: Iterable[Event]) -> "RecordedAnswer":
        """Return the answer in one exchange's events (of the kinds `REFOLDED`)."""
        headers: Headers = ()
        decoder, pieces, is_framed = decoder_for(()), [], False
        for event in events:
            if event.kind == "response.started":
                headers = tuple((name, value) for name, value in event.data["headers"])
                decoder = decoder_for(headers)
            elif event.kind == "frame":  # cut from a body without an encoding; only chunks can be compressed
                pieces.append(event.payload)
                is_framed = True
            else:
                pieces.append(decoder.decode(event.payload))
        return cls(b"".join(pieces), headers, is_framed)

    def fold(self, session: Session | None = None) -> Fold:
        """Return the fold of the answer. Its messages belong to the session, if one is given."""
        fold = Fold(session or Session("refolded"), model=self.model)
        parser = frame_parser(self.headers, self.body) or (FrameParser() if self.is_framed else None)
        if parser is None:
            fold.feed_json(self.body)
        else:
            for piece in (*parser.feed(self.body), *parser.flush()):
                fold.feed(piece.data)
        return fold


def refold_exchange(exchange: Exchange) -> Fold:
    """Return the fold of the recorded response; an exchange without a response gives an empty fold."""
    return Fold(Session("refolded")) if exchange.response is None else RecordedAnswer.of_exchange(exchange).fold()


def refold_events(events: Iterable[Event], session: Session | None = None) -> Fold:
    """Return the fold of one exchange's events (of the kinds `REFOLDED`). Its messages belong to the session, if one is given."""
    return RecordedAnswer.of_events(events).fold(session)
