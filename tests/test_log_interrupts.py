"""An interrupt at any moment of a recording: the run continues, and no acknowledged event is lost or doubled."""

import contextlib
import gc
import itertools
import random
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from retold.audit.verify import verify
from retold.recorder.errors import LogError
from retold.recorder.events import Entry, Event
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.log.sqlite.store import SqliteStore
from tests.faults import kill
from tests.raw_log import computed_chain, rows, stored_chain


class Interrupt(BaseException):
    """Raised by the signal handler."""


class Timer:
    """Raise `Interrupt` in the main thread after some seconds. `has_fired` is true from that moment on."""

    has_fired = False

    def __call__(self, seconds: float) -> None:
        self.has_fired = False
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def fire(self, _: int, frame: FrameType | None) -> None:
        """Raise the interrupt, unless a finalizer runs. A finalizer would print and swallow it."""
        while frame is not None:
            if frame.f_code.co_name in ("__del__", "remove"):
                signal.setitimer(signal.ITIMER_REAL, 0.0005)
                return
            frame = frame.f_back
        self.has_fired = True
        raise Interrupt


@pytest.fixture
def interrupt_after() -> Iterator[Timer]:
    """Return a timer. Collect no garbage meanwhile, because finalizers of earlier tests would swallow the interrupt."""
    timer = Timer()
    before = signal.signal(signal.SIGALRM, timer.fire)
    gc.disable()
    try:
        yield timer
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


@pytest.mark.parametrize("interrupts", [15, pytest.param(300, marks=pytest.mark.stress)])
def test_an_interrupted_append_neither_loses_nor_doubles_events(interrupts: int, tmp_path: Path, interrupt_after: Timer) -> None:
    """One writer is interrupted many times, in single events and in batches. It continues after each interrupt."""
    pick = random.Random(7)
    with EventLog(tmp_path / "log.db") as log:
        writer = log.start(name="interrupted", mode="live")
        handed_on: list[bytes] = []
        number = 0
        for _ in range(interrupts):
            try:
                interrupt_after(0.0005 + pick.random() * 0.004)  # on a busy machine the interrupt comes before this call returns
                while not interrupt_after.has_fired:
                    batch = [b"%d" % (number + more) for more in range(pick.choice((1, 1, 3)))]
                    number += len(batch)
                    writer.append(*(Entry("frame", payload) for payload in batch))
                    handed_on += batch
            except Interrupt:
                pass
        writer.append(Entry("frame", b"last"))
        writer.end()
    stored = rows(tmp_path / "log.db", writer.run)
    payloads = [row["payload"] for row in stored if row["kind"] == "frame"]
    assert len(set(payloads)) == len(payloads)
    assert set(handed_on) <= set(payloads)
    assert payloads[-1] == b"last"
    assert computed_chain(stored) == stored_chain(stored)
    assert verify(EventLog(tmp_path / "log.db")).ok


@pytest.mark.parametrize("interrupts", [8, pytest.param(100, marks=pytest.mark.stress)])
def test_an_interrupted_exchange_ends_once(interrupts: int, tmp_path: Path, interrupt_after: Timer) -> None:
    """The test repeats `end` until it returns, like a client that closes a stream in several places."""
    pick = random.Random(8)
    with EventLog(tmp_path / "log.db") as log, log.start(name="interrupted", mode="live") as writer:
        for _ in range(interrupts):
            capture = Capture(writer, Request("POST", "https://h/v1/messages", (), b"{}"))
            capture.response(200, "OK", (("content-type", "text/event-stream"),))
            with contextlib.suppress(Interrupt):
                interrupt_after(0.0002 + pick.random() * 0.002)
                while not interrupt_after.has_fired:
                    capture.data(b"data: {}\n\n")
            with contextlib.suppress(Interrupt):
                interrupt_after(0.00005 + pick.random() * 0.0005)
                capture.end("closed")
                interrupt_after(0)
            capture.end("closed")
    ended = [row["exchange"] for row in rows(tmp_path / "log.db", writer.run) if row["kind"] == "exchange.ended"]
    assert len(ended) == len(set(ended)) == interrupts
    assert verify(EventLog(tmp_path / "log.db")).ok


