"""The README's examples work by copy and paste: in an empty folder, with an empty home, against a server on this machine."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import blocks_of
from tests.messages_server import MessagesServer, Reply, text
from tests.page_commands import execute, section

README = ROOT / "README.md"
BLOCKS = list(blocks_of(README))


@pytest.mark.stress
def test_the_examples_record_replay_test_diff_and_audit() -> None:
    """The five examples work one after the other. Only the two that record send requests."""
    answers = [Reply([text("1, 2, 3.")], gap_s=0.01), Reply([text("1, 2 and 3.")])]
    with MessagesServer(answers) as server:
        said = list(execute(section(README, "Record", "Replay", "Test", "Diff", "Audit"), server.url))
    assert server.calls == 2
    by_command = dict(said)
    assert by_command["retold record -o cassettes/hello.yaml -- python hello.py"] == "1, 2, 3.\n"
    assert by_command["retold replay cassettes/hello.yaml -- python hello.py"] == "1, 2, 3.\n"
    assert "1 recorded" in by_command["pytest --retold-mode=once"]
    assert "1 replayed" in by_command["pytest"]
    assert Path("cassettes/test_hello/test_count.yaml").is_file()
    assert by_command["retold verify"].startswith("nothing was changed: 2 runs")


def test_the_workflow_is_recorded_and_replayed() -> None:
    """The test records the workflow once and replays it from its cassette."""
    with MessagesServer([Reply([text("1\n2\n3")])]) as server:
        live, mock, shown = (out for _, out in execute(section(README, "Workflows"), server.url) if out)
    assert server.calls == 1
    for shown_as in (live, mock):
        assert re.search(r"ASSISTANT: 1\n +2\n +3\n\n✓ Stream completed: 3 messages \(1 shown\)", shown_as)
    assert "result:success" in shown


def test_every_example_is_run() -> None:
    """No test runs blocks of other sections. The only such block has the two commands for a checkout."""
    sections = ("Record", "Replay", "Test", "Diff", "Audit", "Workflows")
    (commands,) = (block for block in BLOCKS if block not in section(README, *sections))
    makefile = (ROOT / "Makefile").read_text()
    assert [line.split()[:2] for line in commands.text.splitlines()] == [["make", "demo"], ["make", "test"]]
    assert all(f"\n{target}: " in makefile for target in ("demo", "test"))


def test_the_readme_is_short() -> None:
    """Users can read it in a few minutes. Longer texts are on other pages."""
    assert len(README.read_text("utf-8").splitlines()) <= 180
