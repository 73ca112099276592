"""retold stats --format html: the page of a log."""

import sys
from typing import TYPE_CHECKING

import typer

from .common import note

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog


def print_page(log: "EventLog", *, modes: tuple[str, ...], since_day: str | None, until_day: str | None) -> None:
    """Print the page. Exit with 1 if there is nothing to count. Raise LogError."""
    from ..audit.index import opened
    from ..audit.runs import Chosen, listed_runs
    from ..pages.log_page import RUNS, log_data, log_page
    from .terminal import progress

    with progress("indexed", "events") as told, opened(log, progress=told) as index:
        runs, _ = listed_runs(log, Chosen(), limit=RUNS + 1)
        data = log_data(index, runs, name=str(log.path), modes=modes, since_day=since_day, until_day=until_day)
    if not data["lines"]:
        note("retold: no exchanges to count; `retold ls` lists the runs, --mode mock counts replays.")
        raise typer.Exit(1)
    sys.stdout.write(log_page(data))
