"""What replay costs, and how true it is to the recording's times.

`instant`: a recorded answer of 2,000 deltas read through the SDK and our transport, against the same bytes from httpx2's own
MockTransport, which is the SDK's floor. `original`: frames 10 ms apart, how late each is handed on, and how far the end has
drifted after 20 s; against bare sleeping to absolute deadlines, at the same time in processes of their own. `load`: a cassette
of 10 MB against vcrpy's load of the same file with its C loader, and the first frame of the same recording from the log.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Row, added, environment, figure, folder, quantile, ratio, rounds, run
from benchmarks.samples import AROUND_DELTAS, HEADERS, arguments, exchange

DELTAS = 2_000
INSTANTS = 25
GAP_NS = 10_000_000
PACED_FRAMES = 2_000
LOADS = 5
CASSETTE_MB = 10
CASSETTE_DELTAS = 1_000


# Instant


def _instant() -> list[Row]:
    import anthropic
    import httpx2

    from retold.replay.matcher import Matcher
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


# Original timing: each of these is a process of its own


def _began_ns(pace: str) -> int:
    """A moment soon, a quarter of a gap apart for each process, so that they do not wake each other's core."""
    return (time.monotonic_ns() // GAP_NS + 20) * GAP_NS + list(PACES).index(pace) * GAP_NS // 4


def _play(began_ns: int) -> list[float]:
    from retold.replay.player import play, timeline_of
    from retold.replay.timing import ORIGINAL

    recorded = exchange(PACED_FRAMES - AROUND_DELTAS, gap_ns=GAP_NS)
    timeline = timeline_of(recorded, ORIGINAL)
    return [_late_us(began_ns, number) for number, _ in enumerate(play(recorded, timeline, began_ns))]


async def _play_async(began_ns: int) -> list[float]:
    from retold.replay.player import play_async, timeline_of
    from retold.replay.timing import ORIGINAL

    recorded = exchange(PACED_FRAMES - AROUND_DELTAS, gap_ns=GAP_NS)
    found: list[float] = []
    async for _ in play_async(recorded, timeline_of(recorded, ORIGINAL), began_ns):
        found.append(_late_us(began_ns, len(found)))
    return found


def _sleep(began_ns: int) -> list[float]:
    found = []
    for number in range(PACED_FRAMES):
        time.sleep(max(0, began_ns + number * GAP_NS - time.monotonic_ns()) / 1e9)
        found.append(_late_us(began_ns, number))
    return found


async def _sleep_async(began_ns: int) -> list[float]:
    found = []
    for number in range(PACED_FRAMES):
        await asyncio.sleep(max(0, began_ns + number * GAP_NS - time.monotonic_ns()) / 1e9)
        found.append(_late_us(began_ns, number))
    return found


def _late_us(began_ns: int, number: int) -> float:
    return (time.monotonic_ns() - began_ns - number * GAP_NS) / 1000


PACES: dict[str, Callable[[int], Any]] = {
    "play": _play, "time.sleep": _sleep, "play_async": _play_async, "asyncio.sleep": _sleep_async,
}  # fmt: skip


def _pace(name: str) -> list[float]:
    """How late each frame was handed on, in microseconds."""
    found = PACES[name](_began_ns(name))
    late: list[float] = asyncio.run(found) if asyncio.iscoroutine(found) else found
    return late


def _original(home: Path) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.replay", "pace"]
    processes = {
        name: subprocess.Popen([*command, name], cwd=ROOT, env=environment(home), stdout=subprocess.PIPE) for name in PACES
    }
    late: dict[str, list[float]] = {name: json.loads(process.communicate()[0]) for name, process in processes.items()}
    rows = []
    for ours, floor in (("play", "time.sleep"), ("play_async", "asyncio.sleep")):
        for share in (0.5, 0.99):
            one, other = quantile(late[ours], share), quantile(late[floor], share)
            rows.append(added(f"original, {ours}, late p{share * 100:.0f}", [one], floor, [other], "us"))
        drift = late[ours][-1] / (PACED_FRAMES * GAP_NS / 1000) * 100
        rows.append(figure(f"original, {ours}, end late after {PACED_FRAMES * GAP_NS / 1e9:.0f} s", [drift], "%", at_most=1))
    return rows


# Loading


def _load(home: Path) -> list[Row]:
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.serializers import yamlserializer

    from retold.recorder.cassette import read_cassette, write_cassette
    from retold.recorder.log import EventLog
    from retold.recorder.transfer import import_exchanges

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
        "log": timed(lambda: next(log.events(imported, kinds=("frame",)))),
    }
    rounds(1, contestants)
    found = rounds(LOADS, contestants)
    log.close()
    size = f"{path.stat().st_size / 1e6:.0f} MB, {number} exchanges"
    return [
        ratio(f"load YAML, {size}", found["ours"], "vcrpy, same file", found["vcrpy"], "ms"),
        ratio("load JSON, the same", found["json"], "vcrpy, YAML", found["vcrpy"], "ms"),
        ratio("first frame from the log, the same", found["log"], "vcrpy, YAML", found["vcrpy"], "ms"),
    ]


def measure() -> list[Row]:
    with folder() as home:
        return _instant() + _original(home) + _load(home)


if __name__ == "__main__":
    if sys.argv[1:2] == ["pace"]:
        print(json.dumps(_pace(sys.argv[2])))
    else:
        run("replay: instant, at the recorded pace, and loading", measure)
