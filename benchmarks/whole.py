"""Whole commands against their peers: the CPU time of a process, user and system, from its start to its end.

`diff` of two stream-json files of 100,000 messages beside git on the same messages, `diff` of two cassettes of 40 MB, and
`import` of a stream-json file of 100 MB.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import samples
from benchmarks.diff import _streams, _write, _write_plain
from benchmarks.measure import Row, absent, environment, figure, folder, found_command, ratio, rounds, run
from retold.recorder.cassette.format import write_cassette
from retold.recorder.http.exchange import Exchange, Place

ROUNDS = 3
TURNS = 10
CASSETTE_MB = 40
IMPORT_MB = 100


def _cpu_s(command: list[str | Path], home: Path, *, codes: tuple[int, ...] = (0,)) -> float:
    """Return the CPU time of a process. Raise RuntimeError if it ends with another code."""
    process = subprocess.Popen(command, cwd=home, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def _retold(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "retold", *arguments]


def _messages(home: Path) -> Iterator[Row]:
    for name, texts in zip("ab", _streams(0.01), strict=True):
        _write(home / f"{name}.jsonl", texts)
        _write_plain(home / f"{name}.txt", texts)
    contestants = {"ours": lambda: _cpu_s(_retold("diff", "a.jsonl", "b.jsonl"), home, codes=(1,))}
    git = found_command("git")
    if git is not None:
        contestants["git"] = lambda: _cpu_s([git, "diff", "--no-index", "--no-color", "a.txt", "b.txt"], home, codes=(1,))
    found = rounds(ROUNDS, contestants)
    what, peer = "diff of 2 x 100,000 messages", "git diff --no-index"
    yield figure(what, [min(found["ours"])], "s", at_most=1.0)
    if "git" in found:
        yield ratio("the same", found["ours"], peer, found["git"], "s", at_most=10)
    else:
        yield absent("the same", found["ours"], peer, "s")


def _conversations(edited: bool) -> Iterator[Exchange]:
    """Return conversations of ten turns, each request with all messages before it. One in fifty requests is edited."""
    size = number = 0
    while size < CASSETTE_MB * 1_000_000:
        messages: list[dict[str, str]] = []
        for _ in range(TURNS):
            ending = " edited" if edited and number % 50 == 0 else ""
            messages.append({"role": "user", "content": f"question {number} " * 30 + ending})
            recorded = samples.exchange(100, gap_ns=10**7, answer=number)
            assert recorded.response is not None
            body = json.dumps(samples.arguments() | {"messages": messages, "stream": True}).encode()
            began_ns = number * 10**10
            yield replace(
                recorded, request=replace(recorded.request, body=body), place=Place(call=number + 1, attempt=1),
                started_ns=began_ns, ended_ns=began_ns + 10**9,
            )  # fmt: skip
            messages.append({"role": "assistant", "content": "".join(f"word {each:05} " for each in range(100))})
            size += len(body) + len(recorded.response.body)
            number += 1


def _cassettes(home: Path) -> Iterator[Row]:
    for name, edited in (("a", False), ("b", True)):
        write_cassette(home / f"{name}.yaml", _conversations(edited))
    took = _cpu_s(_retold("diff", "a.yaml", "b.yaml"), home, codes=(1,))
    yield figure(f"diff of 2 cassettes of {(home / 'a.yaml').stat().st_size / 1e6:.0f} MB", [took], "s", at_most=5.0)


def _import(home: Path) -> Iterator[Row]:
    text = "A text of some length, as a model writes it between two uses of tools. " * 12
    with (home / "long.jsonl").open("w") as file:
        for number in range(IMPORT_MB * 1_000_000 // 1_000):
            message = {"id": f"msg_{number}", "role": "assistant", "content": [{"type": "text", "text": f"{number} {text}"}]}
            file.write(json.dumps({"type": "assistant", "message": message}) + "\n")
    size = (home / "long.jsonl").stat().st_size
    took = _cpu_s(_retold("import", "long.jsonl"), home)
    yield figure(f"import of {size / 1e6:.0f} MB", [took], "s", at_most=15.0)


def measure() -> list[Row]:
    with folder() as home:
        return [*_messages(home), *_cassettes(home), *_import(home)]


if __name__ == "__main__":
    run("whole: the CPU time of commands, from start to end", measure)
