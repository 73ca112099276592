"""Run the examples of a page by copy and paste: write its files, and run its commands in an empty folder and home."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import forks
from tests.conftest import ROOT
from tests.documents import Block, blocks_of
from tests.e2e import normalised


def section(page: Path, *titles: str) -> list[Block]:
    """Return the blocks of a page under these headings of the second level."""
    title = [""]
    for line in page.read_text("utf-8").splitlines():
        title.append(line.removeprefix("## ") if line.startswith("## ") else title[-1])
    return [block for block in blocks_of(page) if title[block.line] in titles]


def comparable(text: str) -> str:
    """Return an output without the parts that change with every run, such as the ids of both sides of a difference."""
    return re.sub(r"\([0-9a-f]{8},", "(RUN,", normalised(text)).rstrip()


def execute(blocks: list[Block], url: str) -> Iterator[tuple[str, str]]:
    """Write the files and run the commands, line by line. Yield each command and its output.

    A command must exit with 0 unless its comment names another exit code (`# exit code 1: …`). A text block is the output of
    the command before it. In the block, a line `…` matches any lines, and `…` at the end of a line matches its rest.
    """
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(Path.cwd().parent / "home"), "LANG": "C.UTF-8",
        "TZ": "UTC", "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key", "SSL_CERT_DIR": str(ROOT / "tests"),
        "PYTEST_ADDOPTS": "-p no:recording -p no:asyncio -p no:xdist -p no:hypothesispytest",  # a user may not have it
    }  # fmt: skip
    written = ""
    for block in blocks:
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text)
        elif block.language == "text":
            pattern = ".*".join(map(re.escape, re.split(r"^…\n", comparable(block.text) + "\n", flags=re.MULTILINE)))
            end = "" if block.text.endswith("…\n") else r"\s*\Z"
            assert re.match(pattern.removesuffix(re.escape("\n")) + end, comparable(written), re.DOTALL), written
        else:
            assert block.language == "sh", f"line {block.line}: no test runs this block"
            for command in block.text.splitlines():
                done = run(command, environment)
                expected = re.search(r"# exit code (\d)", command)
                assert done.returncode == (int(expected[1]) if expected else 0), f"{command}\n{done.stdout}{done.stderr}"
                written = done.stdout
                yield command.partition("#")[0].strip(), written


def run(command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a line of a shell. A plain call of a Python program runs as a cheap fork. The shell runs any other line."""
    program, *arguments = shlex.split(command, comments=True)
    modules = {"retold": ["-m", "retold"], "pytest": ["-m", "pytest"], "python": []}
    if program in modules and not set(command.partition(" #")[0]) & set("|&;<>$`*"):
        return forks.run(*modules[program], *arguments, env=environment)
    line = ["bash", "-c", command]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)
