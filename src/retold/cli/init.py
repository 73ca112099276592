"""retold init: write a workflow to start from."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .common import say


def init(
    workflow: Annotated[Path, typer.Argument(metavar="[FILE]", help="The workflow file to write.")] = Path("hello.yaml"),
) -> None:
    """Write a workflow to start from, and its recording in cassettes/, so that it runs at once without a key.

    It replaces no file.

    Example: retold init review.yaml
    """
    from ..workflow.starter import write_starter

    for path in write_starter(workflow):
        say(f"wrote {path}")
    named = shlex.quote(str(workflow))
    say(f"\nretold run {named}           runs it offline, from the recording")
    say(f"retold run {named} --live    calls the API with your key, and records again")
