"""The rules of the architecture: imports only go down, modules stay small, public names have docs, and lists match the tree."""

import ast
import functools
import gc
import inspect
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

import retold
from retold.cli import GROUPS, make_app
from retold.workflow.tools import DEFINITIONS
from tests.conftest import ROOT

HOMES = {
    "retold": ROOT / "src" / "retold",
    "retold.recorder": ROOT / "recorder",
    "retold.replay": ROOT / "replay",
    "retold.handlers": ROOT / "handlers",
}
"""Packages and their folders."""

MAY_IMPORT = {
    "retold.recorder": {"retold.recorder"},
    "retold.replay": {"retold.replay", "retold.recorder"},
    "retold.handlers": {"retold.handlers", "retold.recorder"},
}

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> Iterator[tuple[str, Path]]:
    """Return every module of the application by its name, each once. The links under src/retold are not followed."""
    for package, home in HOMES.items():
        for folder, inner, files in os.walk(home):
            inner[:] = [name for name in inner if name != "__pycache__"]
            for file in files:
                if file.endswith(".py"):
                    path = Path(folder, file)
                    parts = path.relative_to(home).with_suffix("").parts
                    yield ".".join([package, *parts]).removesuffix(".__init__"), path


MODULES = dict(modules())


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module. Reading takes 2 s, so it must not happen at collection, which every worker does."""
    found = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
    gc.collect()
    gc.freeze()  # they keep a million objects alive, and each garbage collection of a later test would visit them (0.2 s)
    return found


def imports_of(name: str) -> Iterator[tuple[str, bool]]:
    """Yield (module, whether the import is relative) for every import of our modules, at any place in the module."""
    is_package = MODULES[name].name == "__init__.py"
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names if alias.name.partition(".")[0] == "retold")
        elif isinstance(node, ast.ImportFrom) and node.level:
            parts = name.split(".")
            base = parts[: len(parts) - node.level + is_package]
            whole = ".".join([*base, *filter(None, [node.module])])
            yield from ((f"{whole}.{alias.name}", True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "retold":
            yield str(node.module), False


def room_of(name: str) -> str:
    """Return the package of `HOMES` that a module belongs to."""
    return max((home for home in HOMES if name == home or name.startswith(home + ".")), key=len)


# Imports and sizes


def test_the_rules_cover_every_module() -> None:
    """The functions above find every package and its imports."""
    assert {room_of(name) for name in MODULES} == set(HOMES)
    assert ("retold.recorder.errors.MissError", True) in set(imports_of("retold.workflow.mock"))


def test_imports_only_go_down() -> None:
    """recorder imports no other package of ours, and replay and handlers only recorder.

    Imports in functions and for type checkers count.
    """
    wrong = [
        f"{name} imports {imported}"
        for name in MODULES
        for imported, _ in imports_of(name)
        if room_of(imported) not in MAY_IMPORT.get(room_of(name), set(HOMES))
    ]
    assert wrong == []


def test_imports_of_ours_are_relative() -> None:
    """Modules of a package import each other relatively."""
    assert [f"{name} imports {ours}" for name in MODULES for ours, relative in imports_of(name) if not relative] == []


def test_imports_have_no_cycle() -> None:
    """This includes cycles over several modules and imports for type checkers, so each module can be read before the next."""
    needs: dict[str, set[str]] = {}
    for name in MODULES:
        found = {next(each for each in _outwards(imported) if each in MODULES) for imported, _ in imports_of(name)}
        needs[name] = found - {name}
    assert set(TopologicalSorter(needs).static_order()) == set(MODULES)


def _outwards(name: str) -> Iterator[str]:
    """Yield a dotted name and its parents: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def test_modules_are_short() -> None:
    """A person can read each module in one sitting."""
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_MODULE_LINES} == {}


