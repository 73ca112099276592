"""`retold query` reads the log with SQL, marks the place of a mistake in a statement, has a time limit, and changes nothing."""

import json
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from retold.recorder.errors import InputError
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.query import SqlQuery
from tests.e2e import in_this_process
from tests.talk import asked, record, text, tool_use, turn

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a log of two runs, which no test changes."""
    path = tmp_path_factory.mktemp("log") / "log.db"
    record(path, turn(asked("a"), text("one"), cost_usd=0.5, call=0), name="first")
    record(path, turn(asked("b"), tool_use("Read", "t1", file_path="x"), cost_usd=0.25, call=0), name="second")
    return path


@pytest.fixture
def log(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make that log the log of commands."""
    monkeypatch.setenv("RETOLD_DB", str(recorded))
    return recorded


def refused(sql: str, *options: str) -> str:
    done = in_this_process("query", sql, *options)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.removeprefix("retold: ")


@pytest.mark.usefixtures("log")
def test_an_answer_has_three_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are a table, JSON objects, and CSV. NULL is unknown, bytes are hexadecimal, and a repeated name gets a number."""
    sql = "SELECT name, NULL AS none, x'00ff' AS bytes, messages + 0.5 AS half, name FROM runs ORDER BY id"
    assert in_this_process("query", sql).stdout.splitlines() == [
        "name    none  bytes  half  name",
        "first   NULL  00ff    1.5  first",
        "second  NULL  00ff    1.5  second",
    ]
    found = json.loads(in_this_process("query", sql, "--json").stdout)
    assert found[0] == {"name": "first", "none": None, "bytes": "00ff", "half": 1.5, "name_2": "first"}
    assert in_this_process("query", sql, "--csv", "-n", "1").stdout == "name,none,bytes,half,name\nfirst,,00ff,1.5,first\n"
    monkeypatch.setattr("sys.stdin.read", lambda: "SELECT 1 AS one", raising=False)
    assert in_this_process("query", "-", "--json").stdout == '[\n{"one": 1}\n]\n'


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("table", ["runs", "events", "messages", "exchanges", "usage", "tool_uses", "ledger"])
def test_every_table_and_view_can_be_read(table: str) -> None:
    """Views that read JSON and join return whole answers. An answer without rows is exit code 1."""
    done = in_this_process("query", f"SELECT count(*) AS n FROM {table}", "--json")
    assert json.loads(done.stdout)[0]["n"] > 0
    assert in_this_process("query", f"SELECT * FROM {table} WHERE 0", "--json").stdout == "[]\n"
    assert in_this_process("query", f"SELECT * FROM {table} WHERE 0").returncode == 1


@pytest.mark.usefixtures("log")
def test_a_long_answer_is_cut_with_a_note() -> None:
    """A table is cut after 1,000 rows, JSON and CSV only on request."""
    many = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1001) SELECT x FROM c"
    done = in_this_process("query", many)
    assert len(done.stdout.splitlines()) == 1001
    assert done.stderr == "retold: the first 1,000 rows; more with -n 5000, all with -n 0\n"
    assert len(in_this_process("query", many, "-n", "0").stdout.splitlines()) == 1002
    assert len(json.loads(in_this_process("query", many, "--json").stdout)) == 1001


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FORM runs", 'SQL, line 1, column 10: near "FORM": syntax error.\n  SELECT * FORM runs\n           ^\n'),
        ("SELECT 'FROM',\n 東 FROM FROM", 'SQL, line 2, column 9: near "FROM": syntax error.\n   東 FROM FROM\n           ^\n'),
        ("SELECT r.nam FROM runs r", "SQL, line 1, column 10: no such column: r.nam; did you mean 'name'?\n"),
        ("SELECT Cost_usd FROM runs", "SQL, line 1, column 8: no such column: Cost_usd; it is a column of usage.\n"),
        ("SELECT r.input FROM runs r", "no such column: r.input; it is a column of tool_uses.\n"),
        ("SELECT qqqqqqq FROM runs", "no such column: qqqqqqq; PRAGMA table_info(runs) lists the columns of runs.\n"),
        ("SELECT * FROM run", "SQL, line 1, column 15: no such table: run; did you mean 'runs'?\n"),
        ("SELECT * FROM qqqq", "no such table: qqqq; there are erasing, events, exchanges, "),
        ("SELECT foo(1)", "SQL, line 1, column 8: no such function: foo.\n"),
        ("SELECT 'x", 'SQL, line 1, column 8: unrecognized token: "\'x".\n'),
        ("SELECT (1", "SQL, line 1, column 10: incomplete input.\n"),
        ("SELECT run FROM runs a JOIN runs b", "SQL, line 1, column 8: ambiguous column name: run.\n"),
        ("SELECT zeroblob(1000000000)", "SQL: string or blob too big.\n"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        (" ; ", "the SQL is empty.\n"),
    ],
)  # fmt: skip
def test_an_error_shows_its_place_in_the_sql(sql: str, expected: str) -> None:
    """It shows line, column, a mark below the word in terminal cells, and a similar name if one exists."""
    assert expected in refused(sql)


WRITING = [
    "DELETE FROM runs", "INSERT INTO runs (run) VALUES ('x')", "UPDATE events SET payload = 'x'", "DROP TABLE runs", "VACUUM",
    "VACUUM INTO 'copy.db'", "CREATE TABLE x (a)", "CREATE TEMP TABLE x (a)", "CREATE TEMP VIEW x AS SELECT 1", "BEGIN",
    "SAVEPOINT x", "ATTACH 'other.db' AS other", "DETACH main", "PRAGMA query_only = OFF", "PRAGMA user_version = 9",
    "PRAGMA writable_schema = ON", "PRAGMA journal_mode = DELETE", "PRAGMA wal_checkpoint", "REINDEX", "ANALYZE",
    "SELECT load_extension('x')", "SELECT * FROM pragma_user_version", "CREATE VIRTUAL TABLE x USING fts5(a)",
    "WITH x AS (SELECT 1) DELETE FROM runs", "EXPLAIN DELETE FROM runs", "INSERT INTO runs (run) VALUES ('x') RETURNING run",
]  # fmt: skip


@pytest.mark.parametrize("sql", WRITING)
def test_a_query_can_only_read(sql: str, log: Path) -> None:
    """The authorizer refuses each statement. Without it, the read-only connection does. No file changes or appears."""
    before = (log.read_bytes(), os.listdir())
    assert "a query only reads the log" in refused(sql)
    with SqlQuery(EventLog(log), 10) as asking:
        asking._connection.set_authorizer(None)
        if sql.startswith(("DELETE FROM", "INSERT", "UPDATE", "DROP", "CREATE TABLE", "PRAGMA user_version", "WITH")):
            with pytest.raises(InputError, match="only reads"):
                list(asking.ask(sql).rows)
    assert (log.read_bytes(), os.listdir()) == before
    with closing(sqlite3.connect(log)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)


def test_a_query_has_a_time_limit(log: Path) -> None:
    """Only the query's own computing counts. A reader may take any time between two rows."""
    assert (
        refused(ENDLESS, "--timeout", "0.05")
        == "the query took longer than 0.05 s and was ended; narrow it, or allow more time.\n"
    )
    with SqlQuery(EventLog(log), 30) as asking:
        rows = asking.ask(ENDLESS.replace("count(*)", "x")).rows
        assert next(rows) == (1,)
        asking._due = 0.0  # as after a long pause
        assert [next(rows) for _ in range(500)][-1] == (501,)


@pytest.mark.usefixtures("log")
def test_ctrl_c_ends_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite computes without looking at signals, so the watch over the time limit looks at them."""
    look, looks = SqlQuery._look, []

    def look_after_a_signal(query: SqlQuery) -> bool:
        looks.append(query)
        signal.raise_signal(signal.SIGINT)  # only while SQLite computes, because at another moment it would end pytest
        return look(query)

    monkeypatch.setattr(SqlQuery, "_look", look_after_a_signal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start tests with SIGINT ignored
    try:
        done = in_this_process("query", ENDLESS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert len(looks) == 1  # at once, not after the time limit


def test_a_log_is_needed() -> None:
    """This is the same for every command that reads it. A query creates no log."""
    assert "no log at .retold/log.db" in refused("SELECT 1")
    assert not Path(".retold").exists()
