"""Killed writers, floods, full and read-only disks lose no acknowledged event.

The application stops or continues as configured.
"""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from retold.audit.verify import verify
from retold.recorder.errors import InputError, LogError, RecordingLostWarning
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from tests.conftest import ROOT
from tests.e2e import in_this_process
from tests.messages_server import MessagesServer, Reply, text
from tests.tape import ASK, Tape, consume_sync

FRAMES = 12_000


def test_killed_writers_lose_no_acknowledged_event() -> None:
    """This runs a few rounds of `python -m tests.faults`, and its flood. The full version is run by hand."""
    command = [sys.executable, "-m", "tests.faults", "--rounds", "2", "--processes", "8", "--events", "150"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("all there") == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 1.5 MB, if mounting is permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k,mode=700", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@contextmanager
def streaming() -> Iterator[MessagesServer]:
    """Return a server with an answer that is larger than the disk."""
    with MessagesServer([Reply([text("x" * FRAMES, pieces=4)])] * 3) as server:
        yield server


def test_a_full_disk_stops_the_application_and_loses_nothing(small_disk: Path) -> None:
    """By default the stream ends in a LogError that names the cause.

    The log keeps every earlier event, and its chains are valid.
    """
    large = {**ASK, "system": "x" * 300_000}
    with EventLog(small_disk / "log.db") as log:
        tape = Tape(log)
        with streaming() as server, tape.on():
            for _ in range(3):
                seen = consume_sync(server.url)
                if seen.error is not None:
                    break
            assert seen.error == "retold.LogError"
            requests = len(server.requests)
            assert consume_sync(server.url, retries=2, body=large).error == "retold.LogError"
            assert len(server.requests) == requests  # a request that cannot be recorded is not sent, and not sent again
        with pytest.raises(LogError, match=r"disk is full.*What was written before is safe"):
            tape.writer.append(Entry("frame", b"x" * 200_000))
    assert verify(EventLog(small_disk / "log.db")).findings == []
    recorded = [event for event in log.events(tape.run, kinds=("frame",)) if b"content_block_delta" in event.payload]
    assert len(recorded) >= sum(event["type"] == "content_block_delta" for event in seen.events)


def test_an_application_continues_on_a_full_disk_if_configured(small_disk: Path) -> None:
    """With `on_failure="go_on"` there is one warning, every event of each stream arrives, and the log has the run up to there."""
    with EventLog(small_disk / "log.db", on_failure="go_on") as log, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tape = Tape(log)
        with streaming() as server, tape.on():
            seen = [consume_sync(server.url) for _ in range(3)]
        tape.writer.end()
        assert [each.error for each in seen] == [None] * 3
        assert [len(each.events) for each in seen] == [FRAMES / 4 + 5] * 3
        assert [warning.category for warning in caught] == [RecordingLostWarning]
        assert log.find(tape.run).status == "interrupted"
        assert next(event.kind for event in log.follow(tape.run)) == "run.started"
    assert verify(EventLog(small_disk / "log.db")).findings == []


def test_a_log_that_becomes_read_only_is_reported_and_loses_nothing(small_disk: Path) -> None:
    """The disk is remounted read-only under a writer. Reading still works. A new run is refused, or continues unrecorded."""
    with EventLog(small_disk / "log.db") as log:
        writer = log.start(name="before", mode="live")
        writer.append(Entry("frame", b"1"), Entry("frame", b"2"))
        writer.end()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with EventLog(small_disk / "log.db") as log, pytest.raises(LogError, match="cannot write"):
            log.start(name="after", mode="live")
        with EventLog(small_disk / "log.db", on_failure="go_on") as log, pytest.warns(RecordingLostWarning):
            log.start(name="after", mode="live").append(Entry("frame", b"3"))
        assert [event.payload for event in log.events(writer.run, kinds=("frame",))] == [b"1", b"2"]
        for command in (["ls"], ["verify"], ["show", "last", "--raw"], ["stats", "--by", "workflow"], ["search", "nothing"]):
            done = in_this_process(*command, "--db", small_disk / "log.db")
            assert (command, done.returncode, "Traceback" in done.stderr) == (command, int(command[0] == "search"), False)
        done = in_this_process("prune", "--older-than", "0s", "--yes", "--db", small_disk / "log.db")
        assert (done.returncode, done.stderr.startswith("retold: cannot write")) == (2, True)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


def test_the_environment_sets_the_reaction_to_an_unwritable_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable serves programs that are recorded from outside. An unknown value is refused."""
    assert EventLog("x.db").on_failure == "stop"
    monkeypatch.setenv("RETOLD_ON_LOG_FAILURE", "go-on")
    assert EventLog("x.db").on_failure == "go_on"
    assert EventLog("x.db", on_failure="stop").on_failure == "stop"
    monkeypatch.setenv("RETOLD_ON_LOG_FAILURE", "perhaps")
    with pytest.raises(InputError, match="RETOLD_ON_LOG_FAILURE"):
        EventLog("x.db")
