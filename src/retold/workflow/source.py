"""A YAML file with its positions: values as plain data, and for every path the line and column where it stands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..recorder.errors import Problem, WorkflowError
from ..recorder.mistaken import near, unreadable

MAX_VALUES = 100_000
"""More than any workflow needs; aliases of aliases reach billions in a few lines."""

YamlPath = tuple[str | int, ...]

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Source:
    """What a file holds, and where. Positions count from 1."""

    path: Path
    data: Any
    positions: dict[YamlPath, tuple[int, int]] = field(repr=False)

    def place(self, path: YamlPath) -> str:
        """`file:line:column` of a path, or of the nearest place above it that exists."""
        line, column = self.position(path)
        return f"{self.path}:{line}:{column}"

    def position(self, path: YamlPath) -> tuple[int, int]:
        """(line, column) of a path, or of the nearest place above it that exists."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def read_source(path: Path) -> Source:
    """Read a YAML file. Raises WorkflowError with file, line and column for what is not YAML."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise WorkflowError(f"no workflow file {path}{near(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"cannot read the workflow {path}: {unreadable(error)}") from error
    loader = _Loader(text)
    positions: dict[YamlPath, tuple[int, int]] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            raise WorkflowError(f"{path}: the workflow is empty.")
        if _size(node, {}, path) > MAX_VALUES:
            raise WorkflowError(f"{path}: the workflow grows beyond {MAX_VALUES} values through its YAML aliases.")
        _note(node, (), positions, path)
        return Source(path, loader.construct_document(node), positions)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        problem = ", ".join(filter(None, (getattr(error, "context", None), getattr(error, "problem", None)))) or str(error)
        said = f"not valid YAML: {problem}."
        raise WorkflowError(f"{where}: {said}", [Problem(mark.line + 1, mark.column + 1, said)] if mark else ()) from error
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, int], file: Path) -> int:
    """How many values a node stands for when its aliases are written out. Raises WorkflowError for one inside itself."""
    if id(node) in known:
        if known[id(node)] == 0:
            mark = node.start_mark
            raise WorkflowError(f"{file}:{mark.line + 1}:{mark.column + 1}: a YAML alias stands inside what it stands for.")
        return known[id(node)]
    known[id(node)] = 0
    inner: list[Any] = []
    if isinstance(node, yaml.MappingNode):
        inner = [value for pair in node.value for value in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    known[id(node)] = 1 + sum(_size(value, known, file) for value in inner)
    return known[id(node)]


def _note(node: Any, at: YamlPath, positions: dict[YamlPath, tuple[int, int]], file: Path) -> None:
    """Remember where each value stands; a key's own position stands for its value, as that is where people look."""
    positions.setdefault(at, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*at, str(key.value))
            if inner in positions:
                problem = Problem(key.start_mark.line + 1, key.start_mark.column + 1, f"the key {key.value!r} is there twice.")
                raise WorkflowError(f"{file}:{problem.line}:{problem.column}: {problem.message}", [problem])
            positions[inner] = (key.start_mark.line + 1, key.start_mark.column + 1)
            _note(value, inner, positions, file)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note(value, (*at, number), positions, file)
