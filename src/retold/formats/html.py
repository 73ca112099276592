"""Export a run as a page for a browser: one HTML file that loads nothing else."""

from collections.abc import Sequence
from typing import BinaryIO

from ..pages.run_page import run_page
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the page of one run."""
    (run,) = runs
    out.write(run_page(log, run).encode())
    return run.messages
