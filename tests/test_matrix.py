"""Each of the seven step types through each of the six handlers, live and then in mock, on the command line.

`tests/goldens/` contains the output of each handler for the workflow of `tests/matrix.py`. `GOLDENS=write` rewrites it from the
live run: read the difference before you keep it.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Cli
from tests.e2e import Done, in_this_process, normalised
from tests.matrix import STEP_TYPES, Answers, write_matrix
from tests.messages_server import MessagesServer

Run = Callable[..., Done]

GOLDENS = ROOT / "tests" / "goldens"

_TIMES_OF_A_RECORDING = re.compile(r'("?\b(?:\w+_ms|t_ms|time)"?: )("[^"]+"|[\d.]+)')


def stable(text: str, mode: str) -> str:
    """Return the text without the folder, the mode, and the values that change in every run."""
    text = re.sub(r"\b20\d\d-\d\d-\d\d ", "YYYY-MM-DD ", text.replace(str(Path.cwd()), "/here"))
    text = _TIMES_OF_A_RECORDING.sub(r"\1N", normalised(text))
    return re.sub(rf"\b{mode}\b(?=\)| run RUN)", "MODE", text)


def golden(name: str, said: str) -> str:
    """Return the expected output of the handler."""
    path = GOLDENS / f"{name}.txt"
    if os.environ.get("GOLDENS") == "write":
        path.write_text(said)
    return path.read_text()


def in_both_modes(run: Run, handler: Any, *args: str, **options: Any) -> dict[str, tuple[Done, dict[str, str]]]:
    """Run the matrix live and then in mock. Return the command's output and the files that it left."""
    workflow = write_matrix(Path(), handler, **options)
    ran = {}
    with MessagesServer(Answers()) as server:
        for mode in ("live", "mock"):
            shutil.rmtree("out", ignore_errors=True)
            Path("out").mkdir()  # a callback writes there, perhaps before the file handler creates the folder
            done = run("run", workflow, f"--{mode}", *args, url=server.url if mode == "live" else None)
            assert done.returncode == 0, done.stderr
            ran[mode] = done, {path.name: path.read_text() for path in sorted(Path("out").glob("*"))}
        assert server.calls == 11
    return ran


def golden_files(files: dict[str, str]) -> str:
    return "".join(f"##### {name}\n{text}" for name, text in files.items())


@pytest.mark.parametrize("handler", ["simple", "console", "debug"])
def test_every_step_type_prints_the_same_live_and_in_mock(handler: str) -> None:
    """In both modes stdout equals the golden output, and the command writes nothing else."""
    for mode, (done, files) in in_both_modes(in_this_process, handler).items():
        said = stable(done.stdout, mode)
        assert said == golden(handler, said)
        verb = "recorded to" if mode == "live" else "replayed from"
        assert normalised(done.stderr) == f"retold: run RUN completed: 7 steps, 34 messages, {verb} cassettes/matrix.yaml\n"
        assert files == {}


def test_every_step_type_reaches_file_buffer_and_callback_live_and_in_mock(cli: Cli) -> None:
    """File handlers of two formats write the golden files, one for each step. The callback gets each message, and the buffer in
    the result has the same messages in the same order.
    """
    handlers = [
        {"file": {"file_path": "out/{{step.name}}.log"}},
        {"file": {"file_path": "out/all.jsonl", "format": "jsonl"}},
        "buffer",
        {"callback": {"module": "notes", "function": "note"}},
    ]
    for mode, (done, files) in in_both_modes(cli, handlers, "--json").items():
        calls, lines = files.pop("calls.txt"), files.pop("all.jsonl")
        said = stable(golden_files(files), mode)
        assert said == golden("file", said)
        assert list(files) == sorted(f"{name}.log" for name in STEP_TYPES)
        result = json.loads(done.stdout)
        assert [step["name"] for step in result["steps"]] == list(STEP_TYPES)
        buffered = [message for step in result["steps"] for message in step["handler_results"][2].pop("buffered")]
        assert [json.loads(line) for line in lines.splitlines()] == buffered
        said = "".join(f"{message['step']} {message['task'] or '-'} {message['type']}\n" for message in buffered)
        assert calls == said == golden("callback", said)
        said = stable("".join(f"{json.dumps(one)}\n" for step in result["steps"] for one in step["handler_results"]), mode)
        assert said == golden("handler_results", said)
