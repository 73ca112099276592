"""Servers of retold in this process, raw clients for them, and a child program that sends the given prompts."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retold.recorder.http.exchange import Exchange
from retold.recorder.log.log import EventLog
from retold.recorder.proxy.client_side import Limits
from retold.recorder.proxy.http1 import Answerer, Server
from retold.recorder.proxy.upstream import Upstream
from retold.replay.matching.rules import DEFAULT_RULES
from retold.replay.timing.timing import INSTANT, Timing
from retold.servers.serving import Serving
from retold.settings import Settings
from retold.testing.session import CassetteSession
from tests.clients import NOWHERE, body

CHILD = Path(__file__).parent / "wire_child.py"


def asks(*prompts: str) -> list[str]:
    """Return the command of a child that asks each prompt in turn and prints a line of JSON for each answer."""
    return [sys.executable, "-S", "-E", str(CHILD), *prompts]


@contextlib.contextmanager
def running(make: Callable[[], Answerer], limits: Limits | None = None) -> Iterator[Server]:
    """Run a server in a separate thread. An error that reaches its event loop fails the test."""
    server = Server(make, limits=limits)
    loop = asyncio.new_event_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run(stop.wait())))
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
    assert errors == []


@dataclass
class Wire:
    """A server in this process with one cassette in use, and its log."""

    server: Server
    use: CassetteSession
    serving: Serving
    log: EventLog

    @property
    def url(self) -> str:
        return self.server.url


@contextlib.contextmanager
def wire(
    upstream: str = NOWHERE, *, mode: Any = "rewrite", path: Path | None = None, recorded: list[Exchange] | None = None,
    timing: Timing = INSTANT, faults: tuple[str, ...] = (), limits: Limits | None = None, **settings: Any,
) -> Iterator[Wire]:  # fmt: skip
    """Record the traffic to `upstream`. With mode none, replay `recorded` or the cassette at `path`."""
    with EventLog("wire.db") as log:
        own = Settings(
            timing=timing, rules=DEFAULT_RULES, recordings=log, name="wire", recorded=recorded, stamped="arrival", faults=faults
        )
        use = CassetteSession(path, mode, own)
        serving = Serving({"wire": use}, Upstream.parse(upstream), **settings)
        with running(serving.answerer, limits) as server:
            yield Wire(server, use, serving, log)
        use.close(kept=True)


def request_bytes(prompt: str = "hi", *, head: str = "", path: str = "/v1/messages", **fields: Any) -> bytes:
    """Return a request as bytes. `head` are further header lines, each with its line end."""
    data = json.dumps(body(prompt, **fields)).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def raw(url: str, data: bytes) -> bytes:
    """Return the bytes that arrive until the server closes the connection. Raise OSError if it resets it."""
    with connected(url) as sock:
        sock.sendall(data)
        return rest(sock)


def connected(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=20)


def rest(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@dataclass
class Answer:
    """An answer as a client saw it."""

    status: int
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


def post(
    url: str, prompt: str = "hi", *, path: str = "/v1/messages", headers: dict[str, str] | None = None, **fields: Any
) -> Answer:
    """Send a request over a new connection."""
    connection = http.client.HTTPConnection(urlsplit(url).hostname or "", urlsplit(url).port, timeout=20)
    with contextlib.closing(connection):
        connection.request(
            "POST", path, json.dumps(body(prompt, **fields)), {"content-type": "application/json", **(headers or {})}
        )
        response = connection.getresponse()
        return Answer(response.status, response.reason, dict(response.getheaders()), response.read())


class RawUpstream:
    """Answer each request with fixed bytes, then end the connection as `ending` names."""

    def __init__(self, *answers: bytes, ending: str = "close") -> None:
        self._answers = answers
        self._ending = ending
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.left = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "RawUpstream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(20)

    def _serve(self) -> None:
        for answer in self._answers:
            with self._socket.accept()[0] as connection:
                self.requests.append(connection.recv(1 << 20))
                connection.sendall(answer)
                if self._ending == "reset":
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif self._ending == "wait":
                    while connection.recv(1 << 16):
                        pass
                    self.left.set()
