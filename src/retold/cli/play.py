"""retold play: watch a recording at its original pace."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Handlers, IdleLimit, TimingOption, handler_specs

if TYPE_CHECKING:
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
    from ..recorder.cassette.format import names_file, read_cassette
    from ..recorder.cassette.transfer import import_exchanges
    from ..recorder.errors import InputError
    from ..recorder.interrupted import why_unended
    from ..recorder.log.log import EventLog
    from ..recorder.log.memory import MemoryStore
    from ..replay.timing.timing import Timing
    from .others import others_in, tell_of

    pace = Timing.parse(timing, idle_limit)
    handlers = [make_handler(name, options, sys.stdout) for name, options in handler_specs(handler or ["simple"])]
    if names_file(recording):
        # Handlers read logs, so a cassette is imported into a log in memory first.
        with EventLog(store=MemoryStore()) as copy:
            found = read_cassette(recording)
            if not found.exchanges:
                raise InputError(f"{recording} holds no interactions; there is nothing to play.")
            run = import_exchanges(copy, found.exchanges, name=found.path.stem, source=recording)
            others = others_in(copy, run, "after retold import, retold show last --raw shows them")
            for each in tell_of(others, handlers, empty=not copy.find(run).messages):
                read_stream(_paced(copy, run, pace, each.kinds), each)
        return
    log = EventLog(db)
    info = log.find(recording)
    run = info.run
    others = others_in(log, run, f"retold show {run} --raw shows them")
    for each in tell_of(others, handlers, empty=not info.messages):
        read_stream(_paced(log, run, pace, each.kinds), each, lambda: why_unended(log, run))


def _paced(log: "EventLog", run: str, timing: "Timing", kinds: tuple[str, ...]) -> Iterator["Event"]:
    """Yield the events of a run, each at its due time."""
    from ..recorder import clock
    from ..recorder.interrupted import events_of
    from ..replay.timing.player import wait_until
    from ..replay.timing.timing import Timeline

    timeline = Timeline((event.t_ns for event in events_of(log, run, kinds)), timing)
    began_ns = clock.monotonic_ns()
    for event in events_of(log, run, kinds):
        wait_until(began_ns + timeline.at(event.t_ns))
        yield event
