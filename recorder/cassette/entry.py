"""One interaction of a cassette, as YAML or JSON give it, becomes an exchange. Damage raises the errors of `DAMAGE`.

Interactions of retold and of other tools have many forms, and each value is checked when it is read. Bodies are text, bytes,
`{string: …}`, `{base64_string: …}`, already parsed JSON or nothing; headers are mappings of lists, of values, or lists of pairs;
stored headers may name a wrong encoding. A value of no known form raises ValueError with the reason.

A JSON body is laid out over many lines, so that a line-based diff shows the changed part. `lay_out` returns the indented text and
the name of the layout that restores the exact bytes. It returns None for a body that no layout restores (other spacing, repeated
keys, numbers or escapes in another spelling), and for a body that fits on one line.
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property, lru_cache
from itertools import chain, repeat
from typing import Any, cast, overload
from urllib.parse import urlsplit

from ..events import ENDINGS, Ending
from ..folders import UNKNOWN, Folders
from ..http.exchange import (
    Exchange,
    Failure,
    Headers,
    Place,
    Request,
    Response,
    TimedPiece,
    content_encoding,
    has_frames,
    pieces_of,
)


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Return a value that must be a mapping. Raise ValueError if it is not; `what` names the value."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be a mapping, and is {str(value)[:60]!r}")
    return value


def body_of(recorded: dict[str, Any]) -> bytes:
    """Return the body of a request or response. Some recorders keep JSON parsed, as `parsed_body`; cassetter's TOML splits it."""
    if "body_type" in recorded:
        content = recorded.get("body_content")
        return _typed("text" if recorded["body_type"] == "json" else recorded["body_type"], content, recorded)
    if recorded.get("body") is None and recorded.get("parsed_body") is not None:
        return _as_json(recorded["parsed_body"], recorded)
    body = recorded.get("body")
    if isinstance(body, list) or (isinstance(body, dict) and body and not {"string", "base64_string"} & body.keys()):
        if isinstance(body, dict) and body.keys() <= {"type", "content"} and body.get("type") in _TYPES:
            return _typed(body["type"], body.get("content"), recorded)
        return _as_json(body, recorded)
    return plain_body(body)


_TYPES = ("json", "text", "binary", "none")
"""The types of bodies in cassetter's files; binary ones are in hexadecimal."""


def _typed(kind: str, content: Any, recorded: dict[str, Any]) -> bytes:
    if kind == "json":
        return _as_json(content, recorded)
    return bytes.fromhex(word(content)) if kind == "binary" else plain_body(content)


def _as_json(value: Any, recorded: dict[str, Any]) -> bytes:
    """Return parsed JSON as bytes: in the spelling that has the recorded content-length, else in that of `json.dumps`."""
    lengths = {item for name, item in headers_of(recorded.get("headers")) if name.lower() == "content-length"}
    usual = json.dumps(value, default=_as_text).encode()
    if not lengths or str(len(usual)) in lengths:
        return usual
    for separators in ((", ", ": "), (",", ":")):
        for ascii_only in (False, True):
            text = json.dumps(value, default=_as_text, ensure_ascii=ascii_only, separators=separators)
            if str(len(data := text.encode("utf-8", "surrogatepass"))) in lengths:
                return data
    return usual


def _as_text(value: Any) -> str:
    """Return a date of YAML as its original text. Raise TypeError for another value that JSON does not have."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is not JSON")


def tool_results(value: Any) -> list[Any]:
    """Return tool results. They are JSON text in the file if YAML cannot hold them (half a surrogate pair)."""
    found = json.loads(value) if isinstance(value, str) else value
    if found is not None and not isinstance(found, list):
        raise ValueError("tool_results should be a list")
    return found or []


def whole(value: Any, what: str) -> int:
    """Return a whole number that is not negative. Raise ValueError for any other value; `what` names the key."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9:
        raise ValueError(f"{what} should be a whole number, and is {str(value)[:60]!r}")
    return value


def word(value: Any) -> str:
    """Return a plain value as text. Raise ValueError for a structure."""
    if isinstance(value, dict | list | tuple | set):
        raise ValueError(f"a {type(value).__name__} instead of text")
    return str(value)


def moment(value: Any) -> str:
    """Return a time as ISO 8601 text; YAML reads one without quotes as a datetime. Raise ValueError for a structure."""
    if isinstance(value, date):
        return value.isoformat().replace("+00:00", "Z")
    return "" if value is None else word(value)


def address(value: Any) -> str:
    """Return a URL as text. Raise ValueError if it cannot be parsed."""
    text = word(value)
    _ = urlsplit(text).port
    return text


def plain_body(value: Any) -> bytes:
    """Return the bytes of a body in any form of a known tool: text, bytes, `{string: …}`, `{base64_string: …}`, nothing."""
    if isinstance(value, dict):
        if "base64_string" in value:
            return base64.b64decode(value["base64_string"])
        value = value.get("string")
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise ValueError(f"a body of type {type(value).__name__}")


