"""The workflow to start from, with its recording: `starter/workflow.yaml` and `starter/cassette.yaml`, under the name of choice.

To record it again, run `retold init` and `retold run hello.yaml --live`, and copy cassettes/hello.yaml here.
"""

import os
import re
from importlib.resources import files
from pathlib import Path

from ..recorder.errors import InputError
from .load import load_workflow

NAME = "hello"
"""The name of the workflow in `starter/workflow.yaml`."""


def write_starter(path: Path) -> list[Path]:
    """Write the workflow at `path` and its recording into `cassettes` beside it. Return both paths.

    Raise InputError if one of the files exists, or if the name of the file cannot be the name of a workflow; then nothing is
    written.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"{path}: a workflow is a YAML file; name it {path.with_suffix('.yaml')}.")
    cassette = path.parent / "cassettes" / f"{path.stem}.yaml"
    for each in (path, cassette):
        if os.path.lexists(each):
            raise InputError(f"{each} exists already; retold init replaces no file. Name another one: retold init OTHER.yaml.")
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. -]*", path.stem) is None:
        raise InputError(
            f"{path}: the name of a workflow has letters, digits, spaces and _ . - only; name the file like {NAME}.yaml."
        )
    made: list[Path] = []
    try:
        for each, name in ((cassette, "cassette.yaml"), (path, "workflow.yaml")):
            each.parent.mkdir(parents=True, exist_ok=True)
            with each.open("x", encoding="utf-8") as file:
                made.append(each)
                file.write(_text(name, path))
        load_workflow(path)
    except BaseException as error:
        for each in made:
            each.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"cannot write {error.filename}: {error.strerror or error}.") from error
        raise
    return [path, cassette]


def _text(name: str, path: Path) -> str:
    """Return the text of a file of the starter, with the name and the path of the new workflow."""
    text = files("retold.workflow").joinpath("starter", name).read_text("utf-8")
    if name != "workflow.yaml":
        return text
    text = text.replace(f'name: "{NAME}"', f'name: "{path.stem}"').replace(
        f"cassettes/{NAME}.yaml", f"cassettes/{path.stem}.yaml"
    )
    return text.replace(f"retold run {NAME}.yaml", f"retold run {path}").replace(f"validate {NAME}.yaml", f"validate {path}")
