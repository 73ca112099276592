"""The point of a run, and the three ways to name it: `TURN`, `STEP.TURN` and `seq:N`.

| name | the shared part of the run ends |
|---|---|
| `2` | before the request of turn 2 |
| `greet.2` | before the request of turn 2 of the step `greet` |
| `sum/a.1` | before the request of turn 1 of the task `a` of the step `sum` |
| `seq:153` | with event 153; if it belongs to an answer that goes on after it, that answer is cut there |

A turn is a call of the Messages API, in the order in which the calls began; retries of a call are the same turn. `TURN` counts
the calls of the whole run, `STEP.TURN` those of a step or task.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..recorder.errors import InputError
from ..recorder.events import Event
from ..recorder.http.exchange import from_text
from ..recorder.http.platforms import messages_request
from ..recorder.log.reading import LogReader
from ..recorder.log.runs import RunInfo
from ..recorder.words import closest, plural
from ..replay.matching.rules import path

_SEQ = re.compile(r"seq:(\d{1,18})")
_TURN = re.compile(r"(?:(.+)\.)?(\d{1,9})", re.DOTALL)
_LISTED = 8
"""The most turns that an error lists."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A call of the Messages API: its number in its step or task, and the number of the event that began it."""

    number: int
    step: str
    task: str
    seq: int

    @property
    def unit(self) -> str:
        """The step, or `STEP/TASK`; empty outside of a workflow."""
        return f"{self.step}/{self.task}" if self.task else self.step


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a run: the number of the last event before it, and its name as a user gave it.

    `cut` is the exchange of the answer that the point cuts, by the number of its first event. `after` is the first exchange
    that began after the point, None if there is none.
    """

    text: str
    seq: int
    cut: int | None = None
    after: int | None = None


def point_of(log: LogReader, run: RunInfo, text: str) -> Point:
    """Return the point of a run that a text names. Raise InputError if the run has no such point, and LogError."""
    with log.reading() as held:
        started = list(held.events(run.run, kinds=("exchange.started",)))
        if (found := _SEQ.fullmatch(text)) is not None:
            return _at_event(held, run, text, int(found[1]), started)
    turns = turns_in(started)
    if (named := _TURN.fullmatch(text)) is None:
        raise InputError(f"{text!r} names no point of a run: give TURN (2), STEP.TURN (greet.2) or seq:N (seq:153).")
    unit, number = named[1], int(named[2])
    own = turns if unit is None else [turn for turn in turns if unit in (turn.unit, turn.step)]
    if not 1 <= number <= len(own):
        raise InputError(f"{_title(run)} has no turn {text}: {_known(turns, unit)}.")
    seq = own[number - 1].seq
    return Point(text, seq - 1, after=seq)


def turns_in(started: Iterable[Event]) -> list[Turn]:
    """Return the turns of a run, from the first events of its exchanges."""
    found: list[Turn] = []
    counts: dict[tuple[str, str], int] = {}
    for event in started:
        data = event.data
        if data["attempt"] > 1 or data["method"].upper() != "POST" or not _asks_for_message(data):
            continue
        unit = event.step, event.task
        counts[unit] = counts.get(unit, 0) + 1
        found.append(Turn(counts[unit], *unit, event.seq))
    return found


def _asks_for_message(data: dict[str, object]) -> bool:
    uri, body = str(data["uri"]), data["body"]
    whole = messages_request(uri, from_text(body)) if isinstance(body, str | dict) else None
    return (path(uri) if whole is None else whole.path).endswith("/messages")


def _at_event(log: LogReader, run: RunInfo, text: str, seq: int, started: Sequence[Event]) -> Point:
    event = next(iter(log.events(run.run, after=seq - 1, until=seq)), None)
    if event is None:
        last = next(iter(log.store.read(run.run, newest_first=True, limit=1)), None)
        raise InputError(f"{_title(run)} has no event {seq}: its events are 0 to {-1 if last is None else last.seq}.")
    if event.kind == "exchange.started":  # the request itself is the first thing after the point
        seq -= 1
    after = next((each.seq for each in started if each.seq > seq), None)
    goes_on = event.exchange is not None and event.exchange <= seq and _goes_on(log, run.run, event.exchange, seq)
    return Point(text, seq, cut=event.exchange if goes_on else None, after=after)


def _goes_on(log: LogReader, run: str, exchange: int, seq: int) -> bool:
    """Return whether the answer of an exchange has a further piece after an event."""
    return bool(log.store.read(run, after=seq, exchange=exchange, kinds=("frame", "chunk"), limit=1))


def _known(turns: Sequence[Turn], unit: str | None) -> str:
    units = list(dict.fromkeys(turn.unit for turn in turns))
    if unit is not None and not any(unit in (turn.unit, turn.step) for turn in turns):
        like = closest(unit, units)
        names = ", ".join(filter(None, units)) or "none, because it is no run of a workflow"
        return f"its steps with turns are {names}" if like is None else f"did you mean {like}"
    own = [turn for turn in turns if unit is None or unit in (turn.unit, turn.step)]
    named = "" if unit is None else f"{unit}."
    listed = ", ".join(f"{named}{number} (event {turn.seq})" for number, turn in enumerate(own[:_LISTED], 1))
    more = ", …" if len(own) > _LISTED else ""
    return f"{unit or 'it'} has {plural(len(own), 'turn')}: {listed}{more}" if own else "it has no turns"


def _title(run: RunInfo) -> str:
    return f"run {run.run[:8]} ({run.name})"
