"""Recover a log after a crash or disk error: close open runs, rebuild the projections, save the rest of a damaged file."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..recorder.errors import InputError
from ..recorder.log.log import EventLog
from ..recorder.log.sqlite.evidence import Evidence
from ..recorder.log.sqlite.questions import Cells
from ..recorder.log.sqlite.salvage import damage, salvage
from ..recorder.log.store import salvageable
from . import index

Progress = Callable[[int], None]


@dataclass
class Recovered:
    """The result of a recovery. `lost` are the (run, first, last) numbers of unreadable events; `saved` is the new file."""

    damage: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    relisted: bool = False
    events: int = 0
    lost: list[tuple[str, int, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    saved: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


def recover(log: EventLog, *, output: Path | None = None, progress: Progress = lambda _: None) -> Recovered:
    """Recover a log in place, or a damaged log into the new file `output`, by default `LOG.recovered`.

    Raises LogError if there is no log, InputError if the new file exists.
    """
    result = Recovered(damage=damage(log.path))
    if not result.damage:
        with log:
            _make_again(log, result, progress)
        return result
    to = output or log.path.with_name(log.path.name + ".recovered")
    if to.exists():
        raise InputError(
            f"{log.path} is damaged, and {to} exists already; name another file for the readable events with -o FILE."
        )
    found = salvage(log.path, to, progress)
    result.events, result.lost, result.unread, result.saved = found.events, found.lost, found.unread, str(to)
    with EventLog(to) as saved:
        _make_again(saved, result, progress)
    return result


def _make_again(log: EventLog, result: Recovered, progress: Progress) -> None:
    before = _listing(log)
    open_runs = {info.run for info in log.runs() if info.status != "running" and info.ended_ns is None}
    salvageable(log.store).relist()
    after = _listing(log)
    result.relisted = [line for line in before if line[0] not in open_runs] != [
        line for line in after if line[0] not in open_runs
    ]
    result.closed = sorted(open_runs & {info.run for info in log.runs() if info.ended_ns is not None})
    index.reset(log)
    with index.opened(log, progress=progress):
        pass


def _listing(log: EventLog) -> list[Cells]:
    with Evidence(log) as evidence:
        return evidence.lines()
