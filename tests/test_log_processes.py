"""Several processes use one log: no event is lost or doubled, and runs of dead processes are distinguished from running ones."""

import fcntl
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from retold.audit.verify import verify
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from tests.raw_log import Child, computed_chain, query, rows, stored_chain

PROCESSES, EVENTS = 4, 500

FLOOD = """
import sys
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

path, name, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with EventLog(path) as log, log.start(name=name, mode="live") as writer:
    print(writer.run, flush=True)
    while writer.seq <= events:
        entries = [Entry("frame", f"{name}/{writer.seq + n}".encode()) for n in range(1 + writer.seq % 2)]
        writer.append(*entries[: events + 1 - writer.seq])
"""

ENDLESS = """
import sys
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

writer = EventLog(sys.argv[1]).start(name="killed", mode="live")
print(writer.run, flush=True)
while True:
    event = writer.append(Entry("frame", b"data: %d" % writer.seq))[0]
    print(event.seq, event.hash.hex(), flush=True)
"""

STEPWISE = """
import sys
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

with EventLog(sys.argv[1]) as log, log.start(name="stepwise", mode="live") as writer:
    print(writer.run, flush=True)
    for line in sys.stdin:
        print(writer.append(Entry("frame", line.strip().encode()))[0].seq, flush=True)
"""

CRASH = """
import sys
from retold.recorder.log import EventLog

log = EventLog(sys.argv[1])
for number in range(int(sys.argv[2])):
    log.start(name=f"crash {number}", mode="live")
print("started", flush=True)
sys.stdin.readline()
"""

