"""The file of a log: private, readable with any SQLite tool, and refused if it is foreign, newer or damaged."""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from retold.recorder.errors import InputError, LogError, LogVersionError
from retold.recorder.events import Entry, encode
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Place, Request
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite import checkpoints
from retold.recorder.log.sqlite import opening as store
from tests.raw_log import query, rows, store_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "log.db"


@pytest.fixture
def log(path: Path) -> Iterator[EventLog]:
    with EventLog(path) as opened:
        yield opened


def write_sqlite(path: Path, *statements: str) -> bytes:
    path.parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path.read_bytes()


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_can_read_a_log(log: EventLog, path: Path) -> None:
    """Prompts and answers are private. This includes the file, the files that SQLite adds, and a folder made for it."""
    before = os.umask(0)
    try:
        writer = log.start(name="run", mode="live")
    finally:
        os.umask(before)
    files = {file.name: permissions(file) for file in path.parent.iterdir() if file.is_file()}
    assert {"log.db", "log.db-wal", "log.db-shm"} <= files.keys()
    assert set(files.values()) == {0o600}
    assert permissions(path.parent) == 0o700
    assert permissions(path.parent / "log.db.live") == 0o700
    assert permissions(path.parent / "log.db.live" / writer.run) == 0o600


def test_the_default_log_is_ignored_by_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default log is `.retold/log.db` in the working directory, or the path in RETOLD_DB."""
    with EventLog() as log:
        log.start(name="run", mode="live").end()
    assert Path(".retold/.gitignore").read_text() == "*\n"
    assert query(Path(".retold/log.db"), "SELECT name FROM runs") == [("run",)]
    monkeypatch.setenv("RETOLD_DB", "other.db")
    assert EventLog().path == Path("other.db")


def test_a_long_run_is_folded_into_the_database_during_recording(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The WAL does not grow forever, and every event is in the log exactly once."""
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 10)
    writer = log.start(name="run", mode="live")
    for number in range(100):
        writer.append(Entry("frame", b"%d" % number))
        store_of(log)._checkpoints.wait()  # a running checkpoint may keep another one from folding everything
    alone = path.with_name("alone.db")  # a copy without its WAL contains only the folded events
    alone.write_bytes(path.read_bytes())
    assert query(alone, "SELECT count(*) >= 90 FROM events") == [(1,)]
    writer.end()
    log.close()
    assert [event.payload for event in EventLog(path).events(writer.run, kinds=("frame",))] == [b"%d" % n for n in range(100)]


