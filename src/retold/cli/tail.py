"""retold tail: follow a run in progress."""

import sys
from typing import Annotated

import typer

from .common import Db, Handlers, Json, handler_specs, note, print_json_lines


def tail(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="An id, prefix, name, last, or last~N.", show_default="running, or last")
    ] = None,
    handler: Handlers = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Follow a run from its beginning until it ends, also from another terminal.

    Example: retold tail --handler console
    """
    from ..handlers import Reader, make_handler
    from ..handlers.base import READ_KINDS
    from ..handlers.jsonl import as_json
    from ..recorder.interrupted import why_unended
    from ..recorder.log.log import EventLog
    from ..recorder.messages import Message

    readers = [Reader(make_handler(name, options, sys.stdout)) for name, options in handler_specs(handler or ["simple"])]
    log = EventLog(db)
    running = next((r for r in log.runs(limit=50) if r.status == "running"), None) if run is None else None
    found = running or log.find(run or "last")
    if json:
        print_json_lines(as_json(Message.of(event)) for event in log.follow(found.run, kinds=("message",)))
        return
    if found.status == "running":
        note(f"retold: following {found.run[:8]} ({found.name}); Ctrl-C to leave")
    kinds = sorted({*READ_KINDS, *(kind for reader in readers for kind in reader.handler.kinds)})
    try:
        for event in log.follow(found.run, kinds=kinds):
            for reader in readers:
                if event.kind in reader.handler.kinds:
                    reader.event(event)
        for reader in filter(lambda reader: reader.is_open, readers):
            reader.broke_off(why_unended(log, found.run))
    finally:
        for reader in readers:
            reader.handler.close()