CREATE = """
import sys
from retold.recorder.log import EventLog

print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    with EventLog(f"{sys.argv[1]}/{number}/log.db") as log, log.start(name=sys.argv[2], mode="live"):
        pass
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    with EventLog(path) as opened:
        yield opened


@pytest.mark.trap(38)
def test_processes_that_append_at_once_neither_lose_nor_double_events(path: Path) -> None:
    """Four processes append 500 events each, singly and in batches. All chains are valid, and no process finds the log locked."""
    children = [Child(FLOOD, path, f"p{number}", EVENTS) for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.send_line()
    runs = {child.line(): f"p{number}" for number, child in enumerate(children)}
    assert {child.finish() for child in children} == {(0, "", "")}
    assert query(path, "SELECT count(*) FROM events") == [(PROCESSES * (EVENTS + 2),)]
    for run, name in runs.items():
        stored = rows(path, run)
        assert [row["payload"].decode() for row in stored[1:-1]] == [f"{name}/{seq}" for seq in range(1, EVENTS + 1)]
        assert computed_chain(stored) == stored_chain(stored)
    assert {info.status for info in EventLog(path).runs()} == {"completed"}


def test_processes_that_create_the_same_log_at_once_create_it_once(tmp_path: Path) -> None:
    """The first process runs the migrations. The others wait for them and continue."""
    for number in range(10):
        (tmp_path / str(number)).mkdir()
    children = [Child(CREATE, tmp_path, f"p{number}") for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.send_line()
    assert {child.finish() for child in children} == {(0, "", "")}
    for number in range(10):
        path = tmp_path / str(number) / "log.db"
        assert {info.name for info in EventLog(path).runs()} == {f"p{number}" for number in range(PROCESSES)}
        assert query(path, "SELECT count(*) FROM runs WHERE status = 'completed'") == [(PROCESSES,)]


def kill_while_writing(path: Path, events: int) -> tuple[str, list[tuple[int, str]]]:
    """Start an endless writer and `kill -9` it after some events. Return its run and the events that it acknowledged."""
    with Child(ENDLESS, path) as child:
        run = child.line()
        lines = [child.line() for _ in range(events)]
        child.process.kill()
        code, rest, _ = child.finish()
        assert code == -9
        lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    return run, [(int(line.split()[0]), line.split()[1]) for line in lines]


@pytest.mark.trap(37)
def test_every_acknowledged_event_survives_kill_9(path: Path) -> None:
    """Every event that a writer acknowledged is in the log after its death, with the same hash, in one chain."""
    run, acknowledged = kill_while_writing(path, 200)
    stored = rows(path, run)
    assert len(acknowledged) >= 200
    assert acknowledged == [(row["seq"], row["hash"].hex()) for row in stored[1 : len(acknowledged) + 1]]
    assert computed_chain(stored) == stored_chain(stored)


def test_the_run_of_a_killed_writer_is_interrupted(path: Path) -> None:
    """The listing shows that without writing, with the counts of the recorded events."""
    run, _ = kill_while_writing(path, 20)
    before = rows(path, run)
    info = EventLog(path).find(run)
    assert (info.status, info.frames, info.ended_ns) == ("interrupted", len(before) - 1, None)
    assert before == rows(path, run)


@pytest.mark.trap(20)
def test_opening_the_log_for_writing_ends_runs_of_dead_processes(path: Path, log: EventLog) -> None:
    """The first writer after a crash appends the ending to the chain of the run, once."""
    run, _ = kill_while_writing(path, 20)
    before = rows(path, run)
    log.start(name="next", mode="live").end()
    log.close()
    log.start(name="and another", mode="live").end()
    stored = rows(path, run)
    assert stored[:-1] == before
    frames = len(before) - 1
    assert stored[-1]["kind"] == "run.ended"
    assert json.loads(stored[-1]["payload"]) == {
        "status": "interrupted", "error": None, "messages": 0, "exchanges": 0, "frames": frames,
    }  # fmt: skip
    assert computed_chain(stored) == stored_chain(stored)
    assert log.find(run).status == "interrupted"
    assert list((path.parent / "log.db.live").iterdir()) == []


def test_processes_that_open_a_crashed_log_at_once_end_its_runs_once(path: Path) -> None:
    """Several processes find the same dead writers. Each run gets one ending, and no process fails."""
    with Child(CRASH, path, 100) as child:
        assert child.line() == "started"
    children = [Child(FLOOD, path, f"p{number}", 3) for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.send_line()
    finished = {child.finish()[::2] for child in children}
    endings = query(path, "SELECT count(*) FROM events WHERE kind = 'run.ended' GROUP BY run")
    assert (finished, endings) == ({(0, "")}, [(1,)] * (100 + PROCESSES))


def test_a_run_in_another_process_is_running_until_that_process_ends_it(path: Path, log: EventLog) -> None:
    """retold never takes the run of a living writer for an interrupted one, not even when it opens the log for writing."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        assert log.find(run).status == "running"
        log.start(name="mine", mode="live").end()
        assert log.find(run).status == "running"
        child.send_line("still writing")
        assert child.line() == "1"
        assert log.find(run).frames == 1
        assert child.finish() == (0, "", "")
    assert log.find(run).status == "completed"
    assert [row["kind"] for row in rows(path, run)] == ["run.started", "frame", "run.ended"]


def test_a_run_of_this_process_is_running_for_every_log_object(path: Path, log: EventLog) -> None:
    """A second EventLog for the same file, opened for writing, does not end the runs of the first one."""
    writer = log.start(name="mine", mode="live")
    with EventLog(path) as other:
        other.start(name="other", mode="live").end()
        assert other.find(writer.run).status == "running"
    writer.append(Entry("frame", b"1"))
    writer.end()
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started", "frame", "run.ended"]


def test_follow_sees_each_event_of_its_own_process_as_it_is_appended(log: EventLog) -> None:
    """It yields event by event, never ahead of the writer, and stops with the run."""
    writer = log.start(name="mine", mode="live")
    events = log.follow(writer.run)
    assert next(events).kind == "run.started"
    for number in range(3):
        assert writer.append(Entry("frame", b"%d" % number)) == [next(events)]
    writer.end()
    assert [event.kind for event in events] == ["run.ended"]


def test_follow_wakes_while_it_waits(log: EventLog) -> None:
    """A reader that waits in another thread gets all events in order, and ends with the run."""
    writer = log.start(name="mine", mode="live")
    seen: list[str] = []
    got_first = threading.Event()

    def read() -> None:
        for event in log.follow(writer.run):
            seen.append(event.kind)
            got_first.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert got_first.wait(20)
    for _ in range(20):
        writer.append(Entry("frame", b""))
    writer.end()
    thread.join(20)
    assert not thread.is_alive()
    assert seen == ["run.started", *["frame"] * 20, "run.ended"]


