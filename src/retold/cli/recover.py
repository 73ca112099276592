"""retold recover: repair a log after a crash, or save the readable events of a damaged one."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, Json, note, print_json, say


def recover(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file for the readable events.", show_default="LOG.recovered"),
    ] = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Close the runs that a crash left open, and rebuild the listing and the full-text index from the events.

    A damaged file is not changed: its readable events are saved in a new file, and the lost ones are listed. The exit code is
    then 1.

    Example: retold recover
    """
    from ..audit.recover import recover as put_in_order
    from ..recorder.log.log import EventLog
    from ..recorder.words import plural
    from .terminal import progress

    log = EventLog(db)
    with progress("read", "events") as told:
        result = put_in_order(log, output=output, progress=told)
    if json:
        print_json(result.as_dict())
    else:
        for line in result.damage:
            say(f"damaged: {line}")
        for run, first, last in result.lost:
            say(f"lost: run {run}, " + (f"event {first}" if first == last else f"events {first} to {last}"))
        for line in result.unread:
            say(f"not read: {line}")
        for run in result.closed:
            say(f"closed: run {run}, which lacked a last event")
        if result.relisted:
            say("rebuilt: the listing, which differed from the events")
        say("rebuilt: the full-text index")
    if result.saved is not None:
        note(f"retold: {plural(result.events, 'event')} saved in {result.saved}; {log.path} was not changed")
    if result.damage:
        raise typer.Exit(1)
