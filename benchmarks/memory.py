"""Memory against the length of a stream: the peak of a process with 100,000 frames, minus that of one with 1,000.

The goal for recording and showing is no growth. 100,000 frames are about 19 MB.

Peaks are `resource.getrusage`, each in a separate process (a child's peak begins at its parent's, so this module imports
little). The allowance of 5 MB covers the parts that 1,000 frames do not fill: SQLite's page cache (2 MB for a writer, 1 MB for
a reader) and a reader's page of 500 messages. There are two shapes: an answer in blocks of 100 deltas, which has the goals, and
one endless block with 1.2 MB of text, which stays in memory until its message is complete. An export has its goal there, too.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import ROOT, Row, environment, figure, folder, run

FEW, MANY = 1_000, 100_000
ALLOWANCE_MB = 5.0
ROUNDS = 2
FLAT = {("capture", 100), ("show", 100), ("follow", 100), ("export", 100), ("export", 1_000_000)}
BLOCKS = {"blocks of 100": 100, "one block": 1_000_000}


def capture(path: str, frames: int, block: int) -> None:
    """Record a stream, one frame per chunk, as from a live connection."""
    from benchmarks import samples
    from retold.recorder.http.capture import Capture
    from retold.recorder.http.exchange import Request
    from retold.recorder.log.log import EventLog

    with EventLog(path) as log, log.start(name="memory", mode="live") as writer:
        taken = Capture(writer, Request("POST", "https://api.anthropic.com/v1/messages", (), b"{}"))
        taken.response(200, "OK", samples.HEADERS)
        for frame in samples.frames(frames, block=block):
            taken.data(frame)
        taken.end("complete")


def show(path: str) -> None:
    """Do the work of `retold show`, without output."""
    from retold.handlers import make_handler, read_stream
    from retold.handlers.base import READ_KINDS
    from retold.recorder.interrupted import events_of
    from retold.recorder.log.log import EventLog

    log = EventLog(path)
    with open(os.devnull, "w") as out:
        read_stream(events_of(log, log.find("last").run, READ_KINDS), make_handler("simple", {}, out))


def follow(path: str) -> None:
    """Read every event of the run, as another process follows it."""
    from retold.recorder.log.log import EventLog

    log = EventLog(path)
    for _ in log.follow(log.find("last").run):
        pass


def export(path: str) -> None:
    """Do the work of `retold export`, without output."""
    from retold.formats import FORMATS
    from retold.recorder.log.log import EventLog

    log = EventLog(path)
    with open(os.devnull, "wb") as nowhere:
        FORMATS["cassette"].write(log, [log.find("last")], nowhere)


READERS: dict[str, Callable[[str], None]] = {"show": show, "follow": follow, "export": export}


def _child(what: str, path: str, frames: int, block: int) -> None:
    if what == "capture":
        capture(path, frames, block)
    else:
        READERS[what](path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _peak_mb(home: Path, what: str, path: Path, frames: int, block: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", what, str(path), str(frames), str(block)]
    done = subprocess.run(command, cwd=ROOT, env=environment(home), check=True, capture_output=True, text=True)
    return float(done.stdout)


def _growths(home: Path, block: int) -> Iterator[tuple[str, float]]:
    """Yield (label, MB) for one recording and its readers."""
    peaks: dict[str, list[float]] = {}
    for frames in (FEW, MANY):
        path = home / f"{frames}.db"
        for what in ("capture", *READERS):
            peaks.setdefault(what, []).append(_peak_mb(home, what, path, frames, block))
    for what, (few, many) in peaks.items():
        yield what, many - few


def measure() -> list[Row]:
    rows = []
    for shape, block in BLOCKS.items():
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            with folder() as home:
                for what, growth in _growths(home, block):
                    found.setdefault(what, []).append(growth)
        rows += [
            figure(f"{what}, {shape}", growths, "MB", at_most=ALLOWANCE_MB if (what, block) in FLAT else None)
            for what, growths in found.items()
        ]
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] in ([], ["--json"], ["-h"], ["--help"]):
        run(f"memory: growth of the peak from {FEW:,} to {MANY:,} frames", measure)
    else:
        _child(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
