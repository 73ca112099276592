"""Inject repeatable faults into a fleet: `python -m tests.fleet_faults` records in pods and attacks everything beyond them.

Each pod is a process that records runs into its own log, at a steady pace. Two shipper processes of each log ship to a stream
on three nodes, and two mirrors follow the stream. Meanwhile the leader is killed and comes back, a leader stops for some
seconds, a shipper is killed and replaced, and all nodes are killed and stay away for a while. Then every event must be in both
mirrors once, in order, with the same bytes as in its log and with correct chains. No page may overlap another one on the
stream.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nats
import nats.errors

from retold.audit.verify import verify
from retold.fleet.jetstream import JetStreamShelf
from retold.fleet.pull import Puller
from retold.fleet.shelf import Unreachable
from retold.fleet.ship import Shipper
from retold.recorder.errors import ShelfError
from retold.recorder.event_lines import line_of
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from tests.children import wait_until
from tests.faults import forked
from tests.nats import Nats

LOG = "faults"


@dataclass(frozen=True)
class Size:
    """The size of a fleet: pods, events of each pod, events of each run, the pace, and the duration of each fault."""

    pods: int = 4
    events: int = 20_000
    run: int = 5_000
    per_s: float = 450
    calm_s: float = 4
    stopped_s: float = 6
    away_s: float = 30


@dataclass
class Outcome:
    """The results of a run: events in each mirror, pages on the stream, and the median of an append in µs without and with
    faults."""

    events: list[int] = field(default_factory=list)
    pages: int = 0
    calm_us: float = 0
    hurt_us: float = 0


def record(path: Path, size: Size, times: Path) -> None:
    """Record the runs of one pod. Write the time of each append and its duration in seconds."""
    took: list[tuple[float, float]] = []
    began, made = time.monotonic(), 0
    with EventLog(path) as log:
        while made < size.events:
            with log.start(name=f"{path.stem}-{made}", mode="live") as writer:
                for _ in range(min(size.run, size.events - made) - 2):
                    before = time.monotonic()
                    writer.append(Entry("frame", b"data: %d of %s %s\n\n" % (made, path.stem.encode(), b"x" * 300)))
                    took.append((before, time.monotonic() - before))
                    made += 1
                    time.sleep(max(0.0, began + made / size.per_s - time.monotonic()))
            made += 2
    times.write_text(json.dumps(took))


def ship(path: Path, servers: list[str], go: Path | None = None) -> None:
    """Ship the log of one pod until SIGTERM, starting when the file `go` exists."""
    while go is not None and not go.exists():
        time.sleep(0.02)
    shipper = Shipper(EventLog(path), JetStreamShelf(servers, LOG, source=path.stem), look_again_s=3)
    signal.signal(signal.SIGTERM, lambda *_: shipper.stop())
    shipper.run()
    assert shipper.shipped.forked == {}


@contextmanager
def following(mirror: Path, servers: list[str]) -> Iterator[Callable[[], int]]:
    """Pull into a mirror in a thread. Yield a function that returns the number of pulled events, or raises the thread's error."""
    with closing(JetStreamShelf(servers, LOG, source="reader")) as shelf:
        puller = Puller(EventLog(mirror), shelf)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                puller.run(follow=True)
            except BaseException as error:
                failed.append(error)

        def pulled() -> int:
            for error in failed:
                raise error
            return puller.pulled.events

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield pulled
        finally:
            puller.stop()
            thread.join()
        for error in failed:
            raise error


def leader(servers: list[str]) -> int:
    """Return the number of the stream's leader."""

    async def ask() -> int:
        client = await nats.connect(servers, connect_timeout=2)
        try:
            info = await client.jetstream(timeout=5).stream_info(f"retold-{LOG}")
            if info.cluster is None or not info.cluster.leader:
                raise TimeoutError
            return int(info.cluster.leader.removeprefix("n"))
        finally:
            await client.close()

    deadline = time.monotonic() + 60
    while True:  # without a leader the nodes do not answer
        try:
            return asyncio.run(ask())
        except (nats.errors.Error, TimeoutError, OSError):
            assert time.monotonic() < deadline, "no leader"


class Fleet:
    """The processes of one run."""

    def __init__(self, folder: Path, size: Size, cluster: Nats, report: Callable[[str], None]) -> None:
        self.size = size
        self.cluster = cluster
        self.report = report
        self.logs = [folder / f"pod-{number}.db" for number in range(size.pods)]
        self.times = [folder / f"pod-{number}.json" for number in range(size.pods)]
        self.go = folder / "go"
        self.pods: list[int] = []
        self.shippers: list[tuple[Path, int]] = []

    def begin(self) -> None:
        """Start the pods and two shippers for each."""
        self.pods = [forked(partial(record, log, self.size, times)) for log, times in zip(self.logs, self.times, strict=True)]
        servers = self.cluster.servers
        self.shippers = [(log, forked(partial(ship, log, servers))) for log in self.logs for _ in range(2)]
        # Later this process has threads, and should not fork any more.
        self.shippers.append((self.logs[0], forked(partial(ship, self.logs[0], servers, self.go))))

    def hurt(self) -> tuple[float, float]:
        """Inject all faults. Return the times of their begin and end."""
        calm = partial(time.sleep, self.size.calm_s)
        calm()
        began = time.monotonic()
        self.cluster.kill(killed := leader(self.cluster.servers))
        self.report(f"killed the leader, node {killed}")
        calm()
        _, child = self.shippers.pop(0)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        self.go.touch()
        self.cluster.start([killed])
        self.report("killed a shipper; another one and the node began")
        calm()
        self.cluster.kill(stopped := leader(self.cluster.servers), signal.SIGSTOP)
        time.sleep(self.size.stopped_s)
        self.cluster.kill(stopped, signal.SIGCONT)
        self.report(f"node {stopped}, the leader, stopped for {self.size.stopped_s} s")
        calm()
        for number in range(self.cluster.nodes):
            self.cluster.kill(number)
        time.sleep(self.size.away_s)
        self.cluster.start()
        self.report(f"all nodes were away for {self.size.away_s} s")
        return began, time.monotonic()

    def end(self) -> None:
        """Wait for the pods, then end the shippers. All must exit with code 0."""
        assert [os.waitpid(child, 0)[1] for child in self.pods] == [0] * len(self.pods)
        self.pods = []

    def stop(self) -> None:
        """Let the shippers end."""
        for _, child in self.shippers:
            os.kill(child, signal.SIGTERM)
        assert [os.waitpid(child, 0)[1] for _, child in self.shippers] == [0] * len(self.shippers)
        self.shippers = []

    def kill(self) -> None:
        """Kill the processes that a failure left."""
        for child in [*self.pods, *(child for _, child in self.shippers)]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def lines(log: EventLog) -> dict[str, bytes]:
    """Return the runs of a log in the form of `retold export --format jsonl`."""
    return {info.run: b"".join(map(line_of, log.events(info.run))) for info in log.runs()}


