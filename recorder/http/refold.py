"""Fold a recorded response again, from an exchange or from its events in the log.

Live recording folds while it captures (capture.py). These functions give the same fold for a response that is already recorded.
"""

from collections.abc import Iterable

from ..events import Event
from ..messages import Session
from .encodings import decoder_for
from .exchange import Exchange, Headers, frame_parser
from .fold import Fold
from .platforms import model_in
from .sse import FrameParser
from .wires import Parser

REFOLDED = ("response.started", "frame", "chunk")
"""The kinds of events that `refold_events` needs."""


def refold_exchange(exchange: Exchange) -> Fold:
    """Return the fold of the recorded response; an exchange without a response gives an empty fold."""
    response = exchange.response
    if response is None:
        return Fold(Session("refolded"))
    body = decoder_for(response.headers).decode(response.body)
    parser = _parser(response.headers, body, framed=any(piece.is_frame for piece in response.pieces))
    return _refold(body, Fold(Session("refolded"), model=model_in(exchange.request.uri)), parser)


def refold_events(events: Iterable[Event], session: Session | None = None) -> Fold:
    """Return the fold of one exchange's events (of the kinds `REFOLDED`). Its messages belong to the session, if one is given."""
    body, parser = _decoded(events)
    return _refold(body, Fold(session or Session("refolded")), parser)


def body_of(events: Iterable[Event]) -> bytes:
    """Return the decoded body of one exchange's events (of the kinds `REFOLDED`)."""
    return _decoded(events)[0]


def _decoded(events: Iterable[Event]) -> tuple[bytes, Parser | None]:
    headers: Headers = ()
    decoder, pieces, streamed = decoder_for(()), [], False
    for event in events:
        if event.kind == "response.started":
            headers = tuple((name, value) for name, value in event.data["headers"])
            decoder = decoder_for(headers)
        elif event.kind == "frame":  # cut from a body without an encoding; only chunks can be compressed
            pieces.append(event.payload)
            streamed = True
        else:
            pieces.append(decoder.decode(event.payload))
    body = b"".join(pieces)
    return body, _parser(headers, body, framed=streamed)


def _parser(headers: Headers, body: bytes, *, framed: bool) -> Parser | None:
    """Return the parser of a decoded body. `framed` means that its pieces were frames, even if its type is lost."""
    return frame_parser(headers, body) or (FrameParser() if framed else None)


def _refold(body: bytes, fold: Fold, parser: Parser | None) -> Fold:
    if parser is not None:
        for piece in (*parser.feed(body), *parser.flush()):
            fold.feed(piece.data)
    else:
        fold.feed_json(body)
    return fold
