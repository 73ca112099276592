"""Recorded exchanges for tests: simple ones by hand, and random ones of every shape that a recording can have."""

import gzip
import itertools
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from retold.recorder.http.exchange import Exchange, Failure, Headers, Place, Request, Response, TimedPiece
from retold.recorder.http.sse import FrameParser
from retold.recorder.secrets.shapes import names_a_credential

URL = "https://api.anthropic.com/v1/messages"
SSE: Headers = (("content-type", "text/event-stream; charset=utf-8"),)
JSON: Headers = (("content-type", "application/json"),)
GZIP: Headers = (*SSE, ("content-encoding", "gzip"))


def frames(body: bytes) -> list[bytes]:
    """Cut an event stream into frames as the recorder does."""
    parser = FrameParser()
    return [piece.data for piece in (*parser.feed(body), *parser.flush())]


def answer(
    *pieces: bytes, headers: Headers = SSE, status: int = 200, reason: str = "OK", step_ns: int = 1_000_000
) -> Response:  # fmt: skip
    """Return a response with pieces that arrived `step_ns` apart."""
    is_sse = headers == SSE
    timed = (
        TimedPiece((number + 1) * step_ns, piece, is_sse and piece.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")))
        for number, piece in enumerate(pieces)
    )
    return Response(status, reason, headers, tuple(timed), step_ns)


PLACE = {field.name for field in fields_of(Place)}


def exchange(response: Response | None = None, body: bytes = b'{"model":"m"}', uri: str = URL, **fields: Any) -> Exchange:
    """Return an exchange that ended with its last piece. `fields` are those of Exchange and of its Place."""
    response = answer(b"data: 1\n\n") if response is None else response
    ended_ns = response.pieces[-1].offset_ns if response.pieces else response.first_ns
    made = Exchange(Request("POST", uri, JSON, body), response, ended_ns=ended_ns)
    return replace(made, place=Place(**{key: fields.pop(key) for key in PLACE & fields.keys()}), **fields)


# Random exchanges. Times are whole microseconds, as in cassettes.

_LETTERS = "ab01:#-?|>&*!%@`'\"{}[],=~<. \t\\\0\x07\x1b\x7f\x85\xa0é\u2028\u2029\ufeff\ufffd😀\U000e0001"
_LINES = ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", " \n", "\n ", "data: ", "event: a", ": c", "- ", "---\n", "...\n", "null", "<<"]
# One character represents one of the lines: drawing one text takes a tenth of the time of drawing a list of letters.
_STANDING = {0xE000 + number: line for number, line in enumerate(_LINES)}
texts = st.text(_LETTERS + "".join(map(chr, _STANDING)), max_size=20).map(lambda text: text.translate(_STANDING))
"""Text that YAML finds hard: control characters, every line end, indicators, emoji."""

_micros = st.integers(0, 10**8).map(lambda micros: micros * 1000)
# Redaction removes a value with a secret's name; the tests of the redactor cover that.
_names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,12}", fullmatch=True).filter(lambda name: not names_a_credential(name))
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
_bodies = st.one_of(st.binary(max_size=60), texts.map(str.encode))
_headers = st.dictionaries(_names, st.lists(texts, min_size=1, max_size=2), max_size=3).map(
    lambda found: tuple((name, value) for name, values in found.items() for value in values)
)


@st.composite
def _responses(draw: st.DrawFn) -> Response:
    match draw(st.sampled_from(["sse", "json", "gzip"])):
        case "sse":
            headers, pieces = SSE, frames(draw(st.lists(texts, max_size=6).map("\n\n".join)).encode())
        case "json":
            headers, pieces = JSON, draw(st.lists(_bodies.filter(bool), max_size=4))
        case _:
            packed = gzip.compress(draw(_bodies), mtime=0)
            cuts = sorted({0, len(packed), *draw(st.lists(st.integers(1, len(packed)), max_size=3))})
            headers, pieces = GZIP, [packed[a:b] for a, b in itertools.pairwise(cuts)]
    first = draw(_micros)
    offsets = sorted(draw(st.lists(_micros, min_size=len(pieces), max_size=len(pieces))))
    parser = FrameParser()
    is_frame = [piece.is_frame for piece in (*parser.feed(b"".join(pieces)), *parser.flush())] if headers == SSE else []
    timed = (
        TimedPiece(first + offset, piece, frame)
        for offset, piece, frame in itertools.zip_longest(offsets, pieces, is_frame or [False] * len(pieces))
    )
    status, reason = draw(st.sampled_from([(200, "OK"), (529, ""), (400, "Bad Request"), (200, "é: x")]))
    own = draw(_headers.filter(lambda found: all(name.lower() not in ("content-type", "content-encoding") for name, _ in found)))
    return Response(status, reason, (*headers, *own), tuple(timed), first)


_places = st.builds(
    Place, texts, texts, st.integers(0, 9), st.integers(1, 3), st.sampled_from(["pull", "arrival", "replay"]),
    st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """Draw any exchange that a recording can contain."""
    response = draw(st.one_of(st.none(), _responses()))
    ending: Any = (
        "no_response" if response is None else draw(st.sampled_from(["complete", "closed", "cut", "error_event", "http_error"]))
    )
    started = draw(_micros)
    last = 0 if response is None else max([response.first_ns, *(piece.offset_ns for piece in response.pieces)])
    return Exchange(
        request=Request(draw(st.sampled_from(["POST", "GET"])), URL + draw(st.sampled_from(["", "?beta=true&x=%20"])),
                        draw(_headers), draw(_bodies)),
        response=response,
        ending=ending,
        failure=draw(st.none() | st.builds(Failure, texts, texts)),
        place=draw(_places),
        recorded_at=draw(st.sampled_from(["", "2026-11-22T14:29:35.123Z"])),
        started_ns=started,
        ended_ns=started + last + draw(_micros),
        cost_usd=draw(st.none() | st.just(0.0) | st.floats(0, 100)),
        tool_results=tuple(draw(st.lists(st.dictionaries(texts, _json, max_size=3), max_size=2))),
    )  # fmt: skip
