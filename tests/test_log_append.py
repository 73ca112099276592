"""`append` commits before it returns, numbers events without gaps, chains them, never changes them, and is all or nothing."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.errors import LogError
from retold.recorder.events import OWN_SEQ, SCHEMA, Entry, Frames
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.log.log import EventLog
from tests.raw_log import Child, computed_chain, query, rows, stored_chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    with EventLog(path) as opened:
        yield opened


def refuse(path: Path, kind: str) -> None:
    """Make SQLite refuse events of one kind after the append has begun, as a full disk would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TRIGGER refused BEFORE INSERT ON events WHEN NEW.kind = '{kind}' BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )


def test_an_event_is_committed_when_append_returns(log: EventLog, path: Path) -> None:
    """Another connection sees the header and the payload of each event at once."""
    writer = log.start(name="run", mode="live")
    for number in range(5):
        event = writer.append(Entry("frame", b"data: %d\n\n" % number, "step", "task", 7))[0]
        last = rows(path, writer.run)[-1]
        assert last == {
            "run": writer.run,
            "seq": number + 1,
            "t_ns": event.t_ns,
            "wall_ns": event.wall_ns,
            "kind": "frame",
            "step": "step",
            "task": "task",
            "exchange": 7,
            "payload": b"data: %d\n\n" % number,
            "digest": sha256(b"data: %d\n\n" % number).digest(),
            "hash": event.hash,
            "schema": SCHEMA,
        }


@pytest.mark.parametrize("number", [1, 2, 3, 16, 17, 64, 65, 150])
def test_frames_that_arrive_together_are_events_like_any(log: EventLog, path: Path, number: int) -> None:
    """Each has its number, exchange, digest and hash, and a payload as text if it is text. They are committed together."""
    payloads = [b"data: %d\n\n" % each for each in range(number - 1)] + [b"data: \xff\0\n\n"]
    writer = log.start(name="run", mode="live")
    exchanges: list[int | None] = [None, 7, 8][:number] * number
    events = writer.append_frames(Frames(payloads, exchanges[:number], "step", "tåsk"))
    found = rows(path, writer.run)[1:]
    assert [row | {"kind": "frame", "step": "step", "task": "tåsk"} for row in found] == found
    assert [row["exchange"] for row in found] == exchanges[:number]
    assert [(row["seq"], row["payload"]) for row in found] == [*enumerate(payloads, 1)]
    assert list(log.events(writer.run))[1:] == events
    assert {row["t_ns"] for row in found} == {events[0].t_ns}
    assert stored_chain(rows(path, writer.run)) == computed_chain(rows(path, writer.run))
    kept = query(path, "SELECT DISTINCT typeof(payload) FROM events WHERE seq BETWEEN 1 AND ?", number - 1)
    assert kept in ([], [("text",)])
    assert writer.counts["frame"] == number
    assert writer.append(Entry("frame", b"data: last\n\n"))[0].seq == number + 1


@pytest.mark.parametrize("number", [3, 16, 17, 64, 65])
def test_frames_that_arrive_together_are_written_all_or_none(log: EventLog, path: Path, number: int) -> None:
    """If one of them is refused, the run has none of them, and continues without a gap."""
    writer = log.start(name="run", mode="live")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TRIGGER refused BEFORE INSERT ON events WHEN NEW.seq = {number} BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    with pytest.raises(LogError, match="no room"):
        writer.append_frames(Frames([b"data: 1\n\n"] * number, [1] * number))
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started"]
    assert writer.append_frames(Frames([b"data: 1\n\n"] * 2, [1, 1]))[0].seq == 1


def test_start_and_end_are_committed_when_they_return(log: EventLog, path: Path) -> None:
    """Another connection sees the first and the last event of a run, and its line in the listing, at once."""
    writer = log.start(name="run", mode="mock", data={"file": "x.yaml"})
    assert query(path, "SELECT run, name, mode, status FROM runs") == [(writer.run, "run", "mock", "running")]
    assert query(path, "SELECT kind, payload FROM events") == [("run.started", '{"name":"run","mode":"mock","file":"x.yaml"}')]
    writer.end("failed", error="why")
    assert query(path, "SELECT status, error FROM runs") == [("failed", "why")]
    assert query(path, "SELECT kind FROM events") == [("run.started",), ("run.ended",)]


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET kind = 'x'", "UPDATE events SET payload = '' WHERE seq = 1", "DELETE FROM events"]
)
def test_events_cannot_be_changed_or_removed(log: EventLog, path: Path, statement: str) -> None:
    """The log is append-only for every SQLite tool."""
    writer = log.start(name="run", mode="live")
    writer.append(Entry("frame", b"data: 1\n\n"))
    before = rows(path, writer.run)
    with (
        contextlib.closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)
    assert before == rows(path, writer.run)


