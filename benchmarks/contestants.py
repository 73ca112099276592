"""Recorders that record and replay an SDK stream, each in a separate process, because they patch the same classes.

A contestant receives a task over a pipe, reads the stream with a real client inside its `use_cassette`, and returns the result.
vcrpy, cassetter and aimock are optional: `is_installed` checks for each.
"""

import importlib.util
import multiprocessing
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import environment, found_command
from benchmarks.samples import arguments

IN_PROCESS = ("retold", "vcrpy", "cassetter")
KEY = "sk-ant-api03-of-no-use-but-for-benchmarks-0000000000000000"
_MODULES = {"vcrpy": "vcr"}
_WAIT_S = 60

Mode = Literal["all", "none"]
"""Record, or replay. All three use these names."""


def is_installed(peer: str) -> bool:
    if peer == "aimock":
        return found_command("llmock") is not None and found_command("node") is not None
    return importlib.util.find_spec(_MODULES.get(peer, peer)) is not None


@dataclass(frozen=True, slots=True)
class Task:
    """The request to send: `arguments(model, answer)`. Without a path no cassette is used."""

    url: str
    model: str
    answer: int
    path: Path | None = None
    mode: Mode = "none"
    timing: str = "instant"
    is_raw: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """The result of a task. Times in ms: to the first event, to the last one, and of the whole block, including cassette files.

    `events` counts the SDK's events. A raw read has none, and `body` is the received bytes. `error` is the type of the
    exception that ended the stream, if any.
    """

    first_ms: float
    stream_ms: float
    block_ms: float
    events: int
    body: bytes
    error: str


def _block(peer: str, task: Task) -> AbstractContextManager[Any]:
    if task.path is None:
        return nullcontext()
    if peer == "retold":
        from retold import use_cassette
        from retold.testing.record_modes import check
        from retold.testing.use import Use

        settings = replace(use_cassette(timing=task.timing).settings, recordings=task.path.with_name("log.db"))
        return Use(task.path, check(task.mode), settings)
    if peer == "vcrpy":
        import vcr

        recorder: AbstractContextManager[Any] = vcr.use_cassette(str(task.path), record_mode=task.mode)
        return recorder
    import cassetter

    other: AbstractContextManager[Any] = cassetter.use_cassette(str(task.path), record_mode=task.mode)
    return other


def _read(peer: str, task: Task) -> Read:
    import anthropic

    client = anthropic.Anthropic(base_url=task.url, api_key=KEY, max_retries=0)
    asked = arguments(model=task.model, answer=task.answer) | {"stream": True}
    times: list[float] = []
    body, error = b"", ""
    if task.path is not None and task.mode == "all":
        task.path.unlink(missing_ok=True)
    entered = time.perf_counter()
    with _block(peer, task):
        began = time.perf_counter()
        try:
            if task.is_raw:
                with client.messages.with_streaming_response.create(**asked) as response:
                    body = b"".join(response.iter_bytes())
            else:
                times.extend(time.perf_counter() for _ in client.messages.create(**asked))
        except Exception as raised:
            error = type(raised).__name__
        ended = time.perf_counter()
    left = time.perf_counter()
    client.close()
    first = (times[0] if times else ended) - began
    return Read(first * 1000, (ended - began) * 1000, (left - entered) * 1000, len(times), body, error)


def _serve(pipe: Connection, peer: str) -> None:
    while (task := pipe.recv()) is not None:
        pipe.send(_read(peer, task))


@dataclass(frozen=True)
class Contestant:
    """A running contestant. One named `plain` records nothing."""

    pipe: Connection

    def read(self, task: Task, *, may_fail: bool = False) -> Read:
        """Read a stream. Raise RuntimeError if it ends in an exception, unless the caller expects one."""
        self.pipe.send(task)
        found: Read = self.pipe.recv()
        if found.error and not may_fail:
            raise RuntimeError(f"{task} ended in {found.error}")
        return found


@contextmanager
def contestant(peer: str) -> Iterator[Contestant]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, peer), daemon=True)
    process.start()
    theirs.close()  # so that a failing contestant causes an EOFError here, and no endless wait
    try:
        yield Contestant(ours)
    finally:
        with suppress(BrokenPipeError):  # it failed, and that error is already raised
            ours.send(None)
        process.join(10)


@contextmanager
def listening(command: Sequence[str | Path], home: Path) -> Iterator[str]:
    """Run any server as a process. Yield the first URL on 127.0.0.1 that it prints."""
    output = home / "server.txt"
    with output.open("w") as out:
        process = subprocess.Popen(command, cwd=home, env=environment(home), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield _url(process, output)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_WAIT_S)


def _url(process: "subprocess.Popen[bytes]", output: Path) -> str:
    until = time.monotonic() + _WAIT_S
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+(?=\s)", output.read_text()):
            return found[0]
        time.sleep(0.02)
    raise RuntimeError(f"no server: {output.read_text()}")
