"""retold validate: whether workflow files may be run, every error at once."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, note, print_json


def validate(
    workflows: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Workflow files (YAML).")],
    json: Json = False,
) -> None:
    """Check workflow files without running them: every error with file, line and column. Exits with 2 if there is one.

    Callbacks are imported and file paths looked at, as a run would.

    Example: retold validate examples/*.yaml
    """
    from ..recorder.errors import WorkflowError
    from ..workflow.load import load_workflow

    found: dict[str, str | None] = {}
    for path in workflows:
        try:
            load_workflow(path)
            found[str(path)] = None
        except WorkflowError as error:
            found[str(path)] = str(error)
    if json:
        print_json([{"file": file, "valid": said is None, "error": said} for file, said in found.items()])
    for file, said in found.items():
        if said is not None:
            note(f"retold: {said}")
        elif not json:
            print(f"{file}: ok")
    if any(said is not None for said in found.values()):
        raise typer.Exit(2)
