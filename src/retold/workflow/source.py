"""A YAML file with positions: its values as plain data, and the line and column of each path.

Plain scalars follow the core schema of YAML 1.2, not YAML 1.1, which PyYAML implements: `12:30`, `NO`, `on`, `1_000` and
`2026-11-22` are text. A number keeps its spelling: `version: 1.10` is a number that prints as 1.10, not as 1.1. Cassettes are
YAML 1.1, because vcrpy writes them so.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from ..recorder import bounded_yaml
from ..recorder.errors import Problem, WorkflowError
from ..recorder.files import read_text
from ..recorder.hints import near, unreadable

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


_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
)  # fmt: skip
"""Tag, pattern and possible first characters of each kind of plain scalar; an empty scalar is null. The first match counts."""


class SpelledInt(int):
    """A whole number that prints as the file spells it: `0123`, `+5`, `0x1F`."""

    spelling: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the number that a text of the core schema denotes. Raise ValueError."""
        number = cls(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        number.spelling = text
        return number

    def __str__(self) -> str:
        return self.spelling


class SpelledFloat(float):
    """A number that prints as the file spells it: `1.10`, `1e3`."""

    spelling: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the number that a text of the core schema denotes. Raise ValueError."""
        number = cls(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        number.spelling = text
        return number

    def __str__(self) -> str:
        return self.spelling


class Yaml12Loader(bounded_yaml.Loader):
    """The bounded loader with the scalars of YAML 1.2.

    Its limit for aliases is lower than elsewhere, because workflows are small and each use of an alias stores positions.
    """

    max_growth = 1_600_000
    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}  # noqa: RUF012 # read by PyYAML's resolver under this name


def _int(loader: Any, node: Any) -> int:
    number = SpelledInt.of(loader.construct_scalar(node))
    return int(number) if int.__str__(number) == number.spelling else number


def _float(loader: Any, node: Any) -> float:
    number = SpelledFloat.of(loader.construct_scalar(node))
    return float(number) if float.__repr__(number) == number.spelling else number


for _tag, _pattern, _first in _RESOLVERS:
    Yaml12Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), [*_first, *([""] if _tag == "null" else [])]
    )
Yaml12Loader.add_constructor("tag:yaml.org,2002:int", bounded_yaml.checked_scalar("int", _int))
Yaml12Loader.add_constructor("tag:yaml.org,2002:float", bounded_yaml.checked_scalar("float", _float))


def scalar(text: str) -> Any:
    """Return the value of a text on its own, such as an option on the command line. A text that is not YAML is returned
    unchanged.
    """
    try:
        return yaml.load(text, Loader=Yaml12Loader)
    except yaml.YAMLError:
        return text
