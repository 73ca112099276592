"""retold play: watch a recording at its original pace."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Handlers, IdleLimit, SpeedOption, timing_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..recorder.events import Event
    from ..recorder.log.log import EventLog
    from ..replay.timing.timing import Timing
    from .viewing import Specs

    Kinds = tuple[str, ...]


def play(
    recording: Annotated[
        str, typer.Argument(metavar="RUN|CASSETTE", help="A run in the log, or a cassette: a file, - or REV:path.")
    ],
    timing: Annotated[
        str | None,
        typer.Option("--timing", metavar="T", help="instant, original, or a factor such as 2x.", show_default="original"),
    ] = None,
    speed: SpeedOption = None,
    idle_limit: IdleLimit = None,
    handler: Handlers = None,
    db: Db = None,
) -> None:
    """Watch a run of the log or a cassette, at its original pace unless you set another one.

    On a terminal the text is typed as it streamed. Space pauses, `.` shows the next piece, the arrows go back and on by 5 s,
    + and - change the speed, ? lists the keys, and q quits.

    Example: retold play cassettes/clean_streaming_numbers.yaml -s 2 -i 2
    """
    from ..recorder.cassette.format import names_file
    from ..replay.timing.timing import Timing
    from .viewing import viewed

    pace = Timing.parse(timing_of(timing, speed, "original"), idle_limit)
    on_terminal = sys.stdout.isatty()
    specs = viewed(handler, shown=on_terminal, types=on_terminal and not pace.is_instant)
    if names_file(recording):
        _play_file(recording, specs, pace)
    else:
        _play_run(recording, specs, pace, db)


@dataclass(frozen=True)
class _Recording:
    """A recording to watch. `events` returns those of some kinds, from the beginning; `why_unended` the reason if it has no end.

    `length_ns` is the time of the last event, None if it is not known yet.
    """

    events: "Callable[[Kinds], Iterable[Event]]"
    why_unended: "Callable[[], str]"
    length_ns: int | None = None


def _play_run(ref: str, specs: "Specs", pace: "Timing", db: Db) -> None:
    from ..recorder.interrupted import events_of, why_unended
    from ..recorder.log.log import EventLog
    from .others import others_in, tell_of

    log = EventLog(db)
    info = log.find(ref)
    run, last = info.run, log.last(info.run)
    others = others_in(log, run, f"retold show {run} --raw shows them")
    specs = tell_of(others, specs, empty=not info.messages)
    recording = _Recording(
        lambda kinds: events_of(log, run, kinds), lambda: why_unended(log, run), None if last is None else last.t_ns
    )
    _watch(recording, specs, pace)


def _play_file(path: str, specs: "Specs", pace: "Timing") -> None:
    """Play a cassette through a log in memory, because handlers read logs. Raise InputError if it holds nothing.

    A long cassette that begins with a call of Claude is played while it is read. Then notes on other hosts come at the end, and
    damage inside of an interaction is an error when its turn comes.
    """
    from ..recorder.cassette.folding import in_order
    from ..recorder.cassette.named import read_named, stem_of
    from ..recorder.cassette.transfer import importing
    from ..recorder.errors import InputError
    from ..recorder.interrupted import DIED
    from ..recorder.log.log import EventLog
    from ..recorder.log.memory import MemoryStore
    from .others import is_claude, others_in, tell_of

    found = read_named(path, lazy=True)
    if found.is_empty:
        raise InputError(f"{path} holds no interactions; there is nothing to play.")
    with EventLog(store=MemoryStore()) as copy:
        coming = importing(copy, in_order(found.exchanges, found.sessions), name=stem_of(path), source=path)
        recording = _Recording(lambda kinds: _while_imported(copy, coming, kinds), lambda: f"interrupted: {DIED}")
        is_lazy = not isinstance(found.exchanges, tuple) and is_claude(found.exchanges[0].request.uri)
        if is_lazy and not _watch(recording, specs, pace):
            return
        for _ in coming:
            pass
        (info,) = copy.runs()
        others = others_in(copy, info.run, "after retold import, retold show last --raw shows them")
        specs = tell_of(others, specs, empty=not info.messages)
        if not is_lazy:
            last = copy.last(info.run)
            _watch(replace(recording, length_ns=None if last is None else last.t_ns), specs, pace)


def _while_imported(log: "EventLog", coming: Iterator[str], kinds: "Kinds") -> Iterator["Event"]:
    """Yield the events of the run that a log imports, and import more of it if there are no more."""
    after = -1
    while True:
        for info in log.runs():
            for event in log.events(info.run, after=after):
                after = event.seq
                if event.kind in kinds:
                    yield event
        if next(coming, None) is None:
            return


def _watch(recording: _Recording, specs: "Specs", pace: "Timing") -> bool:
    """Show a recording at its pace, with keys if a person can press some. Return False if the person quit."""
    from .keyboard import can_take_keys
    from .viewing import kinds_of, readers

    shown = readers(specs)
    if not shown:
        return True
    kinds = kinds_of(shown)
    if pace.speed is not None and can_take_keys():
        from ..replay.timing.viewer import Viewer
        from .watch import Theatre

        viewer = Viewer(speed=pace.speed, idle_limit_ns=pace.idle_limit_ns)
        with Theatre(viewer, sys.stdout, recording.length_ns).opened() as watch:
            watch.play(lambda: recording.events(kinds), lambda out: readers(specs, out), why=recording.why_unended)
        return not viewer.has_quit
    from .viewing import break_off, closing, feed

    with closing(shown):
        for event in _paced(recording.events(kinds), pace):
            feed(event, shown)
        break_off(shown, recording.why_unended)
    return True


def _paced(events: "Iterable[Event]", pace: "Timing") -> Iterator["Event"]:
    """Yield the events of a run, each at its due time. Their times never go back."""
    from ..recorder import clock
    from ..replay.timing.viewer import Viewer

    if pace.speed is None:
        yield from events
        return
    viewer = Viewer(speed=pace.speed, idle_limit_ns=pace.idle_limit_ns)
    for number, event in enumerate(events):
        if not number:
            viewer.start(event.t_ns, clock.monotonic_ns())
        viewer.comes(event.t_ns, clock.monotonic_ns())
        while wait_ns := viewer.wait_ns(event.t_ns, clock.monotonic_ns()):
            clock.sleep(wait_ns / 1e9)
        yield event
