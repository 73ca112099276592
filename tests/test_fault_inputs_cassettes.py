"""Inputs that recorders of others got wrong: writers of one cassette, frozen clocks, and what clients of tests ask for.

The inputs lie beside this repository where it is developed, and nowhere else.
"""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from retold.recorder.cassette.format import read_cassette
from tests.conftest import ROOT, SHARED
from tests.fault_folder import copy_of

FAULTS = SHARED / "faults" / "clients_of_tests"

pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this repository")


@pytest.fixture
def run(environment: dict[str, str]) -> object:
    """Run an input in this folder and return what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    env = environment | {
        "PATH": path,
        "PYTHONPATH": f"{copy_of(FAULTS.name)}{os.pathsep}{ROOT}",
        "ANTHROPIC_API_KEY": "sk-ant-dummy",
    }

    def running(name: str, *args: str, without: str = "") -> str:
        command = [sys.executable, str(copy_of(FAULTS.name) / name), *args]
        own = {key: value for key, value in env.items() if key != without}
        done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout + done.stderr

    return running


def suite(run: object, file: str, *options: str, without: str = "") -> str:
    """Run a suite against a scripted API."""
    shutil.copy(FAULTS / file, file)
    assert callable(run)
    return str(run("run_suite.py", "-p", "no:asyncio", *options, file, without=without))


def printed(run: object, name: str) -> str:
    assert callable(run)
    return str(run(name))


@pytest.mark.parametrize(
    "options", [("--retold-mode=rewrite",), ("--retold-mode=new_episodes", "-n", "2")], ids=["rewrite", "xdist"]
)
def test_tests_that_share_a_cassette_keep_both_recordings(run: object, options: tuple[str, ...]) -> None:
    assert "2 passed" in suite(run, "test_12_shared.py", *options)
    assert len(read_cassette("cassettes/test_12_shared/shared.yaml").exchanges) == 2
    again = suite(run, "test_12_shared.py")
    assert "2 passed" in again
    assert "calls that reached the API: 0" in again


def test_an_upload_matches_its_own_recording(run: object) -> None:
    assert printed(run, "15_upload.py") == "fine\n"


def test_a_client_made_at_import_needs_no_key_in_a_replay(run: object) -> None:
    assert "1 passed" in suite(run, "test_17_module_client.py", "--retold-mode=once")
    again = suite(run, "test_17_module_client.py", without="ANTHROPIC_API_KEY")
    assert "1 passed" in again
    assert "calls that reached the API: 0" in again


def test_a_changed_working_directory_changes_no_path(run: object) -> None:
    assert printed(run, "18_chdir.py") == "cassette where it was asked for: True\n"


def test_a_symbolic_link_stays_one(run: object) -> None:
    assert printed(run, "19_symlink.py") == "still a link: True ; exchanges in the target: 2\n"


def test_a_replay_on_trio_waits(run: object) -> None:
    assert printed(run, "20_trio.py") == "recorded: Hello\ninstant Hello\noriginal Hello\n"


def test_a_folder_that_cannot_be_written_costs_nothing(run: object, tmp_path: Path) -> None:
    """Root becomes an ordinary user in it, who must be able to reach the folder."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o755)
    found = printed(run, "24_not_writable.py")
    assert "umask 077, cassette: 0o600" in found
    assert "CassetteError cannot write the cassette ro/c.yaml: " in found
    assert "paid calls: 0" in found


def test_names_that_differ_in_case_alone_get_files_of_their_own(run: object) -> None:
    assert "2 passed" in suite(run, "test_25_names.py", "--retold-mode=once")
    names = [path.name for path in Path("cassettes/test_25_names").iterdir()]
    assert len({name.casefold() for name in names}) == 2


@pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "curl", "node"))), reason="openssl, curl and node are not all installed"
)
def test_a_recording_goes_through_the_proxy_and_trusts_what_the_program_trusts(run: object) -> None:
    lines = printed(run, "26_all_proxy_and_ca.py").splitlines()
    outcomes = dict(line.split(": ", 1) for line in lines)
    for name in ("ALL_PROXY, curl", "HTTPS_PROXY, curl", "NODE_EXTRA_CA_CERTS, node"):
        assert outcomes[f"{name}, retold record"] == outcomes[f"{name}, alone"]


def test_yaml_values_are_read_as_written(run: object) -> None:
    said = printed(run, "21_yaml_values.py")
    for pair in ("('x-flag', 'no')", "('x-time', '12:30:45')", "('x-code', '0123')", "('x-version', '1.10')", "('on', 'yes')"):
        assert pair in said
    assert '"max_tokens"' in said


def test_comments_and_formatters_behind_the_end_change_nothing(run: object) -> None:
    said = printed(run, "22_end_mark.py").splitlines()
    assert [line.split()[0] for line in said[-3:-1]] == ["comment.yaml", "formatted.yaml"]
    assert "an unresolved merge conflict" in said[-1]
