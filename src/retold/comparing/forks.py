"""A fork as a side of a comparison: with its origin, so that a comparison with its parent begins at the fork."""

import sys
from dataclasses import replace

from ..recorder.log.origin import origin_of
from ..recorder.log.reading import LogReader
from .reading import Side


def as_fork(side: Side, log: LogReader, run: str) -> Side:
    """Return the side of a run of a log with the id of the run, and with the origin if the run is a fork. Raise LogError."""
    origin = origin_of(log, run)
    if origin is None:
        return replace(side, run=run)
    at = next(log.events(run)).data.get("at", "")
    exchanges = log.events(run, kinds=("exchange.started",))
    live_from = next((event.seq for event in exchanges if event.data["stamped"] != "replay"), sys.maxsize)
    title = f"{side.title}, forked from {origin.parent[:8]} at {at or f'event {origin.seq}'}"
    return replace(side, title=title, run=run, fork=(origin, live_from))
