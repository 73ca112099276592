"""retold show: show a run of the log through a handler, or its raw events."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Handlers, Json, RunArgument, print_json_lines, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..recorder.events import Event
    from ..recorder.log.log import EventLog


def show(
    run: RunArgument,
    handler: Handlers = None,
    step: Annotated[str | None, typer.Option("--step", metavar="NAME", help="Only messages and events of this step.")] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="Only messages of this type: assistant, system:init; with --raw, this kind."),
    ] = None,
    first: Annotated[int, typer.Option("--from", min=0, metavar="SEQ", help="The first event.")] = 0,
    last: Annotated[int | None, typer.Option("--to", min=0, metavar="SEQ", help="The last event.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Print every event with header and payload, unchanged.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Show texts as their pieces came: --handler console:partial=true.")
    ] = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Show a run from the log: the prompts, the messages, and what the tools were asked; or through the handler that you name.

    Example: retold show last --step review --type assistant
    """
    from ..handlers import make_handler, read_stream
    from ..handlers.jsonl import as_json
    from ..recorder.errors import InputError
    from ..recorder.interrupted import events_of, why_unended
    from ..recorder.log.log import EventLog
    from ..recorder.messages import Message
    from .others import others_in, tell_of
    from .viewing import viewed

    if raw and handler:
        raise InputError("--raw shows the events as they are; leave out --handler.")
    if partial and (raw or json or handler):
        raise InputError("--partial is the handler console:partial=true; leave out --handler, --raw and --json.")
    handler = ["console:partial=true"] if partial else handler
    specs = viewed(handler, shown=type_ is None)
    log = EventLog(db)
    found = log.find(run)

    _check(log, found.run, step, None if raw else type_)

    def chosen(events: "Iterable[Event]") -> "Iterator[Event]":
        for event in events:
            outside = event.seq < first or (last is not None and event.seq > last) or (step is not None and event.step != step)
            if event.kind in ("run.started", "run.ended") and not raw:
                yield event  # a handler needs the beginning and the end of the stream
            elif not outside and (type_ is None or _is(event, type_, raw=raw)):
                yield event

    if raw:
        _print_raw(chosen(log.events(found.run)), json=json)
    elif json:
        events = chosen(events_of(log, found.run, ("message", "run.ended")))
        print_json_lines(as_json(Message.of(event)) for event in events if event.kind == "message")
    else:
        others = others_in(log, found.run, "--raw shows them") if step is None and type_ is None else []
        for name, options in tell_of(others, specs, empty=not found.messages):
            each = make_handler(name, options, sys.stdout)
            read_stream(chosen(events_of(log, found.run, each.kinds)), each, lambda: why_unended(log, found.run))


def _check(log: "EventLog", run: str, step: str | None, type_: str | None) -> None:
    """Raise InputError if the run has no such step or type of message: an empty output would hide the mistake."""
    from ..recorder.errors import InputError
    from ..recorder.words import nearest, sentence

    if step is not None:
        told = log.events(run, kinds=("step.started", "exchange.started", "message"))
        steps = list(dict.fromkeys(event.step for event in told if event.step))
        if step not in steps:
            raise InputError(sentence(f"no step {step!r} in the run{nearest(step, steps) if steps else ', which has none'}"))
    if type_ is not None:
        types = {str(event.data.get("type")): None for event in log.events(run, kinds=("message",))}
        if type_.partition(":")[0] not in types:
            raise InputError(sentence(f"no message of type {type_!r} in the run{nearest(type_, list(types))}"))


def _is(event: "Event", wanted: str, *, raw: bool) -> bool:
    if raw or event.kind != "message":
        return not raw or event.kind == wanted
    type_, _, subtype = wanted.partition(":")
    return event.data.get("type") == type_ and subtype in ("", event.data.get("subtype"))


def _print_raw(events: "Iterable[Event]", *, json: bool) -> None:
    """Print one line per event as `retold export --format jsonl` does, or its header and its indented payload."""
    from ..recorder.event_lines import values_of
    from ..recorder.words import indent, one_line

    if json:
        print_json_lines(map(values_of, events))
        return
    for e in events:
        where = {"step": e.step, "task": e.task, "exchange": e.exchange}
        place = "".join(f"  {name}={value}" for name, value in where.items() if value not in ("", None))
        say(one_line(f"#{e.seq}  +{e.t_ns / 1e6:.3f}ms  {e.kind}{place}  {len(e.payload)} bytes"))
        say("    " + indent(e.payload.decode("utf-8", "backslashreplace").replace("\r\n", "\n").rstrip("\n"), 4))
