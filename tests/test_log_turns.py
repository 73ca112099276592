"""A large log is scrubbed in turns. No deleted text remains, although other processes write between two turns."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.audit import erase
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite import opening, scrubbing, turns
from retold.recorder.log.sqlite.scrubbing import DatabaseFile
from retold.recorder.log.sqlite.turns import scrub_in_turns
from tests.test_log_scrubbing import DELETED, content, made


def in_turns(path: Path, other: sqlite3.Connection, luck: random.Random, writes: int) -> bool:
    """Scrub while another connection inserts, extends and deletes rows. The end state must be its last state."""
    last = [content(path)]

    def between() -> None:
        nonlocal writes
        writes -= 1
        if writes < 0:
            return
        if writes % 2 == 0:
            for _ in range(luck.randrange(4)):
                kind, at = luck.randrange(4), luck.randrange(9)
                if kind == 0:
                    text = "new" * luck.choice([1, 50, 900])
                    other.execute("INSERT OR REPLACE INTO keyed VALUES (?, ?, ?)", (at, luck.randrange(500), text))
                elif kind == 1:
                    other.execute("INSERT INTO rows (text) SELECT hex(randomblob(200)) FROM rows LIMIT 30")
                elif kind == 2:
                    other.execute("DELETE FROM keyed WHERE id = ?", (at,))
                else:
                    other.execute("UPDATE rows SET text = text || text WHERE id % 7 = ? AND length(text) < 9000", (at,))
            last[0] = content(path)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for each in (connection, other):
            each.execute("PRAGMA synchronous = OFF")  # a test needs no durability, and a disk may be slow
        is_whole = scrub_in_turns(connection, path, between=between)
    assert content(path) == last[0]
    return is_whole


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from([512, 1024, 4096]), st.integers(0, 1 << 32), st.integers(4, 60), st.sampled_from([0, 3, 12])
)  # fmt: skip
def test_no_deleted_text_remains_although_others_write_between_the_turns(
    tmp_path_factory: pytest.TempPathFactory, page: int, seed: int, pages: int, writes: int
) -> None:
    path = tmp_path_factory.mktemp("turns") / "log.db"
    made(path, page=page, auto_vacuum=0, seed=seed)
    luck = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch, closing(sqlite3.connect(path, isolation_level=None)) as other:
        patch.setattr(turns, "TURN_PAGES", pages)
        is_whole = in_turns(path, other, luck, writes)
        assert is_whole or writes, "an undisturbed walk reaches each page"
        if is_whole:
            assert [each.name for each in path.parent.iterdir() if DELETED in each.read_bytes()] == []


def test_a_turn_locks_the_file_for_a_limited_number_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process can write after each turn."""
    path = tmp_path / "log.db"
    made(path, page=512, auto_vacuum=0, seed=5)
    monkeypatch.setattr(turns, "TURN_PAGES", 10)
    counts = [0]
    scrub_tree, scrub_free = DatabaseFile.scrub_tree, DatabaseFile.scrub_free

    def tree(self: DatabaseFile, number: int) -> list[int]:
        counts[-1] += 1
        return scrub_tree(self, number)

    def free(self: DatabaseFile, number: int) -> None:
        counts[-1] += 1
        scrub_free(self, number)

    monkeypatch.setattr(DatabaseFile, "scrub_tree", tree)
    monkeypatch.setattr(DatabaseFile, "scrub_free", free)
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        connection.execute("PRAGMA synchronous = OFF")

        def between() -> None:
            other.execute("INSERT INTO rows (text) VALUES ('x')")
            counts.append(0)

        assert scrub_in_turns(connection, path, between=between)
    assert len(counts) > 10
    assert max(counts) <= 10 + 4, "the roots come first, in the first turn"


