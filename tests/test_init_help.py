"""`retold init` writes a workflow that runs at once. `retold help` prints the help of a command."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main

from retold.cli import COMMANDS, _Late, make_app
from retold.cli.help import _names
from tests.e2e import in_this_process


def test_a_new_workflow_runs_at_once() -> None:
    """The workflow passes the validator and replays both steps offline, without a key. A live run would record them again."""
    done = in_this_process("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == ["wrote hello.yaml", "wrote cassettes/hello.yaml"]
    assert in_this_process("validate", "hello.yaml").returncode == 0
    ran = json.loads(in_this_process("run", "hello.yaml", "--json").stdout)
    assert [step["text"].splitlines()[0] for step in ran["steps"]] == ["Each word was kept once;", "The Same Stream Again"]
    shown = in_this_process("run", "hello.yaml")
    assert (shown.returncode, "The Same Stream Again" in shown.stdout) == (0, True)


def test_a_new_workflow_has_the_name_of_its_file() -> None:
    """The recording has that name, too. The commands in the workflow's comments name the file as the user gave it."""
    Path("cassettes").mkdir()
    assert in_this_process("init", "deep/my-review.yaml").returncode == 0
    text = Path("deep/my-review.yaml").read_text()
    assert 'name: "my-review"' in text
    assert "#   retold run deep/my-review.yaml --live" in text
    assert "hello" not in text
    assert in_this_process("run", "deep/my-review.yaml").returncode == 0
    assert sorted(map(str, Path("deep").rglob("*.yaml"))) == ["deep/cassettes/my-review.yaml", "deep/my-review.yaml"]


@pytest.mark.parametrize("there", ["hello.yaml", "cassettes/hello.yaml"])
def test_init_replaces_no_file(there: str) -> None:
    """If the workflow or its recording exists, even as a broken link, `init` writes neither."""
    Path("cassettes").mkdir()
    Path(there).symlink_to("nowhere")
    before = sorted(map(str, Path().rglob("*")))
    done = in_this_process("init")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"retold: {there} exists already; retold init replaces no file." in done.stderr
    assert sorted(map(str, Path().rglob("*"))) == before


@pytest.mark.parametrize(
    ("name", "why"),
    [("hello", "name it hello.yaml"), ("hello.json", "name it hello.yaml"), ("ü.yaml", "name the file like hello.yaml")],
)
def test_init_refuses_an_unusable_name(name: str, why: str) -> None:
    """The check comes before any file is written."""
    done = in_this_process("init", name)
    assert (done.returncode, why in done.stderr) == (2, True)
    assert list(Path().iterdir()) == []


def test_init_names_a_folder_that_it_cannot_write() -> None:
    """A file is in the place of the folder. `init` leaves no other file behind."""
    Path("cassettes").write_text("a file")
    done = in_this_process("init")
    assert (done.returncode, done.stderr) == (2, "retold: cannot write cassettes: File exists.\n")
    assert not Path("hello.yaml").exists()


@pytest.mark.parametrize("words", [[], ["ls"], ["help"], ["try"]])
def test_help_prints_the_same_text_as_the_option(words: list[str]) -> None:
    """This is true for retold itself and for each command."""
    done = in_this_process("help", *words)
    by_option = in_this_process(*words, "--help").stdout  # the program name of --help is that of the test process
    assert (done.returncode, done.stdout.partition(" [OPTIONS]")[2]) == (0, by_option.partition(" [OPTIONS]")[2])
    assert done.stdout.startswith(f"Usage: retold {' '.join(words)}".rstrip())


def test_help_of_an_unknown_command_is_an_error() -> None:
    """The message is the same as for the unknown command itself."""
    done = in_this_process("help", "shwo")
    assert done.returncode == 2
    assert "No such command 'shwo'" in done.stderr
    assert _names("s") == [name for name in COMMANDS if name.startswith("s")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("retold --color a", ["auto", "always"]),
        ("retold ls --sort c", ["cost"]),
        ("retold help qu", ["query"]),
        ("retold textc", ["textconv"]),
        ("retold diff --st", ["--stat"]),
    ],
)
def test_the_shell_completes_words(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """The completion offers commands, options, option values, and the commands that have help."""
    for name, value in (("_RETOLD_COMPLETE", "complete_bash"), ("COMP_WORDS", words), ("COMP_CWORD", str(words.count(" ")))):
        monkeypatch.setenv(name, value)
    command: Any = typer.main.get_command(make_app())
    with pytest.raises(SystemExit):
        command.main([], prog_name="retold")
    assert capsys.readouterr().out.split() == expected


@pytest.mark.parametrize("path", ["file", "folder", "missing", "missing/file", "", "dangling", "-", "~", "a\udc80"])
def test_a_path_is_converted_as_typer_converts_it(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without checks needs none of typer's adapters, which would import pydantic."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    Path("dangling").symlink_to("nowhere")
    command: Any = typer.main.get_group(make_app("show")).commands["show"]
    context = command.make_context("show", ["last"], resilient_parsing=True)
    (param,) = (each for each in command.get_params(context) if each.name == "db")
    if not hasattr(param, "get_runtime_param"):
        pytest.skip("this typer converts without adapters")
    assert isinstance(param._runtime_param, _Late)
    late = param._runtime_param.coerce(path, param=param, ctx=context)
    assert isinstance(param._runtime_param, _Late) == (path != "dangling")
    param._runtime_param = None
    own = param.get_runtime_param().coerce(path, param=param, ctx=context)
    assert (type(late), late) == (type(own), own)
