"""A scripted Messages API server on 127.0.0.1, for tests, for recording examples and for manual runs.

    with MessagesServer([Reply([text("Hello")], gap_s=0.05), http_error(529)]) as server:
        client = Anthropic(base_url=server.url, api_key="test-key")

Each POST to ``…/v1/messages`` takes the next reply. A script may also be a function from the request to the
reply. A request with ``"stream": true`` gets server-sent events shaped like the real ones, any other request
one JSON message. After the end of the script the answer is a 500. As a program it prints its URL as the first
line and ends on SIGTERM or SIGINT: ``python tests/messages_server.py --script FILE.json [--port N] [--print-url]``.
FILE is a JSON list (or a YAML list, named .yaml or .yml) with one item per reply: a string for a plain text
reply, or an object with the fields of ``Reply``. In ``blocks`` the first key of a block is its function, and
the other keys are its arguments. ``http_error`` has the arguments of that function, ``raw_frames`` strings::

    ["Hello", {"http_error": {"status": 529, "headers": {"retry-after-ms": "1"}}},
     {"blocks": [{"text": "Let me look.", "pieces": 3}, {"tool_use": "get_weather", "input": {"city": "Paris"}}],
      "stop_reason": "tool_use", "gap_s": 0.05, "cut_after": 4}]
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import select
import signal
import socket
import socketserver
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

Json = dict[str, Any]
Pieces = Sequence[str] | int  # the pieces themselves, or the number of characters of each piece
Script = Sequence["Reply"] | Callable[["Request"], "Reply"]
USAGE = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
START_USAGE = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}}
SIGNATURE = "EqQBCkYICxgCKkCdGVzdC1zaWduYXR1cmUtbm90LWEtcmVhbC1vbmU="
MODEL = "claude-sonnet-4-5-20250929"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
COMMON = {"cache-control": "no-cache", "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}
for _name in ("requests", "tokens", "input-tokens", "output-tokens"):
    COMMON |= {f"anthropic-ratelimit-{_name}-{kind}": "400000" for kind in ("limit", "remaining")}
    COMMON[f"anthropic-ratelimit-{_name}-reset"] = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Block:
    """A content block as content_block_start shows it, its deltas, and the whole block. An id of None becomes a generated one."""

    start: Json
    deltas: Sequence[Json]
    whole: Json


def text(value: str, pieces: Pieces = 8) -> Block:
    deltas = [{"type": "text_delta", "text": piece} for piece in _cut(value, pieces)]
    return Block({"type": "text", "text": ""}, deltas, {"type": "text", "text": value})


def thinking(value: str, signature: str = SIGNATURE, pieces: Pieces = 8) -> Block:
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(value, pieces)]
    deltas.append({"type": "signature_delta", "signature": signature})
    whole = {"type": "thinking", "thinking": value, "signature": signature}
    return Block({"type": "thinking", "thinking": "", "signature": ""}, deltas, whole)


def redacted_thinking(data: str = SIGNATURE) -> Block:
    return raw({"type": "redacted_thinking", "data": data})


def tool_use(name: str, input: Json, id: str | None = None, pieces: Pieces = 8, kind: str = "tool_use") -> Block:
    """Return a tool call. ``pieces`` cut the JSON of its input. An empty delta comes first, as in the real API."""
    encoded = "".join(pieces) if not isinstance(pieces, int) else json.dumps(input, ensure_ascii=False) if input else ""
    if json.loads(encoded or "{}") != input:
        raise ValueError(f"the pieces are not the JSON of the input: {pieces!r}")
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_cut(encoded, pieces)]]
    whole = {"type": kind, "id": id, "name": name, "input": input}
    return Block({**whole, "input": {}}, deltas, whole)


def raw(block: Json) -> Block:
    """Return a block that arrives whole in its content_block_start, as server tool results do."""
    return Block(block, (), block)


def _cut(value: str, pieces: Pieces) -> Sequence[str]:
    pieces = [value[i : i + pieces] for i in range(0, len(value), pieces)] if isinstance(pieces, int) else pieces
    if "".join(pieces) != value:
        raise ValueError(f"the pieces do not add up to {value!r}: {pieces!r}")
    return pieces


@dataclass(frozen=True)
class Reply:
    """One scripted answer.

    The ``…_after`` fields count the frames sent before the failure. A cut closes the connection without the final chunk. A hang
    lasts until either side closes. A JSON answer is one frame.
    """

    blocks: Sequence[Block] = ()
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)  # over USAGE and the number of deltas
    model: str | None = None  # None: the model of the request
    id: str | None = None  # None: generated from the number of the call
    first_gap_s: float = 0.0  # between the response head and the first frame (before the head of an HTTP error)
    gap_s: float | Sequence[float] = 0.0  # before each later frame, error event or cut, without drift; then zeros
    before_frame: Callable[[int], object] | None = None  # called with the number of each frame, from 0 on, before it is sent
    encoding: Literal["gzip", "br", "zstd"] | None = None  # one flush per frame; the last two need their packages
    newline: str = "\n"
    split: Literal["frame", "bytes"] | int = "frame"  # HTTP chunks: per frame, per byte, or of n bytes across frames
    raw_frames: Sequence[bytes] | None = None  # sent unchanged in place of the blocks, for streamed and unstreamed requests
    error_event_after: int | None = None  # streams only
    cut_after: int | None = None
    hang_after: int | None = None
    status: int = 200  # any other: an HTTP error with ``error`` as JSON
    error: Sequence[str] = ("overloaded_error", "Overloaded")  # type and message, of the event or of the HTTP error
    details: Mapping[str, Any] | None = None  # of the HTTP error
    headers: Mapping[str, str] = field(default_factory=dict)  # over the usual ones

    def message(self, asked: Json, call: int) -> Json:
        """Return the whole message, which is also the body of a JSON answer."""
        id = self.id or _token("msg_01", str(call))
        content = [dict(block.whole) for block in self.blocks]
        for index, block in enumerate(content):
            if block.get("id", "") is None:
                block["id"] = _token("toolu_01" if block["type"] == "tool_use" else "srvtoolu_01", f"{id}/{index}")
        head = {"model": self.model or asked.get("model") or MODEL, "id": id, "type": "message", "role": "assistant"}
        end = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        output = {"output_tokens": 1 + sum(len(block.deltas) for block in self.blocks)}
        return {**head, "content": content, **end, "usage": {**USAGE, **output, **self.usage}}

    def events(self, message: Json) -> Iterator[Json]:
        usage = {**START_USAGE, **message["usage"], "output_tokens": 1, "service_tier": "standard"}
        empty: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield {"type": "message_start", "message": message | empty}
        for index, (block, whole) in enumerate(zip(self.blocks, message["content"], strict=True)):
            start = {**block.start, "id": whole["id"]} if "id" in block.start else block.start
            yield {"type": "content_block_start", "index": index, "content_block": start}
            if index == 0:
                yield {"type": "ping"}
            yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in block.deltas)
            yield {"type": "content_block_stop", "index": index}
        end = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        yield {"type": "message_delta", "delta": end, "usage": message["usage"]}
        yield {"type": "message_stop"}

    def frames(self, message: Json) -> list[bytes]:
        """Return the frames of a stream. As in the real API, 0–15 spaces precede the last brace, except in a ping."""
        padding = random.Random(message["id"])

        def frame(event: Json) -> bytes:
            ping = event["type"] == "ping"
            data = '{"type": "ping"}' if ping else _dumps(event)[:-1] + " " * padding.randint(0, 15) + "}"
            return f"event: {event['type']}{self.newline}data: {data}{self.newline}{self.newline}".encode()

        frames = [*map(frame, self.events(message))] if self.raw_frames is None else [*self.raw_frames]
        if self.error_event_after is not None:
            error = {"details": None, "type": self.error[0], "message": self.error[1]}
            frames[self.error_event_after :] = [frame({"type": "error", "error": error})]
        return frames


def http_error(status: int, type: str = Reply.error[0], message: str = Reply.error[1], headers: Json = COMMON) -> Reply:
    return Reply(status=status, error=(type, message), headers=headers)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    json: Any  # None if the body is not JSON


def _token(prefix: str, seed: str, length: int = 22) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    return prefix + "".join(random.Random(prefix + seed).choices(alphabet, k=length))


def _compressor(encoding: str | None) -> Callable[[bytes | None], bytes]:
    """Compress one frame after the other, each readable at once. None ends the stream."""
    match encoding:
        case "gzip":
            gzip = zlib.compressobj(wbits=31)
            return lambda frame: gzip.flush() if frame is None else gzip.compress(frame) + gzip.flush(zlib.Z_SYNC_FLUSH)
        case "br":
            br = importlib.import_module("brotli").Compressor()
            return lambda frame: br.finish() if frame is None else br.process(frame) + br.flush()
        case "zstd":
            package = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
            zstd = importlib.import_module(package).ZstdCompressor()
            return lambda frame: zstd.flush() if frame is None else zstd.compress(frame, zstd.FLUSH_BLOCK)
    return lambda frame: frame or b""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: MessagesServer

    def handle(self) -> None:
        with suppress(OSError):  # a client that leaves between requests is not an error
            super().handle()

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        value = None
        with suppress(ValueError):
            value = json.loads(body)
        request = Request(self.command, self.path, headers, body, value)
        with self.server.lock:
            self.server.requests.append(request)
            self.request_id = _token("req_011C", str(len(self.server.requests)), 20)
        if self.server.verbose:
            print(self.requestline, file=sys.stderr)
        match self.command, urlsplit(self.path).path.rpartition("/v1/")[2]:
            case "POST", "messages":
                self._answer(request)
            case "POST", "messages/count_tokens":
                self._json(200, {"input_tokens": 1 + len(body) // 4})
            case "GET", "models":
                self._json(200, {"data": [{"type": "model", "id": MODEL, "display_name": MODEL}], "has_more": False})
            case command, path if (command, path) in self.server.routes:
                kind, content = self.server.routes[command, path]
                self._head(200, {"content-type": kind, "content-length": str(len(content))})
                self.wfile.write(content)
            case command, _:
                self._head(200 if command == "HEAD" else 404, {"content-length": "0"})

    do_GET = do_HEAD = do_POST

    def _answer(self, request: Request) -> None:
        server = self.server
        with server.lock:
            server.sent.append([])
            server.bodies.append(b"")
            server.calls = call = len(server.sent)
            server.answering += 1
        try:
            reply = server.reply(call, request)
            if reply.status == 200:
                self._stream(reply, call, request)
            else:
                self._wait(time.monotonic() + reply.first_gap_s)
                error: Json = {"type": reply.error[0], "message": reply.error[1]}
                error |= {"details": dict(reply.details)} if reply.details is not None else {}
                envelope = {"type": "error", "error": error, "request_id": self.request_id}
                server.bodies[call - 1] = _dumps(envelope).encode()
                self._json(reply.status, envelope, reply.headers)
        except OSError:
            self.close_connection = True
            with server.lock:
                server.closed_early += not server.closing
        finally:
            with server.lock:
                server.answering -= 1
                server.lock.notify_all()

    def _stream(self, reply: Reply, call: int, request: Request) -> None:
        asked = request.json if isinstance(request.json, dict) else {}
        message = reply.message(asked, call)
        streaming = asked.get("stream") is True or reply.raw_frames is not None
        headers = {"content-type": "text/event-stream; charset=utf-8" if streaming else "application/json"}
        headers |= {"content-encoding": reply.encoding} if reply.encoding else {}
        self._head(200, {**headers, "transfer-encoding": "chunked"}, reply.headers)
        frames = reply.frames(message) if streaming else [_dumps(message).encode()]
        gaps = [reply.gap_s] * len(frames) if isinstance(reply.gap_s, int | float) else reply.gap_s
        waits = [reply.first_gap_s, *gaps, *[0.0] * len(frames)]
        limits = [limit for limit in (reply.cut_after, reply.hang_after) if limit is not None]
        timed = list(zip(frames, waits, strict=False))[: min(limits, default=None)]
        for chunk in filter(None, self._chunks(reply, call, timed, not limits)):  # an empty chunk would end the body
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if limits:
            self._wait(None if reply.cut_after is None else time.monotonic() + waits[len(timed)])
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _chunks(self, reply: Reply, call: int, frames: list[tuple[bytes, float]], complete: bool) -> Iterator[bytes]:
        """Pace the frames, note them, compress them and cut them into HTTP chunks."""
        compress = _compressor(reply.encoding)
        pending, due = b"", time.monotonic()
        for number, (frame, wait) in enumerate(frames):
            self._wait(due := due + wait)
            if reply.before_frame is not None:
                reply.before_frame(number)
            self.server.sent[call - 1].append((time.monotonic_ns(), frame))
            data = compress(frame)
            self.server.bodies[call - 1] += data
            pending += data
            size = reply.split if isinstance(reply.split, int) else 1 if reply.split == "bytes" else len(pending) or 1
            full = len(pending) - len(pending) % size
            yield from (pending[i : i + size] for i in range(0, full, size))
            pending = pending[full:]
        trailer = compress(None) if complete else b""
        self.server.bodies[call - 1] += trailer
        yield pending + trailer

    def _wait(self, due: float | None) -> None:
        """Wait until this time (None: for ever). Raise OSError as soon as the connection closes."""
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if select.select([self.connection], [], [], timeout)[0] and not self.connection.recv(1, socket.MSG_PEEK):
            raise ConnectionResetError("connection closed")

    def _json(self, status: int, value: Json, extra: Mapping[str, str] = COMMON) -> None:
        body = _dumps(value).encode()
        self._head(status, {"content-type": "application/json", "content-length": str(len(body))}, extra)
        self.wfile.write(body)

    def _head(self, status: int, headers: Json, extra: Mapping[str, str] = COMMON) -> None:
        self.send_response_only(status)  # http.server has no reason phrase for a status that it does not know, such as 529
        lines = {"date": self.date_time_string(), **headers, "request-id": self.request_id, **COMMON}
        for name, value in {**lines, **{name.lower(): value for name, value in extra.items()}}.items():
            self.send_header(name, value)
        self.end_headers()


class MessagesServer(socketserver.ThreadingTCPServer):
    """A server that serves a script while entered. It notes frames just before sending them.

    A script function must be thread safe.
    """

    allow_reuse_address = True
    request_queue_size = 128
    handler = _Handler

    def __init__(self, script: Script, port: int = 0, verbose: bool = False) -> None:
        self.script = script
        self.verbose = verbose  # print a line per request on stderr
        self.requests: list[Request] = []  # requests of any kind
        self.routes: dict[tuple[str, str], tuple[str, bytes]] = {}  # (method, path after /v1/) -> content type, body
        self.calls = 0  # requests to /v1/messages
        self.sent: list[list[tuple[int, bytes]]] = []  # per call: (monotonic_ns, frame before any compression)
        self.bodies: list[bytes] = []  # per call: the body on the wire, without the chunk framing
        self.closed_early = 0  # calls during which the client went away
        self.answering = 0
        self.closing = False
        self.lock = threading.Condition()
        self.connections: dict[Any, threading.Thread] = {}
        super().__init__(("127.0.0.1", port), self.handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def wait_idle(self, timeout_s: float = 10.0) -> bool:
        """Wait until no call is in progress. Call it before reading ``closed_early`` and similar fields."""
        with self.lock:
            return self.lock.wait_for(lambda: self.answering == 0, timeout_s)

    def reply(self, call: int, request: Request) -> Reply:
        if callable(self.script):
            return self.script(request)
        if call <= len(self.script):
            return self.script[call - 1]
        return http_error(500, "api_error", f"the script has no reply for call {call}", {"x-should-retry": "false"})

    def __enter__(self) -> MessagesServer:
        self.accepting = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.accepting.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.accepting.join()
        self.server_close()
        with self.lock:
            self.closing = True
            threads = list(self.connections.values())
            for connection in self.connections:
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self.connections.pop(request, None)
            super().shutdown_request(request)


def load_script(path: str | Path) -> list[Reply]:
    """Read a script in the form that the module docstring describes."""
    load: Callable[[str], Any] = json.loads
    if Path(path).suffix in (".yaml", ".yml"):
        from yaml import safe_load as load
    return [_load_reply(item) for item in load(Path(path).read_text("utf-8"))]


def _load_reply(item: str | Json) -> Reply:
    fields: Json = {"blocks": [{"text": item}]} if isinstance(item, str) else dict(item)
    reply = http_error(**fields.pop("http_error")) if "http_error" in fields else Reply()
    if "raw_frames" in fields:
        fields["raw_frames"] = [frame.encode() for frame in fields["raw_frames"]]
    return replace(reply, **fields | {"blocks": [_load_block(*block.items()) for block in fields.get("blocks", ())]})


def _load_block(first: tuple[str, Any], *others: tuple[str, Any]) -> Block:
    makers: list[Callable[..., Block]] = [text, thinking, redacted_thinking, tool_use, raw]
    return {make.__name__: make for make in makers}[first[0]](first[1], **dict(others))


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a script of Messages API replies on 127.0.0.1.")
    parser.add_argument("--script", required=True, help="JSON or YAML list of replies, see the module docstring")
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--print-url", action="store_true", help="print the URL only, no line per request on stderr")
    arguments = parser.parse_args()
    endings = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    with MessagesServer(load_script(arguments.script), arguments.port, not arguments.print_url) as server:
        print(server.url, flush=True)
        signal.sigwait(endings)


if __name__ == "__main__":
    main()