class At:
    """Raise `Interrupt` at the n-th moment at which CPython would run a signal handler: before a call or after its return."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "return", "c_return") and frame.f_code.co_name != "__del__":
            self.left -= 1
            if self.left == 0:
                raise Interrupt

    def hits(self, work: Callable[[], object]) -> bool:
        """Do the work and return whether the interrupt came."""
        sys.setprofile(self)
        try:
            work()
        except Interrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


@pytest.mark.parametrize("batch", [1, 2])
def test_an_append_can_be_interrupted_at_every_moment(batch: int, tmp_path: Path) -> None:
    """The writer continues with the right number of events, and no event is lost or doubled."""
    with EventLog(tmp_path / "log.db") as log:
        for moment in itertools.count(1):
            writer = log.start(name="interrupted", mode="live")
            writer.append(Entry("frame", b"before"))
            more = [Entry("frame", b"%d" % number) for number in range(batch)]
            hit = At(moment).hits(lambda writer=writer, more=more: writer.append(*more))  # type: ignore[misc]
            writer.append(Entry("frame", b"after"))
            writer.end()
            payloads = [event.payload for event in log.events(writer.run, kinds=("frame",))]
            assert payloads in ([b"before", b"after"], [b"before", *(entry.payload for entry in more), b"after"])
            assert log.find(writer.run).frames == len(payloads)
            if not hit:
                break
        assert moment > 20
    report = verify(EventLog(tmp_path / "log.db"))
    assert report.findings == []


class InterruptedOnce(defaultdict[str, int]):
    """A counter that raises one interrupt in the middle of a change."""

    was = False

    def __setitem__(self, key: str, value: int) -> None:
        super().__setitem__(key, value)
        if not self.was:
            self.was = True
            raise Interrupt


def test_a_writer_interrupted_while_counting_counts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the length of its run from the log. An interrupt may come during that read, too."""
    with EventLog(tmp_path / "log.db") as log:
        writer = log.start(name="interrupted", mode="live")
        writer.append(Entry("frame", b"1"))
        writer.counts = InterruptedOnce(int, writer.counts)
        with pytest.raises(Interrupt):
            writer.append(Entry("frame", b"2"), Entry("message", b"{}"))

        def interrupted(run: str) -> Iterator[Event]:
            yield from itertools.islice(EventLog.events(log, run), 2)
            raise Interrupt

        with monkeypatch.context() as patch:
            patch.setattr(log, "events", interrupted)
            with pytest.raises(Interrupt):
                writer.append(Entry("frame", b"lost"))
        writer.append(Entry("frame", b"3"))
        writer.end()
        assert (log.find(writer.run).frames, log.find(writer.run).messages) == (3, 1)
    assert verify(EventLog(tmp_path / "log.db")).findings == []


def test_the_end_of_a_run_can_be_interrupted_at_every_moment(tmp_path: Path) -> None:
    """If the interrupted call did not end the run, the next call does."""
    with EventLog(tmp_path / "log.db") as log:
        for moment in itertools.count(1):
            writer = log.start(name="interrupted", mode="live")
            hit = At(moment).hits(writer.end)
            writer.end()
            assert [event.kind for event in log.events(writer.run)] == ["run.started", "run.ended"]
            assert log.find(writer.run).status == "completed"
            if not hit:
                break
        assert moment > 40
    report = verify(EventLog(tmp_path / "log.db"))
    assert report.findings == []


def test_a_nested_write_is_an_error_that_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that writes during a write of its thread gets an error. The interrupted write stays whole."""
    errors: list[str] = []
    with EventLog(tmp_path / "log.db") as log:
        writer = log.start(name="nested", mode="live")
        insert = SqliteStore._insert

        def insert_with_a_signal(self: SqliteStore, *args: Any) -> None:
            monkeypatch.undo()
            try:
                writer.append(Entry("frame", b"nested"))
            except LogError as error:
                errors.append(str(error))
            insert(self, *args)

        monkeypatch.setattr(SqliteStore, "_insert", insert_with_a_signal)
        writer.append(Entry("frame", b"1"), Entry("frame", b"2"))
        writer.append(Entry("frame", b"3"))
        writer.end()
    assert [row["payload"] for row in rows(tmp_path / "log.db", writer.run)][1:-1] == [b"1", b"2", b"3"]
    assert len(errors) == 1
    assert "by a signal handler or a finalizer" in errors[0]


def test_an_interrupted_start_leaves_no_open_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Because no writer has the run, it counts as cancelled, at once and for the next process."""
    log = EventLog(tmp_path / "log.db")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    log.open()
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "moved_past", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.start(name="interrupted", mode="live")
    assert [(info.status, info.error) for info in log.runs()] == [("cancelled", "KeyboardInterrupt")]
    log.close()
    with EventLog(tmp_path / "log.db") as again:
        again.open()
        assert [(info.status, info.error, info.ended_ns is None) for info in again.runs()] == [
            ("cancelled", "KeyboardInterrupt", False)
        ]


@pytest.mark.stress
def test_200_killed_recorders_lose_nothing() -> None:
    """Each process is killed at a random moment under load. Every acknowledged event is in the log, every chain valid."""
    kill(100, 1, quiet=True)
