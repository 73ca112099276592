"""The tutorial runs from its first command to its last, against a server on this machine."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import blocks_of
from tests.messages_server import MessagesServer, Reply, Request, text
from tests.page_commands import execute

TUTORIAL = ROOT / "docs" / "tutorial.md"


def triage(request: Request) -> Reply:
    """Answer the program with a reason, or with one word."""
    asked = request.json["messages"][0]["content"]
    answer = "Yes. The shop is down." if "shop" in asked else "No. It is a wish."
    return Reply([text(answer.partition(" ")[0].strip(".") if "nothing else" in asked else answer)])


@pytest.mark.stress
def test_the_tutorial_runs() -> None:
    """It sends five requests. All other commands work offline."""
    with MessagesServer(triage) as server:
        outputs = dict(execute(list(blocks_of(TUTORIAL)), server.url))
        assert server.calls == 5
    assert "2 replayed, 0 recorded, 0 missed" in outputs["pytest"]
    assert "2 recorded" in outputs["pytest --retold-mode=refresh"]
    assert sorted(path.name for path in Path("cassettes/test_triage").iterdir()) == ["test_outage.yaml", "test_wish.yaml"]
