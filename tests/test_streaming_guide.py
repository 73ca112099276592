"""The streaming guide is correct: its commands print the shown output, its snippets are valid, and its tables are complete."""

import io
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from retold.handlers import HANDLERS
from retold.workflow import schema, step_types
from retold.workflow.load import load_workflow
from retold.workflow.options import PRESETS
from tests.conftest import ROOT
from tests.e2e import Done, in_this_process, normalised
from tests.example_replies import REPLIES
from tests.messages_server import MessagesServer, Reply

GUIDE = (ROOT / "examples" / "STREAMING_GUIDE.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [block for language, block in BLOCKS if language == kind]


@pytest.fixture
def examples() -> Iterator[None]:
    """Copy the examples and their cassettes into the test's folder, in which a live run may write."""
    shutil.copytree(ROOT / "examples", "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "cassettes", "cassettes")
    yield
    sys.modules.pop("stream_handlers", None)


# Commands


def quick(name: str) -> list[Reply]:
    """Return the replies of an example without their pauses. The replies must be a list."""
    replies = REPLIES[name]
    assert not callable(replies)
    return [replace(reply, first_gap_s=0.0, gap_s=0.0) for reply in replies if isinstance(reply, Reply)]


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> Done:
    """Run a line of the guide. A live line runs against a scripted server."""
    words = shlex.split(command, comments=True)
    live = "--live" in words or words[0] == "TEST_MODE=live"
    words = [word for word in words if word != "TEST_MODE=live"]
    assert words[0] == "retold"
    arguments = [str(path) for word in words[1:] for path in (sorted(Path().glob(word)) if "*" in word else [word])]
    if not live:
        return in_this_process(*arguments)
    with MessagesServer(quick(Path(words[2]).stem)) as server, monkeypatch.context() as patch:
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        patch.setenv("ANTHROPIC_API_KEY", "test-key")
        patch.setenv("TEST_MODE", "live")
        return in_this_process(*arguments)


@pytest.mark.usefixtures("examples")
def test_every_command_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run one after the other, as a reader would run them, and succeed."""
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) > 10
    assert [(line, done.stderr) for line in commands if (done := run(line, monkeypatch)).returncode != 0] == []


def alike(text: str) -> str:
    """Return the text without times, ids and the working directory."""
    text = normalised(text.replace(str(Path.cwd()), "/work"))
    return re.sub(r"\d{4}-\d\d-\d\d HH:MM:SS\+\d{4}", "DATE", text)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: block.splitlines()[0][2:])
def test_the_guide_shows_the_printed_output(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text below each `$ command` is exactly its output. `…` marks omitted text."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        if command.startswith("cat "):
            printed = "".join(path.read_text() for path in Path().glob(command[4:]))
        else:
            printed = run(command, monkeypatch).stdout
        first, *rest = alike(shown).split("…\n")
        assert alike(printed)[: len(first)] == first if rest else alike(printed) == first
        assert all(piece in alike(printed) for piece in rest)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("block", blocks("python"))
def test_python_code_of_the_guide_runs(block: str) -> None:
    """The program prints the shown output."""
    with redirect_stdout(io.StringIO()) as out:
        exec(compile(block, "guide", "exec"), {})
    assert out.getvalue().startswith("completed There are no Python files in this folder. ")
    assert out.getvalue().endswith("\n6 0\n")


# Snippets

TRIAGE: dict[str, Any] = {
    "name": "triage",
    "type": "claude_session",
    "session_config": {"session_name": "dev_session"},
    "prompt": "Sort this.",
}


def workflow_of(snippet: Any) -> dict[str, Any]:
    """Return a whole workflow around a part of one: steps, keys of a step, or streaming options."""
    if isinstance(snippet, list):
        steps = snippet
    elif "stream_handler" in snippet:
        steps = [{"name": "one", "type": "claude", "prompt": "Hello", "claude_options": {"async_streaming": True, **snippet}}]
    else:
        steps = [{"name": "one", "type": "claude", "prompt": "Hello", **snippet}]
    return {"workflow": {"name": "w", "global_vars": {"urgent": "high"}, "steps": [TRIAGE, *steps]}}


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("block", blocks("yaml"))
def test_snippet_of_the_guide_is_valid(block: str) -> None:
    """Inside a workflow, every snippet passes the validator."""
    Path("examples/w.yaml").write_text(yaml.safe_dump(workflow_of(yaml.safe_load(block))))
    load_workflow("examples/w.yaml")


# Tables


def section(title: str) -> str:
    """Return the text between a heading and the next one."""
    return re.split(rf"^#+ {title}$", GUIDE, flags=re.MULTILINE)[1].partition("\n#")[0]


def rows(title: str) -> dict[str, str]:
    """Return the tables of a section: the second cell for each name in backticks in the first cell."""
    found: dict[str, str] = {}
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 1 and cells[0].startswith("`"):
            found |= dict.fromkeys(re.findall(r"`([\w.]+)`", cells[0]), cells[1])
    return found


def defaults(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Return the cell that a table should have for each field: its default, `required`, or nothing."""
    found = {}
    for name, field in model.model_fields.items():
        value = field.get_default(call_default_factory=True)
        said = "true" if value is True else "false" if value is False else str(value)
        said = f"[{', '.join(value)}]" if isinstance(value, list | tuple) else said
        found[prefix + name] = "required" if field.is_required() else "" if value is None else f"`{said}`"
    return found


@pytest.mark.parametrize("name", HANDLERS)
def test_options_of_a_handler_are_all_in_its_table(name: str) -> None:
    """Each option has its default."""
    expected = defaults(HANDLERS[name].Options)
    if name == "callback":
        expected["types"] = "all"
    assert rows(name) == expected


TABLES: dict[str, dict[str, str]] = {
    "claude_session": defaults(step_types.SessionConfig),
    "claude_batch": {"tasks": "required"} | defaults(step_types.BatchConfig, "batch_config."),
    "claude_extract": defaults(step_types.ExtractionConfig),
    "claude_robust": defaults(step_types.RobustConfig),
    "parallel_claude": {"parallel_tasks": "required", "max_parallel": "all", "allow_failures": "`false`"},
}


@pytest.mark.parametrize("step_type", TABLES)
def test_keys_of_a_step_type_are_all_in_its_table(step_type: str) -> None:
    """Each key has its default."""
    assert rows(step_type) == TABLES[step_type]


def test_presets_equal_those_of_the_table() -> None:
    """The columns are turns, tools, model, retries and timeout."""
    found = {}
    for line in section("claude_smart").splitlines()[-7:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0].startswith("`"):
            found[cells[0].strip("`")] = cells[1:]
    expected = {}
    for name, preset in PRESETS.items():
        model = preset.get("model", schema.DEFAULT_MODEL)
        fallback = f", fallback {preset['fallback_model']}" if "fallback_model" in preset else ""
        retries = "{max_retries}, {backoff_strategy}".format(**preset["retry_config"])
        seconds = preset["timeout_ms"] // 1000
        tools = " ".join(preset["allowed_tools"]) or "none"
        timeout = f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"
        expected[name] = [str(preset["max_turns"]), tools, model + fallback, retries, timeout]
    assert found == expected


def test_every_key_of_a_workflow_is_documented() -> None:
    """These are options of a conversation, and keys of a workflow, of a step, and of the parts of a prompt."""
    assert set(rows("Options of a conversation")) - {"claude_options"} == set(schema.ClaudeOptions.model_fields)
    said = set(re.findall(r"`([\w.]+)`", section("Options of a conversation"))) | {"steps"}
    assert set(step_types.Workflow.model_fields) <= said
    assert set(step_types.BaseStep.model_fields) | {"type", "prompt"} <= set(re.findall(r"`(\w+)`", section("Step types")))
    assert set(step_types.STEP_TYPES) <= set(re.findall(r"^### (\w+)$", GUIDE, re.MULTILINE))


def test_every_example_is_in_the_list() -> None:
    """The table of examples has one row for each of them."""
    assert set(re.findall(r"^\| \[(\w+\.yaml)\]", GUIDE, re.MULTILINE)) == {p.name for p in (ROOT / "examples").glob("*.yaml")}


def test_links_of_the_guide_work() -> None:
    """The files and headings exist."""
    links = re.findall(r"\]\(([^)]+)\)", GUIDE)
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    }
    assert [link for link in links if link.startswith("#") and link[1:] not in headings] == []
    assert [link for link in links if not link.startswith("#") and not (ROOT / "examples" / link).exists()] == []
