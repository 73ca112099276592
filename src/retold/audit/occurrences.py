"""Find a text in a run, also if it is split over the frames of a stream, compressed, or in JSON inside JSON.

A carrier is one event, or all pieces of a response body, which must be erased together. The pieces of a content block that a
session of the Agent SDK streams are a carrier, too. Its texts are the strings in it as a person reads them: escapes undone, tool
inputs and request bodies parsed, deltas of a block joined.

To parse all JSON of a log takes most of the time of a search, so `could_hold` first excludes carriers without doing so.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.transfer import import_exchanges
from ..recorder.errors import LogError
from ..recorder.events import Event
from ..recorder.http.encodings import Decoder, decoder_for
from ..recorder.http.event_stream import EventStreamParser, content_of, total_of
from ..recorder.http.exchange import Exchange, content_encoding
from ..recorder.log.log import EventLog
from ..recorder.log.memory import MemoryStore
from ..recorder.strict_json import object_in, object_or_empty

_DELTA = re.compile(rb'"(?:text|thinking|partial_json|completion|signature)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)', re.DOTALL)
_INDEX = re.compile(rb'"(?:index|contentBlockIndex)"\s*:\s*(\d+)')
_FRAMES = re.compile(r"(?:event|data|id|retry)?:")

MAX_NESTED = 6
"""The deepest JSON inside JSON: a request body in an event, the input of a tool in it, JSON in a file that the tool writes."""


@dataclass(slots=True)
class Carrier:
    """Events that carry texts together: `raw` is the unparsed text, which also has the numbers.

    `blocks` are the deltas of each content block in it, joined, as JSON. `unreadable` is true of a compressed body that cannot be
    decompressed, or not to its end.
    """

    run: str
    kind: str
    seqs: list[int]
    raw: str
    blocks: list[str] = field(default_factory=list)
    unreadable: bool = False

    def texts(self) -> list[str]:
        """Return the single strings in it."""
        return [text for part in (self.raw, *self.blocks) for text in _texts(part)]


@dataclass(slots=True)
class _Body:
    """A response body while its pieces are read."""

    decoder: Decoder = field(default_factory=lambda: decoder_for(()))
    encoding: str = ""
    seqs: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    size: int = 0


def carriers_of(log: EventLog, run: str) -> Iterator[Carrier]:
    """Yield all carriers of a run. The body of an exchange follows after its last piece."""
    bodies: dict[int, _Body] = {}
    streamed: dict[tuple[Any, ...], list[Event]] = {}
    for event in log.events(run):
        if event.kind in ("frame", "chunk"):
            number = -1 if event.exchange is None else event.exchange
            body = bodies.get(number) or bodies.setdefault(number, _Body())
            body.seqs.append(event.seq)
            body.data.append(body.decoder.decode(event.payload))
            body.size += len(event.payload)
            continue
        if event.kind == "response.started" and event.exchange is not None:
            headers = [(str(name), str(value)) for name, value in _pairs(event)]
            bodies[event.exchange] = _Body(decoder_for(headers), content_encoding(headers))
        raw = event.payload.decode("utf-8", "replace")
        yield Carrier(run, event.kind, [event.seq], raw)
        if event.kind == "stream.stream_event":
            yield from _of_block(run, event, streamed)
        if event.kind == "exchange.ended" and event.exchange in bodies:
            yield _of_body(run, bodies.pop(event.exchange))
    for body in bodies.values():
        yield _of_body(run, body)
    for events in streamed.values():
        yield _joined(run, events)


def _of_block(run: str, event: Event, streamed: dict[tuple[Any, ...], list[Event]]) -> Iterator[Carrier]:
    """Add an event of a session's stream to its content block. Yield the block before it, which ends as this one begins."""
    raw = object_in(event.payload)
    inner = object_or_empty(raw.get("event"))
    block = event.exchange, raw.get("parent_tool_use_id"), inner.get("index")
    if inner.get("type") == "content_block_start" and block in streamed:
        yield _joined(run, streamed.pop(block))
    if inner.get("type") == "content_block_delta":
        streamed.setdefault(block, []).append(event)


def _joined(run: str, events: list[Event]) -> Carrier:
    pieces = [delta[1] for event in events if (delta := _DELTA.search(event.payload)) is not None]
    return Carrier(run, "stream.stream_event", [event.seq for event in events], _as_json(pieces))


def _as_json(pieces: list[bytes]) -> str:
    """Return the deltas of a block as one string of JSON."""
    return '"' + b"".join(pieces).decode("utf-8", "replace") + '"'


def texts_of_session(session: AgentSession) -> Iterator[str]:
    """Yield every string of a recorded session, and its streamed blocks joined."""
    with EventLog(store=MemoryStore()) as log:
        run = import_exchanges(log, [session], name="session", source="")
        for carrier in carriers_of(log, run):
            yield from carrier.texts()


def _pairs(event: Event) -> list[list[str]]:
    try:
        return list(event.data["headers"])
    except LogError:  # erased or changed; its texts are still found
        return []


