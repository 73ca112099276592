"""The cost of a replay, and its accuracy to the recorded times.

`instant`: a recorded answer of 2,000 deltas read through the SDK and our transport, against the same bytes from httpx2's own
MockTransport, which is the SDK's lower bound. `original`: frames 10 ms apart, the delay of each, and the drift of the end after
20 s. Its peer is bare sleeping to absolute deadlines, at the same time in separate processes. `load`: a cassette of 10 MB
against vcrpy's load of the same file with its C loader, and the first frame of the same recording from the log.
"""

import asyncio
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Row, environment, figure, folder, quantile, ratio, rounds, run
from benchmarks.samples import AROUND_DELTAS, HEADERS, arguments, exchange
from retold.recorder.http.exchange import Exchange
from retold.replay.timing.timing import ORIGINAL, Timeline, play, play_async, timeline_of

DELTAS = 2_000
INSTANTS = 25
GAP_NS = 10_000_000
PACED_NS = 6_000_000_000
STREAMS = {1: GAP_NS, 10: GAP_NS, 100: 5 * GAP_NS}
"""Concurrent streams, and the gap between their frames: up to 2,000 frames a second in all."""

LOADS = 9
FIRSTS = 100
CASSETTE_MB = 10
CASSETTE_DELTAS = 1_000


# Instant


def _instant() -> list[Row]:
    import anthropic
    import httpx2

    from retold.replay.matching.matcher import Matcher
    from retold.replay.transport import ReplayTransport

    recorded = exchange(DELTAS)
    assert recorded.response is not None
    body, reads = recorded.response.body, 2 * (INSTANTS + 2)
    matcher = Matcher([recorded] * reads)

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=list(HEADERS), stream=httpx2.ByteStream(body))

    loop = asyncio.new_event_loop()

    def sync(transport: httpx2.BaseTransport) -> Callable[[], float]:
        client = anthropic.Anthropic(api_key="test-key", http_client=httpx2.Client(transport=transport))

        def once() -> float:
            began = time.perf_counter()
            with client.messages.create(**arguments(), stream=True) as stream:
                assert sum(1 for _ in stream) == DELTAS + AROUND_DELTAS
            return (time.perf_counter() - began) * 1000

        return once

    def asynchronous(transport: httpx2.AsyncBaseTransport) -> Callable[[], float]:
        client = anthropic.AsyncAnthropic(api_key="test-key", http_client=httpx2.AsyncClient(transport=transport))

        async def once() -> float:
            began = time.perf_counter()
            async with await client.messages.create(**arguments(), stream=True) as stream:
                assert len([event async for event in stream]) == DELTAS + AROUND_DELTAS
            return (time.perf_counter() - began) * 1000

        return lambda: loop.run_until_complete(once())

    ours, floor = ReplayTransport(matcher), httpx2.MockTransport(answer)
    rows = []
    for name, reader in (("create", sync), ("async create", asynchronous)):
        contestants = {"ours": reader(ours), "floor": reader(floor)}
        rounds(2, contestants)
        found = rounds(INSTANTS, contestants)
        rows.append(ratio(f"instant, {name}", found["ours"], "MockTransport", found["floor"], "ms", at_most=1.05))
    loop.close()
    return rows


# Original timing: each of these is a separate process


def _play(began_ns: int, gap_ns: int) -> list[float]:
    recorded, timeline = _paced(gap_ns)
    return [_late_us(began_ns + number * gap_ns) for number, _ in enumerate(play(recorded, timeline, began_ns))]


async def _play_async(began_ns: int, gap_ns: int) -> list[float]:
    recorded, timeline = _paced(gap_ns)
    found: list[float] = []
    async for _ in play_async(recorded, timeline, began_ns):
        found.append(_late_us(began_ns + len(found) * gap_ns))
    return found


def _sleep(began_ns: int, gap_ns: int) -> list[float]:
    found = []
    for deadline in _deadlines(began_ns, gap_ns):
        time.sleep(max(0, deadline - time.monotonic_ns()) / 1e9)
        found.append(_late_us(deadline))
    return found


async def _sleep_async(began_ns: int, gap_ns: int) -> list[float]:
    found = []
    for deadline in _deadlines(began_ns, gap_ns):
        await asyncio.sleep(max(0, deadline - time.monotonic_ns()) / 1e9)
        found.append(_late_us(deadline))
    return found


