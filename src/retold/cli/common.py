"""Options and helpers that several commands share."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

Db = Annotated[
    Path | None,
    typer.Option("--db", metavar="FILE", help="The log to use.", envvar="RETOLD_DB", show_default=".retold/log.db"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Handlers = Annotated[
    list[str] | None,
    typer.Option("--handler", metavar="NAME", help="How to show the messages: simple, console or debug; may be repeated."),
]
TimingOption = Annotated[
    str, typer.Option("--timing", metavar="T", help="instant, original, or a factor such as 2x (twice as fast).")
]
IdleLimit = Annotated[
    str | None, typer.Option("--idle-limit", metavar="DURATION", help="Shorten longer pauses to this, e.g. 2s.")
]
UpstreamOption = Annotated[
    str, typer.Option("--upstream", metavar="URL", help="The API that requests go to.", envvar="ANTHROPIC_BASE_URL")
]
ProfileOption = Annotated[
    str, typer.Option("--profile", metavar="P", help="Whose habits matching knows: api, claude-code, or auto, by the recording.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="An id, a unique prefix of one, a name, last, or last~N.")]


def print_json(value: Any) -> None:
    """One JSON value on stdout, for a person to read too."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_lines(values: Iterable[Any]) -> None:
    """One JSON value a line, each flushed when it is there."""
    for value in values:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    """Tell the person something that is not the result."""
    print(text, file=sys.stderr, flush=True)
