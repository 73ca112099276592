"""Other SQLite tools can read the log, run the queries of the documentation, and store their own tables in the file."""

import contextlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from retold.audit.index import opened
from retold.audit.search import search
from retold.audit.verify import verify
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from tests.conftest import ROOT
from tests.e2e import in_this_process
from tests.exchanges import answer, exchange
from tests.talk import asked, record, text, tool_use, turn

DB = Path("log.db")


@pytest.fixture(autouse=True)
def log() -> EventLog:
    record(DB, turn(asked("Run it"), text("Yes."), tool_use("Bash", "t1", command="ls -la"), cost_usd=0.5))
    return EventLog(DB)


def rows(sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(DB)) as connection:
        return connection.execute(sql).fetchall()


def test_the_queries_on_the_page_have_results() -> None:
    """Each SQL statement of the page runs unchanged."""
    failed = record(DB, exchange(answer(b"{}", status=500), body=asked("Do it"), ending="http_error"), name="failed")
    statements = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "schema.md").read_text(), re.DOTALL)[0].strip().split(";\n")
    day = rows("SELECT date('now')")[0][0]
    cost, commands, attempts, prompts = [rows(statement) for statement in statements]
    assert (cost[0], commands) == ((day, "claude-test-1", 0.5, 0), [("talk", "", "ls -la")])
    assert (attempts, prompts) == ([("failed", 0, 1, "http_error", 500)], [(failed, "http_error", 500, "Do it")])


@pytest.mark.needs("sqlite-utils")
def test_other_tools_read_the_log(log: EventLog) -> None:
    """sqlite-utils reads the log from another process while a run is being written."""
    with log:
        log.start(name="open", mode="live").append(Entry("frame", b"\xff"))
        command = [sys.executable, "-m", "sqlite_utils", "rows", str(DB), "tool_uses", "--csv", "-c", "name", "-c", "input"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["name,input", 'Bash,"{""command"":""ls -la""}"']


def test_foreign_content_in_the_file_breaks_nothing(log: EventLog) -> None:
    """The file has foreign tables, columns, indexes and views, lines of unknown runs, and messages that are not JSON."""
    with contextlib.closing(sqlite3.connect(DB)) as connection:
        connection.executescript(
            """
            CREATE TABLE notes (run TEXT, note TEXT);
            CREATE VIEW noted AS SELECT * FROM notes JOIN runs USING (run);
            CREATE INDEX by_kind ON events (kind);
            ALTER TABLE runs ADD COLUMN stars INTEGER;
            INSERT INTO runs (run, name, mode, status, started_ns) VALUES ('theirs', 'theirs', 'live', 'running', 1);
            INSERT INTO events VALUES ('other', 0, 0, 0, 'message', '', '', NULL, 'no JSON', x'00', x'00', 1);
            INSERT INTO events VALUES ('other', 1, 0, 0, 'exchange.started', '', '', 1, x'ff', x'00', x'00', 1);
            INSERT INTO events VALUES ('other', 2, 0, 0, 'their.kind', '', '', NULL, 'x', x'00', x'00', 1);
            """
        )
    for view in ("messages", "exchanges", "usage", "tool_uses"):
        assert [row for row in rows(f"SELECT run FROM {view}") if row == ("other",)] == []
    with log, log.start(name="mine", mode="live") as writer:
        writer.append(Entry("frame", b"1"))
    assert [info.name for info in log.runs()] == ["mine", "theirs", "talk"]
    with opened(log) as index:
        assert len(list(search(index, "run"))) == 1
    for command in (["ls"], ["ls", "--error"], ["stats"], ["show", "mine"], ["search", "yes"]):
        done = in_this_process(*command, "--db", DB)
        assert (command, done.returncode in (0, 1), "Traceback" in done.stderr) == (command, True, False)
    found = [(finding.run, finding.what) for finding in verify(log).findings]
    assert found == [("", "schema")] * 4 + [("other", "unknown run"), ("theirs", "listing")]
    assert rows("SELECT count(*) FROM notes, noted") == [(0,)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = 'x' WHERE seq = 2",
        "UPDATE events SET payload = 'x', digest = x'00' WHERE seq = 1",
        "UPDATE events SET wall_ns = 0 WHERE seq = 1",
        "DELETE FROM events WHERE seq = 1",
        "DELETE FROM ledger",
        "UPDATE ledger SET seq = 0",
    ],
)
def test_only_an_event_that_is_being_erased_can_be_changed(log: EventLog, statement: str) -> None:
    """SQLite allows changes only to the payloads of the named events. Headers, digests, hashes, rows and the ledger are fixed."""
    run = log.find("last").run
    with contextlib.closing(sqlite3.connect(DB)) as connection:
        connection.execute("INSERT INTO erasing VALUES (?, 1)", (run,))
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
        connection.execute("UPDATE events SET payload = 'x' WHERE run = ? AND seq = 1", (run,))
    assert verify(log).findings == []  # none of these statements was committed