def test_functions_are_short() -> None:
    """Each function fits on a screen."""
    functions = [
        (f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [(name, lines) for name, lines in functions if lines > MAX_FUNCTION_LINES] == []


def test_a_class_name_is_used_once() -> None:
    """No two classes share a name, so a reader recognises a class by its name."""
    places: dict[str, list[str]] = {}
    for name, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{name}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_conditional_expressions_are_not_nested() -> None:
    """A choice of three is a statement, because `a if b else c if d else e` hides the cases."""
    nested = [
        f"{name}:{node.lineno}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.IfExp)
        if any(isinstance(inner, ast.IfExp) for inner in ast.walk(node) if inner is not node)
    ]
    assert nested == []


# The walls around SQL

SQL_ROOMS = ("retold.recorder.log.sqlite", "retold.audit.index", "retold.fleet.postgres")
"""The packages of the log's file, of its index and of the shelf in PostgreSQL. Other modules query them by values."""

SQL = re.compile(
    r"\b(?:SELECT\b.*\bFROM|INSERT (?:OR \w+ )?INTO|REPLACE INTO|UPDATE\b.*\bSET|DELETE FROM|WITH RECURSIVE|PRAGMA|ATTACH|VACUUM"
    r"|(?:CREATE|DROP|ALTER) (?:TABLE|VIEW|INDEX|TRIGGER|VIRTUAL)|ORDER BY|GROUP BY|IS (?:NOT )?NULL|BEGIN IMMEDIATE)\b"
    r"|(?<!=)(?:=|<>|<=|>=|\bIN|\bGLOB|\bLIKE|\bMATCH|\bLIMIT|\bBETWEEN) \(?\?|\A(?:BEGIN|COMMIT|ROLLBACK)\Z",
    re.DOTALL,
)
"""A statement, or a piece of one."""


def is_behind_the_wall(name: str) -> bool:
    """A statement, or a piece of one."""
    return f"{name}.".startswith(tuple(f"{room}." for room in SQL_ROOMS))


def uses_connections(name: str) -> bool:
    """Return whether a module imports SQLite, at any place in the module and also for type checkers."""
    imported = set[str]()
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(str(node.module).partition(".")[0])
    return not imported.isdisjoint({"sqlite3", "_sqlite3", "sqlite_utils"})


def texts_of(tree: ast.Module) -> Iterator[str]:
    """Yield every text of a module except docstrings. `?` replaces each value of an f-string."""
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def test_only_modules_behind_the_walls_import_sqlite() -> None:
    """No connection crosses the walls, so another store could replace SQLite."""
    using = {name for name in MODULES if uses_connections(name) and not is_behind_the_wall(name)}
    assert using == set()


def test_only_modules_behind_the_walls_write_sql() -> None:
    """No other module writes a statement, a condition or an order for another module to run."""
    found = {name: text for name, tree in trees().items() for text in texts_of(tree) if SQL.search(text)}
    outside = {name: text for name, text in found.items() if not is_behind_the_wall(name)}
    assert outside == {}
    assert {room for room in SQL_ROOMS for name in found if f"{name}.".startswith(f"{room}.")} == set(SQL_ROOMS)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 'run = ?'", True),
        ("x = f'SELECT {y} FROM z'", True),
        ("x = 'SELECT a ' f'FROM {y}'", True),
        ("x = 'COMMIT'", True),
        ("x = f'seq <= {n}'", True),
        ("x = f'PRAGMA {y}'", True),
        ("'The SELECT of a docstring FROM here.'", False),
        ("x = 'Select a file, update it, or delete from the list where it is.'", False),
        ("x = f'=== {y} ==='", False),
    ],
)
def test_sql_is_recognised(code: str, expected: bool) -> None:
    """The check finds statements and conditions, also in pieces and f-strings. It ignores English and docstrings."""
    assert any(map(SQL.search, texts_of(ast.parse(code)))) is expected


# Documentation


def test_every_module_has_a_docstring() -> None:
    """Every module begins with a docstring."""
    assert [name for name, tree in trees().items() if not ast.get_docstring(tree)] == []


