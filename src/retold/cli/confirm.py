"""Confirm a removal from the log: the command lists it first and does it after a yes or with --yes."""

import sys
from typing import Annotated

import typer

from ..recorder.errors import InputError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; required without a terminal.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the changes without making them.")]
Why = Annotated[str | None, typer.Option("--why", metavar="TEXT", help="The reason, kept in the log.")]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="The person who requests it.", show_default="user@host")]


def confirm(yes: bool, why: str | None) -> str:
    """Return the reason, after a yes. Raise InputError if there is no terminal, Exit(1) after a no."""
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        if not yes:
            raise InputError(
                "nothing was done: there is no terminal to confirm on. Pass --yes, or --dry-run to list the changes."
            )
        if not (why or "").strip():
            raise InputError("nothing was done: give the reason with --why TEXT; the log keeps it.")
    reason = why or ""
    while not reason.strip():
        reason = typer.prompt("Why (kept in the log)", err=True)
    if not yes and not typer.confirm("This cannot be undone. Continue?", err=True):
        typer.echo("retold: nothing was done", err=True)
        raise typer.Exit(1)
    return reason