def headers_of(value: Any) -> Headers:
    """Return header pairs from `{name: [values]}`, `{name: value}` or a list of pairs."""
    if value is None:
        return ()
    pairs = value.items() if isinstance(value, dict) else value
    return tuple((word(name), word(item)) for name, items in pairs for item in (items if isinstance(items, list) else [items]))


def repaired(headers: Headers, body: bytes) -> Headers:
    """Return headers without a content-encoding that the body does not have.

    Many recorders store decoded bodies with the original headers.
    """
    if content_encoding(headers) in ("gzip", "x-gzip") and not body.startswith(b"\x1f\x8b"):
        return tuple((name, value) for name, value in headers if name.lower() != "content-encoding")
    return headers


def nanoseconds(ms: Any) -> int:
    """Return milliseconds of the file as nanoseconds. Raise ValueError for a value that is not a time."""
    if ms is None:
        return 0
    value = float(ms)
    if not 0 <= value < 1e12:
        raise ValueError(f"a time should be a number of milliseconds, and is {value}")
    return round(value * 1_000_000)


def milliseconds(ns: int) -> float:
    """Return nanoseconds as milliseconds, rounded to the microsecond, which is exact enough and short in the file."""
    return round(ns / 1_000_000, 3)


@lru_cache(256)
def ms_text(ns: int) -> str:
    """Return nanoseconds as milliseconds in a text, without an exponent. Frames that arrive together have one time."""
    return f"{ns / 1_000_000:.3f}".rstrip("0").rstrip(".")


class Pieces(Sequence[TimedPiece]):
    """The pieces of a recorded body: cut by the recorded `sizes`, or as recording would have cut it.

    They are cut at first use, because a test often plays one answer of a long cassette. `offsets_ms` and `sizes` are checked at
    once, so damage is found when the file is read. Raise ValueError.
    """

    def __init__(self, body: bytes, headers: Headers, *, offsets_ms: str, sizes: str | None, first_ns: int) -> None:
        self.body = body
        self._headers = headers
        self._offsets_ms = offsets_ms
        self._sizes = None if sizes is None or has_frames(headers, body) else sizes
        self._first_ns = first_ns
        if _TIMES.fullmatch(offsets_ms) is None or (self._sizes is not None and _SIZES.fullmatch(self._sizes) is None):
            self._all = tuple(self._timed())

    @cached_property
    def _all(self) -> tuple[TimedPiece, ...]:
        return tuple(self._timed())

    def _timed(self) -> Iterator[TimedPiece]:
        offsets = [nanoseconds(number) for number in self._offsets_ms.split()] or [self._first_ns]
        # A body edited by hand may have more pieces than times. The rest gets the last time.
        times = chain(offsets, repeat(offsets[-1]))
        return (TimedPiece(next(times), data, is_frame) for data, is_frame in self._cut())

    def _cut(self) -> Iterator[tuple[bytes, bool]]:
        if self._sizes is None:
            yield from pieces_of(self.body, self._headers)
            return
        start = 0
        for size in map(int, self._sizes.split()):
            if size < 0:
                raise ValueError(f"a piece of {size} bytes")
            if self.body[start : start + size]:
                yield self.body[start : start + size], False
            start += size
        if self.body[start:]:
            yield self.body[start:], False

    @property
    def span_ns(self) -> tuple[int, int]:
        """The first and the last recorded time, without cutting the body."""
        offsets = self._offsets_ms.split(None, 1)
        if not offsets:
            return self._first_ns, self._first_ns
        return nanoseconds(offsets[0]), nanoseconds(self._offsets_ms.rsplit(None, 1)[-1])

    @overload
    def __getitem__(self, index: int) -> TimedPiece: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[TimedPiece, ...]: ...

    def __getitem__(self, index: int | slice) -> TimedPiece | tuple[TimedPiece, ...]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[TimedPiece]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return self._all == (other._all if isinstance(other, Pieces) else other)

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return repr(self._all)


# Values that need no second check: plain numbers, and times below the limit of `nanoseconds`.
_TIMES = re.compile(r"(?:[0-9]{1,12}+(?:\.[0-9]{1,9}+)?+(?: |$))*+")


_SIZES = re.compile(r"(?:[0-9]{1,12}+(?: |$))*+")


LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"separators": (", ", ": "), "ensure_ascii": True},
    "compact-ascii": {"separators": (",", ":"), "ensure_ascii": True},
    "spaced-unicode": {"separators": (", ", ": "), "ensure_ascii": False},
}
"""Names of layouts, and the options of `json.dumps` that produce them."""

SHORT = 80
"""Characters of the longest body that stays on one line."""

