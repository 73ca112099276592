"""The forms in which values stand in cassettes, our own and those found in the wild, checked as they are read.

Bodies are text, bytes, `{string: …}`, `{base64_string: …}`, already parsed JSON or nothing; headers are mappings of lists, of
values, or lists of pairs; stored headers lie about encodings. What fits no form raises ValueError, with the reason.
"""

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

import yaml

from .events import encode
from .exchange import Headers, content_encoding, has_frames, pieces_of

Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_DEPTH = 200
"""Deeper nesting than any request has."""

# What could be a structure deeper than that: many openings in a row, or many brackets that no JSON string explains, or a deep
# indentation. Each pattern can match in one way only, so that none of them backtracks.
_DEEP = re.compile(r"[\[{](?:\s*[\[{]){39}|\n *[-?:] +(?:[-?:] +){39}|[\[{](?:[^\[{\"'\n]{0,40}[\[{]){149}|\n {400}")


def check_depth(text: str) -> None:
    """Raise YAMLError for a document so deep that libyaml's parser would overflow the stack of the process.

    Parsing into events needs no stack, but twice the time: it is done only where the text could be that deep.
    """
    if len(text) < MAX_DEPTH or _DEEP.search("\n" + text) is None:
        return
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def mapping(value: Any, what: str) -> dict[str, Any]:
    """A value that must be a mapping. Raises ValueError naming `what` it is not."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be a mapping, and is {str(value)[:60]!r}")
    return value


def body_of(recorded: dict[str, Any]) -> bytes:
    """The body of a request or response; some recorders keep JSON already parsed, as `parsed_body`."""
    if recorded.get("body") is None and recorded.get("parsed_body") is not None:
        return encode(recorded["parsed_body"])
    return plain_body(recorded.get("body"))


def tool_results(value: Any) -> list[Any]:
    """Tool results; as JSON text where they hold what YAML cannot (half a surrogate pair)."""
    found = json.loads(value) if isinstance(value, str) else value
    if found is not None and not isinstance(found, list):
        raise ValueError("tool_results should be a list")
    return found or []


def word(value: Any) -> str:
    """A plain value as text; a structure where one belongs is damage, and could be an alias that grows without end."""
    if isinstance(value, dict | list | tuple | set):
        raise ValueError(f"a {type(value).__name__} stands where text should")
    return str(value)


def plain_body(value: Any) -> bytes:
    """A body in any form found in the wild: text, bytes, `{string: …}`, `{base64_string: …}`, nothing."""
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
    """Header pairs from `{name: [values]}`, `{name: value}` or a list of pairs."""
    if value is None:
        return ()
    pairs = value.items() if isinstance(value, dict) else value
    return tuple((str(name), str(item)) for name, items in pairs for item in (items if isinstance(items, list) else [items]))


def repaired(headers: Headers, body: bytes) -> Headers:
    """Without a content-encoding that the body does not have: many recorders store decoded bodies under old headers."""
    if content_encoding(headers) in ("gzip", "x-gzip") and not body.startswith(b"\x1f\x8b"):
        return tuple((name, value) for name, value in headers if name.lower() != "content-encoding")
    return headers


def nanoseconds(ms: Any) -> int:
    """Milliseconds of the file as nanoseconds. Raises ValueError for what is no time."""
    if ms is None:
        return 0
    value = float(ms)
    if not 0 <= value < 1e12:
        raise ValueError(f"a time should be a number of milliseconds, and is {value}")
    return round(value * 1_000_000)


def cut(body: bytes, headers: Headers, sizes: object) -> Iterable[tuple[bytes, bool]]:
    """A body in its pieces: by the recorded `sizes`, or as recording would have cut it."""
    if sizes is None or has_frames(headers, body):
        for piece in pieces_of(body, headers):
            yield piece.data, piece.is_frame
        return
    start = 0
    for size in map(int, word(sizes).split()):
        if body[start : start + size]:
            yield body[start : start + size], False
        start += size
    if body[start:]:
        yield body[start:], False
