"""`verify` finds every tampering and names the first wrong row and the change. Concurrent writers cause no false alarm."""

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retold.audit.verify import verify
from retold.recorder.errors import InputError
from retold.recorder.events import Entry
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.rows import to_column
from retold.recorder.log.store import Head
from tests.e2e import in_this_process
from tests.raw_log import computed_chain, query, rows
from tests.tamper import FIELDS, copied, findings, report, swap, tamper, write_log

LAST = 249


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Write a log of 1,000 events in four runs. Return it and the runs."""
    path = tmp_path_factory.mktemp("written") / "log.db"
    return path, write_log(path)


@pytest.fixture
def path(written: tuple[Path, list[str]], tmp_path: Path) -> Path:
    return copied(written[0], tmp_path / "log.db")


@pytest.fixture
def runs(written: tuple[Path, list[str]]) -> list[str]:
    return written[1]


def head_of(path: Path) -> Head:
    return EventLog(path).head()


def test_an_untouched_log_has_no_findings(path: Path) -> None:
    """Every event is counted, and the log matches its own head."""
    found = report(path, head_of(path))
    assert (found.ok, found.runs, found.events, found.open) == (True, 4, 1000, 0)


@pytest.mark.parametrize(
    ("statements", "seq", "what"),
    [
        (["UPDATE events SET payload = 'data: forged' WHERE {run} AND seq = 100"], 100, "edited"),
        (["UPDATE events SET payload = '', digest = x'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855' "
          "WHERE {run} AND seq = 100"], 100, "edited"),
        (["UPDATE events SET wall_ns = wall_ns + 1 WHERE {run} AND seq = 100"], 100, "edited"),
        (["UPDATE events SET step = 'other' WHERE {run} AND seq = 249"], 249, "edited"),
        (["UPDATE events SET hash = zeroblob(32) WHERE {run} AND seq = 100"], 100, "edited"),
        (["UPDATE events SET payload = replace(payload, 'run 1', 'run one') WHERE {run} AND seq = 0"], 0, "edited"),
        (["DELETE FROM events WHERE {run} AND seq = 100"], 100, "removed"),
        (["DELETE FROM events WHERE {run} AND seq BETWEEN 0 AND 5"], 0, "removed"),
        (["DELETE FROM events WHERE {run} AND seq BETWEEN 100 AND 102",
          "UPDATE events SET seq = 3 - seq WHERE {run} AND seq > 102", "UPDATE events SET seq = -seq WHERE {run} AND seq < 0"],
         100, "removed"),
        (["UPDATE events SET seq = -seq - 1 WHERE {run} AND seq >= 100", "UPDATE events SET seq = -seq WHERE {run} AND seq < 0",
          f"INSERT INTO events SELECT run, 100, {FIELDS} FROM events WHERE {{run}} AND seq = 3"], 100, "inserted"),
        (["UPDATE events SET seq = 250 WHERE {run} AND seq = 249",
          f"INSERT INTO events SELECT run, 249, {FIELDS} FROM events WHERE {{run}} AND seq = 3"], 249, "inserted"),
        ([f"INSERT INTO events SELECT run, 250, {FIELDS} FROM events WHERE {{run}} AND seq = 3"], 250, "inserted"),
        (swap("events", "{run}", 100, 101), 100, "reordered"),
        (swap("events", "{run}", 100, 200), 100, "reordered"),
        (swap("events", "{run}", 248, 249), 248, "reordered"),
        (["UPDATE events SET seq = 999 WHERE {run} AND seq = 100"], 100, "reordered"),
        (["DELETE FROM events WHERE {run} AND seq > 200"], 201, "cut off"),
        (["DELETE FROM events WHERE {run} AND seq = 249"], 249, "cut off"),
        (["DELETE FROM events WHERE {run}"], None, "missing run"),
        (["DELETE FROM events WHERE {run}", "DELETE FROM runs WHERE {run}"], None, "missing run"),
        (["DELETE FROM runs WHERE {run}"], None, "listing"),
        (["UPDATE runs SET status = 'failed' WHERE {run}"], None, "listing"),
        (["UPDATE ledger SET seq = seq + 1 WHERE {run} AND what = 'ended'"], 250, "ledger"),
        (["DELETE FROM ledger WHERE {run} AND what = 'ended'"], None, "ledger"),
    ],
)  # fmt: skip
def test_a_finding_names_the_first_tampered_row(
    path: Path, runs: list[str], statements: list[str], seq: int | None, what: str
) -> None:
    """Rows are edited, removed, inserted, moved or cut off. The finding has the run, the row and the kind."""
    tamper(path, *(statement.format(run=f"run = '{runs[1]}'") for statement in statements))
    first = findings(path)[0]
    assert (first.seq, first.what) == (seq, what)
    assert first.run == ("" if what == "ledger" and first.seq is None else runs[1])  # the log does not show which entry is gone


def test_two_swapped_runs_are_named(path: Path, runs: list[str]) -> None:
    """The finding of each run names the run that owns its events."""
    move = "UPDATE events SET run = '{}' WHERE run = '{}'"
    tamper(path, move.format("x", runs[1]), move.format(runs[1], runs[2]), move.format(runs[2], "x"))
    assert [(f.run, f.seq, f.what) for f in findings(path)] == [(runs[1], 0, "reordered"), (runs[2], 0, "reordered")]
    assert runs[2] in findings(path)[0].detail


def test_two_runs_swapped_in_the_listing_are_named(path: Path, runs: list[str]) -> None:
    """The listing is in the order in which the runs began."""
    move = "UPDATE runs SET id = {} WHERE id = {}"
    tamper(path, move.format(99, 2), move.format(2, 3), move.format(3, 99))
    assert [(f.run, f.what) for f in findings(path)] == [(runs[1], "listing")]


def test_an_inserted_run_is_named(path: Path, runs: list[str]) -> None:
    """The ledger has no beginning for a copy of a run under another name."""
    tamper(path, f"INSERT INTO events SELECT 'ffff', seq, {FIELDS} FROM events WHERE run = '{runs[0]}'")
    assert [(f.run, f.what) for f in findings(path)] == [("ffff", "unknown run")]


def test_a_rewritten_run_with_correct_hashes_is_named(path: Path, runs: list[str]) -> None:
    """The ledger differs from a chain that was recomputed as a whole."""
    stored = rows(path, runs[1])
    stored[100]["payload"] = b"forged"
    forged = [(to_column(stored[seq]["payload"]), digest, own, runs[1], seq) for seq, digest, own in computed_chain(stored)]
    tamper(path, "UPDATE events SET payload = ?, digest = ?, hash = ? WHERE run = ? AND seq = ?", each=forged)
    assert [(f.run, f.seq, f.what) for f in findings(path)] == [(runs[1], LAST, "edited")]


def test_a_head_kept_elsewhere_exposes_an_old_copy(path: Path, tmp_path: Path) -> None:
    """The copy is consistent, but it lacks the events that the head covers."""
    old = copied(path, tmp_path / "old.db")
    write_log(path, runs=1, events=10)
    head = head_of(path)
    assert findings(path, head) == []
    assert findings(old) == []
    assert [f.what for f in findings(old, head)] == ["cut off"]


def test_a_head_proves_the_earlier_events_of_a_growing_log(path: Path) -> None:
    """This includes a run that was open when the head was printed. A log rewritten since then does not match the head."""
    with EventLog(path) as log:
        writer = log.start(name="open", mode="live")
        writer.append(Entry("frame", b"1"), Entry("frame", b"2"))
        head = Head.parse(str(head_of(path)))
        assert [(run, seq) for run, seq, _ in head.open] == [(writer.run, 2)]
        writer.append(Entry("frame", b"3"))
        assert findings(path, head) == []
        writer.end()
        log.start(name="after", mode="live").end()
    assert findings(path, head) == []
    tamper(path, f"DELETE FROM events WHERE run = '{writer.run}' AND seq > 1",
           f"DELETE FROM ledger WHERE n > {head.n}", "DELETE FROM runs WHERE id > 5",
           f"UPDATE runs SET status = 'running', ended_ns = NULL, frames = 0 WHERE run = '{writer.run}'")  # fmt: skip
    assert [f.what for f in findings(path)] == ["unknown run"]
    assert ("cut off", writer.run, 2) in [(f.what, f.run, f.seq) for f in findings(path, head)]


@pytest.mark.parametrize("text", ["", "1:2", "2:1:" + "0" * 64, "1:1:" + "0" * 63, "1:1:" + "0" * 64 + ",run"])
def test_a_text_that_is_not_a_head_is_refused(text: str) -> None:
    """A head is recognised by its form. The error names the command that prints one."""
    with pytest.raises(InputError, match="retold verify --head"):
        Head.parse(text)


COLUMNS = ("run", "seq", "t_ns", "wall_ns", "kind", "step", "task", "exchange", "payload", "digest", "hash", "schema")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(data=st.data())
def test_any_flipped_byte_is_found(path: Path, runs: list[str], data: st.DataObject) -> None:
    """The byte may be in any row and column of an event. The finding names the run."""
    seq = data.draw(st.integers(0, LAST), "seq")
    column = data.draw(st.sampled_from(COLUMNS), "column")
    bit = data.draw(st.integers(0, 2000), "bit")
    (value,) = query(path, f"SELECT {column} FROM events WHERE run = ? AND seq = ?", runs[2], seq)[0]
    if isinstance(value, int):
        flipped: object = value ^ (1 << bit % 63)
    elif value in (None, ""):
        flipped = 0 if value is None else "\x01"
    else:
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        raw[bit // 8 % len(raw)] ^= 1 << bit % 8
        flipped = bytes(raw)
    tampered = copied(path, path.with_name("tampered.db"))
    new = "CAST(? AS TEXT)" if isinstance(value, str) else "?"
    try:
        tamper(tampered, f"UPDATE events SET {column} = {new} WHERE run = ? AND seq = ?", values=(flipped, runs[2], seq))
    except sqlite3.IntegrityError:
        return  # SQLite refuses, because another row has that number
    assert runs[2] in [finding.run for finding in findings(tampered)][:1]


def test_verify_works_during_writes(path: Path) -> None:
    """Threads append and end runs while the log is checked repeatedly, without a false alarm or an error."""
    stop = threading.Event()

    def write() -> None:
        with EventLog(path) as log:
            while not stop.is_set():
                with log.start(name="w", mode="live") as writer:
                    for number in range(20):
                        writer.append(Entry("frame", b"%d" % number))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            found = verify(EventLog(path), against=head_of(path))
            assert found.findings == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert verify(EventLog(path)).runs > 4


def test_a_killed_run_is_open_until_it_is_closed(path: Path) -> None:
    """A run without an end is not a finding. After its end is written it is no longer open."""
    with EventLog(path) as log:
        log.start(name="open", mode="live").append(Entry("frame", b"1"))
        assert (findings(path), report(path).open) == ([], 1)


def test_the_command_prints_one_line_per_finding(path: Path, runs: list[str]) -> None:
    """With findings the exit code is 1, otherwise 0. A head is one word."""
    done = in_this_process("verify", "--db", path)
    assert (done.returncode, done.stdout) == (0, "nothing was changed: 4 runs, 1,000 events\n")
    head = in_this_process("verify", "--head", "--db", path).stdout
    Path("head.txt").write_text(head)
    assert in_this_process("verify", "--db", path, "--against", "head.txt").returncode == 0
    tamper(path, f"UPDATE events SET t_ns = 1 WHERE run = '{runs[1]}' AND seq = 7")
    done = in_this_process("verify", "run 1", "--db", path, "--against", head.strip())
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == f"run {runs[1]}, event 7: edited: this frame is not as it was recorded"
    assert in_this_process("verify", "run 2", "--db", path).returncode == 0


def test_an_older_log_gets_a_ledger_of_its_runs(path: Path, runs: list[str]) -> None:
    """The first opening of a version 1 log builds its ledger from its events, and verify then finds nothing."""
    made = ("TABLE ledger", "TABLE erasing", "VIEW tool_uses", "INDEX audit_runs", "TABLE received", "TABLE shelves")
    tamper(path, *(f"DROP {each}" for each in made), "PRAGMA user_version = 1")
    assert [info.run for info in EventLog(path).runs()] == runs[::-1]
    assert query(path, "PRAGMA user_version") == [(3,)]
    assert report(path).events == 1000