@functools.cache
def _paced(gap_ns: int) -> tuple[Exchange, Timeline]:
    recorded = exchange(PACED_NS // gap_ns - AROUND_DELTAS, gap_ns=gap_ns)
    return recorded, timeline_of(recorded, ORIGINAL)


def _deadlines(began_ns: int, gap_ns: int) -> range:
    return range(began_ns, began_ns + PACED_NS, gap_ns)


def _late_us(deadline_ns: int) -> float:
    return (time.monotonic_ns() - deadline_ns) / 1000


PACES: dict[str, Callable[[int, int], Any]] = {
    "play": _play, "time.sleep": _sleep, "play_async": _play_async, "asyncio.sleep": _sleep_async,
}  # fmt: skip


def _pace(name: str, streams: int) -> list[list[float]]:
    """Return the delay of each frame of each stream, in microseconds. The streams begin evenly over one gap."""
    pace, gap_ns = PACES[name], STREAMS[streams]
    _paced(gap_ns)
    # Begin a moment later. Ours and its peer are half a stream's share apart, so that they do not wake each other's core.
    began_ns = (time.monotonic_ns() // gap_ns + 1) * gap_ns + 300_000_000 + ("sleep" in name) * gap_ns // streams // 2
    begins = [began_ns + gap_ns * number // streams for number in range(streams)]
    if asyncio.iscoroutinefunction(pace):

        async def together() -> list[list[float]]:
            return list(await asyncio.gather(*(pace(begin, gap_ns) for begin in begins)))

        return asyncio.run(together())
    with ThreadPoolExecutor(streams) as threads:
        late: list[list[float]] = list(threads.map(lambda begin: pace(begin, gap_ns), begins))
        return late


def _original(home: Path) -> list[Row]:
    rows = []
    for streams in STREAMS:
        for ours, floor in (("play", "time.sleep"), ("play_async", "asyncio.sleep")):
            late = _late(home, streams, ours, floor)
            every = {name: [us for stream in found for us in stream] for name, found in late.items()}
            name = f"original, {streams} at once, {ours}"
            for share, goal in ((0.5, 500), (0.99, 5000)):
                one, other = (quantile(every[name], share) for name in (ours, floor))
                rows.append(Row(
                    f"{name}, late p{share * 100:.0f}", one, "us", floor, other, one - other, one - other, one - other,
                    is_ratio=False, goal=f"<= {goal} us late", met=one <= goal,
                ))  # fmt: skip
            ends = [stream[-1] / 1000 for stream in late[ours]]
            rows.append(figure(f"{name}, end late after {PACED_NS / 1e9:.0f} s", ends, "ms", at_most=1))
    return rows


def _late(home: Path, streams: int, *names: str) -> dict[str, list[list[float]]]:
    """Return `_pace` of each, run at the same time in separate processes."""
    command = [sys.executable, "-m", "benchmarks.replay", "pace"]
    processes = {
        name: subprocess.Popen([*command, name, str(streams)], cwd=ROOT, env=environment(home), stdout=subprocess.PIPE)
        for name in names
    }
    return {name: json.loads(process.communicate()[0]) for name, process in processes.items()}


# Loading


def _load(home: Path) -> list[Row]:
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.serializers import yamlserializer

    from retold.recorder.cassette.format import read_cassette, write_cassette
    from retold.recorder.cassette.transfer import import_exchanges
    from retold.recorder.log.log import EventLog

    one = exchange(CASSETTE_DELTAS)
    assert one.response is not None
    number = CASSETTE_MB * 1_000_000 // len(one.response.body)
    exchanges = [exchange(CASSETTE_DELTAS, gap_ns=GAP_NS, answer=answer) for answer in range(number)]
    path, log = home / "large.yaml", EventLog(home / "log.db")
    write_cassette(path, exchanges)
    write_cassette(path.with_suffix(".json"), exchanges)
    imported = import_exchanges(log, exchanges, name="large", source=str(path))

    def timed(load: Callable[[], Any]) -> Callable[[], float]:
        def once() -> float:
            began = time.perf_counter()
            load()
            return (time.perf_counter() - began) * 1000

        return once

    contestants = {
        "ours": timed(lambda: read_cassette(path)),
        "json": timed(lambda: read_cassette(path.with_suffix(".json"))),
        "vcrpy": timed(lambda: FilesystemPersister.load_cassette(path, yamlserializer)),
    }
    rounds(1, contestants)
    found = rounds(LOADS, contestants)
    # By itself: after a load of 10 MB the caches of the processor hold nothing of the log.
    first = {"log": timed(lambda: next(log.events(imported, kinds=("frame",))))}
    rounds(1, first)
    found |= rounds(FIRSTS, first)
    log.close()
    size = f"{path.stat().st_size / 1e6:.0f} MB, {number} exchanges"
    return [
        ratio(f"load YAML, {size}", found["ours"], "vcrpy, same file", found["vcrpy"], "ms", at_most=1),
        ratio("load JSON, the same", found["json"], "vcrpy, YAML", found["vcrpy"], "ms"),
        figure("first frame from the log, the same", found["log"], "ms", at_most=1),
    ]


def measure() -> list[Row]:
    with folder() as home:
        return _instant() + _original(home) + _load(home)


if __name__ == "__main__":
    if sys.argv[1:2] == ["pace"]:
        print(json.dumps(_pace(sys.argv[2], int(sys.argv[3]))))
    else:
        run("replay: instant, at the recorded pace, and loading", measure)
