"""The example of docs/experiments.md, executed by copy and paste against a server on this machine."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import blocks_of
from tests.messages_server import MessagesServer, Reply, Request, text
from tests.page_commands import execute


def answer(request: Request) -> Reply:
    """Answer with a length in km as Opus, and without it as any other model."""
    asked = request.json["messages"][-1]["content"]
    length = "6,650 km" if "opus" in request.json["model"] else "very long"
    return Reply([text("The Nile." if asked == "Name a river." else f"It is {length}.")])


@pytest.mark.stress
def test_fork_diff_try_and_pin() -> None:
    """The page's program is recorded once. Its forks and tries send only their second turn, and its test sends nothing."""
    blocks = [block for block in blocks_of(ROOT / "docs" / "experiments.md") if block.file == "talk.py" or "talk" in block.text]
    page = [block for block in blocks if block.file == "talk.py" or block.language == "sh"]
    assert len(page) == 4
    page[2] = page[2]._replace(text=page[2].text.rstrip() + "  # exit code 1: haiku fails\n")
    with MessagesServer(answer) as server:
        outputs = dict(execute(page, server.url))
    assert [request.json["model"] for request in server.requests].count("claude-sonnet-5-5") == 2
    assert server.calls == 5
    fork = next(outputs[command] for command in outputs if command.startswith("retold fork"))
    assert fork == "The Nile.\nIt is 6,650 km.\n"
    assert "└─ talk@2" in outputs["retold ls"]
    assert "1 fork begins as the parent" in outputs["retold verify"]
    written = next(block.text for block in blocks if "def test_talk" in block.text)
    assert Path("tests/test_talk.py").read_text().endswith(f"\n\n{written}")
    assert "1 passed" in outputs["pytest tests/test_talk.py"]
    table = next(outputs[command] for command in outputs if command.startswith("retold try")).splitlines()
    assert [line.split()[:3] for line in table[1:]] == [["claude-opus-5-5", "1", "passed"], ["claude-haiku-4-5", "1", "failed"]]
