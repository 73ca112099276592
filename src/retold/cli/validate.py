"""retold validate: check workflow files and list all errors."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Json, note, print_json, say

if TYPE_CHECKING:
    from ..recorder.errors import WorkflowError


def validate(
    workflows: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Workflow files (YAML).")],
    json: Json = False,
) -> None:
    """Check workflow files without running them, and list every error with file, line and column. Exit code 2 if there is one.

    Like a run, it imports callbacks and checks file paths. --json prints a list of {file, valid, errors}; an error is {line,
    column, message}. If a file cannot be read, both numbers are null.

    Example: retold validate examples/*.yaml
    """
    from ..recorder.errors import WorkflowError
    from ..workflow.load import load_workflow

    found: dict[str, WorkflowError | None] = {}
    for path in workflows:
        try:
            load_workflow(path)
            found[str(path)] = None
        except WorkflowError as error:
            found[str(path)] = error
    if json:
        print_json([{"file": file, "valid": said is None, "errors": _errors(said)} for file, said in found.items()])
    for file, said in found.items():
        if said is not None:
            note(f"retold: {said}")
        elif not json:
            say(f"{file}: ok")
    if any(found.values()):
        raise typer.Exit(2)


def _errors(error: "WorkflowError | None") -> list[dict[str, Any]]:
    if error is None:
        return []
    return [problem._asdict() for problem in error.problems] or [{"line": None, "column": None, "message": str(error)}]