def test_a_checkpoint_syncs_what_it_folded_before_the_writer_waits(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The second pass syncs while the writer waits, so little may be left to sync. The locks on the log stay."""
    synced: list[int] = []
    monkeypatch.setattr(checkpoints, "CHECKPOINT_PAGES", 10)
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    writer = log.start(name="run", mode="live")
    while not synced:
        writer.append(Entry("frame", b"x"))
        store_of(log)._checkpoints.wait()
    assert set(synced) == {path.stat().st_ino, path.with_name(path.name + "-wal").stat().st_ino}
    locks = Path("/proc/locks").read_text() if Path("/proc/locks").exists() else f":{path.stat().st_ino} "
    assert f":{path.stat().st_ino} " in locks
    writer.end()


def test_looks_behind_touches_are_rare_if_they_take_long(log: EventLog, path: Path) -> None:
    """Counting the events of a long run delays its streams. The end of a run looks always."""
    writer = log.start(name="run", mode="live")
    watch = store_of(log)._watch
    watch.spare(1_000_000_000)
    os.utime(path)
    assert watch.look(thorough=False) is None
    assert watch.look() == "touched"
    writer.end()


def test_a_checkpoint_does_not_recreate_a_deleted_log(path: Path) -> None:
    """A checkpoint writes to the existing file or to nothing."""
    own = checkpoints.Checkpoints(path)
    own.pages = checkpoints.CHECKPOINT_PAGES
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        own.begin(connection)
    own.wait()
    assert not path.exists()


def test_an_eventlog_object_creates_no_file(path: Path) -> None:
    """The first write creates the log."""
    EventLog(path)
    assert not path.parent.exists()


def test_a_folder_that_another_process_creates_at_the_same_moment_is_used(
    log: EventLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes find no folder. The second one to create it succeeds too."""
    is_dir = Path.is_dir

    def is_dir_then_made(folder: Path) -> bool:
        found = is_dir(folder)
        if folder == path.parent:
            os.makedirs(folder, exist_ok=True)
        return found

    monkeypatch.setattr(Path, "is_dir", is_dir_then_made)
    log.start(name="run", mode="live").end()
    assert [info.name for info in log.runs()] == ["run"]


def test_the_error_of_a_missing_log_names_the_way_to_make_one(log: EventLog, path: Path) -> None:
    """Reading creates no log."""
    with pytest.raises(LogError, match=rf"no log at {path}\. Record or replay something first"):
        log.runs()
    assert not path.exists()


def test_reading_a_log_does_not_write_to_it(log: EventLog, path: Path) -> None:
    """Readers do not change the file."""
    with log.start(name="run", mode="live") as writer:
        writer.append(Entry("frame", b"1"))
    log.close()
    before = path.read_bytes()
    reader = EventLog(path)
    assert [info.name for info in reader.runs()] == ["run"]
    assert len(list(reader.events(writer.run))) == 3
    assert before == path.read_bytes()


@pytest.mark.parametrize("action", ["read", "write"])
def test_a_log_of_a_newer_version_is_refused(log: EventLog, path: Path, action: str) -> None:
    """The error names both versions and the way out. The file stays unchanged."""
    log.start(name="run", mode="live").end()
    log.close()
    before = write_sqlite(path, "PRAGMA user_version = 99")
    with pytest.raises(LogVersionError, match=r"newer retold \(log version 99, this one reads up to 3\)\. Update retold"):
        log.runs() if action == "read" else log.start(name="run", mode="live")
    assert before == path.read_bytes()


@pytest.mark.parametrize("action", ["read", "write"])
def test_another_programs_database_is_refused_and_left_alone(log: EventLog, path: Path, action: str) -> None:
    """An SQLite file of another program is neither read nor converted to a log."""
    before = write_sqlite(path, "CREATE TABLE customers (name)")
    with pytest.raises(LogError, match=rf"{path} is an SQLite file, but not a retold log"):
        log.runs() if action == "read" else log.start(name="run", mode="live")
    assert before == path.read_bytes()


@pytest.mark.parametrize("action", ["read", "write"])
def test_a_file_that_is_not_a_database_is_refused_and_left_alone(log: EventLog, path: Path, action: str) -> None:
    """A text file under the log's name is an error. Its content is not lost."""
    path.parent.mkdir()
    path.write_text("Dear diary, " * 100)
    with pytest.raises(LogError, match="file is not a database"):
        log.runs() if action == "read" else log.start(name="run", mode="live")
    assert path.read_text() == "Dear diary, " * 100


def test_a_damaged_log_is_a_log_error(log: EventLog, path: Path) -> None:
    """Noise overwrote some pages. Reading raises an error instead of returning a part of the log."""
    with log.start(name="run", mode="live") as writer:
        for _ in range(100):
            writer.append(Entry("frame", b"x" * 1000))
    log.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))
    with pytest.raises(LogError, match=r"cannot read the log .*log\.db: "):
        list(EventLog(path).events(writer.run))


