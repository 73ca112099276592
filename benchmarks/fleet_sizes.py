"""Fleets larger than usual at first: a long run and a long log pulled back from a stream, and a server with many runs.

`EVENTS` and `RUNS` in the environment set other sizes. CPU is that of this process, without the server, which runs on the same
machine.
"""

import asyncio
import os
import time
from contextlib import closing
from pathlib import Path

import nats
from tests.nats import Nats

from benchmarks.append import PAYLOAD
from benchmarks.measure import Row, figure, folder, run
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.pull import Puller
from retold.fleet.ship import Shipper
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog

EVENTS = int(os.environ.get("EVENTS", 1_000_000))
RUNS = int(os.environ.get("RUNS", 200_000))
LONG = 100_000
"""Events of one run. The log has EVENTS in runs of this length."""

AT_ONCE = 500


def _recorded(path: Path) -> EventLog:
    with EventLog(path) as log:
        for number in range(max(EVENTS // LONG, 1)):
            with log.start(name=f"run-{number}", mode="live") as writer:
                for _ in range(0, LONG - 2, 1000):
                    writer.append(*[Entry("frame", PAYLOAD)] * 1000)
    return log


def _pulled(puller: Puller) -> tuple[float, float, int]:
    """Return the seconds and the microseconds of CPU for each event of a pull, and its events."""
    began, cpu = time.perf_counter(), time.process_time()
    events = puller.run().events
    return time.perf_counter() - began, 1e6 * (time.process_time() - cpu) / events, events


async def _keep_runs(server: str, log: str) -> None:
    """Put one short page of this many runs on the stream, many at once."""
    client = await nats.connect(server)
    stream, headers = client.jetstream(timeout=30), {"Retold-First": "0", "Retold-Last": "0", "Retold-Hash": "00" * 32}
    for at in range(0, RUNS, AT_ONCE):
        numbers = range(at, min(at + AT_ONCE, RUNS))
        subjects = [f"retold.{log}.pod.run.{number:016x}" for number in numbers]
        await asyncio.gather(*(stream.publish(subject, b"x" * 100, headers=headers) for subject in subjects))
    await client.close()


def _resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def measure() -> list[Row]:
    """Return the rows."""
    rows = []
    with folder() as home:
        log = _recorded(home / "source.db")
        (home / "many").mkdir()
        (home / "long").mkdir()
        with Nats(home / "long") as server, closing(JetStreamShelf(server.servers, "long", source="a")) as shelf:
            began, cpu = time.perf_counter(), time.process_time()
            shipped = Shipper(log, shelf).run(until_done=True).events
            took, cost = time.perf_counter() - began, 1e6 * (time.process_time() - cpu) / shipped
            rows += [figure(f"ship {shipped:,} events", [took], "s"), figure("ship: CPU of one event", [cost], "us")]
            one = Puller(EventLog(home / "one.db"), shelf, only=log.runs()[-1].run)
            took, cost, events = _pulled(one)
            rows += [figure(f"pull one run of {events:,} events", [took], "s"), figure("its CPU of one event", [cost], "us")]
            took, cost, events = _pulled(Puller(EventLog(home / "mirror.db"), shelf))
            assert events == shipped
            rows += [figure(f"pull {events:,} events into SQLite", [took], "s"), figure("pull: CPU of one event", [cost], "us")]
        with Nats(home / "many") as server, closing(JetStreamShelf(server.servers, "many", source="pod")) as shelf:
            shelf.last("0" * 16)
            empty = _resident_mb(server.pid(0))
            asyncio.run(_keep_runs(server.servers[0], "many"))
            full = _resident_mb(server.pid(0))
            began = time.perf_counter()
            assert shelf.last(f"{RUNS - 1:016x}") is not None
            rows += [
                figure(f"memory of a server with {RUNS:,} runs", [full - empty], "MB more"),
                figure("the last page of one of them", [1000 * (time.perf_counter() - began)], "ms"),
            ]
    return rows


if __name__ == "__main__":
    run("fleet_sizes: a long run, a long log and many runs on a stream", measure)
