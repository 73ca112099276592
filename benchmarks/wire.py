"""The accuracy of the servers to a recording's pace, and the delay that the proxy adds.

`gaps`: 66 frames at irregular intervals from `retold serve --timing original`, against the same stream from the tests' plain
server, with that server's own jitter on this machine. `streams`: 100 of them at once. `proxy`: the first frame of an answer
through `retold proxy` and directly. The client is a bare socket, in this process.
"""

import asyncio
import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tests.messages_server import Reply

from benchmarks.measure import Row, added, figure, folder, quantile, rounds, run
from benchmarks.samples import AROUND_DELTAS, MODEL, exchange
from benchmarks.server import serving
from retold.recorder.cassette.format import write_cassette
from retold.recorder.http.exchange import Exchange

FRAMES = 66
STREAMS = 100
ROUNDS = 3
FIRSTS = 40
GAPS_MS = (1, 4, 20, 50, 120, 300)


def _irregular(answer: int) -> Exchange:
    """Return a stream of 66 frames with irregular intervals like a real one."""
    recorded = exchange(FRAMES - AROUND_DELTAS, answer=answer)
    assert recorded.response is not None
    chance = random.Random(answer)
    offsets = itertools.accumulate(int(chance.choice(GAPS_MS) * chance.uniform(0.5, 1.5) * 1e6) for _ in range(FRAMES))
    pieces = tuple(piece._replace(offset_ns=offset) for piece, offset in zip(recorded.response.pieces, offsets, strict=True))
    response = replace(recorded.response, pieces=pieces, first_ns=pieces[0].offset_ns)
    return replace(recorded, response=response, ended_ns=pieces[-1].offset_ns)


@contextmanager
def retold(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a serving command of retold. Yield its URL."""
    command = [sys.executable, "-m", "retold", *map(str, arguments)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield server, server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def request(body: bytes) -> bytes:
    head = f"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _arrivals(url: str, body: bytes) -> list[int]:
    """Return the arrival time of each frame, in nanoseconds of the monotonic clock after the request was sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        client.sendall(request(body))
        began, seen, tail, found = time.monotonic_ns(), 0, b"", []
        while data := client.recv(65536):
            now = time.monotonic_ns() - began
            tail += data
            seen, before = tail.count(b"}\n\n"), seen
            found += [now] * (seen - before)
    return found


def _gap_errors(arrivals: list[int], recorded: Exchange) -> list[float]:
    assert recorded.response is not None
    offsets = [piece.offset_ns for piece in recorded.response.pieces]
    gaps = [[b - a for a, b in itertools.pairwise(times)] for times in (arrivals, offsets)]
    return [abs(one - other) / 1e6 for one, other in zip(*gaps, strict=True)]


def _gaps(home: Path) -> list[Row]:
    recorded = _irregular(1)
    assert recorded.response is not None
    offsets = [piece.offset_ns / 1e9 for piece in recorded.response.pieces]
    frames = [piece.data for piece in recorded.response.pieces]
    plain = Reply(raw_frames=frames, first_gap_s=offsets[0], gap_s=[b - a for a, b in itertools.pairwise(offsets)])
    write_cassette(home / "gaps.json", [recorded])
    body = recorded.request.body
    with serving({MODEL: plain}) as server, retold("serve", home / "gaps.json", "--timing", "original", "--repeat") as (_, url):
        found = rounds(
            ROUNDS,
            {
                "ours": lambda: _gap_errors(_arrivals(url, body), recorded),
                "plain": lambda: _gap_errors(_arrivals(server.url, body), recorded),
            },
        )
    what = f"gap error of {FRAMES} irregular frames"
    return [
        added(f"{what}, {name}", [quantile(e, share) for e in found["ours"]], "a plain server",
              [quantile(e, share) for e in found["plain"]], "ms", at_most=goal)
        for name, share, goal in (("median", 0.5, 1.0), ("p99", 0.99, 10.0))
    ]  # fmt: skip


async def _ended(url: str, recorded: Exchange, wait_s: float) -> float:
    """Return the error of a stream's end against its recording, in percent."""
    await asyncio.sleep(wait_s)
    address = urlsplit(url)
    began = time.monotonic_ns()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request(recorded.request.body))
    while await reader.read(65536):
        pass
    writer.close()
    return abs((time.monotonic_ns() - began) / recorded.ended_ns - 1) * 100


def _streams(home: Path) -> list[Row]:
    recorded = [_irregular(answer) for answer in range(1, STREAMS + 1)]
    write_cassette(home / "streams.json", recorded)

    async def all_of(url: str) -> list[float]:
        return await asyncio.gather(*(_ended(url, each, number * 0.01) for number, each in enumerate(recorded)))

    with retold("serve", home / "streams.json", "--timing", "original") as (server, url):
        before, began = cpu_s(server.pid), time.monotonic()
        errors = asyncio.run(all_of(url))
        share = (cpu_s(server.pid) - before) / (time.monotonic() - began) * 100
        peak = _peak_mb(server.pid)
    what = f"{STREAMS} streams at once"
    return [
        figure(f"{what}: end against the recording, worst", [max(errors)], "%", at_most=1.0),
        figure(f"{what}: CPU of the server", [share], "% of a core"),
        figure(f"{what}: peak memory of the server", [peak], "MB"),
    ]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _proxy(home: Path) -> list[Row]:
    recorded = exchange(20)
    assert recorded.response is not None
    reply = Reply(raw_frames=[piece.data for piece in recorded.response.pieces], gap_s=0.002)
    with serving({MODEL: reply}) as server, retold("proxy", "--upstream", server.url, "--db", home / "log.db") as (_, url):
        found = rounds(
            FIRSTS,
            {
                "ours": lambda: _arrivals(url, recorded.request.body)[0] / 1e6,
                "direct": lambda: _arrivals(server.url, recorded.request.body)[0] / 1e6,
            },
        )
    return [added("first frame through the recording proxy", found["ours"], "direct", found["direct"], "ms", at_most=5.0)]


def measure() -> list[Row]:
    with folder() as home:
        return [*_gaps(home), *_streams(home), *_proxy(home)]


if __name__ == "__main__":
    run("The servers", measure)