def test_every_public_function_and_class_is_documented() -> None:
    """Every public function and class of a module has a docstring. pytest documents its own hooks."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        (f"{name}.{node.name}", ast.get_docstring(node))
        for name, tree in trees().items()
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith(("_", "pytest_"))
    ]
    assert [name for name, doc in public if not doc] == []


@pytest.mark.parametrize("name", [name for name in retold.__all__ if isinstance(getattr(retold, name), type)])
def test_methods_of_public_classes_are_documented(name: str) -> None:
    """A public method has a docstring, unless it overrides a documented one."""
    kind = getattr(retold, name)
    ours = {member for each in kind.__mro__ if each.__module__.startswith("retold") for member in vars(each)}
    methods = [member for member in ours if not member.startswith("_") and _does(kind, member)]
    assert [member for member in methods if not inspect.getdoc(getattr(kind, member))] == []


def _does(kind: type, member: str) -> bool:
    """Return whether a member is a method or a property, not a field."""
    value = inspect.getattr_static(kind, member)
    return isinstance(value, property | classmethod | staticmethod) or inspect.isfunction(value)


@pytest.mark.parametrize("name", retold.__all__)
def test_a_public_name_is_importable_and_documented(name: str) -> None:
    """`from retold import NAME` works for every public name, and `help(NAME)` shows a docstring."""
    assert getattr(retold, name).__doc__


def test_public_names_are_the_same_for_type_checkers() -> None:
    """A type checker sees the same name from the same module as the lazy import returns."""
    (block,) = (node for node in trees()["retold"].body if isinstance(node, ast.If))
    homes = {
        alias.asname or alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == retold._HOME_OF


def test_users_can_import_every_error_and_warning() -> None:
    """A program that catches an error, or filters a warning, imports it from `retold`."""
    kinds = [
        f"{name}.{node.name}"
        for name, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Warning", "Missing")) and node.name[0] != "_"
    ]
    assert [kind for kind in kinds if kind.rpartition(".")[2] not in retold.__all__] == []


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    """A private name causes the same error as any other missing attribute."""
    with pytest.raises(AttributeError, match="module 'retold' has no attribute 'nope'"):
        _ = retold.nope


COMMANDS: dict[str, Any] = dict(getattr(typer.main.get_command(make_app()), "commands", {}))


def test_all_commands_are_found() -> None:
    """The commands checked below are those of the help."""
    assert {"run", "ls", "show", "play", "tail", "import", "export"} <= set(COMMANDS)


def test_the_help_lists_each_command_in_one_group() -> None:
    """Every command belongs to a purpose. Its line fits on a terminal of 80 columns."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
    listed = CliRunner().invoke(make_app(), ["--help"], terminal_width=80).output
    assert [title for title in GROUPS if f"\n{title}:\n  " in listed] == list(GROUPS)
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_accepts(name: str) -> None:
    """Every command's help ends with an example, and the command accepts the example's arguments."""
    command = COMMANDS[name]
    _, found, example = command.help.partition("Example: ")
    assert found
    program, called, *arguments = shlex.split(example.splitlines()[0])
    assert (program, called) == ("retold", name)
    command.make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    """This includes every option of every command."""
    options = [option for option in COMMANDS[name].params if option.param_type_name == "option"]
    assert [option.name for option in options if not option.help] == []


# Lists


def test_the_architecture_names_existing_modules() -> None:
    """Every file name in ARCHITECTURE.md is a file of the tree, and it names every package."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    files = {str(path.relative_to(ROOT)) for path in MODULES.values()}
    named = set(re.findall(r"[\w/]+\.py\b", text))
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)] == []
    rooms = {path.parent.name for path in MODULES.values()} - {"retold"}
    assert [room for room in rooms if f"{room}/" not in text] == []


def test_pyproject_lists_every_package() -> None:
    """The wheel would silently lack a sub-package that pyproject.toml does not list."""
    tree = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == tree


def test_package_folders_are_mapped() -> None:
    """Build and type checkers use the same folders: `package-dir` and the links agree."""
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {name: ROOT / folder for name, folder in mapped.items()} == HOMES
    if not (ROOT / "PKG-INFO").exists():  # a source distribution has no links
        for name, home in HOMES.items():
            assert (ROOT / "src" / Path(*name.split("."))).resolve() == home


def test_package_data_exists() -> None:
    """The wheel contains the type checker marker, the pages' styles, scripts and template, and the starter beside its modules."""
    assert PROJECT["tool"]["setuptools"]["package-data"] == {
        "retold": ["py.typed"], "retold.pages": ["static/*"], "retold.workflow": ["starter/*"]
    }  # fmt: skip
    assert (ROOT / "src" / "retold" / "py.typed").is_file()
    assert {path.suffix for path in (ROOT / "src" / "retold" / "pages" / "static").iterdir()} == {".html", ".css", ".js"}


def test_every_example_has_its_cassette() -> None:
    """A new user can run every example workflow."""
    examples = sorted(path.name for path in (ROOT / "examples").glob("*.yaml"))
    assert examples
    assert [name for name in examples if not (ROOT / "cassettes" / name).is_file()] == []


TOOLSET = "BetaManagedAgentsAgentToolset20260401{}Input"


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_tool_definition_matches_the_toolset_that_runs_it(name: str) -> None:
    """A request declares the parameters that the SDK's own tool takes."""
    import anthropic.types.beta

    fields = getattr(anthropic.types.beta, TOOLSET.format(name)).model_fields
    schema = DEFINITIONS[name]["input_schema"]
    assert set(schema["properties"]) == set(fields)
    assert set(schema["required"]) == {field for field, definition in fields.items() if definition.is_required()}