def test_run_and_seq_are_the_key(log: EventLog, path: Path) -> None:
    """SQLite refuses a second event with the same number."""
    writer = log.start(name="run", mode="live")
    with contextlib.closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        connection.execute("INSERT INTO events SELECT " + "run, seq, t_ns, wall_ns, kind, step, task, exchange, "
                           "payload, digest, hash, schema FROM events WHERE run = ?", (writer.run,))  # fmt: skip


entries = st.builds(
    Entry,
    kind=st.sampled_from(["frame", "chunk", "message", "future.kind", "a,b"]),
    payload=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode())),
    step=st.text("ab,:é😀1", max_size=6),
    task=st.text("ab,:é😀1", max_size=6),
    exchange=st.one_of(st.none(), st.integers(0, 99), st.just(OWN_SEQ)),
    t_ns=st.one_of(st.none(), st.integers(-(10**12), 10**12)),
)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(entries, min_size=1, max_size=4), max_size=6))
def test_every_chain_is_the_documented_one(tmp_path_factory: pytest.TempPathFactory, batches: list[list[Entry]]) -> None:
    """Numbers have no gaps, digests match the stored payloads, and each hash covers the previous hash, header and digest."""
    path = tmp_path_factory.mktemp("log") / "log.db"
    with EventLog(path) as log, log.start(name="run", mode="live") as writer:
        returned = [event for batch in batches for event in writer.append(*batch)]
        stored = rows(path, writer.run)
        assert computed_chain(stored) == stored_chain(stored)
        assert [entry.payload for batch in batches for entry in batch] == [row["payload"] for row in stored[1:]]
        assert [event.hash for event in returned] == [row["hash"] for row in stored[1:]]
        times = [row["t_ns"] for row in stored]
        assert sorted(times) == times
        assert times[0] == 0
        assert list(log.events(writer.run))[1:] == returned


def test_interleaved_runs_have_separate_chains(log: EventLog, path: Path) -> None:
    """Each run counts from 0 and chains only its own events."""
    writers = [log.start(name=f"run {number}", mode="live") for number in range(3)]
    for number in range(30):
        writers[number % 3].append(Entry("frame", b"%d" % number))
    for writer in writers:
        stored = rows(path, writer.run)
        assert len(stored) == 11
        assert computed_chain(stored) == stored_chain(stored)


def test_threads_that_share_a_writer_leave_no_gap(log: EventLog, path: Path) -> None:
    """Four threads append to one run at once. Every event is in one chain, exactly once."""
    writer = log.start(name="run", mode="live")
    barrier = threading.Barrier(4)

    def write(thread: int) -> None:
        barrier.wait()
        for number in range(50):
            writer.append(Entry("frame", b"%d/%d" % (thread, number)))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = rows(path, writer.run)
    assert sorted(b"%d/%d" % (a, b) for a in range(4) for b in range(50)) == sorted(row["payload"] for row in stored[1:])
    assert computed_chain(stored) == stored_chain(stored)


def test_an_exchange_has_the_number_of_its_first_event(log: EventLog, path: Path) -> None:
    """OWN_SEQ means the number that the entry itself gets, also within a batch."""
    writer = log.start(name="run", mode="live")
    writer.append(Entry("frame", b""), Entry("exchange.started", b"{}", exchange=OWN_SEQ))
    assert [row["exchange"] for row in rows(path, writer.run)] == [None, None, 2]


def test_a_refused_event_is_a_log_error_and_leaves_no_gap(log: EventLog, path: Path) -> None:
    """An event that could not be written takes no number. The error names the log and confirms that earlier events are safe."""
    writer = log.start(name="run", mode="live")
    writer.append(Entry("frame", b"1"))
    refuse(path, "refused")
    with pytest.raises(LogError, match=r"cannot write the log .*log\.db: no room\. What was written before is safe"):
        writer.append(Entry("refused", b"2"))
    writer.append(Entry("frame", b"3"))
    stored = rows(path, writer.run)
    assert [(row["seq"], row["payload"]) for row in stored[1:]] == [(1, b"1"), (2, b"3")]
    assert computed_chain(stored) == stored_chain(stored)


