"""Write docs/cli.md: the `--help` text of each command, 80 columns wide.

python docs/reference.py
"""

from pathlib import Path
from typing import Any

import typer.main

from retold.cli import make_app

PAGE = Path(__file__).resolve().parent / "cli.md"


WIDTH = 78
"""Columns of text in a terminal of 80 columns."""


def reference() -> str:
    """Return the page."""
    group: Any = typer.main.get_command(make_app())
    whole = group.context_class(group, info_name="retold", terminal_width=WIDTH, **group.context_settings)
    intro = "This page holds the `--help` text of every command. `python docs/reference.py` writes it."
    parts = [f"# Every command\n\n{intro}\n", _block(group.get_help(whole))]
    for name, command in group.commands.items():
        text = command.get_help(command.context_class(command, info_name=name, parent=whole))
        parts.append(f"## retold {name}\n\n{_block(text)}")
    return "\n".join(parts)


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
