"""Write the two pages that are generated: docs/cli.md from the help texts, docs/api.md from signatures and docstrings.

python docs/reference.py

In the site, mkdocstrings writes the API from the same docstrings. The groups and members below are those of both.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

import retold
from retold.cli import make_app

DOCS = Path(__file__).resolve().parent

WIDTH = 78
"""Columns of text in a terminal of 80 columns."""

GROUPS = {
    "Tests": ("use_cassette", "UsedCassette", "DriftWarning", "ExpiredWarning", "FaultWarning"),
    "Trajectories": ("trajectory", "Trajectory", "ExpectedTool"),
    "Forks": ("fork",),
    "Recording without a cassette": ("record", "recording", "Recording"),
    "The log": ("EventLog", "RunInfo", "Event", "Message"),
    "Workflows": ("run_workflow", "arun_workflow", "RunResult", "StepResult", "TaskResult"),
    "Comparing": ("compare", "assert_same_stream", "Comparison", "Difference"),
    "Cassettes": ("read_cassette", "write_cassette", "Cassette", "Exchange", "Request", "Response", "Place"),
    "Timing": ("Timing",),
}
"""The public names by subject. All other public names are errors and warnings."""

MEMBERS = {
    "EventLog": ("open", "close", "start", "runs", "find", "run", "events", "messages", "follow", "has"),
    "Recording": ("run", "close"),
    "use_cassette": (),
}
"""The public members of classes that have others for retold's own use."""

INTRO = """\
# Python API

`docs/reference.py` writes this page from the signatures and docstrings. Import each name from `retold`, for example
`from retold import use_cassette`. `retold.__all__` lists the names, and `retold.__version__` is the version. An import costs
nothing until you use a name.

These names, with the members below, are the public interface. Every other module, name and member is private: it may change in
any release. The commands, the formats of [cassettes](cassettes.md) and the [schema of the log](schema.md) are public, too.
"""


def commands() -> str:
    """Return the page of the commands."""
    group: Any = typer.main.get_command(make_app())
    whole = group.context_class(group, info_name="retold", terminal_width=WIDTH, **group.context_settings)
    intro = "This page holds the `--help` text of every command. `python docs/reference.py` writes it."
    parts = [f"# Every command\n\n{intro}\n", _block(group.get_help(whole))]
    for name, command in group.commands.items():
        text = command.get_help(command.context_class(command, info_name=name, parent=whole))
        parts.append(f"## retold {name}\n\n{_block(text)}")
    return "\n".join(parts)


def api() -> str:
    """Return the page of the public names."""
    grouped = {name for names in GROUPS.values() for name in names}
    errors = [name for name in retold.__all__ if name not in grouped]
    parts = [INTRO]
    for title, names in {**GROUPS, "Errors and warnings": errors}.items():
        parts += [f"## {title}\n", *(_entry(name) for name in names)]
    return "\n".join(parts)


def api_page() -> str:
    """Return the page of the public names in the site, with directives of mkdocstrings and the anchors of this page."""
    anchors: set[str] = set()

    def directive(match: re.Match[str]) -> str:
        name, public = match[1], getattr(retold, match[1])
        is_error = isinstance(public, type) and issubclass(public, Exception)
        members = [member for member, _ in _public_members(name, public)] if isinstance(public, type) and not is_error else []
        shown = f"[{', '.join(members)}]" if members else "false\n      inherited_members: false"
        anchor = f"[](){{#{name.lower()}}}\n\n" if name.lower() not in anchors else ""
        anchors.add(name.lower())
        ancestry = f"{_ancestry(public)}\n\n" if is_error else ""
        return f"{anchor}::: retold.{name}\n    options:\n      members: {shown}\n\n{ancestry}"

    return re.sub(r"^### (\w+)\n(?:(?!^##).*\n?)*", directive, api(), flags=re.MULTILINE)


def _ancestry(error: type[Exception]) -> str:
    code = f" Exit code {error.exit_code}." if issubclass(error, retold.RetoldError) else ""
    return f"A `{error.__bases__[0].__name__}`.{code}"


def _entry(name: str) -> str:
    public = getattr(retold, name)
    if isinstance(public, type) and issubclass(public, Exception):
        return f"### {name}\n\n{as_markdown(inspect.getdoc(public) or '')}\n{_ancestry(public)}\n"
    parts = [f"### {name}\n", _block(_signature(name, public)), as_markdown(inspect.getdoc(public) or "")]
    if isinstance(public, type):
        members = list(_members(name, public))
        parts += ["".join(members)] if members else []
    return "\n".join(parts)


