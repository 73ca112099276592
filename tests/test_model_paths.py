"""An answer of a model can name files only in the folder that the author of the workflow gave."""

from pathlib import Path

import pytest

from retold.recorder.errors import WorkflowError
from retold.workflow.options import render_options, render_path
from retold.workflow.schema import ClaudeOptions
from tests.e2e import in_this_process
from tests.messages_server import MessagesServer, Reply, text

OUT = ["../escaped", "/etc/passwd", "a/../../b", "~/.ssh/config", "link/x", "a\x00b", "a\nb", "", "..", "/"]
IN = ["answer", "a/b", "a b", "ä.txt", "..a", "a..b", "a/./b"]


def of(answer: str) -> dict[str, object]:
    return {"steps": {"a": {"text": answer, "status": "completed"}}, "global_vars": {"there": "/elsewhere"}, "date": "2026-11-28"}


@pytest.mark.parametrize("template", ["{{steps.a.text}}", "out/{{steps.a.text}}", "{% set x = steps %}{{ x.a.text }}"])
@pytest.mark.parametrize("answer", OUT)
def test_an_answer_that_leaves_the_folder_is_refused(tmp_path: Path, template: str, answer: str) -> None:
    """Absolute paths, `..`, `~`, symbolic links, and characters that no file name needs are refused."""
    for folder in (tmp_path, tmp_path / "out"):
        folder.mkdir(exist_ok=True)
        (folder / "link").symlink_to("/tmp")
    with pytest.raises(WorkflowError, match="made of a model's answer"):
        render_path(template, of(answer), "w.yaml:1:1", tmp_path)


@pytest.mark.parametrize("answer", IN)
def test_an_answer_that_names_a_file_is_used(tmp_path: Path, answer: str) -> None:
    assert render_path("out/{{steps.a.text}}.md", of(answer), "", tmp_path) == f"out/{answer}.md"


@pytest.mark.parametrize("path", ["/var/log/{{date}}.md", "../{{date}}.md", "{{global_vars.there}}/x", "/plain", "../plain"])
def test_the_author_may_name_any_path(tmp_path: Path, path: str) -> None:
    assert render_path(path, of("unused"), "", tmp_path).startswith(("/", "../"))


@pytest.mark.parametrize(
    "options",
    [
        {"cwd": "{{steps.a.text}}"},
        {"stream_handler": "file", "stream_handler_opts": {"file_path": "logs/{{steps.a.text}}"}},
        {"stream_handler": ["console", {"file": {"file_path": "{{steps.a.text}}"}}]},
        {"stream_handler": "callback", "stream_handler_opts": {"module": "{{steps.a.text}}", "function": "f"}},
        {"stream_handler": "callback", "stream_handler_opts": {"module": "m", "function": "{{steps.a.text}}"}},
    ],
    ids=["cwd", "file_path", "file_path in a list", "module", "function"],
)
def test_options_obey_the_same_rule(tmp_path: Path, options: dict[str, object]) -> None:
    """Answers cannot set the folder of live tools, a log file, or code to run."""
    raw = ClaudeOptions.model_validate({"async_streaming": True, **options})
    with pytest.raises(WorkflowError, match="a model's answer"):
        render_options(raw, of("../x"), "w.yaml:1:1", tmp_path)


@pytest.mark.parametrize(
    "step",
    [
        "{name: b, type: claude, prompt: hi, output_to_file: 'out/{{steps.a.text}}.txt'}",
        "{name: b, type: claude, prompt: [{type: file, path: '{{steps.a.text}}'}]}",
        "{name: b, type: claude_batch, tasks: [{id: t, prompt: hi, file: '{{steps.a.text}}'}]}",
        "{name: b, type: parallel_claude, parallel_tasks: [{id: t, prompt: hi, output_to_file: '{{steps.a.text}}'}]}",
    ],
    ids=["output", "part", "task's file", "task's output"],
)
def test_a_run_stops_before_it_sends_or_writes(step: str) -> None:
    Path("secret.txt").write_text("secret")
    Path("flow").mkdir()
    steps = f"    - {{name: a, type: claude, prompt: name a file}}\n    - {step}\n"
    Path("flow/w.yaml").write_text(f"workflow:\n  name: w\n  steps:\n{steps}")
    with MessagesServer([Reply([text("../secret.txt")]), Reply([text("written")])]) as api:
        done = in_this_process("run", "flow/w.yaml", "--live", url=api.url)
        asked = len(api.requests)
    assert (done.returncode, asked) == (2, 1)
    assert "leads out of" in done.stderr
    assert Path("secret.txt").read_text() == "secret"
