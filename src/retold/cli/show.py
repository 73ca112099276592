"""retold show: a run from the log, as its handler would have shown it."""

import sys

from .common import Db, Handlers, Json, RunArgument, handler_specs, print_json_lines


def show(run: RunArgument, handler: Handlers = None, json: Json = False, db: Db = None) -> None:
    """Show the messages of a run from the log, through a handler (simple unless you name one).

    Example: retold show last --handler debug
    """
    from ..handlers import make_handler, read_stream
    from ..handlers.jsonl import as_json
    from ..recorder.log import EventLog
    from ..recorder.messages import Message
    from ..recorder.partial import events_of

    handlers = [make_handler(name, options, sys.stdout) for name, options in handler_specs(handler or ["simple"])]
    log = EventLog(db)
    found = log.find(run)
    if json:
        events = events_of(log, found.run, ("message", "run.ended"))
        print_json_lines(as_json(Message.of(event)) for event in events if event.kind == "message")
        return
    for each in handlers:
        read_stream(events_of(log, found.run, each.kinds), each)
