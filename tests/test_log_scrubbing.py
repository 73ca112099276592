"""Overwriting the remains of deleted rows in place: no deleted text remains, and nothing else changes."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.log.sqlite.scrubbing import scrub

TABLES = (
    "CREATE TABLE rows (id INTEGER PRIMARY KEY, text)",
    "CREATE TABLE keyed (id INTEGER, part INTEGER, text, PRIMARY KEY (id, part)) WITHOUT ROWID",
    "CREATE INDEX texts ON rows (text)",
)
DELETED = b"GONEGONE"


def scrubbed(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        scrub(connection, path)


def made(path: Path, *, page: int, auto_vacuum: int, seed: int) -> dict[str, list[tuple[object, ...]]]:
    """Write, change and delete rows of all sizes in a database. Return the remaining rows."""
    luck = random.Random(seed)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page}")
        connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
        connection.execute("PRAGMA journal_mode = WAL")
        for table in TABLES:
            connection.execute(table)
        connection.execute("BEGIN")
        for number in range(luck.randrange(40, 160)):
            text = f"{number:09}" + luck.choice(["kept", "GONEGONE"]) * luck.choice([1, 1, 10, 60, 300, 3000])
            connection.execute(
                "INSERT OR IGNORE INTO rows VALUES (?, ?)", (luck.randrange(1 << luck.choice([6, 20, 60])) + number, text)
            )
            connection.execute("INSERT INTO keyed VALUES (?, ?, ?)", (luck.randrange(9), number, text.encode()))
        connection.execute("COMMIT")
        connection.execute("UPDATE rows SET text = 'short' || id WHERE text LIKE '%GONE%' AND id % 2")
        connection.execute("DELETE FROM rows WHERE text LIKE '%GONE%'")
        connection.execute("DELETE FROM keyed WHERE instr(text, ?)", (DELETED,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return content(path)


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        queries = {
            "rows": "rows ORDER BY id",
            "keyed": "keyed ORDER BY id, part",
            "by text": "rows INDEXED BY texts ORDER BY text",
        }
        return {name: connection.execute(f"SELECT * FROM {query}").fetchall() for name, query in queries.items()}


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([512, 1024, 4096, 65536]), st.sampled_from([0, 1, 2]), st.integers(0, 1 << 32), st.booleans()
)  # fmt: skip
def test_no_deleted_text_remains_and_nothing_else_changes(
    tmp_path_factory: pytest.TempPathFactory, page: int, auto_vacuum: int, seed: int, holes: bool
) -> None:
    """Pages of every size and kind, rows on overflow pages, and free pages, on file systems with and without holes."""
    path = tmp_path_factory.mktemp("scrubbing") / "log.db"
    before = made(path, page=page, auto_vacuum=auto_vacuum, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        if not holes:
            patch.setattr("retold.recorder.log.sqlite.scrubbing._punch", lambda *_: False)
        scrubbed(path)
    assert DELETED not in path.read_bytes()
    assert content(path) == before
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO keyed SELECT 100, id, text || text FROM rows")  # SQLite reuses free pages
        connection.execute("DELETE FROM rows")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_pages_in_the_cache_of_another_connection_do_not_restore_old_bytes(tmp_path: Path) -> None:
    """The cache of the other connection has the old bytes. When it changes the same page, it writes the new ones."""
    path = tmp_path / "log.db"
    before = made(path, page=4096, auto_vacuum=0, seed=1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("SELECT sum(length(text)) FROM rows").fetchone()
        other.execute("SELECT sum(length(text)) FROM keyed").fetchone()
        scrubbed(path)
        other.execute("UPDATE rows SET text = text")
        other.execute("UPDATE keyed SET text = text")
        assert DELETED not in path.with_name("log.db-wal").read_bytes()
    assert DELETED not in path.read_bytes()
    assert content(path) == before


def test_a_file_with_a_wal_in_use_is_refused(tmp_path: Path) -> None:
    """Scrubbing the file would miss the pages in the WAL."""
    path = tmp_path / "log.db"
    made(path, page=4096, auto_vacuum=0, seed=2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO rows VALUES (-1, 'x')")
        before = path.read_bytes()
        with pytest.raises(sqlite3.OperationalError, match="WAL could not be emptied"):
            scrubbed(path)
        assert path.read_bytes() == before
