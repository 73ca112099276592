"""A run as a cassette, which vcrpy replays too. The exchanges of one run are held in memory, one run at a time."""

import io
from collections.abc import Sequence
from typing import BinaryIO

from ..recorder.cassette import dump_cassette
from ..recorder.errors import InputError
from ..recorder.listing import RunInfo
from ..recorder.log import EventLog
from ..recorder.transfer import exchanges_of


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the exchanges of one run as YAML. Raises InputError where it has none."""
    (run,) = runs
    exchanges = exchanges_of(log, run.run)
    if not exchanges:
        raise InputError(f"run {run.run} ({run.name}) has no exchanges to export.")
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    dump_cassette(exchanges, text)
    text.detach()
    return len(exchanges)
