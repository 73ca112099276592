"""Costs that grow with the log and costs that do not: commands on logs of 10,000 events and more, and a proxy after many calls.

All figures but the wait of a writer are CPU time, user and system, the least of some rounds, so other work on the machine changes
them little. The commands run in this process, after their imports. `append`, `ls`, `show last`, `search` and `tail` must cost the
same on the largest and the smallest log. `stats`, `verify`, `erase`, `prune` and `recover` have a row for each size, without a
goal. While a message is erased, another process appends an event every two milliseconds.

`EVENTS=1000000` makes the largest log larger, which takes some minutes. The default is 100,000 events. `CALLS` sets the number
of calls behind the proxies.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import samples
from benchmarks.audit import RARE, write_log
from benchmarks.measure import Row, figure, folder, run
from retold import use_cassette
from retold.cli import main
from retold.recorder.errors import MissError
from retold.recorder.events import Entry
from retold.recorder.http.exchange import Exchange, Request, Response, TimedPiece
from retold.recorder.log.log import EventLog
from retold.replay.matching.matcher import Matcher
from retold.testing.record_modes import check
from retold.testing.session import CassetteSession

EVENTS = int(os.environ.get("EVENTS", 100_000))
CALLS = int(os.environ.get("CALLS", 5_000))
FEW_CALLS = 500
SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
SMALLEST = SIZES[0]
ROUNDS = 5
APPENDS = 300
FLAT = 1.5
"""The greatest allowed cost of a flat command on the largest log, as a multiple of its cost on the smallest."""

LONGEST = "longest append meanwhile, by the clock"
WAIT_MS = 1_000
"""The longest that an erasure may keep another writer waiting, in milliseconds."""

TURNS = 1_000


def _cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def _least(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    return min(_cpu_ms(work) for _ in range(rounds))


def _retold(*arguments: str | Path) -> None:
    """Run a command of retold in this process. Raise RuntimeError if it fails."""
    argv, out, err = sys.argv, io.TextIOWrapper(io.BytesIO()), io.StringIO()
    sys.argv = ["retold", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    if code:
        raise RuntimeError(f"retold {' '.join(map(str, arguments))} ended with {code}: {err.getvalue()}")


def _appends(path: Path) -> float:
    """Return the CPU time of appending and committing one event of 400 bytes, the least of some hundreds of appends."""
    event = Entry("frame", b"event: x\ndata: " + b"x" * 385, "step")
    with EventLog(path) as log, log.start(name="append", mode="live") as writer:
        return min(_least(lambda: writer.append(event), APPENDS) for _ in range(ROUNDS))


def _flat(path: Path) -> Iterator[tuple[str, float]]:
    """Yield (label, ms) of everything that must not depend on the size of the log."""
    at = ("--db", path)
    commands: dict[str, tuple[str, ...]] = {
        "ls": ("ls", "--limit", "10"), "show last": ("show", "last"), "search": ("search", RARE, "--limit", "5"),
        "tail last": ("tail", "last"),
    }  # fmt: skip
    for what, command in commands.items():
        _retold(*command, *at)  # imports its modules; the first search builds the index
        yield what, _least(partial(_retold, *command, *at))
    yield "append", _appends(path)


def _curves(path: Path) -> Iterator[tuple[str, float]]:
    """Yield (label, ms) of everything that may depend on it. Erasing and pruning change the log, so each runs once."""
    at = ("--db", path)
    yield "stats", _least(partial(_retold, "stats", *at), 3)
    yield "verify", _least(partial(_retold, "verify", *at), 2)
    yield "verify --new, nothing new", _least(partial(_retold, "verify", "--new", *at), 3)
    yield "recover", _least(partial(_retold, "recover", *at), 1)
    with _appending(path) as slowest:
        yield "erase a message", _least(partial(_retold, "erase", "last~3#3", "--why", "benchmark", "-y", *at), 1)
    yield LONGEST, slowest[0]
    keep = sum(info.mode != "audit" for info in EventLog(path).runs()) - 1
    prune = ("prune", "--older-than", "1d", "--keep", str(keep), "-y")
    yield "prune one run", _least(partial(_retold, *prune, *at), 1)


APPENDER = """
import sys, time
from pathlib import Path
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog

slowest = 0.0
with EventLog(Path(sys.argv[1])) as log, log.start(name="meanwhile", mode="live") as writer:
    print(flush=True)
    while not Path(sys.argv[2]).exists():
        began = time.perf_counter()
        writer.append(Entry("frame", b"x" * 300))
        slowest = max(slowest, time.perf_counter() - began)
        time.sleep(0.002)