def test_follow_sees_each_event_of_another_process_before_the_next_is_appended(path: Path, log: EventLog) -> None:
    """The writer continues only after the reader has seen the last event. The reader ends with the writer's run."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        events = log.follow(run)
        assert next(events).kind == "run.started"
        for number in range(5):
            child.send_line(f"frame {number}")
            assert next(events).payload == f"frame {number}".encode()
        child.hang_up()
        assert [event.kind for event in events] == ["run.ended"]


def test_follow_ends_when_the_writer_is_killed(path: Path, log: EventLog) -> None:
    """The reader does not wait for a dead writer. It has every committed event."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        events = log.follow(run)
        assert next(events).kind == "run.started"
        child.send_line("last words")
        assert child.line() == "1"
        child.process.kill()
        child.process.wait()
        assert [event.payload for event in events] == [b"last words"]


def test_follow_ends_when_until_is_satisfied(log: EventLog) -> None:
    """The event for which `until` returns true is the last one, though the run continues."""
    writer = log.start(name="mine", mode="live")
    writer.append(Entry("frame", b"1"), Entry("message", b"{}"), Entry("frame", b"2"))
    events = log.follow(writer.run, until=lambda event: event.kind == "message")
    assert [event.kind for event in events] == ["run.started", "frame", "message"]


def test_follow_of_selected_kinds_still_ends_with_the_run(log: EventLog) -> None:
    """`follow` looks for the end of the run, and yields it only if the caller selected it."""
    with log.start(name="mine", mode="live") as writer:
        writer.append(Entry("frame", b"1"), Entry("message", b"{}"), Entry("frame", b"2"))
    assert [event.kind for event in log.follow(writer.run, kinds=("message",))] == ["message"]
    assert [event.kind for event in log.follow(writer.run, after=1, kinds=("frame", "run.ended"))] == ["frame", "run.ended"]


SHM_IN_USE = 128
"""Each process with a connection locks this byte of the WAL's index. Without the lock, the next process would truncate the index.
"""


def test_a_forked_child_opens_new_connections(tmp_path: Path) -> None:
    """The child has its own locks, which remain when the parent closes the log."""
    path = tmp_path / "log.db"
    log = EventLog(path)
    parent = log.start(name="parent", mode="live")
    ours, its = socket.socketpair()
    if (child := os.fork()) == 0:
        ours.close()
        try:
            with EventLog(path) as own, own.start(name="child", mode="live") as writer:
                writer.append(Entry("frame", b"1"))
                its.send(b".")
                its.recv(1)
                writer.append(Entry("frame", b"2"))
            os._exit(0)
        finally:
            os._exit(1)
    with its, ours:
        ours.recv(1)
        parent.append(Entry("frame", b"3"))
        parent.end()
        log.close()
        with open(f"{path}-shm", "r+b") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, SHM_IN_USE)
        ours.send(b".")
        assert os.waitpid(child, 0)[1] == 0
    assert verify(log).findings == []
    assert {info.name: info.frames for info in log.runs()} == {"parent": 1, "child": 2}


def test_a_log_without_references_closes_its_file(tmp_path: Path) -> None:
    """It closes the file at once, not when the garbage collector runs, because a fork would inherit the connection."""
    EventLog(tmp_path / "log.db").start(name="a", mode="live").end()
    assert not (tmp_path / "log.db-wal").exists()


@pytest.mark.parametrize("frames", [1, 2])
def test_a_writer_tries_again_at_short_intervals_while_another_one_commits(
    frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit takes 0.1 ms. SQLite's own waiting would sleep a millisecond and more, and all streams of a proxy with it."""
    slept: list[float] = []
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            other.execute("COMMIT")

    monkeypatch.setattr("retold.recorder.log.sqlite.rows.time.sleep", sleep)
    with EventLog(tmp_path / "log.db") as log, log.start(name="waits", mode="live") as writer:
        other.execute("BEGIN IMMEDIATE")
        events = writer.append(*[Entry("frame", b"%d" % n) for n in range(frames)])
    assert slept == [0.00005] * 3
    assert [event.seq for event in events] == list(range(1, 1 + frames))
    other.close()
