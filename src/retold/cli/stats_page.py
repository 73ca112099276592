"""retold stats --format html: the page of a log."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .common import note

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog


def write_page(
    log: "EventLog", output: Path | None, *, force: bool, modes: tuple[str, ...], since_day: str | None, until_day: str | None
) -> None:  # fmt: skip
    """Write the page to a file, or print it. Exit with 1 if there is nothing to count. Raise InputError, LogError."""
    from ..audit.index import opened
    from ..audit.runs import Chosen, listed_runs
    from ..pages.log_page import RUNS, log_data, log_page
    from ..recorder.errors import InputError
    from ..recorder.files import replacing
    from .progress import progress

    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists already; name another file, or replace it with --force.")
    with progress("indexed", "events") as told, opened(log, progress=told) as index:
        runs, _ = listed_runs(log, Chosen(), limit=RUNS + 1)
        data = log_data(index, runs, name=str(log.path), modes=modes, since_day=since_day, until_day=until_day)
    if not data["lines"]:
        note("retold: no exchanges to count; `retold ls` lists the runs, --mode mock counts replays.")
        raise typer.Exit(1)
    html = log_page(data)
    if output is None:
        sys.stdout.write(html)
        return
    try:
        with replacing(output, mode=0o600) as file:
            file.write(html.encode())
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror or error}.") from error
    note(f"retold: the page of {log.path} written to {output}")
