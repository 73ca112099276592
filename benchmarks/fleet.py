"""The cost of a log on other machines: shipping to a stream of a real NATS server, and pulling it into a mirror.

The peer in the same round is the same work on a shelf in memory, so the difference is the network and the server, which runs on
the same machine. CPU is that of this process, without the server. Idle is a shipper and a following puller without events. The
median of an append is that of this process, while `retold ship` ships its log. Its peer is a log that is not shipped.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.nats import Nats

from benchmarks.append import PAYLOAD
from benchmarks.measure import Row, figure, folder, ratio, rounds, run
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.memory import MemoryShelf
from retold.fleet.pull import Puller
from retold.fleet.shelf import Shelf
from retold.fleet.ship import Shipper
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog

RUNS, EVENTS, ROUNDS = 8, 2_500, 3
APPENDS, IDLE_S = 150, 5.0
PACED, PACED_ROUNDS = 400, 5

Timed = tuple[float, float]
"""Events per second, and microseconds of CPU for each."""


def _timed(work: Callable[[], object]) -> Timed:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    events = RUNS * EVENTS
    return events / (time.perf_counter() - began), 1e6 * (time.process_time() - cpu) / events


def _recorded(path: Path) -> EventLog:
    with EventLog(path) as log:
        for number in range(RUNS):
            with log.start(name=f"run-{number}", mode="live") as writer:
                writer.append(*[Entry("frame", PAYLOAD)] * (EVENTS - 2))
    return log


def _there_and_back(log: EventLog, shelf: Shelf, mirror: EventLog) -> tuple[Timed, Timed]:
    """Ship the log, and pull it into a new mirror."""
    shipped, pulled = Shipper(log, shelf), Puller(mirror, shelf)
    found = _timed(lambda: shipped.run(until_done=True)), _timed(pulled.run)
    assert (shipped.shipped.events, pulled.pulled.events) == (RUNS * EVENTS, RUNS * EVENTS)
    return found


@contextmanager
def _following(log: EventLog, shelf: Shelf, mirror: EventLog, seen: Callable[[Any], None]) -> Iterator[None]:
    """Ship and pull in threads."""
    shipper, puller = Shipper(log, shelf), Puller(mirror, shelf, seen=seen)
    threads = [threading.Thread(target=shipper.run), threading.Thread(target=puller.run, kwargs={"follow": True})]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        shipper.stop()
        puller.stop()
        for thread in threads:
            thread.join()


def _follow(log: EventLog, shelf: Shelf, mirror: EventLog) -> tuple[float, float]:
    """Return the median of milliseconds from an append to the mirror, and the percent of a core of an idle fleet."""
    arrived, took, waited = threading.Semaphore(0), [], 30
    with _following(log, shelf, mirror, lambda _: arrived.release()), log.start(name="followed", mode="live") as writer:
        assert arrived.acquire(timeout=waited)
        for _ in range(APPENDS):
            began = time.perf_counter()
            writer.append(Entry("frame", PAYLOAD))
            assert arrived.acquire(timeout=waited)
            took.append(1000 * (time.perf_counter() - began))
        cpu = time.process_time()
        time.sleep(IDLE_S)
        idle = 100 * (time.process_time() - cpu) / IDLE_S
    return sorted(took)[len(took) // 2], idle


def _append_p50(path: Path, number: int) -> float:
    """Return the median of microseconds of an append, at the pace of a stream."""
    took = []
    with EventLog(path) as log, log.start(name=f"paced-{number}", mode="live") as writer:
        for _ in range(PACED):
            time.sleep(0.002)
            began = time.perf_counter()
            writer.append(Entry("frame", PAYLOAD))
            took.append(1e6 * (time.perf_counter() - began))
    return sorted(took)[len(took) // 2]


@contextmanager
def _sidecar(path: Path, server: Nats) -> Iterator[None]:
    """Ship a log by `retold ship`, as a separate process."""
    to = f"{server.servers[0]}/sidecar"
    command = [sys.executable, "-m", "retold", "ship", "--to", to, "--db", str(path), "--source", "a"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            yield
        finally:
            child.kill()


def _beside_a_shipper(home: Path, server: Nats) -> list[Row]:
    """Return the rows of a recorder with a shipped log, and of one with a server that does not answer."""
    alone, shipped, numbers = home / "alone.db", home / "shipped.db", count()

    def hurt() -> float:
        server.kill(0, signal.SIGSTOP)
        try:
            return _append_p50(shipped, next(numbers))
        finally:
            server.kill(0, signal.SIGCONT)

    with _sidecar(shipped, server), closing(JetStreamShelf(server.servers, "sidecar", source="a")) as shelf:
        run = _append_once(shipped)
        while shelf.last(run) is None:
            time.sleep(0.02)
        found = rounds(
            PACED_ROUNDS,
            {
                "alone": lambda: _append_p50(alone, next(numbers)),
                "shipped": lambda: _append_p50(shipped, next(numbers)),
                "hurt": hurt,
            },
        )
    return [
        ratio("append p50, shipped by a sidecar", found["shipped"], "not shipped", found["alone"], "us"),
        ratio("append p50, the server stopped", found["hurt"], "not shipped", found["alone"], "us"),
    ]


def _append_once(path: Path) -> str:
    with EventLog(path) as log, log.start(name="first", mode="live") as writer:
        return writer.run


def measure() -> list[Row]:
    """Return the rows."""
    with folder() as home, Nats(home) as server:
        log, numbers = _recorded(home / "source.db"), count()

        def mirror() -> EventLog:
            return EventLog(home / f"mirror-{next(numbers)}.db")

        def on_nats() -> tuple[Timed, Timed]:
            with closing(JetStreamShelf(server.servers, f"bench-{next(numbers)}", source="a")) as shelf:
                return _there_and_back(log, shelf, mirror())

        found = rounds(ROUNDS, {"ours": on_nats, "memory": lambda: _there_and_back(log, MemoryShelf("a"), mirror())})
        rows = []
        for place, name in enumerate(("ship", "pull")):
            for part, unit, what in ((0, "/s", "events a second"), (1, "us", "CPU of one event")):
                ours, theirs = ([each[place][part] for each in found[which]] for which in ("ours", "memory"))
                rows.append(ratio(f"{name}: {what}", ours, "a shelf in memory", theirs, unit))
        with closing(JetStreamShelf(server.servers, "followed", source="a")) as shelf:
            median, idle = _follow(EventLog(home / "followed.db"), shelf, mirror())
        beside = _beside_a_shipper(home, server)
        return [
            *rows,
            *beside,
            figure("append to follower, p50", [median], "ms"),
            figure("idle, of a core", [idle], "%", at_most=2),
        ]


if __name__ == "__main__":
    run(f"fleet: {RUNS * EVENTS:,} events of 400 bytes to another machine and back", measure)
