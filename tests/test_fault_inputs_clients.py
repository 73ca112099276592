"""The inputs of ../shared/faults/clients_of_tests about live calls, each with its correct values."""

import pytest

from tests import forks
from tests.conftest import SHARED
from tests.fault_folder import copy_of, run_suite

FOLDER = SHARED / "faults" / "clients_of_tests"

pytestmark = [pytest.mark.stress, pytest.mark.skipif(not FOLDER.is_dir(), reason="the inputs are not beside this clone")]

RIGHT = {
    "02_older_context.py": (("played 1, LIVE 0", 5), ("LIVE 1", 0)),
    "03_async_unittest_class.py": (("played 1 LIVE 0", 1),),
    "06_vertex_bedrock.py": (("recorded 1 played 0 LIVE 1", 2), ("recorded 0 played 1 LIVE 0", 2)),
    "07_processes.py": (("recorded 3 of 3", 2), ("played 1", 1), ("Can't pickle", 0), ("of a child's miss: MissError", 1)),
    "08_generators.py": (("[(1, 1), (2, 2)]", 1), ("live: msg_", 1), ("[1, 1, 2, 2]", 1), ("overlapping blocks: fine", 1)),
    "11_awaitable.py": (("LIVE 0", 1),),
}
SUITES = [
    ("test_01_wide_fixture.py", "--retold-mode=once", ("1 passed", "2 API requests outside of every cassette sent", "API: 3")),
    ("test_01_wide_fixture.py", "--retold-timing=instant", ("1 error", "outside of every cassette refused", "API: 0")),
    ("test_10_class.py", "--retold-timing=instant", ("1 failed, 1 passed", "API: 0")),
    ("test_23_kept_thread.py", "--retold-mode=once", ("2 passed", "2 recorded", "API: 2")),
    ("test_23_kept_thread.py", "--retold-timing=instant", ("API: ",)),
]


@pytest.fixture
def env(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"PYTHONPATH": str(copy_of("clients_of_tests")), "ANTHROPIC_API_KEY": "sk-ant-dummy"}


@pytest.mark.parametrize("name", RIGHT)
def test_a_script_gives_the_correct_values(name: str, env: dict[str, str]) -> None:
    if name.startswith("06"):
        pytest.importorskip("google.auth")
        pytest.importorskip("boto3")
    done = forks.run(copy_of("clients_of_tests") / name, env=env, timeout=300)
    output = done.stdout + done.stderr
    assert [(text, output.count(text)) for text, _ in RIGHT[name]] == list(RIGHT[name]), output


@pytest.mark.parametrize(("name", "option", "wanted"), SUITES)
def test_a_suite_gives_the_correct_values(name: str, option: str, wanted: tuple[str, ...], env: dict[str, str]) -> None:
    with open(name, "w") as copied:
        copied.write((copy_of("clients_of_tests") / name).read_text())
    output = run_suite(option, name, env=env)
    assert [text for text in wanted if text not in output] == [], output
