"""Paths in workflow files. The author chooses them; a model's answer can only name a file inside the folder that the author
wrote.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..recorder.errors import WorkflowError
from .schema import ClaudeOptions
from .templates import reads_steps, render

_PATHS = frozenset({"cwd", "file_path"})
_CODE = frozenset({"module", "function", "stream_handler"})


def render_path(text: str, variables: Mapping[str, Any], where: str, base: Path) -> str:
    """Return a path, relative to `base`, with its templates filled in.

    A template that reads the answer of a step is confined to the folder before it (`out/` in `out/{{steps.a.text}}.txt`, else
    `base`): absolute paths, `..` and symbolic links that leave the folder are refused. Raise WorkflowError.
    """
    made = render(text, variables, where)
    if not reads_steps(text):
        return made
    written = text[: min(at for at in (text.find("{{"), text.find("{%")) if at >= 0)]
    folder = written[: written.rfind("/") + 1]
    rest = made.removeprefix(folder)
    names = rest.split("/")
    cage = (base / Path(folder).expanduser()).resolve()
    if (
        not made.startswith(folder)
        or names[0] == ""
        or names[0].startswith("~")
        or ".." in names
        or not rest.isprintable()
        or not (cage / rest).resolve().is_relative_to(cage)
    ):
        raise WorkflowError(f"{where}: the path {made!r}, made of a model's answer, leads out of {cage}; it was not used.")
    return made


def render_options(raw: ClaudeOptions, variables: Mapping[str, Any], where: str, workspace: Path) -> ClaudeOptions:
    """Return a step's options with the templates in all their texts filled in.

    Raise WorkflowError, also if a model's answer would choose a path outside its folder or the code that runs.
    """

    def filled(value: Any, key: str) -> Any:
        match value:
            case str() if key in _PATHS:
                return render_path(value, variables, where, workspace if key == "cwd" else Path())
            case str() if key in _CODE and reads_steps(value):
                raise WorkflowError(f"{where}: {key} {value!r} would let a model's answer choose the code that runs.")
            case str():
                return render(value, variables, where)
            case dict():
                return {name: filled(item, str(name)) for name, item in value.items()}
            case list():
                return [filled(item, key) for item in value]
        return value

    return type(raw).model_validate(filled(raw.model_dump(exclude_unset=True), ""))
