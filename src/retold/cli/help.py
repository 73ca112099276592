"""retold help: print the help of a command."""

from typing import Annotated, Any

import typer


def _names(incomplete: str) -> list[str]:
    """Return the commands that complete a word."""
    from . import COMMANDS

    return [name for name in COMMANDS if name.startswith(incomplete)]


def help_(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]", help="The command.", show_default="all commands", autocompletion=_names),
    ] = None,
) -> None:
    """Print the help of a command, or of retold. It is the text of `--help`, through the pager.

    Example: retold help ls
    """
    from . import make_app

    words = command or []
    app: Any = typer.main.get_command(make_app(words[0] if words else ""))
    app.main([*words, "--help"], prog_name="retold", standalone_mode=False)
