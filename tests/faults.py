"""Inject repeatable faults: `python -m tests.faults` floods a log and kills its writers at random moments.

In each round one process, then four, record under load into one log: runs that begin and end, single frames and batches, and
messages. Each writer notes the acknowledged events in a separate file. SIGKILL ends the writers after a random time, and the
next program opens the log again. Then SQLite must find the file sound. Every acknowledged event must exist with its hash, and
every event must belong to the writer of its run. The chains must be correct. The program prints its seed, and accepts one.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retold.audit.verify import Report, verify
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog

FRESH_EVERY = 5
"""Rounds until a new log is begun, so that checking does not become slower and slower."""


def write_until_killed(path: Path, acknowledged: Path, name: str, seed: int) -> None:
    """Record runs without end. Note each acknowledged append before the next one begins."""
    pick = random.Random(seed)
    noted = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with EventLog(path) as log:
        while True:
            with log.start(name=name, mode="live") as writer:
                for _ in range(pick.randrange(1, 400)):
                    size = pick.choice((1, 1, 1, 3, 20))
                    padding = b"x" * pick.choice((10, 200, 6000))
                    kinds = ("message" if pick.random() < 0.1 else "frame" for _ in range(size))
                    entries = [Entry(kind, b'{"by":"%s","pad":"%s"}' % (name.encode(), padding)) for kind in kinds]
                    events = writer.append(*entries)
                    os.write(noted, b"".join(b"%s %d %s\n" % (e.run.encode(), e.seq, e.hash.hex().encode()) for e in events))


@dataclass
class Counted:
    """The counts of the checks over all rounds."""

    rounds: int = 0
    acknowledged: int = 0
    events: int = 0
    interrupted: int = 0


def kill_once(folder: Path, writers: int, pick: random.Random, counted: Counted) -> None:
    """Run one round in a folder that may have the log of earlier rounds. Raise AssertionError with the lost events."""
    path = folder / "log.db"
    files = [folder / f"acknowledged-{counted.rounds}-{number}" for number in range(writers)]
    children = []
    for number, file in enumerate(files):
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(path, file, f"writer-{number}", pick.randrange(2**32) + number)
            finally:
                os._exit(1)
        children.append(child)
    while not all(file.exists() and file.stat().st_size for file in files):
        time.sleep(0.001)
    time.sleep(pick.random() * 0.08)
    for child in children:
        os.kill(child, signal.SIGKILL)
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert ends == [signal.SIGKILL] * writers, f"a writer ended by itself: {ends}"
    _check(path, files, counted)
    counted.rounds += 1


def _check(path: Path, files: list[Path], counted: Counted) -> None:
    with EventLog(path) as log:  # as the next recording program does
        log.start(name="next", mode="live").end()
        report = verify(log)
        assert report.findings == [], report.findings
        assert report.open == 0, "a run of a dead writer is still open"
        counted.interrupted += sum(info.status == "interrupted" for info in log.runs(limit=len(files) + 1))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for file in files:
            lines = [line.split() for line in file.read_bytes().split(b"\n")[:-1]]  # the last line may be incomplete
            for run, seq, own in lines:
                query = "SELECT hash FROM events WHERE run = ? AND seq = ?"
                row = connection.execute(query, (run.decode(), int(seq))).fetchone()
                assert row is not None, f"event {seq!r} of run {run!r} was acknowledged and is gone"
                assert row[0].hex() == own.decode(), f"event {seq!r} of run {run!r} is another one"
            counted.acknowledged += len(lines)
        mixed = connection.execute(
            "SELECT count(*) FROM events e JOIN runs r USING (run) WHERE e.kind IN ('frame', 'message') "
            "AND json_extract(e.payload, '$.by') <> r.name"
        ).fetchone()
        assert mixed == (0,), "an event stands in a run of another writer"
    counted.events = report.events
    for file in files:
        file.unlink()


def kill(rounds: int, seed: int, *, quiet: bool = True) -> Counted:
    """Run this many rounds with one writer, and this many with four. Return the counts."""
    pick, total = random.Random(seed), Counted()
    for writers in (1, 4):
        counted = Counted()
        folder = Path(tempfile.mkdtemp(prefix="retold-faults-"))
        try:
            for number in range(rounds):
                if number % FRESH_EVERY == 0:
                    shutil.rmtree(folder)
                    folder.mkdir()
                kill_once(folder, writers, pick, counted)
                if not quiet and sys.stderr.isatty():
                    sys.stderr.write(f"\r{writers} writers: {number + 1} of {rounds}")
        finally:
            shutil.rmtree(folder)
        print(f"{writers} writing: {counted.rounds} kills, {counted.acknowledged:,} acknowledged events, all there; "
              f"{counted.interrupted} runs found interrupted, all chains right")  # fmt: skip
        total.rounds += counted.rounds
        total.acknowledged += counted.acknowledged
        total.interrupted += counted.interrupted
    return total


def forked(work: Callable[[], None]) -> int:
    """Run a function in a child. Its exit code is 0 if the function returns."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def flood(processes: int, events: int) -> Report:
    """Append events to one log from several processes, while two readers follow it and a third verifies it repeatedly.

    Return the result of the last check. Raise AssertionError if an event is lost, doubled, mixed or refused.
    """
    folder = Path(tempfile.mkdtemp(prefix="retold-faults-"))
    path = folder / "log.db"

    def write(name: str) -> None:
        with EventLog(path) as log, log.start(name=name, mode="live") as writer:
            for number in range(events):
                writer.append(Entry("frame", b"%s/%d" % (name.encode(), number)))

    def follow(name: str) -> None:
        log = EventLog(path)
        while not path.exists() or name not in [info.name for info in log.runs()]:
            time.sleep(0.005)
        seen = [event.payload for event in log.follow(log.find(name).run, kinds=("frame",))]
        assert seen == [b"%s/%d" % (name.encode(), number) for number in range(events)], "a follower missed something"

    try:
        EventLog(path).start(name="first", mode="live").end()
        names = [f"writer-{number}" for number in range(processes)]
        writers = [forked(partial(write, name)) for name in names]
        followers = [forked(partial(follow, name)) for name in names[:2]]
        checks, ended = 0, dict[int, int]()
        while len(ended) < len(writers):
            assert verify(EventLog(path)).findings == []
            checks += 1
            for child in set(writers) - ended.keys():
                pid, status = os.waitpid(child, os.WNOHANG)
                if pid:
                    ended[pid] = status
        ended |= {child: os.waitpid(child, 0)[1] for child in followers}
        assert set(ended.values()) == {0}, "somebody failed; see above"
        report = verify(EventLog(path))
        assert (report.findings, report.events) == ([], processes * (events + 2) + 2)
        for name in names:
            log = EventLog(path)
            follow(name)
            assert log.find(name).frames == events
        print(f"{processes} processes x {events:,} events: none lost or doubled; 2 followed, {checks} checks meanwhile")
        return report
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill recording processes at random moments and check what they leave.")
    parser.add_argument("--rounds", type=int, default=200, help="kills with one writer, and as many with four")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments")
    parser.add_argument("--processes", type=int, default=8, help="that flood one log at once")
    parser.add_argument("--events", type=int, default=5000, help="that each of them appends")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    flood(arguments.processes, arguments.events)
    kill(arguments.rounds, arguments.seed, quiet=False)


if __name__ == "__main__":
    main()
