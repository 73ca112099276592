"""After a crash, a tampered listing or a damaged page, recovery repairs the log and loses no readable event."""

import json
import re
import sqlite3
import stat
from pathlib import Path

import pytest

from retold.audit.index import opened, path_of
from retold.audit.recover import recover
from retold.audit.search import search
from retold.audit.verify import verify
from retold.recorder.errors import InputError, LogError, LogFolderWarning
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.salvage import damage
from tests.conftest import Cli
from tests.e2e import in_this_process
from tests.raw_log import Child, query
from tests.talk import asked, record, text, turn
from tests.tamper import tamper, write_log

DB = Path("log.db")

CRASH = """
import sys
from retold.recorder.events import Entry
from retold.recorder.log import EventLog

writer = EventLog(sys.argv[1]).start(name="crashed", mode="live")
writer.append(Entry("frame", b"1"), Entry("message", b'{"type": "user", "message": {"content": "last words"}}'))
print(writer.run, flush=True)
sys.stdin.readline()
"""


def hits(log: EventLog, wanted: str) -> int:
    with opened(log) as index:
        return len(list(search(index, wanted)))


LEAF = 10
"""The first byte of a page of `events` that contains only rows, and no pointers to other pages."""


def damage_page_with(path: Path, *needles: bytes) -> None:
    """Overwrite the leaf page of a log that contains one of the needles, as a bad disk may."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    at = next(at for needle in needles if data[at := data.index(needle) // size * size] == LEAF)
    data[at : at + size] = b"\xa5" * size
    path.write_bytes(data)


def test_recover_closes_runs_that_a_crash_left_open() -> None:
    """It closes the run of a killed writer, and does not touch a running one."""
    with Child(CRASH, DB) as child:
        run = child.line()
    with EventLog(DB) as log:
        done = in_this_process("recover", "--db", DB)
        assert (done.returncode, f"closed: run {run}" in done.stdout) == (0, True)
        assert (log.find(run).status, log.find(run).messages) == ("interrupted", 1)
        assert hits(log, '"last words"') == 1
        going_on = log.start(name="open", mode="live")
        assert recover(EventLog(DB)).closed == []
        assert log.find(going_on.run).status == "running"
        assert verify(log).findings == []


@pytest.mark.parametrize(
    "statement", ["DELETE FROM runs WHERE id = 2", "UPDATE runs SET name = 'x'", "UPDATE runs SET id = 9 - id"]
)
def test_recover_rebuilds_the_listing_from_the_events(statement: str) -> None:
    """Lines are removed, changed or reordered. The rebuilt listing equals the first one, and verify agrees."""
    write_log(DB, events=20)
    before = query(DB, "SELECT * FROM runs")
    tamper(DB, statement)
    assert verify(EventLog(DB)).findings != []
    assert recover(EventLog(DB)).relisted
    assert query(DB, "SELECT * FROM runs") == before
    assert verify(EventLog(DB)).findings == []
    assert not recover(EventLog(DB)).relisted


def test_recover_saves_the_rest_of_a_damaged_log() -> None:
    """It loses only the rows of the damaged page, and names them.

    The damaged file stays unchanged, and the new file is a normal log.
    """
    runs = write_log(DB, events=2000)
    record(DB, turn(asked("where"), text("still here")))
    damage_page_with(DB, *(b"2/%d\n" % number for number in range(1000, 1010)))
    before = DB.read_bytes()
    assert damage(DB) != []
    done = in_this_process("recover", "--json", "--db", DB)
    result = json.loads(done.stdout)
    assert (done.returncode, DB.read_bytes() == before) == (1, True)
    ((run, first, last),) = result["lost"]
    assert (run, last - first < 100) == (runs[2], True)
    saved = EventLog(result["saved"])
    whole = 4 * 2000 + len(list(saved.events(saved.find("talk").run)))
    assert result["events"] == whole - (last - first + 1)
    assert damage(saved.path) == []
    assert [(f.run, f.seq, f.what) for f in verify(saved).findings] == [(run, first, "removed")]
    assert hits(saved, "still") == 1
    assert [info.name for info in saved.runs()] == ["talk", "run 3", "run 2", "run 1", "run 0"]
    with pytest.raises(InputError, match="exists already"):
        recover(EventLog(DB))


def test_a_damaged_log_keeps_its_index() -> None:
    """The error names the log. The index stays, because it is not the damaged file."""
    record(DB, turn(asked("where"), text("still here")))
    assert hits(EventLog(DB), "still") == 1
    write_log(DB, events=2000)
    with EventLog(DB) as log, log.start(name="later", mode="live") as writer:
        for number in range(100):
            writer.note("message", {"type": "user", "message": {"role": "user", "content": f"needle {number} {'x' * 200}"}})
    damage_page_with(DB, *(b"needle %d " % number for number in range(50, 60)))
    before = path_of(EventLog(DB)).stat().st_ino
    with pytest.raises(LogError, match=r"cannot use the log log.db or its index log.db.index: database disk image is malformed"):
        hits(EventLog(DB), "still")
    assert path_of(EventLog(DB)).stat().st_ino == before


def test_a_damaged_listing_loses_nothing() -> None:
    """Recovery finds the runs in the ledger and the events."""
    write_log(DB, events=50)
    with EventLog(DB) as log:
        for number in range(60):
            log.start(name=f"padding {number} {'x' * 100}", mode="live").end()
    page = query(DB, "SELECT rootpage FROM sqlite_master WHERE name = 'runs'")[0][0]
    with sqlite3.connect(DB) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(DB.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    DB.write_bytes(data)
    with pytest.raises(LogError, match="retold recover"):
        EventLog(DB).runs()
    result = recover(EventLog(DB))
    assert (result.lost, result.saved) == ([], "log.db.recovered")
    assert len(EventLog("log.db.recovered").runs()) == 64
    assert verify(EventLog("log.db.recovered")).findings == []


def test_a_file_that_is_not_a_log_cannot_be_recovered() -> None:
    """A missing file, or one that is not from SQLite, is an error, and nothing is written."""
    assert in_this_process("recover", "--db", "nowhere.db").returncode == 2
    DB.write_bytes(b"\xa5" * 100_000)
    done = in_this_process("recover", "--db", DB)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert not Path("log.db.recovered").exists()


def test_a_log_and_its_companion_files_are_private(tmp_path: Path) -> None:
    """Only the owner can read the log, its WAL and its index."""
    with EventLog(tmp_path / "new" / "log.db") as log:
        log.start(name="x", mode="live").append(Entry("frame", b"1"))
        assert hits(log, "x") == 0
        for path in (tmp_path / "new").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name


def test_a_log_in_a_folder_that_everybody_may_write_to_warns(tmp_path: Path, cli: Cli) -> None:
    """A command warns on stderr, and Python with a warning that names the way out. A private folder causes no warning."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with EventLog(tmp_path / "open" / "log.db") as log, pytest.warns(LogFolderWarning, match=r"chmod o-w .*/open"):
        log.start(name="x", mode="live").end()
    done = cli("recover", "--db", tmp_path / "open" / "log.db")
    assert re.fullmatch(r"retold: the log .*/open/log\.db stands in a folder .*\n", done.stderr)
    with EventLog(tmp_path / "own" / "log.db") as log:
        log.start(name="x", mode="live").end()
