"""The drawing of ARCHITECTURE.md: four ways through retold run as many modules as it shows."""

import gc
import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

import retold
from retold.cli import make_app
from retold.handlers.base import read_stream
from retold.handlers.console import Console
from retold.recorder import colour
from retold.recorder.http.capture import Capture
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog
from tests.children import wait_until
from tests.clients import body, record
from tests.conftest import ROOT
from tests.exchanges import URL, frames
from tests.talk import stream, text
from tests.test_architecture import MODULES

DRAWN = {
    way: int(count)
    for way, count in re.findall(r"^(one .*?) \((\d+) modules\)$", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.MULTILINE)
}
NAMES = {str(path.resolve()): name for name, path in MODULES.items()}


class Tracer:
    """Record the modules of retold that run code: in this thread, and in threads started since."""

    def __init__(self) -> None:
        self.is_on = False
        self.main: set[str] = set()
        self.others: set[str] = set()
        self._thread = threading.get_ident()
        self._files: dict[str, str | None] = {}

    def __call__(self, frame: Any, event: str, _: object) -> None:
        if not self.is_on or event != "call" or frame.f_code.co_name == "<module>":
            return
        file = frame.f_code.co_filename
        if file not in self._files:
            self._files[file] = NAMES.get(str(Path(file).resolve()))
        if (name := self._files[file]) is not None:
            (self.main if threading.get_ident() == self._thread else self.others).add(name)


@contextmanager
def tracing() -> Iterator[Tracer]:
    """Trace without garbage collection, which would close captures and logs of earlier tests and count their modules."""
    tracer, before = Tracer(), sys.getprofile()
    gc.collect()
    gc.disable()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        yield tracer
    finally:
        sys.setprofile(before)
        threading.setprofile(before)
        gc.enable()


def check(way: str, passed: set[str]) -> None:
    """Assert that a way uses no more modules than drawn, and at most two fewer: a reader may not look for a dead writer."""
    assert DRAWN[way] - 2 <= len(passed) <= DRAWN[way], f"{way}: {len(passed)} modules, draw them: {sorted(passed)}"


class Frames(httpx2.SyncByteStream):
    """A body of one frame a chunk, in the compact JSON of the API."""

    def __iter__(self) -> Iterator[bytes]:
        yield from frames(stream(text("one two three four five six")).replace(b'": ', b'":').replace(b', "', b',"'))


def test_the_way_of_a_frame(tmp_path: Path) -> None:
    """A delta goes from the transport to the log, and from the log to the screen."""
    colour.choose("auto")
    out = io.StringIO()
    handler = Console(Console.Options(partial=True), out)
    with tracing() as tracer, EventLog(tmp_path / "log.db") as log, log.start(name="run", mode="live") as writer:
        reader = threading.Thread(target=lambda: read_stream(log.follow(writer.run, kinds=handler.kinds), handler))
        reader.start()
        response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Frames())
        recorder = Recorder(lambda request: Capture(writer, request))
        chunks = recorder.handle(httpx2.Request("POST", URL, json=body(stream=True)), lambda _: response).iter_raw()
        for chunk in chunks:
            if b'"one "' in chunk:
                wait_until(lambda: "one " in out.getvalue())
                tracer.is_on = True
            elif b'"two "' in chunk:
                wait_until(lambda: "two " in out.getvalue())
                tracer.is_on = False
    reader.join(20)
    check("one frame, from the socket to the log", tracer.main)
    check("one frame, from the log to the screen", tracer.others)


def call() -> None:
    with httpx2.Client() as client:
        client.post(URL, json=body("a", stream=True), headers={"x-api-key": "test-key", "anthropic-version": "2023-06-01"})


def test_the_way_of_a_replayed_request(tmp_path: Path) -> None:
    """The second request is traced, because the first one loads the cassette."""
    path = record(tmp_path / "c.yaml", "a", "a")
    with retold.use_cassette(path, record_mode="none"), tracing() as tracer:
        call()
        tracer.is_on = True
        call()
        tracer.is_on = False
    check("one replayed request", tracer.main)


def command(*args: object) -> Callable[[], int]:
    return lambda: CliRunner().invoke(make_app(), [str(arg) for arg in args]).exit_code


def test_the_way_of_a_diff(tmp_path: Path) -> None:
    sides = [record(tmp_path / f"{prompt}.yaml", prompt) for prompt in ("a", "b")]
    check("one diff of two cassettes", passed(command("diff", *sides), code=1))


def test_the_way_of_a_run(tmp_path: Path) -> None:
    workflow = ROOT / "examples" / "clean_streaming_numbers.yaml"
    check("one retold run", passed(command("run", workflow, "--db", tmp_path / "log.db"), code=0))


def passed(run: Callable[[], int], *, code: int) -> set[str]:
    """Return the modules that run in all threads on the second run of a command. The first run imports them."""
    assert run() == code
    with tracing() as tracer:
        tracer.is_on = True
        assert run() == code
        tracer.is_on = False
    return tracer.main | tracer.others


@pytest.mark.parametrize("way", DRAWN)
def test_a_drawn_way_is_measured(way: str) -> None:
    """A test of this module checks every number of the drawing."""
    assert f'"{way}"' in Path(__file__).read_text("utf-8")