def _of_body(run: str, body: _Body) -> Carrier:
    data = _without_base64(b"".join(body.data))
    blocks: dict[bytes, list[bytes]] = {}
    for frame in data.split(b"\n\n") if b"\n\n" in data else data.split(b"\r\n\r\n"):
        if (delta := _DELTA.search(frame)) is not None:
            number = _INDEX.search(frame)
            blocks.setdefault(b"" if number is None else number[1], []).append(delta[1])
    unreadable = bool(body.encoding and body.size and (not data or body.decoder.exceeded))
    return Carrier(run, "body", body.seqs, data.decode("utf-8", "replace"), [*map(_as_json, blocks.values())], unreadable)


def _without_base64(data: bytes) -> bytes:
    """Return the texts in the frames of a Bedrock stream as server-sent events, and any other body unchanged."""
    if total_of(data) is None:
        return data
    parser = EventStreamParser()
    contents = [content_of(piece.data) for piece in (*parser.feed(data), *parser.flush())]
    return b"".join(b"data: " + content.data + b"\n\n" for content in contents if content is not None)


def texts_of_exchange(exchange: Exchange) -> Iterator[str]:
    """Yield every string of a recorded exchange, parsed like the events of a log."""
    request, response = exchange.request, exchange.response
    yield from (request.uri, *(value for _, value in request.headers))
    yield from _texts(request.body.decode("utf-8", "replace"))
    results: list[str] = []
    _take_value(list(exchange.tool_results), MAX_NESTED, results)
    yield from results
    if response is not None:
        yield from (value for _, value in response.headers)
        yield from _of_body("", _Body(data=[decoder_for(response.headers).decode(response.body)])).texts()


def _texts(text: str) -> list[str]:
    """Return the strings in JSON or in frames of JSON, also in strings that are JSON. Any other text is returned whole."""
    found: list[str] = []
    if _FRAMES.match(text):
        for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            _take_text(line.partition(":")[2].strip(), 1, found)
    else:
        _take_text(text, 0, found)
    return found


def _take_text(text: str, depth: int, found: list[str]) -> None:
    if depth < MAX_NESTED and text.lstrip()[:1] in _JSON:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            found.append(text)
        else:
            _take_value(value, depth + 1, found)
    else:
        found.append(text)


def _take_value(value: Any, depth: int, found: list[str]) -> None:
    """Take every string in a JSON value, also the keys."""
    if isinstance(value, str):
        if value[:1] in _JSON or value[:1].isspace():
            _take_text(value, depth, found)
        else:
            found.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _take_value(key, depth, found)
            _take_value(item, depth, found)
    elif isinstance(value, list):
        for item in value:
            _take_value(item, depth, found)


_JSON = frozenset(('"', "{", "["))
"""The first characters of JSON that may hold strings."""


_COMPOSED_AT_ONCE = 1000


def _composed(text: str) -> str:
    """Return a text in NFC, composed in pieces: the cost of `normalize` grows with the square of a run of combining marks."""
    pieces, start = [], 0
    while start < len(text):
        end = start + _COMPOSED_AT_ONCE
        while end < min(len(text), start + 2 * _COMPOSED_AT_ONCE) and unicodedata.combining(text[end]):
            end += 1  # a mark stays with its letter
        pieces.append(unicodedata.normalize("NFC", text[start:end]))
        start = end
    return "".join(pieces)


Matches = Callable[[str], bool]


def contains(text: str) -> Matches:
    """Return a function that finds `text` in a string, in any case and with accents composed in any way."""
    wanted = _composed(text).casefold()
    ascii_only = wanted.isascii()

    def matches(value: str) -> bool:
        folded = value.casefold()
        return wanted in folded or (not ascii_only and not value.isascii() and wanted in _composed(folded))

    return matches


_ESCAPABLE = re.compile(r'["\\/\x00-\x1f]+')
"""The characters that JSON can write as an escape other than `\\u`."""


def could_hold(texts: Iterable[str]) -> Callable[[Carrier], bool]:
    """Return a test of carriers that is False only if none of the texts is in one. It parses nothing.

    Without an escape `\\u` every part of a string between two characters of _ESCAPABLE is in the JSON as it is, also if the
    string is JSON itself. So each text has a part that is in every carrier of the text.
    """
    parts = [max(_ESCAPABLE.split(text.casefold()), key=len) for text in texts]
    if not all(part and part.isascii() for part in parts):  # accents can be composed in several ways
        return lambda _: True

    def test(carrier: Carrier) -> bool:
        folded = joined((carrier.raw, *carrier.blocks)).casefold()
        return "\\u" in folded or any(part in folded for part in parts)

    return test


SEPARATOR = "\0"
"""Stands between texts that are searched at once."""


def joined(texts: Iterable[str]) -> str:
    """Return texts as one. `contains` finds a text without SEPARATOR in it exactly if one of the texts contains it."""
    return SEPARATOR.join(texts)