_ERRORS = (ValueError, RecursionError)


def lay_out(body: bytes, *, short: int = SHORT) -> tuple[str, str] | None:
    """Return the indented text of a JSON body and the name of its layout; None if the bytes cannot be restored from it."""
    if len(body) <= short or body[:1] not in (b"{", b"["):
        return None
    try:
        value = json.loads(body.decode())
        for name, options in LAYOUTS.items():
            if json.dumps(value, **options).encode("utf-8", "surrogatepass") == body:
                text = json.dumps(value, indent=1, ensure_ascii=options["ensure_ascii"] and _has_surrogate(value))
                return (text, name) if restore(text, name) == body else None
    except _ERRORS:
        return None
    return None


def _has_surrogate(value: Any) -> bool:
    """Return whether a value holds half of a surrogate pair, which only an escape can spell."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def restore(text: str, layout: str) -> bytes:
    """Return the original bytes of a laid-out body. Raise ValueError for text that is not JSON, or for an unknown layout."""
    options = LAYOUTS.get(layout)
    if options is None:
        raise ValueError(f"unknown body_layout {layout!r}; one of {', '.join(LAYOUTS)}")
    return json.dumps(json.loads(text), **options).encode()


DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""The errors that a damaged interaction raises."""


def to_exchange(entry: dict[str, Any]) -> Exchange:
    """Return the exchange of one interaction. Raise KeyError, TypeError, ValueError or AttributeError if it is damaged."""
    entry = mapping(entry, "an interaction")
    own = mapping(entry.get("retold") or {}, "retold")
    recorded = mapping(entry["request"], "request")
    request = Request(
        word(recorded["method"]),
        address(recorded["url" if "url" in recorded and "uri" not in recorded else "uri"]),
        headers_of(recorded.get("headers")),
        _asked(recorded, own),
        Folders.of(own["folders"]) if "folders" in own else UNKNOWN,
    )
    ending = word(own.get("ending", "complete"))
    if ending not in ENDINGS:
        raise ValueError(f"unknown ending {ending!r}; one of {', '.join(ENDINGS)}")
    error = own.get("error")
    response = (
        None
        if entry.get("response") is None or ending == "no_response"
        else _to_response(mapping(entry["response"], "response"), own)
    )
    if "ending" not in own and response is not None and response.status >= 400:
        ending = "http_error"
    ended_ns = nanoseconds(own.get("ended_ms"))
    if ended_ns == 0 and own.get("offsets_ms") and response is not None and response.body:
        ended_ns = response.span_ns[1]
    started_ns = nanoseconds(own.get("started_ms"))
    return Exchange(
        request=request,
        response=response,
        ending=cast(Ending, ending),
        failure=None if error is None else Failure(word(error["type"]), word(error["message"])),
        place=_place(own),
        recorded_at=moment(own.get("recorded_at") or entry.get("recorded_at")),
        started_ns=started_ns,
        ended_ns=started_ns + ended_ns,
        cost_usd=None if own.get("cost_usd") is None else float(own["cost_usd"]),
        tool_results=tuple(mapping(result, "a tool result") for result in tool_results(own.get("tool_results"))),
    )


def _place(own: dict[str, Any]) -> Place:
    return Place(
        step=word(own.get("step", "")),
        task=word(own.get("task", "")),
        call=whole(own.get("call", 0), "call"),
        attempt=whole(own.get("attempt", 1), "attempt"),
        stamped=word(own.get("stamped", "pull")),
        variables={word(k): word(v) for k, v in mapping(own.get("variables") or {}, "variables").items()},
    )


def _asked(recorded: dict[str, Any], own: dict[str, Any]) -> bytes:
    """Return the body of a request: its exact bytes if the layout restores them, its new content if a person edited it."""
    layout = own.get("body_layout")
    return body_of(recorded) if layout is None else restore(word(recorded.get("body")), word(layout))


def _to_response(recorded: dict[str, Any], own: dict[str, Any]) -> Response:
    if "status_code" in recorded:  # vcrpy's httpx format before version 6
        status, reason = whole(recorded["status_code"], "status_code"), ""
        body = plain_body(recorded["content"]) if "content" in recorded else body_of(recorded)
    else:
        found = recorded["status"]  # a number in cassetter's files
        state = {"code": found} if isinstance(found, int) else mapping(found, "status")
        status, reason = whole(state["code"], "the status code"), word(state.get("message") or "")
        body = body_of(recorded)
    headers = repaired(headers_of(recorded.get("headers")), body)
    first_ns = nanoseconds(own.get("first_ms"))
    sizes = own.get("sizes")
    pieces = Pieces(
        body, headers, offsets_ms=word(own.get("offsets_ms", "")), sizes=None if sizes is None else word(sizes), first_ns=first_ns
    )
    return Response(status, reason, headers, pieces, first_ns)
