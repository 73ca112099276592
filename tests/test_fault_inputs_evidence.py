"""The inputs on evidence from the folder beside a working copy, each with its correct value. Skipped if the folder is absent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import in_this_process
from tests.fault_folder import copy_of

FOLDER = Path(__file__).parents[2] / "shared" / "faults"
pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FOLDER.is_dir(), reason="the folder of inputs is not beside this copy")]


def _ran(name: str, tmp_path: Path) -> str:
    """Return the output of a script of the folder `attack`, run from a copy."""
    copy = shutil.copytree(copy_of("attack"), tmp_path / "attack")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, name], cwd=copy, env=env, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_hidden_message_and_a_forged_listing_are_found(tmp_path: Path) -> None:
    """The check runs with and without a head."""
    out = _ran("06_hidden_message.py", tmp_path)
    assert out.count("verify: False") == 2


def test_no_changed_cell_crashes_or_stops_verify(tmp_path: Path) -> None:
    """Each statement is a finding."""
    out = _ran("10_verify_crash.py", tmp_path)
    assert len(out.splitlines()) == 8
    assert "CRASH" not in out
    assert "STILL RUNNING" not in out
    assert " []" not in out


@pytest.mark.parametrize(("name", "line"), [("start-nojson", 1), ("end-nostatus", 2), ("msg-odd", 2), ("xchg-odd", 2)])
def test_a_malformed_export_is_refused_by_line_and_the_log_continues(name: str, line: int, tmp_path: Path) -> None:
    """Nothing of it is imported. The other runs are listed, shown, searched and erased from."""
    db = tmp_path / "log.db"
    good = FOLDER / "logs" / "zero_time.jsonl"
    assert in_this_process("import", good, "--db", db).returncode == 0
    done = in_this_process("import", FOLDER / "attack" / f"{name}.jsonl", "--db", db)
    assert (done.returncode, f"{name}.jsonl:{line}: " in done.stderr) == (2, True)
    for command in (
        ["ls"],
        ["show", "last"],
        ["search", "hello"],
        ["verify"],
        ["erase", "--text", "hello", "--why", "w", "--yes"],
    ):
        assert in_this_process(*command, "--db", db).returncode == 0
