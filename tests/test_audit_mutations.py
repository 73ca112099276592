"""Single cells of a log are changed, in any table, column and type: `verify` finds each, and no command ends in a traceback."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from retold.audit.verify import verify
from retold.recorder.log.log import EventLog
from tests.e2e import in_this_process
from tests.mutations import Mutation, each_mutation, mutate, write_varied
from tests.tamper import copied

COMMANDS = [
    ["ls", "--cost"], ["search", "needle"], ["stats", "--by", "model"], ["show", "last"], ["show", "last", "--raw"],
    ["show", "said", "--json"], ["export", "last"], ["export", "said", "--format", "markdown"], ["diff", "first", "last"],
    ["export", "--all", "--format", "jsonl", "--force", "-o", "all.jsonl"], ["play", "last"], ["verify"], ["verify", "--head"],
    ["tail", "first"], ["tail", "last", "--json"], ["recover"],
    ["prune", "--older-than", "0s", "--yes"], ["export", "first", "--format", "html"],
    ["erase", "--text", "needle", "--why", "a test", "--dry-run"],
    ["prune", "--older-than", "0s", "--dry-run"],
]  # fmt: skip


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("varied") / "log.db"
    write_varied(path)
    return path


def _mutated(varied: Path, folder: Path, mutation: Mutation) -> Path | None:
    for old in folder.glob("log.db*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path = copied(varied, folder / "log.db")
    return path if mutate(path, mutation) else None


def _check_verify(varied: Path, folder: Path, numbers: range) -> None:
    missed = []
    for mutation in each_mutation(varied)[numbers.start : numbers.stop]:
        path = _mutated(varied, folder, mutation)
        if path is not None and verify(EventLog(path)).ok:
            missed.append(str(mutation))
    assert missed == []


def _check_commands(varied: Path, folder: Path, numbers: range) -> None:
    for number, mutation in zip(numbers, each_mutation(varied)[numbers.start : numbers.stop], strict=True):
        path = _mutated(varied, folder, mutation)
        if path is not None:
            command = COMMANDS[number % len(COMMANDS)]
            done = in_this_process(*command, "--db", path)
            assert "Traceback" not in done.stderr, (str(mutation), command)
            assert done.returncode in (0, 1, 2), (str(mutation), command)


def test_the_unchanged_log_has_no_findings(varied: Path) -> None:
    """The log has an erased run, an import and an audit run."""
    assert verify(EventLog(varied)).findings == []


def test_a_changed_cell_is_a_finding(varied: Path, tmp_path: Path) -> None:
    """The sample covers all tables, columns and types."""
    _check_verify(varied, tmp_path, range(60))


def test_every_changed_cell_about_a_shelf_is_a_finding(varied: Path, tmp_path: Path) -> None:
    """This covers all of the two tables of received runs, because a sample may lack them."""
    missed = []
    for mutation in each_mutation(varied):
        if mutation.table in ("received", "shelves"):
            path = _mutated(varied, tmp_path, mutation)
            if path is not None and verify(EventLog(path)).ok:
                missed.append(str(mutation))
    assert missed == []


@pytest.mark.filterwarnings("ignore::retold.LeftOutWarning")
def test_a_changed_cell_causes_no_traceback(varied: Path, tmp_path: Path) -> None:
    """Each mutation of the sample meets one of the commands that read a log."""
    _check_commands(varied, tmp_path, range(60))


@pytest.mark.stress
@pytest.mark.parametrize("part", range(4))
@pytest.mark.filterwarnings("ignore::retold.LeftOutWarning")
def test_every_changed_cell_is_a_finding_and_no_traceback(varied: Path, tmp_path: Path, part: int) -> None:
    """`verify` meets four thousand mutations, and the commands that read a log six hundred, in parts for pytest workers."""
    _check_verify(varied, tmp_path, range(part * 1000, part * 1000 + 1000))
    _check_commands(varied, tmp_path, range(part * 150, part * 150 + 150))


SCHEMA = {
    "an index with a condition": [
        "DROP INDEX events_but_frames",
        "CREATE INDEX events_but_frames ON events (run, seq) WHERE kind <> 'frame' AND seq <> 2",
    ],
    "that index under its old text": [
        "DROP INDEX events_but_frames",
        "CREATE INDEX events_but_frames ON events (run, seq) WHERE kind <> 'frame' AND seq <> 2",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX events_but_frames ON events (run, seq) WHERE kind <> ''frame''' "
        "WHERE name = 'events_but_frames'",
    ],
    "a view": ["DROP VIEW usage", "CREATE VIEW usage AS SELECT 'forged' AS run"],
    "a trigger less": ["DROP TRIGGER events_are_not_changed"],
    "a trigger without effect": [
        "DROP TRIGGER events_are_not_changed",
        "CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events WHEN 0 BEGIN SELECT 1; END",
    ],
    "a table more": ["CREATE TABLE more (a)"],
    "an index more": ["CREATE INDEX more ON events (kind)"],
    "a collation": [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'kind TEXT', 'kind TEXT COLLATE NOCASE') WHERE name = 'events'",
    ],
    "a view without an end in the place of a table": [
        "ALTER TABLE runs RENAME TO other",
        "CREATE VIEW runs AS WITH RECURSIVE x(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM x) SELECT id, 'a' AS run FROM x",
    ],
    "an erasure under way": ["INSERT INTO erasing VALUES ('a', 1)"],
}


@pytest.mark.parametrize("statements", SCHEMA.values(), ids=SCHEMA)
def test_a_changed_schema_is_a_finding(varied: Path, tmp_path: Path, statements: list[str]) -> None:
    """An index or a view may hide rows from queries."""
    path = copied(varied, tmp_path / "log.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    assert {finding.what for finding in verify(EventLog(path)).findings} & {"schema", "damaged"}


@pytest.mark.parametrize(
    "change",
    ["name = 'forged'", "mode = 'mock'", "status = 'failed'", "started_ns = 0", "ended_ns = 1", "messages = 99",
     "exchanges = 7", "frames = 0", "error = 'forged'", "id = 99"],
)  # fmt: skip
def test_a_changed_line_of_the_listing_is_a_finding(varied: Path, tmp_path: Path, change: str) -> None:
    """Every column repeats the events, or the order in which the runs began."""
    path = copied(varied, tmp_path / "log.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE runs SET {change} WHERE name = 'first'")
        connection.commit()
    assert "listing" in [finding.what for finding in verify(EventLog(path)).findings]


@pytest.mark.parametrize("format_", ["jsonl", "markdown", "html", "cassette"])
def test_an_export_of_all_runs_reports_a_changed_run_and_writes_the_others(varied: Path, tmp_path: Path, format_: str) -> None:
    """The exit code is 1, because the export is not complete."""
    path = copied(varied, tmp_path / "log.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER events_are_not_changed")
        changed = "kind IN ('exchange.started', 'message') AND run = (SELECT run FROM runs WHERE name = 'first')"
        connection.execute(f"UPDATE events SET payload = x'00ff', t_ns = 'soon' WHERE {changed}")
        connection.commit()
    out = tmp_path / ("all.jsonl" if format_ == "jsonl" else "all")
    done = in_this_process("export", "--all", "--format", format_, "-o", out, "--db", path)
    assert (done.returncode, "(first) is left out: " in done.stderr) == (1, True), done.stderr
    written = out.read_text() if out.is_file() else "".join(file.name for file in out.iterdir())
    assert "last" in written
    assert "first-" not in written


def test_prune_removes_a_run_without_events(varied: Path, tmp_path: Path) -> None:
    """The line of the listing comes from another program, or from a run that lost its events."""
    path = copied(varied, tmp_path / "log.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO runs (run, name, mode, status, started_ns, ended_ns) "
            "VALUES ('00ff00ff00ff00ff', 'gone', 'live', 'completed', 1, 2)"
        )
        connection.commit()
    done = in_this_process("prune", "--older-than", "1d", "--yes", "--db", path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert "gone" not in [info.name for info in EventLog(path).runs()]
    assert {finding.what for finding in verify(EventLog(path)).findings} == {"listing"}  # the added line used one position
