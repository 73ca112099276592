"""Export a run as a cassette, exchange by exchange, with its sessions of the Agent SDK. vcrpy replays the exchanges too."""

import io
from collections.abc import Sequence
from typing import BinaryIO

from ..recorder.cassette.format import to_yaml
from ..recorder.cassette.sessions import each_session
from ..recorder.cassette.transfer import each_exchange, kept_in
from ..recorder.errors import InputError
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the exchanges and sessions of one run as YAML, and return their number. Raises InputError if it has none."""
    (run,) = runs
    check(log, run)
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        sessions = list(each_session(log, run.run))
        return to_yaml(each_exchange(log, run.run), text, sessions, kept_in(log, run.run)) + len(sessions)
    finally:
        text.flush()
        text.detach()


def check(log: EventLog, run: RunInfo) -> None:
    """Raise InputError if a run has no exchanges and no sessions."""
    if is_empty(log, run):
        raise InputError(f"run {run.run} ({run.name}) has no exchanges to export.")


def is_empty(log: EventLog, run: RunInfo) -> bool:
    """Return whether a run has neither exchanges nor sessions."""
    return next(log.events(run.run, kinds=("exchange.started", "session.started")), None) is None