def test_long_rows_end_a_turn_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of 30 pages is one cell of a leaf, so a few leaves have thousands of pages behind them. Here a page takes 1 ms."""
    path = tmp_path / "log.db"
    monkeypatch.setattr(turns, "TURN_S", 0.1)
    took = [0.0]
    overflow = DatabaseFile._overflow

    def slow(self: DatabaseFile, number: int, left: int) -> None:
        took[-1] += (1 + left // 508) / 1000
        overflow(self, number, left)

    monkeypatch.setattr(DatabaseFile, "_overflow", slow)
    monkeypatch.setattr(turns, "monotonic_ns", lambda: int(sum(took) * 1e9))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA page_size = 512; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO rows (text) VALUES (?)", [("x" * 15_000,)] * 160)
        assert scrub_in_turns(connection, path, between=lambda: took.append(0.0))
    assert sum(took) >= 160 * 0.029
    assert max(took) <= 0.1 + 8 * 0.03, "a turn ends with the leaf at which its time is over"


def test_a_file_that_moves_its_pages_is_scrubbed_in_one_turn(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    made(path, page=1024, auto_vacuum=1, seed=3)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert not scrub_in_turns(connection, path, between=lambda: None)


def test_an_erasure_from_a_large_log_does_not_rewrite_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The erased bytes are gone, other events keep their bytes, and a run in progress continues between the turns."""
    monkeypatch.setattr(opening, "REWRITTEN_BYTES", 0)
    monkeypatch.setattr(turns, "TURN_PAGES", 8)
    monkeypatch.setattr(turns, "PAUSE_S", 0.0)
    path = tmp_path / "log.db"
    secret = "Jane Doe of 17 Example Road"
    log = EventLog(path)
    with log, log.start(name="going on", mode="live") as going:
        for number in range(4):
            with log.start(name=f"run {number}", mode="live") as writer:
                for at in range(60):
                    said = f"{secret} {at}" if number == 1 and at == 30 else f"ordinary {at} " + "x" * 500
                    writer.note("message", {"type": "user", "message": {"role": "user", "content": said}})
        appended: list[int] = []
        turn = turns._turn

        def counted(*args: object) -> None:
            turn(*args)  # type: ignore[arg-type]
            appended.append(going.append(Entry("frame", b"data: live\n\n"))[0].seq)

        monkeypatch.setattr(turns, "_turn", counted)
        statements: list[str] = []
        connect = opening.connect

        def traced(*args: object, **options: object) -> sqlite3.Connection:
            connection = connect(*args, **options)  # type: ignore[arg-type]
            connection.set_trace_callback(statements.append)
            return connection

        monkeypatch.setattr(opening, "connect", traced)
        erase.erase(log, erase.plan_text(log, secret), why="test")
        assert not [sql for sql in statements if "VACUUM" in sql]
    assert len(appended) > 5
    files = [each.read_bytes() for each in tmp_path.iterdir() if each.is_file()]
    assert not [data for data in files if b"Jane" in data]
    erase.check_gone(EventLog(path), secret)
    from retold.audit.verify import verify

    assert verify(EventLog(path)).ok


@pytest.fixture
def read_from(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection, sqlite3.Connection]]:
    """Yield a log, a connection that writes to it without waiting, and one that reads an older state."""
    path = tmp_path / "log.db"
    made(path, page=512, auto_vacuum=0, seed=5)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as writing, closing(sqlite3.connect(path)) as reading:
        writing.execute("INSERT INTO rows (text) VALUES ('before')")
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM rows").fetchone()
        writing.execute("INSERT INTO rows (text) VALUES ('after')")
        yield path, writing, reading


def test_a_reader_of_an_older_state_is_waited_for_without_keeping_writers_waiting(
    read_from: tuple[Path, sqlite3.Connection, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would keep the write lock while it waits."""
    path, writing, reading = read_from
    monkeypatch.setattr(scrubbing, "HELD_MS", 0)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        writing.execute("INSERT INTO rows (text) VALUES ('meanwhile')")
        pauses.append(seconds)
        if len(pauses) == 3:
            reading.rollback()

    monkeypatch.setattr(scrubbing, "time", SimpleNamespace(sleep=sleep))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert scrub_in_turns(connection, path, between=lambda: None)
    assert len(pauses) == 3
    assert path.with_name("log.db-wal").stat().st_size == 0


def test_a_checkpoint_of_another_connection_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite fails at once with any timeout. The lock of a checkpoint is byte 121 of the index of the WAL."""
    path = tmp_path / "log.db"
    made(path, page=512, auto_vacuum=0, seed=5)
    holder = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+b')\nfcntl.lockf(file, fcntl.LOCK_EX, 1, 121)\nprint(flush=True)\ninput()"
    )
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        subprocess.Popen(
            [sys.executable, "-c", holder, f"{path}-shm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as checkpoint,
    ):
        connection.execute("INSERT INTO rows (text) VALUES ('x')")
        assert checkpoint.stdin is not None
        assert checkpoint.stdout is not None
        checkpoint.stdout.readline()
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            checkpoint.communicate("\n")

        monkeypatch.setattr(scrubbing, "time", SimpleNamespace(sleep=sleep))
        scrubbing.empty_wal(connection)
        assert len(pauses) == 1


def test_a_reader_that_stays_is_reported(
    read_from: tuple[Path, sqlite3.Connection, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0]

    def sleep(seconds: float) -> None:
        now[0] += int(seconds * 1e9)

    monkeypatch.setattr(scrubbing, "HELD_MS", 0)
    monkeypatch.setattr(scrubbing, "monotonic_ns", lambda: now[0])
    monkeypatch.setattr(scrubbing, "time", SimpleNamespace(sleep=sleep))
    with (
        closing(sqlite3.connect(read_from[0], isolation_level=None)) as connection,
        pytest.raises(scrubbing.WalInUse, match="another process keeps reading"),
    ):
        scrub_in_turns(connection, read_from[0])
    assert now[0] >= 60e9