def _public_members(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield each public method and property of a class, in the order of its source, base classes first."""
    ours = [each for each in reversed(kind.__mro__) if each.__module__.startswith("retold")]
    found = dict.fromkeys(member for each in ours for member in vars(each) if not member.startswith("_"))
    for member in found:
        value = inspect.getattr_static(kind, member)
        is_public = name not in MEMBERS or member in MEMBERS[name]
        if is_public and (isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)):
            yield member, value


def _members(name: str, kind: type) -> Iterator[str]:
    """Yield an item for each public method and property of a class."""
    for member, value in _public_members(name, kind):
        text = textwrap.indent(as_markdown(inspect.getdoc(getattr(kind, member)) or "").strip(), "  ").lstrip()
        if isinstance(value, property):
            yield f"- `.{member}` → `{_returns(value.fget)}`: {text}\n"
        else:
            yield f"- `.{_one_line(member, getattr(value, '__func__', value))}`: {text}\n"


# Signatures


def _tree(of: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(of))).body[0]


def _returns(function: Any) -> str:
    return ast.unparse(_tree(function).returns)


def _one_line(name: str, function: Any) -> str:
    tree = _tree(function)
    arguments = ", ".join(_arguments(_without_self(tree.args)))
    returns = ast.unparse(tree.returns)
    return f"{name}({arguments})" + ("" if returns == "None" else f" -> {returns}")


def _without_self(arguments: ast.arguments) -> ast.arguments:
    arguments.args = [each for each in arguments.args if each.arg not in ("self", "cls")]
    return arguments


def _signature(name: str, public: Any) -> str:
    """Return the signature of a function or class as in the source, one argument a line if there are several."""
    if not isinstance(public, type):
        tree = _tree(public)
        return _laid_out(name, _arguments(tree.args), ast.unparse(tree.returns))
    tree = _tree(public)
    init = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
    if init is not None and name in CONSTRUCTED:
        return _laid_out(name, _arguments(_without_self(init.args)), "")
    return "\n".join([f"class {name}", *(f"    {ast.unparse(field)}" for field in _fields(public).values())])


def _fields(kind: type) -> dict[str, ast.AnnAssign]:
    """Return the public fields that the body of a class declares."""
    found = {ast.unparse(node.target): node for node in _tree(kind).body if isinstance(node, ast.AnnAssign)}
    return {name: node for name, node in found.items() if not name.startswith("_")}


CONSTRUCTED = ("use_cassette", "fork", "record", "EventLog", "Timing")
"""Classes that users call."""


def _arguments(arguments: ast.arguments) -> list[str]:
    """Return each argument with its annotation and default, in order, with `*` before keyword-only ones."""
    plain = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    found = [_argument(each, default) for each, default in zip(plain, defaults, strict=True)]
    if arguments.vararg is not None:
        found.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        found.append("*")
    found += [_argument(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return found + ([f"**{_argument(arguments.kwarg, None)}"] if arguments.kwarg is not None else [])


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + ("" if default is None else f" = {ast.unparse(default)}")


def _laid_out(name: str, arguments: Sequence[str], returns: str) -> str:
    end = f") -> {returns}" if returns else ")"
    line = f"{name}({', '.join(arguments)}{end}"
    return line if len(line) <= WIDTH else "\n".join([f"{name}(", *(f"    {each}," for each in arguments), end])


# Docstrings


def as_markdown(text: str, *, tables: bool = False) -> str:
    """Return a docstring as Markdown: indented parts are Python, lists in columns are text or tables, the rest are paragraphs."""
    parts = []
    for part in re.split(r"\n\n+", text.strip()):
        if all(line.startswith("    ") for line in part.splitlines()):
            parts.append(_block(textwrap.dedent(part), "python"))
        elif re.match(r"\w+ {2,}\S", part):
            parts.append(_table(part) if tables else _block(part))
        else:
            parts.append(f"{part}\n")
    return "\n".join(parts)


def _table(text: str) -> str:
    """Return a list in columns as a table; lines that begin with a space continue the row above."""
    rows = [re.split(r" +", row, maxsplit=1) for row in re.sub(r"\n +", " ", text.replace("|", "\\|")).splitlines()]
    lines = [f"| `{name}` | {meaning} |" for name, meaning in rows]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip()}\n```\n"


GENERATED = {"cli.md": commands, "api.md": api}

if __name__ == "__main__":
    for page, written in GENERATED.items():
        (DOCS / page).write_text(written(), "utf-8")
