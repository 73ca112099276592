"""A table of these tests runs every input beside this repository, or names it with the reason why not."""

import re
from pathlib import Path

import pytest

from tests.conftest import SHARED

FAULTS = SHARED / "faults"
TESTS = Path(__file__).parent

FOLDERS = ("core", "clients_of_tests", "logs", "attack", "newcomer", "wire")

ELSEWHERE = {
    "core/12_diff_through_a_log_in_memory.py": "a measurement of another design, which it brings with it",
    "clients_of_tests/21_yaml_values.py": "the tests of the cassette format hold it",
    "clients_of_tests/21_yaml_values.yaml": "read by 21_yaml_values.py",
    "clients_of_tests/22_end_mark.py": "the tests of the cassette format hold it",
    "clients_of_tests/old_sdk_swallows_the_miss.py": "needs an SDK of its own; the tests with the lowest versions hold it",
    "newcomer/deep_link.mjs": "the tests of the pages hold it",
    "newcomer/deep_link_run.py": "makes the run for deep_link.mjs",
    "newcomer/failed_calls.py": "the tests of failed calls hold it",
    "newcomer/lost_prompt.py": "the tests of the pages hold it",
    "newcomer/floors_smoke.py": "a tool that finds the lowest versions",
}
HELPERS = {"README.md", "_c.py", "_server.py", "common.py", "run_suite.py", "server_stub.py", "check.py"}


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this clone")
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_input_is_omitted(folder: str) -> None:
    """A file counts as run if a table names it, or names the entry of `check.py` that reads it."""
    tables = "".join(path.read_text() for path in TESTS.glob("test_fault_inputs_*.py") if path.name != Path(__file__).name)
    entries = re.split(r"^@case", (FAULTS / "logs/check.py").read_text(), flags=re.MULTILINE)[1:]
    run = [entry for entry in entries if (name := re.search(r"^def (\w+)", entry, re.MULTILINE)) and f'"{name[1]}"' in tables]

    def is_run(path: Path) -> bool:
        name = path.name
        stem = re.sub(r"_\d$", "", path.stem)
        return name in tables or f'"{path.stem}"' in tables or (folder == "logs" and any(stem in entry for entry in run))

    files = [path for path in sorted((FAULTS / folder).iterdir()) if path.is_file() and path.name not in HELPERS]
    assert [path.name for path in files if not is_run(path) and f"{folder}/{path.name}" not in ELSEWHERE] == []


@pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this clone")
def test_every_entry_of_the_script_about_logs_is_run() -> None:
    tables = "".join(path.read_text() for path in TESTS.glob("test_fault_inputs_*.py"))
    names = re.findall(r"^@case.*\n(?:@.*\n)*def (\w+)", (FAULTS / "logs/check.py").read_text(), re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if f'"{name}"' not in tables] == []
