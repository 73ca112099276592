"""Several processes and one log: nothing lost, nothing doubled, the dead told from the living."""

import fcntl
import json
import os
import socket
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
def test_processes_that_append_at_once_lose_and_double_nothing(path: Path) -> None:
    """Four processes, 500 events each, singly and in batches: all there, all chains right, nobody finds the log locked."""
    children = [Child(FLOOD, path, f"p{number}", EVENTS) for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.tell()
    runs = {child.line(): f"p{number}" for number, child in enumerate(children)}
    assert {child.finish() for child in children} == {(0, "", "")}
    assert query(path, "SELECT count(*) FROM events") == [(PROCESSES * (EVENTS + 2),)]
    for run, name in runs.items():
        stored = rows(path, run)
        assert [row["payload"].decode() for row in stored[1:-1]] == [f"{name}/{seq}" for seq in range(1, EVENTS + 1)]
        assert computed_chain(stored) == stored_chain(stored)
    assert {info.status for info in EventLog(path).runs()} == {"completed"}


def test_processes_that_make_the_same_log_at_once_make_it_once(tmp_path: Path) -> None:
    """Whoever is first runs the migrations; the others wait for them and go on."""
    for number in range(10):
        (tmp_path / str(number)).mkdir()
    children = [Child(CREATE, tmp_path, f"p{number}") for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.tell()
    assert {child.finish() for child in children} == {(0, "", "")}
    for number in range(10):
        path = tmp_path / str(number) / "log.db"
        assert {info.name for info in EventLog(path).runs()} == {f"p{number}" for number in range(PROCESSES)}
        assert query(path, "SELECT count(*) FROM runs WHERE status = 'completed'") == [(PROCESSES,)]


def kill_while_writing(path: Path, events: int) -> tuple[str, list[tuple[int, str]]]:
    """Start an endless writer, `kill -9` it after so many events; its run and what it acknowledged until then."""
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
    """What a writer said it wrote is in the log after its death, with the hashes it said, in one chain."""
    run, acknowledged = kill_while_writing(path, 200)
    stored = rows(path, run)
    assert len(acknowledged) >= 200
    assert acknowledged == [(row["seq"], row["hash"].hex()) for row in stored[1 : len(acknowledged) + 1]]
    assert computed_chain(stored) == stored_chain(stored)


def test_a_run_whose_writer_was_killed_is_interrupted(path: Path) -> None:
    """The listing says so without writing anything, with the counts of what is there."""
    run, _ = kill_while_writing(path, 20)
    before = rows(path, run)
    info = EventLog(path).find(run)
    assert (info.status, info.frames, info.ended_ns) == ("interrupted", len(before) - 1, None)
    assert before == rows(path, run)


@pytest.mark.trap(20)
def test_opening_the_log_for_writing_ends_the_runs_of_the_dead(path: Path, log: EventLog) -> None:
    """The first writer after a crash closes the run it finds: an event of its own, in the chain, and once."""
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
    """Several openers see the same dead writers; one ending is written for each run, and no opener fails."""
    with Child(CRASH, path, 100) as child:
        assert child.line() == "started"
    children = [Child(FLOOD, path, f"p{number}", 3) for number in range(PROCESSES)]
    for child in children:
        assert child.line() == "ready"
    for child in children:
        child.tell()
    finished = {child.finish()[::2] for child in children}
    endings = query(path, "SELECT count(*) FROM events WHERE kind = 'run.ended' GROUP BY run")
    assert (finished, endings) == ({(0, "")}, [(1,)] * (100 + PROCESSES))


def test_a_run_in_another_process_is_running_until_that_ends_it(path: Path, log: EventLog) -> None:
    """A living writer's run is never taken for a dead one's, also not by who opens the log for writing."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        assert log.find(run).status == "running"
        log.start(name="mine", mode="live").end()
        assert log.find(run).status == "running"
        child.tell("still writing")
        assert child.line() == "1"
        assert log.find(run).frames == 1
        assert child.finish() == (0, "", "")
    assert log.find(run).status == "completed"
    assert [row["kind"] for row in rows(path, run)] == ["run.started", "frame", "run.ended"]


def test_a_run_of_this_process_is_running_for_every_log_object(path: Path, log: EventLog) -> None:
    """A second EventLog on the same file, opened for writing, leaves the first one's runs alone."""
    writer = log.start(name="mine", mode="live")
    with EventLog(path) as other:
        other.start(name="other", mode="live").end()
        assert other.find(writer.run).status == "running"
    writer.append(Entry("frame", b"1"))
    writer.end()
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started", "frame", "run.ended"]


def test_follow_sees_each_event_of_its_own_process_as_it_is_appended(log: EventLog) -> None:
    """Event by event, never ahead of the writer, and over when the run is."""
    writer = log.start(name="mine", mode="live")
    events = log.follow(writer.run)
    assert next(events).kind == "run.started"
    for number in range(3):
        assert writer.append(Entry("frame", b"%d" % number)) == [next(events)]
    writer.end()
    assert [event.kind for event in events] == ["run.ended"]


def test_follow_wakes_while_it_waits(log: EventLog) -> None:
    """A reader that waits in a thread of its own gets everything, in order, and ends with the run."""
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
    """The writer goes on only when the reader has seen its last event, and the reader ends with the writer's run."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        events = log.follow(run)
        assert next(events).kind == "run.started"
        for number in range(5):
            child.tell(f"frame {number}")
            assert next(events).payload == f"frame {number}".encode()
        child.hang_up()
        assert [event.kind for event in events] == ["run.ended"]


def test_follow_ends_when_the_writer_is_killed(path: Path, log: EventLog) -> None:
    """A reader does not wait for the dead; it has seen everything that was committed."""
    with Child(STEPWISE, path) as child:
        run = child.line()
        events = log.follow(run)
        assert next(events).kind == "run.started"
        child.tell("last words")
        assert child.line() == "1"
        child.process.kill()
        child.process.wait()
        assert [event.payload for event in events] == [b"last words"]


def test_follow_ends_where_until_says_so(log: EventLog) -> None:
    """The event that `until` was waiting for is the last one, though the run goes on."""
    writer = log.start(name="mine", mode="live")
    writer.append(Entry("frame", b"1"), Entry("message", b"{}"), Entry("frame", b"2"))
    events = log.follow(writer.run, until=lambda event: event.kind == "message")
    assert [event.kind for event in events] == ["run.started", "frame", "message"]


def test_follow_of_some_kinds_still_ends_with_the_run(log: EventLog) -> None:
    """The run's end is looked for, and shown only where it was asked for."""
    with log.start(name="mine", mode="live") as writer:
        writer.append(Entry("frame", b"1"), Entry("message", b"{}"), Entry("frame", b"2"))
    assert [event.kind for event in log.follow(writer.run, kinds=("message",))] == ["message"]
    assert [event.kind for event in log.follow(writer.run, after=1, kinds=("frame", "run.ended"))] == ["frame", "run.ended"]


SHM_IN_USE = 128
"""The byte of the WAL's index that each process with a connection locks; without, the next one to open the file truncates it."""


def test_a_forked_child_has_connections_of_its_own(tmp_path: Path) -> None:
    """Its locks are its own, and remain when the parent closes the log."""
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


def test_a_log_that_is_let_go_of_closes_its_file(tmp_path: Path) -> None:
    """At once, not when the garbage collector runs: a fork would take the connection along."""
    EventLog(tmp_path / "log.db").start(name="a", mode="live").end()
    assert not (tmp_path / "log.db-wal").exists()
