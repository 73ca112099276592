"""Each command and option that a message, a help text or a docstring names exists, in that form."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from retold.cli import COMMANDS as WHERE
from retold.cli import make_app
from tests.conftest import ROOT

PACKAGES = ("recorder", "replay", "handlers", "src/retold")
HOLE = "§"
"""A placeholder for a value that the code inserts into a text."""

COMMANDS: dict[str, Any] = dict(typer.main.get_group(make_app()).commands)
OPTIONS = {
    name: {option: each for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for name, command in COMMANDS.items()
}

GENERAL = {"--help", "--version"}
OF_PYTEST = {"--retold-mode", "--retold-timing", "--retold-check-orphans", "--retold-prune"}
OF_PYTEST_RECORDING = {
    "--record-mode", "--block-network", "--allowed-hosts", "--disable-recording", "--disable-vcr",
}  # fmt: skip
OF_OTHER_PROGRAMS = {
    "--output-format", "--verbose", "--model", "--allowedTools", "--append-system-prompt",  # Claude Code
    "--noprofile", "--norc",  # bash
    "--check-ignore",  # git
    "--textconv",  # git
    "--upgrade",  # pip
}  # fmt: skip


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Return every string of a module, with HOLE for the values of an f-string."""
    tree = ast.parse(path.read_text())
    inside = {part for each in ast.walk(tree) if isinstance(each, ast.JoinedStr) for part in each.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(each.value) if isinstance(each, ast.Constant) else HOLE for each in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value


MODULES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if ROOT in path.resolve().parents and path.resolve() == path
]


def commands_in(text: str) -> list[str]:
    """Return the commands in a text: in backticks, in parentheses, and in examples of a help text."""
    found = re.findall(r"`(retold [^`]+)`", text) + re.findall(r"\((retold [a-z][^()]*)\)", text)
    return found + re.findall(r"^ *Example: (retold .+)$", text, re.MULTILINE)


def check(command: str) -> None:
    """Fail unless the command has each option, and each option has a value if it takes one."""
    words = shlex.split(command.replace("…", "x").replace(HOLE, "x"), comments=False)[1:]
    name = words[0]
    assert name in COMMANDS, command
    if "--" in words:  # words of another program
        words = words[: words.index("--")]
    for number, word in enumerate(words):
        option, _, value = word.partition("=")
        if not option.startswith("-") or option in GENERAL:
            continue
        assert option in OPTIONS[name], command
        if not OPTIONS[name][option].is_flag:
            assert value or (number + 1 < len(words) and not words[number + 1].startswith("--")), command


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_and_options_exist(path: Path) -> None:
    """In a module of a command, the options belong to that command or to one that the text names."""
    of_any = {option for options in OPTIONS.values() for option in options}
    elsewhere = GENERAL | OF_PYTEST | OF_PYTEST_RECORDING | OF_OTHER_PROGRAMS
    own = [name for name, (where, _) in WHERE.items() if path.parent.name == "cli" and where.partition(".")[0] == path.stem]
    for line, text in texts(path):
        for command in commands_in(text):
            check(command)
        known = of_any
        if own:
            named = [name for name in COMMANDS if f"retold {name}" in text]
            known = {option for name in (*own, *named) for option in OPTIONS[name]}
        for option in re.findall(r"(?<![\w`/-])`?(--[a-z][a-zA-Z-]+)", text):
            assert option in known | elsewhere, f"{path}:{line}: {option} in {text!r}"


def test_options_of_the_plugin_exist() -> None:
    """The plugin adds each of them to pytest."""
    added = "".join(path.read_text() for path in (ROOT / "src" / "retold" / "testing").glob("pytest_*.py"))
    assert [option for option in OF_PYTEST if f'addoption("{option}"' not in added] == []


@pytest.mark.parametrize(
    "wrong",
    ["retold shwo last", "retold show last --jsn", "retold prune --older-than", "retold record --csv x", "retold ls --db"],
)
def test_a_wrong_command_would_be_found(wrong: str) -> None:
    """Examples are a misspelt command or option, an option of another command, and a missing value."""
    with pytest.raises((AssertionError, KeyError)):
        check(wrong)
