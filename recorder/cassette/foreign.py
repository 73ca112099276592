"""Names for files that are no HTTP cassettes: recordings of other protocols and of other programs.

Only the keys of a file identify it. Such a file is not damaged, so no message advises to delete it.
"""

import json
import re
from typing import Any

from .exchanges import _protocol, named_interaction

_EVENTS = (
    "message_start",
    "message_delta",
    "message_stop",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "ping",
)
_MESSAGES = ("system", "assistant", "user", "result")
_OWN = re.compile(rb"""["']?retold["']?:""")
_LINES = "Write one message a line to a .jsonl file; `retold import` takes that."


def named(document: Any) -> str | None:
    """Return the sentence that names a document and gives the way out, or None for a cassette and for an unknown document."""
    if isinstance(document, list):
        return _named_list(document)
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("resourceSpans"), list):
        return "this is a file of traces in the JSON of OTLP. `retold import` takes it."
    if str(document.get("schema_version", "")).startswith("ATIF-"):
        return "this is a trajectory in ATIF. `retold import` takes it."
    if not document.get("interactions"):
        for key, kind in (("grpc_interactions", "gRPC"), ("ws_interactions", "WebSocket")):
            if document.get(key):
                return _protocol(kind)
    if isinstance(entries := document.get("interactions"), list):
        return next(filter(None, map(named_interaction, entries)), None)
    if "chunks" in document and isinstance(document["chunks"], list):
        return "this is a fixture of response chunks, as req_llm keeps them. retold does not read it; record the exchange again."
    is_response = "request" not in document and {"status", "headers", "body"} <= document.keys()
    if is_response or (document.get("type") == "message" and "content" in document):
        return "this is one response without its request. No retold command reads it."
    for key in ("messages", "transcript", "entries", "events"):
        if isinstance(document.get(key), list) and _named_list(document[key]) is not None:
            return f"this is a transcript of a session, with its messages under `{key}`. {_LINES}"
    return None


def named_line(line: Any) -> str | None:
    """Return the sentence that names a file by its first line of JSON, or None if `retold import` may read it."""
    if not isinstance(line, dict):
        return None
    is_chunk = line.get("type") in _EVENTS or str(line.get("type", "")).startswith("response.")
    if is_chunk or ("type" not in line and ("choices" in line or "candidates" in line)):
        return _CHUNKS
    return None


_CHUNKS = (
    "this is a file of response chunks, one a line, as the Vercel AI SDK keeps them. It has no request, so no retold command "
    "reads it."
)


def named_text(data: bytes) -> str | None:
    """Return the sentence that names a text that is neither YAML nor JSON as a whole. Its first line decides."""
    first = data.lstrip().partition(b"\n")[0].strip().removeprefix(b"data:")
    try:
        line = json.loads(first)
    except (ValueError, RecursionError):
        return None
    if isinstance(line, dict) and (line.get("type") in _MESSAGES or {"t", "d"} <= line.keys()):
        return "this is a transcript of a session, one message a line. `retold import` takes it if its name ends in .jsonl."
    return named_line(line)


def _named_list(items: list[Any]) -> str | None:
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    if all({"t", "d"} <= item.keys() or item.get("type") in _MESSAGES for item in items[:5]):
        return f"this is a transcript of a session, as one list. {_LINES}"
    return _CHUNKS if named_line(items[0]) is not None else None


def was_cassette(data: bytes) -> bool:
    """Return whether an unreadable file was a cassette or is empty, rather than a file of another program."""
    return b"interactions" in data or not data.strip()


def way_out(data: bytes) -> str:
    """Return the advice for such a file: to delete it only if it is empty or retold wrote it."""
    if not data.strip() or (was_cassette(data) and _OWN.search(data)):
        return " Restore it from version control, or delete it and record again."
    return " Restore it from version control." if was_cassette(data) else " Name a cassette, or another path to record to."
