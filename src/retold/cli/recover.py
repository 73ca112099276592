"""retold recover: put a log in order after a crash, or save what can be read of a damaged one."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Db, Json, note, print_json, say


def recover(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to save what can be read.", show_default="LOG.recovered"),
    ] = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Close the runs that a crash left open, and make the listing and the full-text index again from the events.

    A damaged file is left as it is: what can be read of it goes into a new one, and what is lost is named. Exit code 1 then.

    Example: retold recover
    """
    from ..audit.recover import recover as put_in_order
    from ..handlers.text import plural
    from ..recorder.log import EventLog
    from .progress import progress

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
            say(f"closed: run {run}, which had no last event")
        if result.relisted:
            say("made again: the listing, which said otherwise than the events")
        say("made again: the full-text index")
    if result.saved is not None:
        note(f"retold: {plural(result.events, 'event')} saved in {result.saved}; {log.path} was left as it is")
    if result.damage:
        raise typer.Exit(1)
