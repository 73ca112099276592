"""retold export: a run from the log as a cassette."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import Db, RunArgument, note


def export(
    run: RunArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it, .yaml or .json.", show_default="stdout"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it is there.")] = False,
    db: Db = None,
) -> None:
    """Export the exchanges of a run as a cassette, which vcrpy can replay too.

    Example: retold export last -o cassettes/hello.yaml
    """
    from ..handlers.text import plural
    from ..recorder.cassette import dump_cassette, write_cassette
    from ..recorder.errors import InputError
    from ..recorder.log import EventLog
    from ..recorder.transfer import exchanges_of

    log = EventLog(db)
    found = log.find(run)
    exchanges = exchanges_of(log, found.run)
    if not exchanges:
        raise InputError(f"run {found.run} ({found.name}) has no exchanges to export.")
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} is there already; name another file, or replace it with --force.")
    if found.mode == "mock":
        note(f"retold: run {found.run[:8]} is a replay; the cassette has the pace of the replay, not of what it replays")
    if output is None:
        dump_cassette(exchanges, sys.stdout)
        return
    write_cassette(output, exchanges)
    note(f"retold: {plural(len(exchanges), 'exchange')} of run {found.run[:8]} written to {output}")
