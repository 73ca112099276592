"""Asking before something is taken out of the log: said first, done after a yes or with --yes."""

import sys
from typing import Annotated

import typer

from ..recorder.errors import InputError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking; needed where there is no terminal.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Why = Annotated[str | None, typer.Option("--why", metavar="TEXT", help="The reason, kept in the log.")]
Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Who asks for it.", show_default="user@host")]


def confirm(yes: bool, why: str | None) -> str:
    """The reason, after a yes. Raises InputError where nobody can be asked, Exit(1) after a no."""
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        if not yes:
            raise InputError("nothing was done: there is no terminal to ask on; say --yes, or --dry-run to only look.")
        if not (why or "").strip():
            raise InputError("nothing was done: say why with --why TEXT; it is kept in the log.")
    reason = why or ""
    while not reason.strip():
        reason = typer.prompt("Why (kept in the log)", err=True)
    if not yes and not typer.confirm("This cannot be undone. Go on?", err=True):
        typer.echo("retold: nothing was done", err=True)
        raise typer.Exit(1)
    return reason
