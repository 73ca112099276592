"""retold play: watch a recording at its original pace."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Handlers, IdleLimit, TimingOption, handler_specs

if TYPE_CHECKING:
    from ..handlers.base import Handler
    from ..recorder.events import Event
    from ..recorder.log.log import EventLog
    from ..replay.timing.timing import Timing


def play(
    recording: Annotated[str, typer.Argument(metavar="RUN|CASSETTE", help="A run in the log, or a cassette file.")],
    timing: TimingOption = "original",
    idle_limit: IdleLimit = None,
    handler: Handlers = None,
    db: Db = None,
) -> None:
    """Watch a run of the log or a cassette, at its original pace unless you set --timing.

    Example: retold play cassettes/clean_streaming_numbers.yaml --timing 2x

    To see it word by word: retold play last --handler console:partial=true
    """
    from ..handlers import make_handler, read_stream
    from ..recorder.cassette.format import names_file
    from ..recorder.interrupted import events_of, why_unended
    from ..recorder.log.log import EventLog
    from ..replay.timing.timing import Timing
    from .others import others_in, tell_of

    pace = Timing.parse(timing, idle_limit)
    handlers = [make_handler(name, options, sys.stdout) for name, options in handler_specs(handler or ["simple"])]
    if names_file(recording):
        _play_file(recording, handlers, pace)
        return
    log = EventLog(db)
    info = log.find(recording)
    run = info.run
    others = others_in(log, run, f"retold show {run} --raw shows them")
    for each in tell_of(others, handlers, empty=not info.messages):
        read_stream(_paced(events_of(log, run, each.kinds), pace), each, lambda: why_unended(log, run))


def _play_file(path: str, handlers: "list[Handler]", pace: "Timing") -> None:
    """Play a cassette through a log in memory, because handlers read logs. Raise InputError if it holds nothing.

    A long cassette that begins with a call of Claude is played while it is read. Then notes on other hosts come at the end, and
    damage inside of an interaction is an error when its turn comes.
    """
    from ..handlers import read_stream
    from ..recorder.cassette.format import read_cassette
    from ..recorder.cassette.transfer import importing, in_order
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog
    from ..recorder.log.memory import MemoryStore
    from .others import is_claude, others_in, tell_of

    found = read_cassette(path, lazy=True)
    if found.is_empty:
        raise InputError(f"{path} holds no interactions; there is nothing to play.")
    with EventLog(store=MemoryStore()) as copy:
        coming = importing(copy, in_order(found.exchanges, found.sessions), name=found.path.stem, source=path)
        if not isinstance(found.exchanges, tuple) and is_claude(found.exchanges[0].request.uri):
            first, *handlers = handlers
            read_stream(_paced(_while_imported(copy, coming, first.kinds), pace), first)
        for _ in coming:
            pass
        (info,) = copy.runs()
        others = others_in(copy, info.run, "after retold import, retold show last --raw shows them")
        for each in tell_of(others, handlers, empty=not info.messages):
            read_stream(_paced(copy.events(info.run, kinds=each.kinds), pace), each)


def _while_imported(log: "EventLog", coming: Iterator[str], kinds: tuple[str, ...]) -> Iterator["Event"]:
    """Yield the events of a run as soon as they are imported."""
    after = -1
    for run in coming:
        for event in log.events(run, after=after):
            after = event.seq
            if event.kind in kinds:
                yield event


def _paced(events: "Iterable[Event]", timing: "Timing") -> Iterator["Event"]:
    """Yield the events of a run, each at its due time. Their times never go back."""
    from ..recorder import clock
    from ..replay.timing.player import wait_until

    began_ns, before_ns, due_ns = clock.monotonic_ns(), None, 0.0
    for event in events:
        if before_ns is not None and timing.speed is not None:
            gap_ns = event.t_ns - before_ns
            due_ns += (gap_ns if timing.idle_limit_ns is None else min(gap_ns, timing.idle_limit_ns)) / timing.speed
            wait_until(began_ns + round(due_ns))
        before_ns = event.t_ns
        yield event
