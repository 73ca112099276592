"""The options `--format` and `--junit` of commands that CI runs, and their reports."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..recorder.errors import InputError
from .common import say

if TYPE_CHECKING:
    from ..ci.report import CiReport


class CheckFormat(StrEnum):
    """Format of the result of a check."""

    text = "text"
    github = "github"


FormatOption = Annotated[
    CheckFormat,
    typer.Option("--format", help="The format of the output; github: annotations, and a summary of the step."),
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Also write the result as JUnit XML, for CI services.")
]


def refuse_both(form: CheckFormat, *, json: bool) -> None:
    """Raise InputError if two formats are asked for."""
    if json and form is not CheckFormat.text:
        raise InputError(f"--json and --format {form} exclude each other; choose one.")


@contextmanager
def reported(*, github: bool) -> Iterator[None]:
    """Let a runner of GitHub obey nothing that is printed in the block."""
    from ..ci.github import commands_stopped

    with commands_stopped() if github else nullcontext():
        yield


def write_reports(report: "CiReport", *, github: bool, junit: Path | None) -> None:
    """Print the annotations of a report and write its summary, and write it as JUnit XML. Raise InputError."""
    if junit is not None:
        from ..ci.junit import write_junit

        write_junit(report, junit)
    if github:
        from ..ci.github import annotations, write_summary

        say("\n".join(annotations(report)))
        write_summary(report)
