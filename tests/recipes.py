"""The recipes of docs/recipes with their real libraries: recorded, replayed, in a service and in a notebook.

`python -m tests.recipes` runs the files of the working directory, prints the outcomes as JSON, and then the table of clients
(tests/client_table.py), which needs the same libraries: their imports take 15 s of CPU.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import client_table
from tests.conftest import ROOT
from tests.documents import blocks_of
from tests.messages_server import Reply, Request, text, tool_use

RECIPES = ROOT / "docs" / "recipes"
ANSWER = "1, 2 and 3, in one sentence."


def write() -> None:
    """Write the files of every recipe, the cells of the notebook, and the workflow that one cell runs."""
    blocks = [block for page in sorted(RECIPES.glob("*.md")) for block in blocks_of(page) if block.language == "python"]
    for block in blocks:
        if block.file is not None:
            Path(block.file).write_text(block.text)
    Path("cells.json").write_text(json.dumps([block.text for block in blocks if block.file is None]))
    workflow = {"name": "count", "steps": [{"name": "count", "type": "claude", "prompt": "Count."}]}
    Path("count.yaml").write_text(json.dumps({"workflow": workflow}))


def answer(request: Request) -> Reply:
    """Answer with structured output if the client has a tool for it, otherwise with a few pieces of text."""
    if "final_result" in [tool["name"] for tool in request.json.get("tools", ())]:
        return Reply([tool_use("final_result", {"name": "Paris", "country": "France"})], stop_reason="tool_use")
    return Reply([text(ANSWER)])


def check(line: str) -> None:
    """Check the printed outcomes: every test passed twice, and each request of the service is a whole run in its log."""
    found = json.loads(line)
    assert found["recorded"] == found["replayed"] == ["passed"] * 7
    assert found["service"]["answers"] == [json.dumps({"summary": ANSWER}, separators=(",", ":")), ANSWER]
    assert found["service"]["runs"] == {f"GET /{path}": ["completed", ANSWER] for path in ("stream", "summary")}
    assert found["cells"] == [None] * 4


class Outcomes:
    """A plugin of pytest that gathers the outcomes of the tests."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.found.append(report.outcome)


def session(mode: str) -> list[str]:
    """Run the tests of the folder, and return their outcomes."""
    outcomes = Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", f"--retold-mode={mode}"], plugins=[outcomes])
    return outcomes.found


def service() -> dict[str, Any]:
    """Ask the service that records its requests. Return its answers, and the status and the text of each run in its log."""
    client = import_module("fastapi.testclient").TestClient(import_module("recorded_service").app)
    answers = [client.get(path, params={"text": "A report."}).text for path in ("/summary", "/stream")]
    log, runs = import_module("recorded_service").log, dict[str, list[str]]()
    for info in log.runs():
        texts = [block["text"] for message in log.messages(info.run) for block in message.blocks]
        runs[info.name] = [info.status, *texts]
    return {"answers": answers, "runs": runs}


def cells() -> list[str | None]:
    """Run the cells of the notebook in IPython, and return their errors."""
    retold.run_workflow("count.yaml", mode="live", handlers=[])
    shell = import_module("IPython.core.interactiveshell").InteractiveShell.instance()
    done = [shell.run_cell(cell) for cell in json.loads(Path("cells.json").read_text())]
    errors = [each.error_before_exec or each.error_in_exec for each in done]
    return [None if error is None else repr(error) for error in errors]


def main() -> None:
    """Print the outcomes, and the table in the last line."""
    sys.path.insert(0, "")
    outcomes = {"recorded": session("once"), "replayed": session("none"), "service": service(), "cells": cells()}
    print("\n" + json.dumps(outcomes))
    client_table.main()


if __name__ == "__main__":
    main()