def hurt(size: Size, write: Callable[[str], None] = print) -> Outcome:
    """Run one fleet through all faults. Raise AssertionError if a mirror differs from the logs."""
    folder = Path(tempfile.mkdtemp(prefix="retold-fleet-"))
    outcome, began = Outcome(), time.monotonic()

    def report(text: str) -> None:
        write(f"{time.monotonic() - began:6.1f} s: {text}")

    try:
        with ExitStack() as stack:
            cluster = stack.enter_context(Nats(folder, 3))
            wait_until(lambda: _is_ready(cluster.servers), seconds=60)
            fleet = Fleet(folder, size, cluster, report)
            stack.callback(fleet.kill)
            fleet.begin()
            mirrors = [folder / f"mirror-{number}.db" for number in range(2)]
            pullers = [stack.enter_context(following(mirror, cluster.servers)) for mirror in mirrors]
            span = fleet.hurt()
            fleet.end()
            report("all pods have recorded")
            total = size.pods * size.events
            wait_until(lambda: all(pulled() >= total for pulled in pullers), seconds=180)
            report("both mirrors have every event")
            fleet.stop()
            wait_until(lambda: _count_pages(cluster.servers, outcome), seconds=60)
        _check(fleet.logs, mirrors, size, outcome)
        _time(fleet.times, span, outcome)
        return outcome
    finally:
        shutil.rmtree(folder)


def _is_ready(servers: list[str]) -> bool:
    """Create the stream, as soon as the cluster has a leader."""
    with closing(JetStreamShelf(servers, LOG, source="first")) as shelf:
        try:
            return shelf.last("0" * 16) is None
        except ShelfError:
            return False


def _check(logs: list[Path], mirrors: list[Path], size: Size, outcome: Outcome) -> None:
    """Compare both mirrors with all logs, byte for byte."""
    recorded: dict[str, bytes] = {}
    for path in logs:
        recorded |= lines(EventLog(path))
    for mirror in mirrors:
        report = verify(EventLog(mirror))
        assert (report.findings, report.events) == ([], size.pods * size.events)
        assert lines(EventLog(mirror)) == recorded, "a mirror differs from the logs"
        outcome.events.append(report.events)


def _count_pages(servers: list[str], outcome: Outcome) -> bool:
    """Count the pages on the stream, and check that each follows the page before it in its run.

    Return whether the nodes answered.
    """
    ends, outcome.pages = dict[str, int](), 0
    with closing(JetStreamShelf(servers, LOG, source="reader")) as shelf:
        try:
            for batch in shelf.pages():
                for got in batch:
                    assert got.page.first == ends.get(got.page.run, -1) + 1, (
                        f"{got.page!r} overlaps another page, or leaves a gap"
                    )
                    ends[got.page.run] = got.page.last
                    outcome.pages += 1
        except Unreachable:
            return False
    return True


def _time(files: list[Path], span: tuple[float, float], outcome: Outcome) -> None:
    """Print the median of an append before the faults and during them."""
    took = [(at, s) for file in files for at, s in json.loads(file.read_text())]
    during = sorted(s for at, s in took if span[0] <= at <= span[1])
    outside = sorted(s for at, s in took if at < span[0])
    outcome.calm_us, outcome.hurt_us = 1e6 * outside[len(outside) // 2], 1e6 * during[len(during) // 2]


def main() -> None:
    """Run the fleet at full size, or at the given size."""
    parser = argparse.ArgumentParser(description="Hurt a fleet of pods, shippers, nodes and mirrors, and compare what arrives.")
    parser.add_argument("--pods", type=int, default=Size.pods)
    parser.add_argument("--events", type=int, default=Size.events, help="that each pod records")
    parser.add_argument("--away", type=float, default=Size.away_s, help="seconds for which all nodes are away")
    arguments = parser.parse_args()
    outcome = hurt(Size(pods=arguments.pods, events=arguments.events, away_s=arguments.away))
    print(
        f"{arguments.pods} pods x {arguments.events:,} events: in both mirrors once, in order, byte for byte ({outcome.events})"
    )
    print(f"{outcome.pages:,} pages on the stream, none of which overlaps another one")
    ratio = outcome.hurt_us / outcome.calm_us
    print(f"append p50 {outcome.calm_us:.0f} us before the faults, {outcome.hurt_us:.0f} us during them: {ratio:.2f}x")


if __name__ == "__main__":
    main()
