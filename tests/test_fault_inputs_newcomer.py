"""The inputs of ../shared/faults/newcomer and wire that are in no other table. Skipped in a clone without them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import claude_code, forks
from tests.conftest import ROOT, SHARED

FAULTS = SHARED / "faults"
pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this clone")]


@pytest.fixture
def env(environment: dict[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment | {"PATH": path, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}


def run(env: dict[str, str], *command: str | Path) -> tuple[str, str]:
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=200, check=False)
    return done.stdout, done.stderr


def test_a_run_of_the_middleware_is_completed(env: dict[str, str]) -> None:
    forks.run(FAULTS / "newcomer/middleware_exit.py", env=env)
    output, _ = run(env, "retold", "ls", "--db", "m.db", "--json")
    assert '"status": "completed"' in output


def newcomer(env: dict[str, str], script: str) -> str:
    env["PYTHONPATH"] += f"{os.pathsep}{FAULTS / 'newcomer'}"
    return forks.run(FAULTS / "newcomer" / script, env=env).stdout


def test_failed_calls_are_shown_everywhere(env: dict[str, str]) -> None:
    output = newcomer(env, "failed_calls.py")
    outputs = dict(part.partition("\n")[::2] for part in output.split("\n$ retold ")[1:])
    line = "400 invalid_request_error: max_tokens: too large"
    assert outputs["show failing"].count(f"ERROR: {line}") == outputs["show failing --handler debug"].count(f"ERROR: {line}") == 2
    assert re.search(r"completed +0.\ds +1 +2 of 3 +failing", outputs["ls"])
    assert re.search(r"claude-haiku-4-5 +2 +0", outputs["stats"])
    assert "completed, 2 of 3 calls failed" in outputs["export failing --format markdown"]
    assert line in Path("f.html").read_text()


def test_no_prompt_is_lost_after_a_failed_call(env: dict[str, str]) -> None:
    output = newcomer(env, "lost_prompt.py")
    for name in ("branch", "branch_bad"):
        assert f"{name} page holds the edited prompt: True\n1 in markdown\n" in output
    assert "third [-edited-]{+other+}" in output


def test_a_running_loop_is_named_and_has_its_own_form(env: dict[str, str]) -> None:
    source = (FAULTS / "newcomer/running_loop.py").read_text()
    env["PYTHONPATH"] = str(FAULTS / "newcomer")
    error = forks.run(FAULTS / "newcomer/running_loop.py", env=env).stderr
    assert error.rstrip().endswith("await arun_workflow(…).")
    Path("async.py").write_text(source.replace("retold.run_workflow(", "await retold.arun_workflow("))
    assert "Error" not in forks.run("async.py", env=env).stderr


def test_small_inputs(env: dict[str, str]) -> None:
    """The folder has `c` with a cassette, and a run of its name, as the other inputs of the folder leave them."""
    Path("c").mkdir()
    shutil.copy(ROOT / "cassettes/clean_streaming_numbers.yaml", "c/failing.yaml")
    run(env, "retold", "import", "c/failing.yaml")
    output, error = run(env, "bash", FAULTS / "newcomer/small_ones.sh")
    names = output.splitlines()[0]
    assert "use_cassette" in names
    assert "<!doctype html>" in output.lower()
    assert "c/failing.yaml: " in output
    assert error == "retold: the differences written to same.html\n"
    assert "delete" not in error


@pytest.mark.stress
@pytest.mark.skipif(claude_code.find() is None, reason="Claude Code is not installed")
def test_a_session_replayed_in_another_folder_writes_nothing_into_the_first(env: dict[str, str]) -> None:
    output, _ = run(env, "sh", FAULTS / "wire/claude_code_absolute_paths.sh", str(claude_code.find()))
    assert "replay ended with" not in output
    assert re.search(r"/one:\n\n", output)