@pytest.mark.parametrize("name", ["file/log.db", "folder", "/proc/retold/log.db"])
def test_a_path_that_cannot_be_written_is_a_log_error(tmp_path: Path, name: str) -> None:
    """The cases: a file in the place of a folder, a folder in the place of the log, and a place without write permission."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LogError, match=r"cannot write the log .*\. Name another one with --db FILE or RETOLD_DB\."):
        EventLog(tmp_path / name).start(name="run", mode="live")


def record(log: EventLog) -> str:
    """Record a run with one exchange: two messages, a usage and a cost."""
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
    events = [start, end, {"type": "message_stop"}]
    for index in (1, 0):
        block = {"type": "text", "text": f"block {index}"}
        events[1:1] = [
            {"type": "content_block_start", "index": index, "content_block": block},
            {"type": "content_block_stop", "index": index},
        ]
    with log.start(name="run", mode="live") as writer:
        capture = Capture(
            writer, Request("POST", "https://h/v1/messages"), place=Place("step", "task", 3, 2), price=lambda *_: 0.5
        )
        capture.response(200, "OK", (("content-type", "text/event-stream"),))
        for event in events:
            capture.data(b"data: " + encode(event) + b"\n\n")
        capture.end("complete")
    return writer.run


def test_plain_sqlite_can_query_messages(log: EventLog, path: Path) -> None:
    """The view has each complete message with its place. JSON functions can read it."""
    run = record(log)
    sql = "SELECT run, step, task, exchange, type, subtype, json_extract(message, '$.message.content[0].text') FROM messages"
    assert query(path, sql) == [(run, "step", "task", 1, "assistant", None, f"block {index}") for index in (0, 1)]


def test_plain_sqlite_can_query_exchanges(log: EventLog, path: Path) -> None:
    """The view has one row for each exchange, also for an exchange that has not ended."""
    run = record(log)
    columns = "run, exchange, step, task, method, uri, call, attempt, ending, status, model, stop_reason, frames"
    row = (run, 1, "step", "task", "POST", "https://h/v1/messages", 3, 2, "complete", 200, "m", "end_turn", 7)
    assert query(path, f"SELECT {columns} FROM exchanges") == [row]
    durations = query(path, "SELECT duration_ns FROM exchanges")
    stored = rows(path, run)
    assert durations == [(stored[-2]["t_ns"] - stored[1]["t_ns"],)]
    writer = log.start(name="open", mode="live")
    Capture(writer, Request("GET", "https://h/v1/models"))
    assert query(path, "SELECT method, ending FROM exchanges WHERE run = ?", writer.run) == [("GET", None)]


def test_plain_sqlite_can_query_usage(log: EventLog, path: Path) -> None:
    """The view has tokens and cost by exchange. An unknown number is NULL, never 0."""
    record(log)
    columns = "exchange, step, task, model, input_tokens, output_tokens, cache_read_input_tokens, cost_usd"
    assert query(path, f"SELECT {columns} FROM usage") == [(1, "step", "task", "m", 7, 5, None, 0.5)]


def test_payloads_of_text_are_stored_as_text(log: EventLog, path: Path) -> None:
    """Every SQLite tool shows frames as text. Bytes that are not UTF-8 or contain a NUL stay bytes. Both read back equal."""
    payloads = ["data: é😀\r\n\r\n".encode(), b"\xff\xfe", b"a\0b", b""]
    with log.start(name="run", mode="live") as writer:
        writer.append(*(Entry("frame", payload) for payload in payloads))
    types = query(path, "SELECT typeof(payload) FROM events WHERE kind = 'frame' ORDER BY seq")
    assert types == [("text",), ("blob",), ("blob",), ("text",)]
    assert [event.payload for event in log.events(writer.run, kinds=("frame",))] == payloads


def test_an_event_of_an_unknown_kind_is_read_unchanged(log: EventLog) -> None:
    """A newer retold may write kinds that this one does not have."""
    with log.start(name="run", mode="live") as writer:
        writer.append(Entry("hologram", b"\x00\x01", "step", "task", 5, 10**12))
    event = next(iter(log.events(writer.run, kinds=("hologram",))))
    assert (event.kind, event.payload, event.step, event.task, event.exchange) == ("hologram", b"\x00\x01", "step", "task", 5)


def test_a_log_error_is_an_input_error() -> None:
    """For the command line a faulty log is bad input: exit code 2."""
    assert issubclass(LogVersionError, LogError)
    assert issubclass(LogError, InputError)
    assert LogVersionError.exit_code == 2


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_log_that_another_process_is_creating_is_not_refused_as_foreign(number: int, tmp_path: Path) -> None:
    """The other process commits between any two queries of the check."""
    path, asked = tmp_path / "log.db", list[str]()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")

        def note(statement: str) -> None:
            asked.append(statement)
            if len(asked) == number + 1:
                EventLog(path).start(name="run", mode="live").end()

        connection.set_trace_callback(note)
        store._check_version(connection, path)
        assert len(asked) == 3