def test_a_refused_event_refuses_its_whole_batch(log: EventLog, path: Path) -> None:
    """The events before the refused one are not written either, and the next append leaves no gap."""
    writer = log.start(name="run", mode="live")
    refuse(path, "refused")
    with pytest.raises((LogError, sqlite3.Error), match="no room"):
        writer.append(Entry("frame", b"1"), Entry("refused", b"2"), Entry("frame", b"3"))
    assert len(rows(path, writer.run)) == 1
    writer.append(Entry("frame", b"4"), Entry("frame", b"5"))
    stored = rows(path, writer.run)
    assert [(row["seq"], row["payload"]) for row in stored[1:]] == [(1, b"4"), (2, b"5")]
    assert computed_chain(stored) == stored_chain(stored)


def test_a_refused_batch_is_a_log_error(log: EventLog, path: Path) -> None:
    """The error is the same as for a single event."""
    writer = log.start(name="run", mode="live")
    refuse(path, "refused")
    with pytest.raises(LogError, match="no room"):
        writer.append(Entry("frame", b"1"), Entry("refused", b"2"))


def test_an_ending_that_could_not_be_written_can_be_written_later(log: EventLog, path: Path) -> None:
    """The disk was full at the end of a run. As soon as there is room, `end` writes the ending."""
    writer = log.start(name="run", mode="live")
    refuse(path, "run.ended")
    with pytest.raises((LogError, sqlite3.Error), match="no room"):
        writer.end()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER refused")
    writer.end()
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started", "run.ended"]


def test_appending_nothing_appends_nothing(log: EventLog, path: Path) -> None:
    """An empty batch is not an error."""
    writer = log.start(name="run", mode="live")
    assert writer.append() == []
    assert len(rows(path, writer.run)) == 1


FILL = """
import resource, sys
from retold.recorder.errors import LogError
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

log = EventLog(sys.argv[1])
writer = log.start(name="run", mode="live")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    while True:
        writer.append(Entry("frame", b"x" * 5000))
except LogError as error:
    print(writer.run, writer.seq, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(Entry("frame", b"room again"))
writer.end()
"""


def test_a_full_disk_is_a_log_error_and_appending_works_again_with_room(path: Path) -> None:
    """The file cannot grow: the error is clear, all earlier events are safe, and no gap follows."""
    with Child(FILL, path) as child:
        run, seq, message = child.line().split(" ", 2)
        assert child.finish() == (0, "", "")
    assert message.startswith(f"cannot write the log {path}: ")
    assert message.endswith(
        "What was written before is safe; the disk refused it: free some space if it is full or a limit is reached, or name "
        "another log with --db FILE."
    )
    stored = rows(path, run)
    assert int(seq) > 10
    assert [row["payload"] for row in stored[1:-1]] == [b"x" * 5000] * (int(seq) - 1) + [b"room again"]
    assert computed_chain(stored) == stored_chain(stored)


def test_a_run_ends_once(log: EventLog, path: Path) -> None:
    """A second `end` changes nothing, even with another status."""
    writer = log.start(name="run", mode="live")
    writer.end()
    writer.end("failed", error="late")
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started", "run.ended"]
    assert query(path, "SELECT status, error FROM runs") == [("completed", None)]


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [
        (None, "completed", None),
        (ValueError("why"), "failed", "ValueError: why"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
    ],
)
def test_a_run_ends_with_the_outcome_of_its_block(
    log: EventLog, raised: BaseException | None, status: str, error: str | None
) -> None:
    """A block that returns completes the run, an error fails it, and an interrupt cancels it."""
    with contextlib.suppress(ValueError, KeyboardInterrupt), log.start(name="run", mode="live"):
        if raised is not None:
            raise raised
    assert [(info.status, info.error) for info in log.runs()] == [(status, error)]


def test_a_run_accepts_no_event_after_its_last(log: EventLog, path: Path) -> None:
    """Readers stop at the last event. An event of a leftover thread or of a stream closed late would escape them."""
    writer = log.start(name="run", mode="live")
    writer.end()
    with contextlib.suppress(LogError):
        writer.append(Entry("frame", b"late"))
    assert [row["kind"] for row in rows(path, writer.run)] == ["run.started", "run.ended"]


def test_a_deferred_ending_is_written_once(log: EventLog) -> None:
    """A stream is dropped and later closed. The close first writes the deferred ending, which is the same one."""
    with log.start(name="run", mode="live") as writer:
        capture = Capture(writer, Request("POST", "https://api.anthropic.com/v1/messages", (), b"{}"))
        capture.response(200, "OK", ())
        capture.dropped()
        capture.end("closed")
    kinds = [event.kind for event in log.events(writer.run)]
    assert kinds.count("exchange.ended") == 1
