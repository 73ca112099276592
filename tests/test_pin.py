"""`retold pin`: the written test passes offline in a fresh clone. If something changes, it fails with a readable text."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import claude_code, forks, pinning
from tests.conftest import Cli
from tests.e2e import in_this_process, tree
from tests.messages_server import MessagesServer
from tests.suites import Suite

pytest_plugins = ["pytester"]

CLAUDE_CODE = claude_code.find()
HAS_AGENT_SDK = importlib.util.find_spec("claude_agent_sdk") is not None


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a run of every kind, each of which is pinned."""
    folder = tmp_path_factory.mktemp("pinned")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "CLAUDE_", "RETOLD_")) or name == "CI"]:
            patch.delenv(name)
        patch.setenv("HOME", str(folder / "home"))
        patch.chdir(folder)
        for record in pinning.RECORDERS:
            if record is not pinning.record_session or HAS_AGENT_SDK:
                done = in_this_process("pin", record())
                assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def clone(pinned: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a fresh clone: the files of the project without its log, on a machine without a key."""
    suite = Suite(pytester, monkeypatch)
    for name in ("tests", "examples"):
        shutil.copytree(pinned / name, suite.folder / name)
    shutil.copy(pinned / "agent.py", suite.folder)

    def run(argv: Sequence[str | Path], *, cwd: Path, **_: Any) -> "subprocess.CompletedProcess[str]":
        return forks.run(*argv[1:], env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}, cwd=cwd)

    monkeypatch.setattr(subprocess, "run", run)
    return suite


NAMES = ("streaming_file_operations", "batch_reviews", "agent", "lamp", "library", "threads", "errors", "cut", "forked") + (
    ("session",) if HAS_AGENT_SDK else ()
)


def test_the_tests_of_ten_runs_pass_in_a_fresh_clone(clone: Suite) -> None:
    """They pass offline, without a key, and leave no file in the project."""
    before = tree(clone.folder / "tests")
    result = clone.run("tests")
    result.assert_outcomes(passed=len(NAMES))
    assert "0 missed, 0 recordings not played" in "\n".join(result.outlines)
    assert sorted(Path(name).stem.removeprefix("test_") for name in before if name.endswith(".py")) == sorted(NAMES)
    assert [name for name in tree(clone.folder / "tests") if not name.endswith(".pyc")] == before
    assert not (clone.folder / ".retold").exists()


CHANGES = {
    "streaming_file_operations": (
        "examples/streaming_file_operations.yaml", 'Change "beta" to "gamma"', 'Change "beta" to "delta"',
        'Change \\"beta\\" to \\"delta\\"',
    ),
    "batch_reviews": ("examples/batch_reviews.yaml", "positive, negative or mixed", "good or bad", "positive, negative or mixed"),
    "agent": ("agent.py", "EUR", "USD", 'messages[2].content[0].content: recorded "12 EUR", now "12 USD"'),
    "lamp": ("tests/test_lamp.py", '"content": "12 EUR"', '"content": "13 EUR"', 'recorded "12 EUR", now "13 EUR"'),
    "library": ("tests/test_library.py", "How long is it?", "How old is it?", 'recorded "How long is it?", now "How old is it?"'),
    "threads": ("tests/test_threads.py", "What is it?", "Who am I?", "Who am I?"),
    "errors": ("tests/test_errors.py", "So?", "And so?", 'recorded "So?", now "And so?"'),
    "cut": ("tests/test_cut.py", "Cut?", "Cut now?", 'recorded "Cut?", now "Cut now?"'),
    "session": (
        "tests/test_session.py", "PermissionResultAllow()", 'PermissionResultDeny(message="no")',
        'response.behavior: recorded "allow", now "deny"',
    ),
    "forked": ("tests/test_forked.py", '"shop": "Berlin"}', '"shop": "Bonn"}', 'shop: recorded "Berlin", now "Bonn"'),
}  # fmt: skip
"""For each run's program one change: the file, the old text, the new text, and a text of the failure."""


KINDS = [name for name in NAMES if name in ("streaming_file_operations", "agent", "lamp", "session")]
"""A run for each form of a test."""


@pytest.mark.parametrize("names", [KINDS, pytest.param(NAMES, marks=pytest.mark.stress)], ids=["kinds", "all"])
def test_each_test_fails_with_a_readable_text_if_its_program_changes(names: Sequence[str], clone: Suite) -> None:
    """One argument, prompt or answer of a callback changes. The failure names the recorded value and the new one."""
    for name in names:
        file, old, new, _ = CHANGES[name]
        text = (clone.folder / file).read_text()
        assert old in text
        (clone.folder / file).write_text(text.replace(old, new, 1))
    result = clone.run("--tb=short", *(f"tests/test_{name}.py" for name in names))
    result.assert_outcomes(failed=len(names))
    said = "\n".join(result.outlines)
    assert [name for name in names if CHANGES[name][3] not in said] == []


def test_another_argument_of_a_tool_fails(clone: Suite) -> None:
    """The model calls a tool with another argument than the test expects. The failure shows the run and marks the call."""
    path = clone.folder / "tests" / "test_streaming_file_operations.py"
    path.write_text(path.read_text().replace('"new_string": "gamma"', '"new_string": "delta"'))
    result = clone.run("tests/test_streaming_file_operations.py")
    result.assert_outcomes(failed=1)
    said = "\n".join(result.outlines)
    assert 'input.new_string is "gamma", expected "delta"' in said
    assert '> file_operations  3     tool call    Edit {"file_path": "test_file.txt"' in said


def test_a_program_that_sends_fewer_requests_fails(clone: Suite) -> None:
    """A replay of a part of the recording is not a success."""
    path = clone.folder / "agent.py"
    path.write_text(path.read_text().replace("    if not used:\n", "    if True:\n"))
    result = clone.run("tests/test_agent.py")
    result.assert_outcomes(failed=1)
    assert "1 recorded exchange not played" in "\n".join(result.outlines)


def test_a_written_test_reads_like_a_handwritten_one(pinned: Path) -> None:
    """The whole text of one written test is an example of all."""
    assert (pinned / "tests" / "test_lamp.py").read_text().split('"""', 2)[2] == LAMP
    assert all(len(line) <= 120 for path in (pinned / "tests").glob("*.py") for line in path.read_text().split("\n"))


LAMP = """

import anthropic
import pytest
import retold

TOOLS = [
    {"name": "price", "description": "The price of an item.", "input_schema": {"type": "object"}},
]


@pytest.mark.retold  # cassettes/test_lamp/test_lamp.yaml
def test_lamp(retold_cassette):
    client = anthropic.Anthropic()

    messages = [{"role": "user", "content": "What is the lamp?"}]
    client.messages.create(model="claude-sonnet-5-5", max_tokens=64, tools=TOOLS, messages=messages)

    messages += [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me look."},
                {
                    "type": "tool_use",
                    "id": "toolu_lamp",
                    "name": "price",
                    "input": {"item": "lamp", "shop": "Berlin"},
                },
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "toolu_lamp", "content": "12 EUR"}],
        },
    ]
    with client.messages.stream(
        model="claude-sonnet-5-5",
        max_tokens=64,
        tools=TOOLS,
        messages=messages,
    ) as stream:
        stream.until_done()

    retold.trajectory(retold_cassette).expect(
        tools=[{"name": "price", "input": {"item": "lamp", "shop": "Berlin"}}],
        no_others=True,
        max_turns=2,
        text_contains=["Let me look.", "The lamp `A-7` costs 12 EUR."],
        ended="end_turn",
    )
    assert retold_cassette.all_played
"""


@pytest.mark.stress
@pytest.mark.claude_code
@pytest.mark.skipif(CLAUDE_CODE is None, reason="Claude Code (in the package claude-agent-sdk) is not installed")
def test_a_session_of_claude_code_passes_in_another_home(cli: Cli, tmp_path: Path) -> None:
    """The recorded command runs in another folder, with another home. With another prompt it fails with the difference."""
    command = claude_code.command(CLAUDE_CODE or "", "GO-TOOLS")
    with MessagesServer(claude_code.Script()) as server:
        options = ("--name", "session", "--upstream", server.url)
        assert cli("record", *options, "--", *command, env=claude_code.ENVIRONMENT, input="").returncode == 0
    done = cli("pin", "session")
    assert done.returncode == 0, done.stderr
    clone, home = tmp_path / "clone", tmp_path / "other home"
    shutil.copytree("tests", clone / "tests")
    home.mkdir()
    own = {"PATH": os.environ["PATH"], "HOME": str(home), **claude_code.ENVIRONMENT}
    del own["ANTHROPIC_API_KEY"]
    path = clone / "tests" / "test_session.py"
    for code, text in ((0, "1 passed"), (1, "GO-TEXT")):
        run = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "tests"]
        tested = subprocess.run(run, env=own, cwd=clone, capture_output=True, text=True, check=False)
        assert (tested.returncode, text in tested.stdout) == (code, True), tested.stdout
        path.write_text(path.read_text().replace('"GO-TOOLS"', '"GO-TEXT"'))


@pytest.mark.stress
def test_the_test_of_a_command_passes_in_new_processes(pinned: Path, environment: dict[str, str]) -> None:
    """Users run it in a fresh clone."""
    for name in ("tests", "agent.py"):
        (shutil.copytree if (pinned / name).is_dir() else shutil.copy)(pinned / name, name)
    run = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "tests/test_agent.py"]
    tested = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
