"""`retold validate`, and the reaction of every command to a bad workflow: report the errors, and do nothing else."""

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

import retold
from retold.recorder.words import nearest
from retold.workflow.load import load_workflow
from tests.conftest import Cli
from tests.e2e import NUMBERS, in_this_process, refused, tree
from tests.matrix import write_matrix
from tests.messages_server import MessagesServer

# No step runs


def test_a_bad_workflow_is_not_run_live(cli: Cli) -> None:
    """With any mistake in the last step, the first step is not run. No log and no file is created."""
    text = """\
        workflow:
          name: w
          steps:
            - name: a
              type: claude
              prompt: x
              claude_options: {async_streaming: true, stream_handler: file, stream_handler_opts: {file_path: x.log}}
            - {name: b, type: claude, prompt: "{{nope}}"}
    """
    Path("w.yaml").write_text(dedent(text))
    with MessagesServer([]) as server:
        message = refused(cli("run", "w.yaml", "--live", url=server.url))
        assert server.requests == []
    assert message == "retold: w.yaml:8:31: unknown template variable 'nope'; there are " + ", ".join(
        ("execution_id", "date", "workflow", "environment", "step", "steps", "global_vars.\n")
    )
    assert tree() == ["w.yaml"]
    assert not Path(".retold").exists()


# retold validate


def test_validate_reports_each_file(cli: Cli) -> None:
    """Several files are checked at once: valid ones on stdout, errors of the others on stderr, exit code 2."""
    Path("bad.yaml").write_text("workflow:\n  name: w\n  stpes: []\n")
    done = cli("validate", NUMBERS, "bad.yaml", "nope.yaml")
    assert done.stdout == f"{NUMBERS}: ok\n"
    assert done.stderr == dedent("""\
        retold: 2 errors in the workflow:
        bad.yaml:1:1: the key 'steps' is missing.
        bad.yaml:3:3: unknown key 'stpes'; did you mean 'steps'?
        retold: no workflow file nope.yaml.
        """)
    assert done.returncode == 2
    assert tree() == ["bad.yaml"]


def test_validate_json_has_each_error_with_line_and_column() -> None:
    """Scripts and editors get a list of files, each with its errors and their places."""
    Path("bad.yaml").write_text("workflow:\n  name: w\n  stpes: []\n")
    Path("torn.yaml").write_text("workflow: [\n")
    done = in_this_process("validate", "--json", NUMBERS, "bad.yaml", "torn.yaml", "nope.yaml")
    assert done.returncode == 2
    assert json.loads(done.stdout) == [
        {"file": str(NUMBERS), "valid": True, "errors": []},
        {
            "file": "bad.yaml",
            "valid": False,
            "errors": [
                {"line": 1, "column": 1, "message": "the key 'steps' is missing."},
                {"line": 3, "column": 3, "message": "unknown key 'stpes'; did you mean 'steps'?"},
            ],
        },
        {
            "file": "torn.yaml",
            "valid": False,
            "errors": [
                {
                    "line": 2,
                    "column": 1,
                    "message": "not valid YAML: while parsing a flow node, did not find expected node content.",
                }
            ],
        },
        {
            "file": "nope.yaml",
            "valid": False,
            "errors": [{"line": None, "column": None, "message": "no workflow file nope.yaml."}],
        },
    ]


def test_the_nearest_name_ignores_case() -> None:
    """A word in the wrong case matches."""
    assert nearest("ACCEPTEDITS", ["default", "acceptEdits"]) == "; did you mean 'acceptEdits'?"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("cassette: w.yaml/c.yaml", "cannot read the cassette w.yaml/c.yaml: Not a directory."),
        ("cassette: .", "cannot read the cassette"),
        (
            "checkpoint_enabled: true\n  checkpoint_dir: w.yaml",
            "cannot write the checkpoint w.yaml/w.live.json: {here}/w.yaml is no folder; name another checkpoint_dir.",
        ),
    ],
    ids=["cassette below a file", "cassette is a folder", "checkpoint below a file"],
)
def test_an_unwritable_recording_is_reported_before_the_run(monkeypatch: pytest.MonkeyPatch, keys: str, message: str) -> None:
    """A recording that could not be kept is refused before it is paid for."""
    Path("w.yaml").write_text(f"workflow:\n  name: w\n  {keys}\n  steps: [{{name: a, type: claude, prompt: x}}]\n")
    with MessagesServer([]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        error = refused(in_this_process("run", "w.yaml", "--live"))
        assert server.requests == []
    assert error.startswith("retold: " + message.format(here=Path.cwd()))
    assert tree() == ["w.yaml"]
    assert not Path(".retold").exists()


# Any value

VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, float("inf"), "", "x", "a\nb", "simple", "{{date}}", "{{nope}}", "{{steps.claude.text}}",
    "{%", [], ["x"], [None], [[]], [{"x": 1}], {}, {"x": 1}, {1: 2}, {"simple": None}, {"file": {"file_path": 3}},
]  # fmt: skip

THEIR_WORDS = re.compile("Input|valid dict|instance|pydantic|NoneType|union")


def places_in(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places_in(inner, (*at, key))


def test_any_value_in_any_place_is_accepted_or_an_error_with_a_place() -> None:
    """Errors use terms of the workflow, never a traceback or terms of the validator."""
    handlers = [{"file": {"file_path": "x", "max_file_size": 5}}, {"buffer": {"max_size": 3}}]
    good = yaml.safe_load(write_matrix(Path("m"), handlers, show_timestamps=True).read_text())
    places, chance = list(places_in(good)), random.Random(4)
    errors: list[retold.WorkflowError] = []
    for _ in range(120):
        whole = copy.deepcopy(good)
        *way, last = chance.choice(places[1:])
        inner = whole
        for key in way:
            inner = inner[key]
        inner[last] = chance.choice(VALUES)
        Path("w.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        try:
            load_workflow("w.yaml")
        except retold.WorkflowError as error:
            errors.append(error)
    assert len(errors) > 50
    assert min(problem.line for error in errors for problem in error.problems) > 0
    assert [error for error in errors if not error.problems or THEIR_WORDS.search(str(error))] == []
