"""The advice at the end of an error is correct for each of its causes, or missing."""

import os
import sqlite3
from pathlib import Path

import pytest

from retold.recorder.cassette.format import read_cassette
from retold.recorder.errors import CassetteError, InputError, LogError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.rows import write_error
from retold.workflow.checkpoint import Checkpoint
from retold.workflow.load import load_workflow
from tests.e2e import write_workflow

DELETE = "delete it and record again"
SPACE = "free some space"


def failed(code: int) -> str:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = code
    return str(write_error(Path("log.db"), error))


@pytest.mark.parametrize(
    ("code", "advice", "safe"),
    [
        (sqlite3.SQLITE_FULL, SPACE, True),
        (sqlite3.SQLITE_IOERR_WRITE, f"{SPACE} if it is full", True),
        (sqlite3.SQLITE_READONLY, "make the file and its folder writable", True),
        (sqlite3.SQLITE_READONLY_DBMOVED, "make the file and its folder writable", True),
        (sqlite3.SQLITE_CANTOPEN, "Make the file and its folder writable", False),
        (sqlite3.SQLITE_BUSY, "another process holds it", True),
        (sqlite3.SQLITE_CORRUPT, "`retold recover` saves what can be read", False),
        (sqlite3.SQLITE_NOTADB, "Another program wrote to it", False),
        (sqlite3.SQLITE_ERROR, "Name another log with --db FILE.", False),
    ],
)
def test_a_log_error_names_the_way_out_of_its_cause(code: int, advice: str, safe: bool) -> None:
    """Freeing space helps only a full disk, and only an undamaged file is called safe."""
    message = failed(code)
    assert advice in message
    assert ("What was written before is safe" in message) is safe
    assert (SPACE in message) is (code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR))
    assert message.endswith("ame another log with --db FILE.")


def test_a_locked_log_is_not_reported_as_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the other process as the cause. Appending works after that process ends."""
    monkeypatch.setattr("retold.recorder.log.sqlite.sharing.BUSY_TIMEOUT_S", 0)
    log = EventLog("log.db")
    with log.start(name="a", mode="live") as writer:
        other = sqlite3.connect("log.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogError, match=r"another process holds it; do the same again when that has ended"):
            writer.append(Entry("frame", b"x"))
        other.execute("ROLLBACK")
        other.close()
        writer.append(Entry("frame", b"x"))
    log.close()


@pytest.mark.parametrize(
    ("content", "delete"),
    [
        ("", True),
        ("interactions:\n- request: {method: [\n", False),
        ("retold: {format: 1}\ninteractions:\n- request: {method: [\n", True),
        ("interactions: {}\nrequest: 1\n", False),
        ("retold: {format: 1}\ninteractions: {}\n", True),
        ("name: ci\non: push\njobs: {}\n", False),
        ("- host: a\n  port: 1\n", False),
        ("key: [unclosed\n", False),
        ("just text\n", False),
    ],
)
def test_only_a_damaged_cassette_may_be_deleted(content: str, delete: bool) -> None:
    """The error for a file of another program names its kind, and never advises to remove it."""
    Path("c.yaml").write_text(content)
    with pytest.raises(CassetteError) as refusal:
        read_cassette("c.yaml")
    assert (DELETE in str(refusal.value)) is delete
    assert "It was left as it is." in str(refusal.value)
    assert Path("c.yaml").read_text() == content


def test_a_checkpoint_that_cannot_be_opened_is_kept() -> None:
    """It may be whole, and removing it would lose its run. A damaged one is useless."""
    checkpoint = Checkpoint(load_workflow(write_workflow("w.yaml", checkpoint_enabled=True)), "live", retold=None)
    checkpoint.path.mkdir(parents=True)
    with pytest.raises(InputError, match=r"^cannot read the checkpoint .*directory\.$"):
        checkpoint.finished(EventLog())
    checkpoint.path.rmdir()
    checkpoint.path.write_text("{")
    with pytest.raises(InputError, match=r" is damaged: .* Remove it to begin anew\.$"):
        checkpoint.finished(EventLog())


def test_a_pipe_named_as_a_cassette_is_not_to_be_deleted() -> None:
    os.mkfifo("pipe.yaml")
    with pytest.raises(CassetteError, match=r"^cannot read the cassette pipe\.yaml: it is a named pipe, not a file\.$"):
        read_cassette("pipe.yaml")
