"""Read and check a workflow file. All errors are reported at once, each with its line, before anything runs."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..recorder.errors import Problem, WorkflowError
from ..recorder.secrets.redactor import Redactor
from ..recorder.words import sentence
from . import step_types
from .explain import explain_all
from .problems import problems_of
from .source import Source, YamlPath, read_source


@dataclass(frozen=True)
class Loaded:
    """A valid workflow and its file."""

    source: Source
    workflow: step_types.Workflow

    @property
    def folder(self) -> Path:
        """The folder of the file. Relative paths in the file count from there."""
        return self.source.path.parent

    def cassette(self) -> Path:
        """Return the path of the recording: `workflow.cassette`, or `cassettes/<name>.yaml` in the folder or beside it."""
        if self.workflow.cassette is not None:
            return self.folder / self.workflow.cassette
        beside = [self.folder / "cassettes", Path(os.path.normpath(self.folder.absolute().parent)) / "cassettes"]
        folder = next((folder for folder in beside if folder.is_dir()), beside[0])
        return _short(folder / f"{Redactor().text(self.workflow.name)}.yaml")


def load_workflow(path: str | os.PathLike[str]) -> Loaded:
    """Read and check a workflow file. Raise WorkflowError with the file, line and column of all errors."""
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
        workflow = step_types.WorkflowFile.model_validate(source.data).workflow
    except ValidationError as error:
        found += explain_all(source, error.errors())
    # Check references, templates and handlers in all parts of the file that the models accept.
    found += problems_of(source.data.get("workflow"), source.path.parent)
    if found or workflow is None:
        raise _error(source, found)
    return Loaded(source, workflow)


def _as_steps(source: Source) -> Source:
    """Return a top-level list of steps under the right key, so that errors in the steps are reported as well."""
    top, inside = source.positions[()], ("workflow", "steps")
    positions = {(*inside, *at): place for at, place in source.positions.items()}
    return Source(source.path, {"workflow": {"name": "steps", "steps": source.data}}, {(): top, inside[:1]: top, **positions})


def _short(path: Path) -> Path:
    """Return the path relative to the working directory if it is below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _error(source: Source, found: Iterable[tuple[YamlPath, str]]) -> WorkflowError:
    """Return the errors from top to bottom, each as one sentence."""
    problems = sorted((Problem(*source.position(at), sentence(what)) for at, what in found), key=lambda problem: problem[:2])
    lines = [f"{source.path}:{problem.line}:{problem.column}: {problem.message}" for problem in problems]
    said = lines[0] if len(lines) == 1 else f"{len(lines)} errors in the workflow:\n" + "\n".join(lines)
    return WorkflowError(said, problems)
