"""Choose runs of a log by time, name, mode, status, model, tool, cost and failure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..recorder.errors import LogError
from ..recorder.http.call_errors import outcome
from ..recorder.log.log import EventLog
from ..recorder.log.origin import Origin, origin_of
from ..recorder.log.runs import RunInfo, RunQuery
from .index import Index, RunFacts, opened


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
    without_mode: str | None = None
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
            like=self.name, mode=self.mode, without_mode=self.without_mode, status=self.status, since_ns=self.since_ns,
            until_ns=self.until_ns,
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
    """A run, with its facts if the index was asked and holds them.

    `source` is the log that records a received run, and `origin` the parent of a fork.
    """

    info: RunInfo
    facts: RunFacts | None = None
    source: str | None = None
    origin: Origin | None = None

    @property
    def cost_usd(self) -> float | None:
        """The cost; None if it is unknown."""
        return None if self.facts is None else self.facts.cost_usd

    @property
    def outcome(self) -> str:
        """The status with the failed calls: `completed, 2 of 3 calls failed`."""
        return self.info.status if self.facts is None else outcome(self.info.status, self.facts.calls, self.facts.failed)


def chosen_runs(
    log: EventLog, wanted: Chosen, *, limit: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> list[Found]:
    """Return the newest runs that fit, newest first. Raises LogError."""
    if not wanted.needs_index:
        return _with_sources(log, log.runs(wanted.query, limit=limit), {})
    with opened(log, progress=progress) as index:
        infos = log.runs(replace(wanted.query, among=_among(log, index, wanted)), limit=limit)
        facts = index.facts([info.run for info in infos])
    return _with_sources(log, infos, facts)


def listed_runs(
    log: EventLog, wanted: Chosen, *, limit: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> tuple[list[Found], str | None]:
    """Return the newest runs that fit, with their facts. If no index can be made, return them without facts, and the reason.

    Raises LogError if the log itself is the problem, or if the index has to choose.
    """
    try:
        return chosen_runs(log, replace(wanted, facts=True), limit=limit, progress=progress), None
    except LogError as problem:
        if wanted.failed or wanted.asks_for_facts:
            raise
        return chosen_runs(log, replace(wanted, facts=False), limit=limit), str(problem)


def ids_of(log: EventLog, index: Index, wanted: Chosen) -> frozenset[str]:
    """Return the ids of all runs that fit, by an open index. Raises LogError."""
    return frozenset(info.run for info in log.runs(replace(wanted.query, among=_among(log, index, wanted))))


def _with_sources(log: EventLog, infos: Sequence[RunInfo], facts: Mapping[str, RunFacts]) -> list[Found]:
    if not infos:
        return []
    with log.reading() as held:
        return [Found(info, facts.get(info.run), held.store.source_of(info.run), origin_of(held, info.run)) for info in infos]


def as_tree(runs: Sequence[Found]) -> list[tuple[int, Found]]:
    """Return the runs with their depths: each fork follows its parent, if that is listed, and the other forks of it.

    Runs of one depth keep their order.
    """
    listed = {found.info.run for found in runs}
    forks: dict[str, list[Found]] = {}
    for found in runs:
        parent = "" if found.origin is None or found.origin.parent not in listed else found.origin.parent
        forks.setdefault(parent, []).append(found)
    tree: list[tuple[int, Found]] = []
    waiting = [(0, found) for found in reversed(forks.get("", []))]
    while waiting:
        depth, found = waiting.pop()
        tree.append((depth, found))
        waiting += [(depth + 1, fork) for fork in reversed(forks.get(found.info.run, []))]
    return tree


def _among(log: EventLog, index: Index, wanted: Chosen) -> frozenset[str] | None:
    """Return the runs that the index chooses; None if it does not choose."""
    if not wanted.failed and not wanted.asks_for_facts:
        return None
    with_facts = partial(index.runs_with, model=wanted.model, tool=wanted.tool, min_cost=wanted.min_cost)
    if not wanted.failed:
        return with_facts()
    # The listing has the runs that failed, the index those with a failed exchange.
    failed = frozenset(info.run for info in log.runs(replace(wanted.query, status="failed")))
    return with_facts(min_errors=1) | (failed & with_facts() if wanted.asks_for_facts else failed)
