"""The cost of recording a live stream: the anthropic client on loopback, plain and recorded by the tee, turn by turn.

The server runs in a separate process. `flood` is 2,000 deltas at full speed, each in its own chunk. It shows the remaining
share of the plain client's throughput if every event is committed before the client sees it. `paced` is one delta per
millisecond. It shows the additional delay of an event, from the server's clock to ours. `first` is the time from the call to
its first event. The log is on a disk, with its default durability. `read from a socket` is the same flood without any client,
as the server's own limit.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import anthropic
from tests.messages_server import Reply, text

from benchmarks.measure import Row, added, figure, folder, quantile, ratio, rounds, run
from benchmarks.samples import arguments
from benchmarks.server import Server, serving
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.http.patching import intercepted
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.secrets.redactor import Redactor

DELTAS = 2_000
FLOODS = 9
PACED = 4
FIRSTS = 40

_TEXT = text("word " * (DELTAS * 8 // 5), pieces=8)
REPLIES = {
    "flood": Reply([_TEXT]),
    "paced": Reply([_TEXT], gap_s=0.001),
    "first": Reply([text("Hello, world.", pieces=4)]),
}


@contextmanager
def _recorded(writer: RunWriter) -> Iterator[None]:
    """Record every request of this context, as a live run does."""
    redactor = Redactor(extra=["test-key"])

    def begin(request: Request) -> Capture:
        return Capture(writer, request, redactor=redactor)

    with intercepted(Recorder(begin)):
        yield


class Clients:
    """The SDK's ways to read a stream. Each returns the time of every event, in nanoseconds of the monotonic clock."""

    def __init__(self, url: str) -> None:
        self.sync = anthropic.Anthropic(base_url=url, api_key="test-key", max_retries=0)
        self.loop = asyncio.new_event_loop()
        self.asynchronous = anthropic.AsyncAnthropic(base_url=url, api_key="test-key", max_retries=0)

    def create(self, model: str) -> list[int]:
        with self.sync.messages.create(**arguments(model=model), stream=True) as stream:
            return [time.monotonic_ns() for _ in stream]

    def create_async(self, model: str) -> list[int]:
        return self.loop.run_until_complete(self._create_async(model))

    async def _create_async(self, model: str) -> list[int]:
        async with await self.asynchronous.messages.create(**arguments(model=model), stream=True) as stream:
            return [time.monotonic_ns() async for _ in stream]

    def stream(self, model: str) -> list[int]:
        with self.sync.messages.stream(**arguments(model=model)) as stream:
            return [time.monotonic_ns() for _ in stream]

    def close(self) -> None:
        self.sync.close()
        self.loop.run_until_complete(self.asynchronous.close())
        self.loop.close()


Read = Callable[[str], list[int]]


def _pair(writer: RunWriter, once: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    def in_context(recorded: bool) -> Any:
        with _recorded(writer) if recorded else nullcontext():
            return once()

    return {"recorded": lambda: in_context(True), "plain": lambda: in_context(False)}


def _flood(writer: RunWriter, name: str, read: Read) -> Row:
    def deltas_per_s() -> float:
        began = time.monotonic_ns()
        return DELTAS / (read("flood")[-1] - began) * 1e9

    found = rounds(FLOODS, _pair(writer, deltas_per_s))
    return ratio(f"flood, {name}", found["recorded"], "plain", found["plain"], "deltas/s", at_least=0.85)


def _socket_floor(url: str) -> float:
    """Return the deltas per second without a client: the limit of the server."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = b'{"model":"flood","stream":true}'
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        began = time.monotonic_ns()
        connection.sendall(head.encode() + body)
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            tail = (tail + connection.recv(65536))[-65536:]
        return DELTAS / (time.monotonic_ns() - began) * 1e9


def _paced(server: Server, writer: RunWriter, name: str, read: Read) -> list[Row]:
    def latencies_ms() -> list[float]:
        arrived = read("paced")
        sent = server.sent_ns()
        assert len(arrived) >= len(sent)
        return [(at - from_ns) / 1e6 for at, from_ns in zip(arrived, sent, strict=False)]

    found = rounds(PACED, _pair(writer, latencies_ms))
    rows = []
    for share, limit in ((0.5, 0.1), (0.99, 3.0)):
        recorded, plain = ([quantile(samples, share) for samples in found[which]] for which in ("recorded", "plain"))
        rows.append(added(f"paced 1 ms, {name}, p{share * 100:.0f}", recorded, "plain", plain, "ms", at_most=limit))
    return rows


def _first(writer: RunWriter, name: str, read: Read) -> Row:
    def first_ms() -> float:
        began = time.monotonic_ns()
        return (read("first")[0] - began) / 1e6

    found = rounds(FIRSTS, _pair(writer, first_ms))
    return added(f"first event, {name}", found["recorded"], "plain", found["plain"], "ms", at_most=3)


def measure() -> list[Row]:
    rows = []
    with (
        folder() as home, serving(REPLIES) as server, EventLog(home / "log.db") as log,
        log.start(name="stream", mode="live") as writer,
    ):  # fmt: skip
        clients = Clients(server.url)
        ways: dict[str, Read] = {"create": clients.create, "async create": clients.create_async, "stream": clients.stream}
        for read in ways.values():  # imports, connections, the SDK's own caches
            with _recorded(writer):
                read("flood")
        rows.append(figure("flood, read from a socket", [_socket_floor(server.url) for _ in range(5)], "deltas/s"))
        rows += [_flood(writer, name, read) for name, read in ways.items()]
        rows += _paced(server, writer, "create", clients.create)
        rows += [_first(writer, name, ways[name]) for name in ("create", "async create")]
        clients.close()
    return rows


if __name__ == "__main__":
    run(f"stream: the SDK on loopback, recorded and plain, {DELTAS:,} deltas", measure)
