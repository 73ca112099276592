"""Many concurrent live streams through the recording proxy: 20 frames a second each, alternately with and without the proxy.

Each frame has the server's time of sending, and its delay lasts until the client's time of receiving. All processes of a
machine share that clock. Server, proxy and clients are separate processes, so only a machine with at least three cores shows
the delay of the proxy alone. Streams begin spread over one second, like those of independent users. CPU is that of all
processes of the proxy.
"""

import asyncio
import multiprocessing
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from benchmarks.measure import Row, added, figure, folder, quantile, ratio, run
from benchmarks.samples import MODEL
from benchmarks.wire import cpu_s, request, retold

FRAMES_PER_S = 20
SECONDS = 5
SETTLE_S = 1.0
ROUNDS = 3
LOADS = ((200, 1), (200, 2), (400, 1), (400, 2))
"""The numbers of streams and of processes of the proxy."""

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
)
_SENT = re.compile(rb'"text":"(\d{19,})"')
_OPENING = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"'
    + MODEL.encode()
    + b'","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
_CLOSING = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
    b'"usage":{"output_tokens":9}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Stream(asyncio.Protocol):
    """The server's side: one answer of frames, each with its time of sending."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._left = FRAMES_PER_S * SECONDS

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:  # the body is small and arrives with the head
            self._transport.write(_HEAD + _chunk(_OPENING))
            self._next_s = self._loop.time()
            self._send()

    def _send(self) -> None:
        if self._left == 0:
            self._transport.write(_chunk(_CLOSING) + b"0\r\n\r\n")
            self._transport.close()
            return
        self._left -= 1
        self._transport.write(_chunk(_DELTA % b"%020d" % time.monotonic_ns()))
        self._next_s += 1 / FRAMES_PER_S
        self._loop.call_at(self._next_s, self._send)


def _serve(pipe: Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Stream, "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(pipe.recv)

    asyncio.run(main())


@contextmanager
def _server() -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        ours.send("stop")
        process.join(10)


class _Reader(asyncio.Protocol):
    """The client's side. It notes the delay of each frame, in nanoseconds."""

    def __init__(self, body: bytes, delays: list[int]) -> None:
        self._body = body
        self._delays = delays
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(request(self._body))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._delays += [now - int(sent) for sent in _SENT.findall(data)]

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - a parameter of asyncio's protocol
        if not self.done.done():
            self.done.set_result(None)


async def _streams(url: str, streams: int) -> list[int]:
    address, delays = urlsplit(url), list[int]()
    chance = random.Random(streams)

    async def stream(number: int) -> None:
        await asyncio.sleep(chance.random())
        body = b'{"model":"%b","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"%d"}]}' % (
            MODEL.encode(),
            number,
        )
        _, reader = await asyncio.get_running_loop().create_connection(
            lambda: _Reader(body, delays), address.hostname or "", address.port or 0
        )
        await reader.done

    await asyncio.gather(*map(stream, range(streams)))
    assert len(delays) == streams * FRAMES_PER_S * SECONDS, f"{len(delays)} frames came"
    return delays


def _measured(url: str, streams: int) -> list[float]:
    """Return the delays of all frames, in ms."""
    return [delay / 1e6 for delay in asyncio.run(_streams(url, streams))]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _load(upstream: str, home: Path, streams: int, processes: int) -> list[Row]:
    arguments = ["--processes", str(processes)] if processes > 1 else []
    log = home / f"log-{streams}-{processes}.db"
    direct, proxied, cpu_ms = list[list[float]](), list[list[float]](), list[float]()
    with retold("proxy", "--upstream", upstream, "--db", log, *arguments) as (proxy, url):
        _measured(url, 20)  # imports, the first connections
        for _ in range(ROUNDS):
            direct.append(_measured(upstream, streams))
            pids = [proxy.pid, *_children(proxy.pid)]
            before = sum(map(cpu_s, pids))
            proxied.append(_measured(url, streams))
            cpu_ms.append((sum(map(cpu_s, pids)) - before) * 1000 / len(proxied[-1]))
            time.sleep(SETTLE_S)
    what = f"{streams} streams, {processes} {'process' if processes == 1 else 'processes'}"
    p50, p99 = ([[quantile(each, share) for each in side] for side in (proxied, direct)] for share in (0.5, 0.99))
    is_goal = streams == 200
    return [
        added(f"{what}: delay of a frame, p50", p50[0], "direct", p50[1], "ms"),
        ratio(f"{what}: delay of a frame, p99", p99[0], "direct", p99[1], "ms", at_most=2.0 if is_goal else None),
        figure(f"{what}: CPU of the proxy", cpu_ms, "ms a frame", at_most=0.12 if is_goal else None),
    ]


def measure() -> list[Row]:
    with folder() as home, _server() as upstream:
        return [row for streams, processes in LOADS for row in _load(upstream, home, streams, processes)]


if __name__ == "__main__":
    run(
        f"load: live streams of {FRAMES_PER_S} frames a second for {SECONDS} s, directly and through the recording proxy", measure
    )
