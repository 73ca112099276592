"""Handlers beside a run of 100,000 messages: the growth of the memory peak from 1,000 messages, and the cost for the run.

Messages are appended one by one while the handlers, each in its thread, read them from the log. Unread messages wait in the
log, not in memory. Peaks are `resource.getrusage`, each in a separate process, with the allowance of `memory.py`. A buffer
keeps its 1,000 messages and counts the rest, so it starts at a length that fills it. The pace is compared with that of the same
run without handlers, up to the end of the last handler, because both need the same processor.
"""

import functools
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Row, environment, figure, folder, ratio, rounds, run

FEW, MANY = 1_000, 100_000
PACE = 10_000
ALLOWANCE_MB = 5.0
ROUNDS = 3
TEXT = "One message of some length, as a model writes them between its tool uses. " * 4
SETS: dict[str, list[str]] = {"none": [], "simple and file": ["simple", "file"], "buffer": ["buffer"]}


def handlers_of(kinds: list[str], home: Path) -> list[Any]:
    """Return the handlers of a set. Their screen output is discarded, and their files are in `home`."""
    from retold.handlers import make_handler

    options: dict[str, dict[str, Any]] = {"file": {"file_path": str(home / "messages.jsonl"), "format": "jsonl"}}
    return [make_handler(kind, options.get(kind, {}), open(os.devnull, "w")) for kind in kinds]


def stream(home: Path, kinds: list[str], messages: int) -> dict[str, Any]:
    """Run a step of this many messages beside its handlers.

    Return the seconds until the last ends, the MB at the peak, and the results.
    """
    from retold.handlers import HandlerThread
    from retold.recorder.log.log import EventLog
    from retold.recorder.messages import Session

    session = Session("00000000-0000-4000-8000-000000000000")
    with EventLog(home / "log.db") as log, log.start(name="handlers", mode="live") as writer:
        started = writer.note("step.started", {"name": "talk"}, step="talk")
        began = time.perf_counter()
        done = threading.Semaphore(0)
        handlers, after = handlers_of(kinds, home), started.seq - 1
        threads = [HandlerThread(log, writer.run, "talk", each, after=after, over=done.release) for each in handlers]
        for number in range(messages):
            block = {"type": "text", "text": f"{number} {TEXT}"}
            writer.note("message", session.assistant({"role": "assistant"}, block, None), step="talk")
        writer.note("step.ended", {"name": "talk", "status": "completed", "error": None}, step="talk")
        for _ in threads:
            done.acquire()
        took = time.perf_counter() - began
    results = [{key: value for key, value in thread.result().items() if key != "buffered"} for thread in threads]
    return {"s": took, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "results": results}


def _child(which: str, messages: int) -> dict[str, Any]:
    with folder() as home:
        command = [sys.executable, "-m", "benchmarks.handlers", which, str(messages), str(home)]
        done = subprocess.run(command, cwd=ROOT, env=environment(home), check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout)
    for result in found["results"]:
        assert (result["error"], result["messages"]) == (None, messages), result
        assert result.get("dropped", 0) == (max(0, messages - 1000) if result["handler"] == "buffer" else 0), result
    return found


def _pace(which: str) -> float:
    return PACE / float(_child(which, PACE)["s"])


def measure() -> list[Row]:
    rows = []
    for which in ("simple and file", "buffer"):
        growth = _child(which, MANY)["mb"] - _child(which, FEW)["mb"]  # once: a peak differs by some 0.1 MB from run to run
        rows.append(figure(f"{which}: memory of {MANY:,} messages over {FEW:,}", [growth], "MB", at_most=ALLOWANCE_MB))
    paces = rounds(ROUNDS, {which: functools.partial(_pace, which) for which in ("none", "simple and file")})
    what, peer = "messages a second with simple and file", "no handler"
    rows.append(ratio(what, paces["simple and file"], peer, paces["none"], "/s", at_least=0.6))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] in ([], ["--json"], ["-h"], ["--help"]):
        run(f"handlers: beside a run of {MANY:,} messages", measure)
    else:
        print(json.dumps(stream(Path(sys.argv[3]), SETS[sys.argv[1]], int(sys.argv[2]))))
