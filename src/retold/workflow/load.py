"""A workflow file, read and checked: every error at once, each with its line, before anything runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..handlers import sentence
from ..recorder.errors import Problem, WorkflowError
from ..recorder.redact import Redactor
from . import step_types
from .explain import explain_all
from .problems import problems_of
from .source import Source, YamlPath, read_source


@dataclass(frozen=True)
class Loaded:
    """A workflow that may run, and the file it came from."""

    source: Source
    workflow: step_types.Workflow

    @property
    def folder(self) -> Path:
        """Where the file is: relative paths in it count from there."""
        return self.source.path.parent

    def cassette(self) -> Path:
        """Where its recording is: `workflow.cassette`, or `cassettes/<name>.yaml` in its folder or beside it."""
        if self.workflow.cassette is not None:
            return self.folder / self.workflow.cassette
        beside = [self.folder / "cassettes", Path(os.path.normpath(self.folder.absolute().parent)) / "cassettes"]
        folder = next((folder for folder in beside if folder.is_dir()), beside[0])
        return _short(folder / f"{Redactor().text(self.workflow.name)}.yaml")


def load_workflow(path: str | os.PathLike[str]) -> Loaded:
    """Read and check a workflow file. Raises WorkflowError naming every error with file, line and column."""
    source = read_source(Path(path))
    found: list[tuple[YamlPath, str]] = []
    if isinstance(source.data, list):
        said = "this is a list of steps; a workflow file has them below `workflow:` with a `name` and `steps:`"
        found.append(((), said))
        if not all(isinstance(step, dict) for step in source.data):
            raise _error(source, found)
        source = _as_steps(source)
    if not isinstance(source.data, dict):
        raise _error(source, [((), "a workflow file holds a key `workflow` with `name` and `steps`")])
    if "interactions" in source.data and "workflow" not in source.data:
        raise _error(source, [((), "this is a cassette, which `retold play` shows; a workflow file holds a key `workflow`")])
    workflow = None
    try:
        workflow = step_types.File.model_validate(source.data).workflow
    except ValidationError as error:
        found += explain_all(source, error.errors())
    # What the models cannot see is looked for in whatever part of the file is sound.
    found += problems_of(source.data.get("workflow"), source.path.parent)
    if found or workflow is None:
        raise _error(source, found)
    return Loaded(source, workflow)


def _as_steps(source: Source) -> Source:
    """A list of steps in the place where they would be right, so that what is missing in each is told as well."""
    top, inside = source.positions[()], ("workflow", "steps")
    positions = {(*inside, *at): place for at, place in source.positions.items()}
    return Source(source.path, {"workflow": {"name": "steps", "steps": source.data}}, {(): top, inside[:1]: top, **positions})


def _short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _error(source: Source, found: Iterable[tuple[YamlPath, str]]) -> WorkflowError:
    """The errors from top to bottom; each ends in one mark."""
    problems = sorted((Problem(*source.position(at), sentence(what)) for at, what in found), key=lambda problem: problem[:2])
    lines = [f"{source.path}:{problem.line}:{problem.column}: {problem.message}" for problem in problems]
    said = lines[0] if len(lines) == 1 else f"{len(lines)} errors in the workflow:\n" + "\n".join(lines)
    return WorkflowError(said, problems)
