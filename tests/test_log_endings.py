"""Each ending of a run or exchange is written once, as the last event, with its original outcome, even if it is late."""

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.errors import LogError
from retold.recorder.events import Entry
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog, RunWriter
from retold.recorder.log.sqlite.reading import SqliteReadings
from tests import forks
from tests.conftest import ROOT
from tests.raw_log import Child, query, store_of
from tests.test_log_append import refuse

FULL = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from retold.recorder.errors import LogError
from retold.recorder.log import EventLog
from tests.test_log_append import refuse

log = EventLog(sys.argv[1])
writer = log.start(name="full", mode="live")
refuse(Path(sys.argv[1]), "run.ended")
try:
    writer.end("failed", error="ValueError: what it was")
except LogError:
    print(writer.run, flush=True)
sys.stdin.readline()
"""

FILL = """
import resource, sys
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

log = EventLog(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for number in range(300):
    with log.start(name="run", mode="live") as writer:
        writer.append(Entry("frame", b"x"))
print("ended", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def make_room(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER refused")


def exchange(writer: RunWriter) -> Capture:
    capture = Capture(writer, Request("POST", "https://h/v1/messages", (), b"{}"))
    capture.response(200, "OK", (("content-type", "application/json"),))
    capture.data(b"{}")
    return capture


@pytest.mark.parametrize("later", ["end", "start", "close"])
def test_the_original_ending_of_a_run_is_written_as_soon_as_there_is_room(path: Path, later: str) -> None:
    """A later `end` writes it and ignores its own status. So does the next run, or closing the log."""
    log = EventLog(path)
    writer = log.start(name="run", mode="live")
    refuse(path, "run.ended")
    with pytest.raises(LogError, match="no room"):
        writer.end("failed", error="what it was")
    make_room(path)
    if later == "end":
        writer.end("completed")
    elif later == "start":
        log.start(name="next", mode="live").end()
    log.close()
    assert query(path, "SELECT status, error FROM runs WHERE run = ?", writer.run) == [("failed", "what it was")]
    assert query(path, "SELECT count(*) FROM events WHERE kind = 'run.ended' AND run = ?", writer.run) == [(1,)]


def test_the_next_process_writes_the_original_ending(path: Path) -> None:
    """The process died while its disk was full. It had noted the ending beside the log, and readers see it at once."""
    with Child(FULL, path, ROOT) as child:
        run = child.line()
        assert EventLog(path).find(run).status == "running"
        child.process.kill()
        child.process.wait()
        make_room(path)
        assert (EventLog(path).find(run).status, EventLog(path).find(run).error) == ("failed", "ValueError: what it was")
        with EventLog(path) as log:
            log.start(name="next", mode="live").end()
    assert query(path, "SELECT status, error FROM runs WHERE run = ?", run) == [("failed", "ValueError: what it was")]


def test_the_ending_of_an_exchange_is_written_with_the_end_of_its_run(path: Path) -> None:
    """The first call decided that the exchange was complete, and no second call follows."""
    with EventLog(path) as log:
        writer = log.start(name="run", mode="live")
        capture = exchange(writer)
        refuse(path, "exchange.ended")
        with pytest.raises(LogError, match="no room"):
            capture.end("complete")
        make_room(path)
        writer.end()
        assert [recorded.ending for recorded in exchanges_of(log, writer.run)] == ["complete"]


def test_an_exchange_that_is_open_when_its_run_ends_counts_as_closed(path: Path) -> None:
    """The client may continue to read without being recorded. The ending does not claim that a process died."""
    with EventLog(path) as log:
        writer = log.start(name="run", mode="live")
        capture = exchange(writer)
        writer.end()
        capture.data(b"more")
        capture.end("complete")
        (recorded,) = exchanges_of(log, writer.run)
    assert (recorded.ending, recorded.failure) == ("closed", None)


def test_no_event_of_another_thread_follows_the_end(path: Path) -> None:
    """Threads append and end at once. The log has one `run.ended`, and it is the last event."""
    with EventLog(path) as log:
        for _ in range(20):
            writer, barrier = log.start(name="run", mode="live"), threading.Barrier(3)

            def stream(writer: RunWriter = writer, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                with contextlib.suppress(LogError):
                    while True:
                        writer.append(Entry("frame", b"x"))

            def end(writer: RunWriter = writer, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                writer.end()

            threads = [threading.Thread(target=work) for work in (stream, end, end)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            kinds = [kind for (kind,) in query(path, "SELECT kind FROM events WHERE run = ? ORDER BY seq", writer.run)]
            assert (kinds[-1], kinds.count("run.ended")) == ("run.ended", 1)


def test_a_failed_start_leaves_no_lock(path: Path) -> None:
    """Neither the lock file nor its descriptor remains."""
    log = EventLog(path)
    log.open()
    refuse(path, "run.started")
    for _ in range(3):
        with pytest.raises(LogError):
            log.start(name="run", mode="live")
    assert list(path.with_name("log.db.live").iterdir()) == []
    assert store_of(log)._alive._held == {}
    log.close()


def test_a_checkpoint_makes_room_if_the_wal_cannot_grow(path: Path) -> None:
    """300 runs fit in files of at most 400 kB, which their WAL alone would exceed, because a full disk triggers a checkpoint."""
    with Child(FILL, path) as child:
        assert child.line() == "ended"
        assert child.finish() == (0, "", "")
    assert query(path, "SELECT count(*) FROM runs WHERE status = 'completed'") == [(300,)]


def test_a_follower_in_the_writers_process_does_not_poll(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower reads again when a commit wakes it, not after a timeout."""
    asked = threading.Semaphore(0)
    page = SqliteReadings.read

    def counted(self: SqliteReadings, *arguments: Any, **values: Any) -> object:
        asked.release()
        return page(self, *arguments, **values)

    monkeypatch.setattr(SqliteReadings, "read", counted)
    monkeypatch.setattr("retold.recorder.log.reading.WAIT_S", 60.0)
    with EventLog(path) as log, EventLog(path) as other:
        writer = log.start(name="run", mode="live")
        thread = threading.Thread(target=lambda: list(other.follow(writer.run)))
        thread.start()
        for _ in range(2):  # the first read gets the first event; the second gets nothing, so the follower waits
            assert asked.acquire(timeout=20)
        assert not asked.acquire(timeout=0.1)
        writer.end()
        thread.join(20)
        assert not thread.is_alive()


AT_EXIT = """
import sys
sys.path.insert(0, sys.argv[2])
import retold
from tests.clients import answer_text, client
from tests.messages_server import MessagesServer, Reply, text

with MessagesServer([Reply([text("hi")])]) as server:
    answer_text(client(server.url, middleware=[retold.recording(retold.EventLog(sys.argv[1]))]), "hi")
"""


def test_a_recording_that_is_never_closed_is_completed_at_exit(path: Path) -> None:
    """The program uses `retold.recording` as the documentation's example does."""
    done = forks.run("-c", AT_EXIT, path, ROOT, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert query(path, "SELECT status, error FROM runs") == [("completed", None)]
