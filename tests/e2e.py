"""Shared parts of the end-to-end tests: workflow files, goldens without times and ids, runs in this process, and refusals."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest
import yaml

import retold
from retold.cli import main
from tests.conftest import ROOT
from tests.messages_server import MessagesServer

NUMBERS = ROOT / "examples" / "clean_streaming_numbers.yaml"
CASSETTE = ROOT / "cassettes" / NUMBERS.name
FILE_OPERATIONS = ROOT / "examples" / "streaming_file_operations.yaml"

Done = subprocess.CompletedProcess[str]

_CHANGES_WITH_EVERY_RUN = [
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "RUN"),
    (re.compile(r"(?<=run )[0-9a-f]{8}\b"), "RUN"),
    (re.compile(r"(?m)^[0-9a-f]{8}(?=  )"), "RUN"),
    (re.compile(r"\d\d:\d\d:\d\d"), "HH:MM:SS"),
    (re.compile(r"\b\d\d-\d\d (?=HH:MM:SS)"), "MM-DD "),
    (re.compile(r"\+\d+\.\d{3}s"), "+N.NNNs"),
    (re.compile(r"\b\d+\.\ds\b"), "N.Ns"),
    (re.compile(r"\b\d+ ms\b"), "N ms"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
]


def normalised(text: str) -> str:
    """Return a text without the parts that change with every run: times, durations, ports, and ids of runs and messages."""
    for pattern, name in _CHANGES_WITH_EVERY_RUN:
        text = pattern.sub(name, text)
    return text


def step(name: str = "say", prompt: Any = "Say hello.", **keys: Any) -> dict[str, Any]:
    """Return a claude step. Keys of `claude_options` may be among `fields`."""
    return {"name": name, "type": "claude", "prompt": prompt, **keys}


def write_workflow(path: str | Path, *steps: dict[str, Any], **keys: Any) -> Path:
    """Write a workflow file of these steps, named after the file. Without steps it has one step that asks for a greeting."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workflow = {"name": path.stem, **keys, "steps": list(steps) or [step()]}
    path.write_text(yaml.safe_dump({"workflow": workflow}, sort_keys=False))
    return path


@dataclass(frozen=True)
class Ran:
    """The result of a workflow run in this process, and the output of its handlers."""

    result: retold.RunResult
    output: str

    @property
    def text(self) -> str:
        """Return the text of the last step."""
        return self.result.steps[-1].text

    @property
    def error(self) -> str | None:
        return self.result.steps[-1].error


def run_mock(workflow: Path, **options: Any) -> Ran:
    """Replay a workflow in this process."""
    out = io.StringIO()
    return Ran(retold.run_workflow(workflow, out=out, **options), out.getvalue())


def run_live(monkeypatch: pytest.MonkeyPatch, server: MessagesServer, workflow: Path, **options: Any) -> Ran:
    """Run a workflow live in this process against a scripted server. Remove the key afterwards."""
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        patch.setenv("ANTHROPIC_API_KEY", "test-key")
        patch.setenv("NO_PROXY", "127.0.0.1")
        return Ran(retold.run_workflow(workflow, mode="live", out=out, **options), out.getvalue())


def prompts_of(server: MessagesServer) -> list[Any]:
    """Return the content of the first message of each request: the prompts of the steps."""
    return [request.json["messages"][0]["content"] for request in server.requests]


def tree(folder: str | Path = ".") -> list[str]:
    """Return every file below a folder, except those of the log."""
    paths = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
    return [path for path in paths if not path.startswith(".retold" + os.sep)]


def refused(done: Done, code: int = 2) -> str:
    """Return the stderr of a refused command, and assert the common rules of a refusal."""
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(("retold: ", "Usage: "))
    assert done.returncode == code
    return done.stderr


STEP = """\
workflow:
  name: greeting
  steps:
    - name: greet
      type: claude
"""


def in_this_process(*args: str | Path, url: str | None = None) -> Done:
    """Run `retold ARGS` through its own `main`, without a new process.

    A new interpreter takes a quarter of a second, and importing the SDK takes two seconds. With `url` the command can call a
    server.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "retold.cli._leave", sys.exit
        )  # it ends the process at once if retold has threads: here, those of other tests
        if url is not None:
            patch.setenv("ANTHROPIC_BASE_URL", url)
            patch.setenv("ANTHROPIC_API_KEY", "test-key")
        return _in_this_process(*args)


def _in_this_process(*args: str | Path) -> Done:
    written, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(written, encoding="utf-8", newline="", write_through=True)
    argv, on_sigterm, hooks = sys.argv, signal.getsignal(signal.SIGTERM), (sys.excepthook, threading.excepthook)
    sys.argv = ["retold", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = argv
        sys.excepthook, threading.excepthook = hooks
        signal.signal(signal.SIGTERM, on_sigterm)
    return subprocess.CompletedProcess(list(args), code, written.getvalue().decode(), err.getvalue())


def refusal_of(text: str, run: Callable[..., Done] = in_this_process, **kwargs: Any) -> str:
    """Return the error of `retold run w.yaml` for a workflow.

    A text that is not a whole file continues the step above at line 6.
    """
    if not text.startswith(("workflow:", "steps:")):
        text = STEP + indent(dedent(text), " " * 6)
    Path("w.yaml").write_text(text)
    error = refused(run("run", "w.yaml", **kwargs))
    assert tree() == ["w.yaml"]
    assert not Path(".retold").exists()
    return error
