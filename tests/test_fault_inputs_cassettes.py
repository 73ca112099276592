"""Inputs that other recorders handled wrongly: writers of one cassette, frozen clocks, and requests of test clients.

The inputs exist only beside a developer's working copy of this repository.
"""

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from retold.recorder.cassette.format import read_cassette
from tests import forks
from tests.conftest import ROOT, SHARED
from tests.fault_folder import copy_of, run_suite

FAULTS = SHARED / "faults" / "clients_of_tests"

pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FAULTS.is_dir(), reason="the inputs are not beside this repository")]


@pytest.fixture
def env(environment: dict[str, str]) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    search = f"{copy_of('clients_of_tests')}{os.pathsep}{ROOT}"
    return environment | {"PATH": path, "PYTHONPATH": search, "ANTHROPIC_API_KEY": "sk-ant-dummy"}


def suite(env: dict[str, str], file: str, *options: str) -> str:
    """Run a suite of the folder against a scripted API."""
    shutil.copy(copy_of("clients_of_tests") / file, file)
    return run_suite(*options, file, env=env)


def printed(env: dict[str, str], name: str) -> str:
    """Run a script of the folder and return its output."""
    done = forks.run(copy_of("clients_of_tests") / name, env=env)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "options",
    [("--retold-mode=rewrite",), pytest.param(("--retold-mode=new_episodes", "-n", "2"), marks=pytest.mark.stress)],
    ids=["rewrite", "xdist"],
)
def test_tests_that_share_a_cassette_keep_both_recordings(env: dict[str, str], options: tuple[str, ...]) -> None:
    assert "2 passed" in suite(env, "test_12_shared.py", *options)
    assert len(read_cassette("cassettes/test_12_shared/shared.yaml").exchanges) == 2
    again = suite(env, "test_12_shared.py")
    assert "2 passed" in again
    assert "calls that reached the API: 0" in again


def test_an_upload_matches_its_own_recording(env: dict[str, str]) -> None:
    assert printed(env, "15_upload.py") == "fine\n"


def test_a_client_created_at_import_needs_no_key_in_a_replay(env: dict[str, str]) -> None:
    assert "1 passed" in suite(env, "test_17_module_client.py", "--retold-mode=once")
    del env["ANTHROPIC_API_KEY"]
    again = suite(env, "test_17_module_client.py")
    assert "1 passed" in again
    assert "calls that reached the API: 0" in again


def test_a_changed_working_directory_changes_no_path(env: dict[str, str]) -> None:
    assert printed(env, "18_chdir.py") == "cassette where it was asked for: True\n"


def test_a_symbolic_link_stays_a_link(env: dict[str, str]) -> None:
    assert printed(env, "19_symlink.py") == "still a link: True ; exchanges in the target: 2\n"


def test_a_replay_on_trio_waits(env: dict[str, str]) -> None:
    assert printed(env, "20_trio.py") == "recorded: Hello\ninstant Hello\noriginal Hello\n"


def test_a_folder_that_cannot_be_written_costs_nothing(env: dict[str, str], tmp_path: Path) -> None:
    """Root becomes an ordinary user in it, who must be able to reach the folder."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o755)
    found = printed(env, "24_not_writable.py")
    assert "umask 077, cassette: 0o600" in found
    assert "CassetteError cannot write the cassette ro/c.yaml: " in found
    assert "paid calls: 0" in found


def test_names_that_differ_only_in_case_get_separate_files(env: dict[str, str]) -> None:
    assert "2 passed" in suite(env, "test_25_names.py", "--retold-mode=once")
    names = [path.name for path in Path("cassettes/test_25_names").iterdir()]
    assert len({name.casefold() for name in names}) == 2


@pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "curl", "node"))), reason="openssl, curl and node are not all installed"
)
def test_a_recording_uses_the_proxy_and_the_trust_of_the_program(env: dict[str, str]) -> None:
    lines = printed(env, "26_all_proxy_and_ca.py").splitlines()
    outcomes = dict(line.split(": ", 1) for line in lines)
    for name in ("ALL_PROXY, curl", "HTTPS_PROXY, curl", "NODE_EXTRA_CA_CERTS, node"):
        assert outcomes[f"{name}, retold record"] == outcomes[f"{name}, alone"]


def test_yaml_values_are_read_as_written(env: dict[str, str]) -> None:
    output = printed(env, "21_yaml_values.py")
    for pair in ("('x-flag', 'no')", "('x-time', '12:30:45')", "('x-code', '0123')", "('x-version', '1.10')", "('on', 'yes')"):
        assert pair in output
    assert '"max_tokens"' in output


def test_comments_and_formatters_after_the_end_change_nothing(env: dict[str, str]) -> None:
    output = printed(env, "22_end_mark.py").splitlines()
    assert [line.split()[0] for line in output[-3:-1]] == ["comment.yaml", "formatted.yaml"]
    assert "an unresolved merge conflict" in output[-1]
