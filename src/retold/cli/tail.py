"""retold tail: follow a run in progress."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Handlers, Json, note, print_json_lines

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog
    from .viewing import Specs


def tail(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="An id, prefix, name, last, or last~N.", show_default="running, or last")
    ] = None,
    handler: Handlers = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Follow a run from its beginning until it ends, also from another terminal.

    On a terminal the text is typed as it comes. Space pauses, `.` shows the next piece, ? lists the keys, and q quits.

    Example: retold tail --handler console
    """
    from ..handlers.jsonl import as_json
    from ..recorder.interrupted import why_unended
    from ..recorder.log.log import EventLog
    from ..recorder.messages import Message
    from .keyboard import can_take_keys
    from .viewing import break_off, closing, feed, kinds_of, readers, viewed

    on_terminal = sys.stdout.isatty()
    specs = viewed(handler, shown=on_terminal, types=on_terminal)
    log = EventLog(db)
    running = next((r for r in log.runs(limit=50) if r.status == "running"), None) if run is None else None
    found = running or log.find(run or "last")
    if json:
        print_json_lines(as_json(Message.of(event)) for event in log.follow(found.run, kinds=("message",)))
        return
    if found.status == "running":
        note(f"retold: following {found.run[:8]} ({found.name}); Ctrl-C to leave")
        if can_take_keys():
            _follow(log, found.run, specs)
            return
    shown = readers(specs)
    kinds = kinds_of(shown)
    with closing(shown):
        for event in log.follow(found.run, kinds=kinds):
            feed(event, shown)
        break_off(shown, lambda: why_unended(log, found.run))


def _follow(log: "EventLog", run: str, specs: "Specs") -> None:
    """Follow a run on a terminal with keys."""
    from ..recorder.interrupted import why_unended
    from ..replay.timing.viewer import Viewer
    from .viewing import break_off, closing, kinds_of, readers
    from .watch import FOLLOWING, Theatre

    viewer = Viewer(speed=None, keys=FOLLOWING)
    with Theatre(viewer, sys.stdout).opened() as watch:
        shown = readers(specs, watch.out)
        with closing(shown):
            watch.follow(log.follow(run, kinds=kinds_of(shown)), shown)
            if not viewer.has_quit:
                break_off(shown, lambda: why_unended(log, run))
