"""`verify --new` reads only the events that the last check did not prove, and reports which part it read."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retold.audit import erase
from retold.audit.proof import Proof, path_of
from retold.audit.verify import Report, verify
from retold.recorder.log.log import EventLog
from retold.recorder.log.sqlite.evidence import Evidence
from retold.recorder.log.sqlite.questions import Cells
from tests.e2e import in_this_process
from tests.tamper import copied, tamper, write_log


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("written") / "log.db"
    return path, write_log(path, runs=3, events=50)


@pytest.fixture
def path(written: tuple[Path, list[str]], tmp_path: Path) -> Path:
    return copied(written[0], tmp_path / "log.db")


@pytest.fixture
def runs(written: tuple[Path, list[str]]) -> list[str]:
    return written[1]


def verified(path: Path, *options: str, code: int = 0) -> str:
    result = in_this_process("verify", *options, "--db", path)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout


def checked(path: Path) -> Report:
    log = EventLog(path)
    return verify(log, proof=Proof.read(log))


def test_only_new_rows_are_read_after_a_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verified(path) == "nothing was changed: 3 runs, 150 events\n"
    write_log(path, runs=1, events=50)
    read: list[str] = []
    rows = Evidence.rows

    def counted(self: Evidence, run: str, at: int | None = None) -> Iterator[Cells]:
        read.append(run)
        return rows(self, run, at)

    monkeypatch.setattr(Evidence, "rows", counted)
    found = checked(path)
    assert (found.ok, found.runs, found.events, len(read)) == (True, 1, 50, 1)
    assert found.before is not None
    assert (found.before.runs, found.before.events) == (3, 150)


def test_the_result_separates_this_check_from_the_one_before(path: Path) -> None:
    verified(path)
    first = Proof.read(EventLog(path))
    write_log(path, runs=1, events=50)
    output = verified(path, "--new")
    second = Proof.read(EventLog(path))
    assert first is not None
    assert second is not None
    assert output == (
        f"nothing was changed: 1 run, 50 events checked now; 3 runs, 150 events not read again: checked at {first.at}\n"
    )
    assert first.whole_at == first.at
    assert (second.whole_at, second.head != first.head) == (first.whole_at, True)
    assert " 0 runs, 0 events checked now; 4 runs, 200 events not read again" in verified(path, "--new")
    replace(second, at="2099-12-31T00:00:00Z").keep(EventLog(path))
    assert f"events not read again: checked between {second.whole_at} and 2099-12-31T00:00:00Z\n" in verified(path, "--new")


def test_without_an_earlier_check_everything_is_read(path: Path) -> None:
    assert verified(path, "--new") == "nothing was changed: 3 runs, 150 events\n"
    path_of(EventLog(path)).write_text('{"version": 1, "head": "no head", "at": "", "whole_at": ""}')
    assert verified(path, "--new") == "nothing was changed: 3 runs, 150 events\n"


def test_only_a_whole_check_finds_a_row_edited_after_its_check(path: Path, runs: list[str]) -> None:
    """--new does not prove that, and its result does not claim it."""
    verified(path)
    tamper(path, f"UPDATE events SET payload = 'data: forged' WHERE run = '{runs[0]}' AND seq = 20")
    assert "not read again" in verified(path, "--new")
    assert f"run {runs[0]}, event 20: edited" in verified(path, code=1)
    assert not path_of(EventLog(path)).exists(), "a finding is not outlived by an earlier proof"
    assert "edited" in verified(path, "--new", code=1)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM events WHERE run = '{run}' AND seq = 49", "cut off"),
        ("DELETE FROM events WHERE run = '{run}'", "cut off"),
        ("UPDATE events SET hash = zeroblob(32) WHERE run = '{run}' AND seq = 49", "edited"),
        ("UPDATE ledger SET hash = zeroblob(32) WHERE run = '{run}'", "ledger"),
        ("DELETE FROM ledger WHERE n > 4", "cut off"),
        ("DELETE FROM runs WHERE run = '{run}'", "listing"),
    ],
)
def test_ends_ledger_and_listing_are_checked_again(path: Path, runs: list[str], statement: str, what: str) -> None:
    verified(path)
    tamper(path, statement.format(run=runs[1]))
    assert f": {what}: " in verified(path, "--new", code=1)


def test_an_erased_and_a_pruned_run_are_checked_again(path: Path, runs: list[str]) -> None:
    verified(path)
    with EventLog(path) as log:
        erase.erase(log, erase.plan_run(log, log.find(runs[0])), why="test")
        found = checked(path)
        assert (found.ok, found.runs) == (True, 2), "the erased run, and the run that records the erasure"
        tamper(path, f"UPDATE events SET payload = 'data: forged' WHERE run = '{runs[0]}' AND seq = 20")
        assert [finding.what for finding in checked(path).findings] == ["edited"]


def test_a_log_that_replaced_the_checked_one_is_read_whole_and_reported(path: Path) -> None:
    verified(path)
    path.unlink()
    write_log(path, runs=5, events=10)
    found = checked(path)
    assert [finding.what for finding in found.findings] == ["ledger"]
    assert found.events == 50


def test_new_is_refused_together_with_a_run_or_head(path: Path) -> None:
    for options in (["last", "--new"], ["--head", "--new"]):
        assert "leave out" in in_this_process("verify", *options, "--db", path).stderr