print(slowest * 1000)
"""


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[list[float]]:
    """Append to a log from another process. After the block, the list holds the longest time of one append, in ms."""
    found: list[float] = []
    stop = path.with_name("stop")
    with subprocess.Popen([sys.executable, "-c", APPENDER, path, stop], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield found
        finally:
            stop.touch()
        found.append(float(process.stdout.read()))


def _logs(home: Path) -> Iterator[Row]:
    flat: dict[str, list[float]] = {}
    curves: list[Row] = []
    for size in (size for size in SIZES if size <= EVENTS):
        path = home / f"{size}" / "log.db"
        path.parent.mkdir()
        write_log(path, size * 3 // 5)  # five events contain three messages
        for what, ms in _flat(path):
            flat.setdefault(what, []).append(ms)
        curves += [
            figure(f"{what}, {size:,} events", [ms], "ms", at_most=WAIT_MS if what == LONGEST else None)
            for what, ms in _curves(path)
        ]
        shutil.rmtree(path.parent)
    for what, found in flat.items():
        yield figure(f"{what}, {SMALLEST:,} events", found[:1], "ms")
        yield figure(f"{what}, {EVENTS:,} events, of that", [found[-1] / found[0]], "x", at_most=FLAT)
    yield from curves


def _request(number: int) -> Request:
    """Return a request with a separate key, as the users of a gateway send."""
    body = json.dumps(samples.arguments(answer=number) | {"stream": True}).encode()
    key = f"{number * 7919 % 1000:03}k{number:05}-QzT{number * 31 % 97:02}xW9v"
    return Request("POST", "https://api.anthropic.com/v1/messages", (("x-api-key", key),), body)


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def _series(one: Callable[[int], object]) -> tuple[float, float, float]:
    """Return the ms of one of the first calls, the ms of one of the last, and the MB that the calls between them took."""
    found, few = [], FEW_CALLS // 5
    memory = 0.0
    at = 0
    for number in range(CALLS):
        if number == FEW_CALLS:
            memory = _memory_mb()
        if number in (few, FEW_CALLS, CALLS - FEW_CALLS):
            at, began = number, time.process_time()
        one(number)
        if number + 1 in (FEW_CALLS, CALLS):
            found.append((time.process_time() - began) * 1000 / (number + 1 - at))
    return found[0], found[1], _memory_mb() - memory


def _proxies(home: Path) -> Iterator[Row]:
    """Do the work of the server for a call, without its sockets: decide, record or play."""
    answer = b"".join(samples.frames(5))
    settings = replace(use_cassette(timing="instant").settings, recordings=home / "proxy.db")
    path = home / "proxy.json"

    def record(use: CassetteSession, number: int) -> None:
        request = _request(number)
        use.decide(request)
        capture = use.begin(request)
        capture.response(200, "OK", samples.HEADERS)
        capture.data(answer)
        capture.end("complete")

    recording = CassetteSession(path, check("all"), settings)
    found = {"recording": _series(partial(record, recording))}
    recording.close(kept=True)
    playing = CassetteSession(path, check("none"), settings)
    found["replaying"] = _series(lambda number: playing.decide(_request(number)))
    playing.close(kept=True)
    for what, (first, last, grown) in found.items():
        yield figure(f"proxy {what}: a call after {FEW_CALLS // 5} calls", [first], "ms")
        yield figure(f"proxy {what}: after {CALLS:,} calls, of that", [last / first], "x", at_most=FLAT)
        yield figure(f"proxy {what}: memory of calls {FEW_CALLS:,} to {CALLS:,}", [grown], "MB", at_most=5.0)


def _miss() -> Iterator[Row]:
    """Measure the first miss in a recording of 1,000 turns, each with the whole conversation: 0.5 KB a turn, 250 MB in all."""
    messages: list[dict[str, str]] = []
    exchanges = []
    for turn in range(TURNS):
        messages.append({"role": "user", "content": f"question {turn} " + "of some length " * 12})
        request = Request("POST", "https://api.anthropic.com/v1/messages", (), json.dumps({"messages": messages}).encode())
        exchanges.append(Exchange(request, Response(200, "OK", (), (TimedPiece(0, b"{}", False),))))
        messages.append({"role": "assistant", "content": f"answer {turn} " + "of some length " * 12})
    asked = replace(request, body=json.dumps({"messages": [*messages[:-3], {"role": "user", "content": "else"}]}).encode())
    matcher = Matcher(exchanges)

    def miss() -> None:
        with contextlib.suppress(MissError):
            matcher.take(asked)
            raise AssertionError("the request was answered")

    yield figure(f"a miss after {TURNS:,} turns", [_least(miss, 1)], "ms", at_most=100)
    yield figure("the misses after it", [_least(miss)], "ms", at_most=100)


def measure() -> list[Row]:
    with folder() as home:
        return [*_logs(home), *_proxies(home), *_miss()]


if __name__ == "__main__":
    run(f"scale: CPU time on logs of {SMALLEST:,} to {EVENTS:,} events, behind {CALLS:,} calls, after {TURNS:,} turns", measure)
