"""Export a run as a cassette, exchange by exchange. vcrpy replays it too."""

import io
from collections.abc import Sequence
from typing import BinaryIO

from ..recorder.cassette.format import to_yaml
from ..recorder.cassette.transfer import each_exchange
from ..recorder.errors import InputError
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the exchanges of one run as YAML. Raises InputError if it has none."""
    (run,) = runs
    check(log, run)
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        return to_yaml(each_exchange(log, run.run), text)
    finally:
        text.flush()
        text.detach()


def check(log: EventLog, run: RunInfo) -> None:
    """Raise InputError if a run has no exchanges."""
    if next(log.events(run.run, kinds=("exchange.started",)), None) is None:
        raise InputError(f"run {run.run} ({run.name}) has no exchanges to export.")
