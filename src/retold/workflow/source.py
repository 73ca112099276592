"""A YAML file with positions: its values as plain data, and the line and column of each path."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..recorder.errors import Problem, WorkflowError
from ..recorder.files import read_text
from ..recorder.hints import near, unreadable
from .yaml12 import Yaml12Loader

YamlPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """The values of a file and their positions, which count from 1."""

    path: Path
    data: Any
    positions: dict[YamlPath, tuple[int, int]] = field(repr=False)

    def place(self, path: YamlPath) -> str:
        """Return `file:line:column` of a path, or of the nearest existing place above it."""
        line, column = self.position(path)
        return f"{self.path}:{line}:{column}"

    def position(self, path: YamlPath) -> tuple[int, int]:
        """Return (line, column) of a path, or of the nearest existing place above it."""
        while path and path not in self.positions:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def read_source(path: Path, noun: str = "workflow") -> Source:
    """Read a YAML file. Raise WorkflowError with file, line and column if it cannot be read or is not YAML.

    `noun` names the content in messages.
    """
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise WorkflowError(f"no {noun} file {path}{near(path)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"cannot read the {noun} {path}: {unreadable(error)}") from error
    loader = Yaml12Loader(text)
    positions: dict[YamlPath, tuple[int, int]] = {}
    try:
        node = loader.get_single_node()
        if node is None:
            raise WorkflowError(f"{path}: the {noun} is empty.")
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


def _note(node: Any, at: YamlPath, positions: dict[YamlPath, tuple[int, int]], file: Path) -> None:
    """Store the position of each value. The value of a key gets the position of the key, because users look there."""
    positions.setdefault(at, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key should be text", problem_mark=key.start_mark)
            inner = (*at, str(key.value))
            if inner in positions:
                problem = Problem(key.start_mark.line + 1, key.start_mark.column + 1, f"the key {key.value!r} is there twice.")
                raise WorkflowError(f"{file}:{problem.line}:{problem.column}: {problem.message}", [problem])
            positions[inner] = (key.start_mark.line + 1, key.start_mark.column + 1)
            _note(value, inner, positions, file)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _note(value, (*at, number), positions, file)
