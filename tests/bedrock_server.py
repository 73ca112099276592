"""A scripted server of Claude on Bedrock and Vertex, on 127.0.0.1.

It sends replies of the Messages API server in their wire formats.

Bedrock paths (`/model/M/invoke`, `…-with-response-stream`, `converse`, `converse-stream`) get frames of
`application/vnd.amazon.eventstream` or JSON. Vertex paths get the same answers as the Messages API. A path may have a prefix.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote
from zlib import crc32

from retold.recorder.http.event_stream import TYPE
from tests.messages_server import Reply, text

Json = dict[str, Any]
_COUNTS = {"input_tokens": "inputTokens", "output_tokens": "outputTokens"}


def packed(headers: Json, payload: bytes) -> bytes:
    """Return a frame with text headers."""
    texts = [(name.encode(), value.encode()) for name, value in headers.items()]
    head = b"".join(struct.pack(">B", len(name)) + name + struct.pack(">BH", 7, len(value)) + value for name, value in texts)
    lengths = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    data = lengths + struct.pack(">I", crc32(lengths)) + head + payload
    return data + struct.pack(">I", crc32(data))


def framed(event_type: str, payload: Json) -> bytes:
    """Return the frame of an event."""
    headers = {":event-type": event_type, ":content-type": "application/json", ":message-type": "event"}
    return packed(headers, json.dumps(payload).encode())


def chunk(event: Json, padding: str = "abcd") -> bytes:
    """Return a frame of `invoke-with-response-stream`: an event of the Messages API in base64."""
    return framed("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": padding})


def exception(kind: str, message: str) -> bytes:
    """Return a frame with an exception."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return packed(headers, json.dumps({"message": message}).encode())


def converse_block(block: Json) -> Json:
    """Return a content block in the shape of Converse."""
    if block["type"] == "tool_use":
        return {"toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}}
    if block["type"] == "thinking":
        return {"reasoningContent": {"reasoningText": {"text": block["thinking"], "signature": block["signature"]}}}
    return {"text": block["text"]}


def converse_events(events: Iterator[Json]) -> Iterator[bytes]:
    """Return the frames of `converse-stream` for events of the Messages API. Only tool blocks get a start event."""
    for event in events:
        place = {"contentBlockIndex": event.get("index")}
        match event["type"]:
            case "message_start":
                yield framed("messageStart", {"role": "assistant", "p": "ab"})
            case "content_block_start" if event["content_block"]["type"] == "tool_use":
                block = event["content_block"]
                yield framed(
                    "contentBlockStart", {"start": {"toolUse": {"toolUseId": block["id"], "name": block["name"]}}, **place}
                )
            case "content_block_delta":
                yield framed("contentBlockDelta", {**place, "delta": _converse_delta(event["delta"])})
            case "content_block_stop":
                yield framed("contentBlockStop", place)
            case "message_delta":
                usage = {_COUNTS[name]: count for name, count in event["usage"].items() if name in _COUNTS}
                yield framed("messageStop", {"stopReason": event["delta"]["stop_reason"]})
                yield framed("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})


def _converse_delta(delta: Json) -> Json:
    match delta["type"]:
        case "input_json_delta":
            return {"toolUse": {"input": delta["partial_json"]}}
        case "thinking_delta":
            return {"reasoningContent": {"text": delta["thinking"]}}
        case "signature_delta":
            return {"reasoningContent": {"signature": delta["signature"]}}
    return {"text": delta["text"]}


def frames_of(reply: Reply, action: str, asked: Json, call: int = 1) -> list[bytes]:
    """Return the frames of a streamed reply."""
    message = reply.message(asked, call)
    if action == "converse-stream":
        return [*converse_events(reply.events(message))]
    return [*map(chunk, reply.events(message))]


class BedrockServer:
    """A server that answers each call with `reply`.

    With `cut_after`, a stream ends after that many frames, followed by `tail`.
    """

    def __init__(self, reply: Reply | None = None, *, tail: bytes = b"", cut_after: int | None = None) -> None:
        self.reply = reply or Reply([text("Hello there")])
        self.tail = tail
        self.cut_after = cut_after
        self.requests: list[tuple[str, Json, Json]] = []
        self.bodies: list[bytes] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                owner.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, asked))
                kind, body = owner.answer(unquote(self.path).partition("?")[0], asked)
                owner.bodies.append(body)
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("x-amzn-requestid", f"r{len(owner.bodies)}")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, asked: Json) -> tuple[str, bytes]:
        """Return the content type and the body of an answer."""
        call = len(self.bodies) + 1
        if (found := re.search(r"/model/(?:.*/)?([^/]+)/([^/]+)$", path)) is None:
            return self._plain(asked | {"stream": asked.get("stream") or "streamRaw" in path}, call)
        asked, action = asked | {"model": found[1]}, found[2]
        if "stream" in action:
            frames = frames_of(self.reply, action, asked, call)
            return TYPE, b"".join(frames[: self.cut_after]) + self.tail
        message = self.reply.message(asked, call)
        if action == "converse":
            content = [converse_block(block) for block in message["content"]]
            usage = {own: message["usage"][name] for name, own in _COUNTS.items()}
            output = {"message": {"role": "assistant", "content": content}}
            message = {"output": output, "stopReason": message["stop_reason"], "usage": usage, "metrics": {"latencyMs": 1}}
        return "application/json", json.dumps(message).encode()

    def _plain(self, asked: Json, call: int) -> tuple[str, bytes]:
        message = self.reply.message(asked, call)
        if asked["stream"]:
            return "text/event-stream", b"".join(self.reply.frames(message))
        return "application/json", json.dumps(message).encode()

    def __enter__(self) -> BedrockServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
