"""The README's examples, executed by copy and paste: in an empty folder, with an empty home, against a server on this machine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import Block, blocks_of
from tests.e2e import normalised
from tests.messages_server import MessagesServer, Reply, text

README = ROOT / "README.md"
BLOCKS = list(blocks_of(README))


def section(*titles: str) -> list[Block]:
    """The blocks under these headings."""
    lines = README.read_text("utf-8").splitlines()
    title = [""]
    for line in lines:
        title.append(line.removeprefix("## ") if line.startswith("## ") else title[-1])
    return [block for block in BLOCKS if title[block.line] in titles]


def comparable(text: str) -> str:
    """Output without what changes with every run; the short ids of a difference's two sides too."""
    return re.sub(r"\([0-9a-f]{8},", "(RUN,", normalised(text)).rstrip()


def execute(blocks: list[Block], url: str) -> Iterator[tuple[str, str]]:
    """Write the files and run the commands, each line as it stands; (command, what it wrote to stdout), one after the other.

    A command ends with 0 unless its comment says otherwise (`# exit code 1: …`). A block of text is what the command before
    it writes, or how that begins.
    """
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(Path.cwd().parent / "home"), "LANG": "C.UTF-8",
        "TZ": "UTC", "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key", "SSL_CERT_DIR": str(ROOT / "tests"),
        "PYTEST_ADDOPTS": "-p no:recording -p no:asyncio -p no:xdist -p no:hypothesispytest",  # which a user may not have
    }  # fmt: skip
    written = ""
    for block in blocks:
        if block.file is not None:
            Path(block.file).write_text(block.text)
        elif block.language == "text":
            beginning = comparable(block.text.removesuffix("…\n"))
            assert comparable(written)[: len(beginning)] == beginning
        else:
            assert block.language == "sh", f"README.md:{block.line}: a block that nobody runs"
            for command in block.text.splitlines():
                done = subprocess.run(
                    ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
                )
                expected = re.search(r"# exit code (\d)", command)
                assert done.returncode == (int(expected[1]) if expected else 0), f"{command}\n{done.stdout}{done.stderr}"
                written = done.stdout
                yield command.partition("#")[0].strip(), written


@pytest.mark.stress
def test_record_replay_test_diff_audit() -> None:
    """The five examples work one after the other; only the two that record ask the API."""
    answers = [Reply([text("1, 2, 3.")], gap_s=0.01), Reply([text("1, 2 and 3.")])]
    with MessagesServer(answers) as server:
        said = list(execute(section("Record", "Replay", "Test", "Diff", "Audit"), server.url))
    assert server.calls == 2
    by_command = dict(said)
    assert by_command["retold record -o cassettes/hello.yaml -- python hello.py"] == "1, 2, 3.\n"
    assert by_command["retold replay cassettes/hello.yaml -- python hello.py"] == "1, 2, 3.\n"
    assert "1 recorded" in by_command["pytest --retold-mode=once"]
    assert "1 replayed" in by_command["pytest"]
    assert Path("cassettes/test_hello/test_count.yaml").is_file()
    assert by_command["retold verify"].startswith("nothing was changed: 2 runs")


def test_workflow() -> None:
    """The workflow is recorded once and retold from its cassette."""
    with MessagesServer([Reply([text("1\n2\n3")])]) as server:
        live, mock, shown = (out for _, out in execute(section("Workflows"), server.url) if out)
    assert server.calls == 1
    for shown_as in (live, mock):
        assert re.search(r"ASSISTANT: 1\n +2\n +3\n\n✓ Stream completed: 3 messages \(1 shown\)", shown_as)
    assert "result:success" in shown


def test_every_example_is_run() -> None:
    """A block in another section would be run by nobody: there is only the one with the two commands of a checkout."""
    sections = ("Record", "Replay", "Test", "Diff", "Audit", "Workflows")
    (commands,) = (block for block in BLOCKS if block not in section(*sections))
    makefile = (ROOT / "Makefile").read_text()
    assert [line.split()[:2] for line in commands.text.splitlines()] == [["make", "demo"], ["make", "test"]]
    assert all(f"\n{target}: " in makefile for target in ("demo", "test"))


def test_readme_is_short() -> None:
    """It is read in a few minutes; what is longer has a page of its own."""
    assert len(README.read_text("utf-8").splitlines()) <= 180
