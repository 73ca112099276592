"""Choose runs of a log by time, name, mode, status, model, tool, cost and failure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo, RunQuery
from .index import Index, RunFacts, opened

PAGE, MOST = 200, 20_000
"""Runs on the first page and on the longest."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The wanted runs. None does not choose. Times are nanoseconds since the epoch and compared with the beginning of the run.

    `name` is a pattern or a part of the name (RunQuery.like). With `failed`, the run or one of its exchanges failed. `facts`
    chooses nothing: it asks for models, tools and cost of each run.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    name: str | None = None
    mode: str | None = None
    status: str | None = None
    model: str | None = None
    tool: str | None = None
    min_cost: float | None = None
    failed: bool = False
    facts: bool = False

    @property
    def query(self) -> RunQuery:
        """The part that the listing answers."""
        return RunQuery(
            like=self.name, mode=self.mode, status=self.status, since_ns=self.since_ns, until_ns=self.until_ns
        )  # fmt: skip

    @property
    def asks_for_facts(self) -> bool:
        """Whether runs without facts in the index do not fit."""
        return not (self.model is None and self.tool is None and self.min_cost is None)

    @property
    def needs_index(self) -> bool:
        """Whether the listing alone is not enough."""
        return self.failed or self.facts or self.asks_for_facts


@dataclass(frozen=True, slots=True)
class Found:
    """A run, with its facts if the index was asked and holds them."""

    info: RunInfo
    facts: RunFacts | None = None

    @property
    def cost_usd(self) -> float | None:
        """The cost; None if it is unknown."""
        return None if self.facts is None else self.facts.cost_usd


def chosen_runs(
    log: EventLog, wanted: Chosen, *, limit: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> list[Found]:
    """Return the newest runs that fit, newest first. Raises LogError."""
    if not wanted.needs_index:
        return [Found(info) for info in log.runs(wanted.query, limit=limit)]
    with opened(log, progress=progress) as index:
        return list(islice(_with_facts(log, index, wanted), limit))


def _with_facts(log: EventLog, index: Index, wanted: Chosen) -> Iterator[Found]:
    """Yield the runs that fit, page by page. Each page is longer than the one before, because few runs may fit."""
    skip, size = 0, PAGE
    while page := log.runs(wanted.query, limit=size, skip=skip):
        facts = index.facts(
            [info.run for info in page], model=wanted.model, tool=wanted.tool, min_cost=wanted.min_cost
        )  # fmt: skip
        for info in page:
            own = facts.get(info.run)
            if own is None and wanted.asks_for_facts:
                continue
            if wanted.failed and info.status != "failed" and not (own and own.errors):
                continue
            yield Found(info, own)
        if len(page) < size:
            return
        skip, size = skip + len(page), min(2 * size, MOST)
