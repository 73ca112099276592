"""The runs of a log, chosen by when, what, which model or tool, cost and failure."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from ..recorder.log.log import EventLog
from ..recorder.log.runs import Listing, RunInfo
from .index import opened

PAGE = 200


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which runs are wanted; times are nanoseconds since the epoch, when the run began. None does not choose.

    `name` is a pattern where it has `*` or `?`, and otherwise looked for anywhere in the name. `failed`: a run or an exchange in
    it that failed. `facts` chooses nothing: it asks for models, tools and cost of each.
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
    def needs_index(self) -> bool:
        """Whether the listing alone cannot tell."""
        return self.failed or self.facts or any(each is not None for each in (self.model, self.tool, self.min_cost))


@dataclass(frozen=True, slots=True)
class Found:
    """A run with what the index knows of it, where the index was asked; a cost of None is not known."""

    info: RunInfo
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    cost_usd: float | None = None
    facts: bool = False


def chosen_runs(
    log: EventLog, wanted: Chosen, *, limit: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> list[Found]:
    """The newest runs that are wanted, newest first. Raises LogError."""
    if not wanted.needs_index:
        with closing(log.reader()) as connection:
            return [Found(info) for info in _selected(log.listing(connection), wanted, limit)]
    with opened(log, progress=progress) as connection:
        return [_with_facts(connection, info) for info in _selected(log.listing(connection), wanted, limit)]


def _selected(listing: Listing, wanted: Chosen, limit: int | None) -> Iterator[RunInfo]:
    where, values = _where(wanted)
    skip = found = 0
    while page := listing.select(where, values, limit=PAGE, skip=skip):
        for info in page:
            # The status of a run without a last event is in its lock file.
            if wanted.status is None or info.status == wanted.status:
                yield info
                found += 1
                if found == limit:
                    return
        skip += len(page)


def _where(wanted: Chosen) -> tuple[str, list[object]]:
    terms: list[tuple[str, object]] = []
    if wanted.since_ns is not None:
        terms.append(("started_ns >= ?", wanted.since_ns))
    if wanted.until_ns is not None:
        terms.append(("started_ns < ?", wanted.until_ns))
    if wanted.name is not None:
        pattern = any(each in wanted.name for each in "*?[")
        terms.append(("name GLOB ?" if pattern else "instr(lower(name), lower(?))", wanted.name))
    if wanted.mode is not None:
        terms.append(("mode = ?", wanted.mode))
    if wanted.status is not None:
        terms.append(("status IN ('running', ?)", wanted.status))
    facts = "EXISTS (SELECT 1 FROM run_facts f{} WHERE f.run = runs.run AND {})"
    for dimension in ("model", "tool"):
        value = getattr(wanted, dimension)
        if value is not None:
            each = f", json_each(f.keys, '$.{dimension}') k"
            terms.append((facts.format(each, "k.value GLOB ?" if "*" in value else "k.value = ?"), value))
    if wanted.min_cost is not None:
        terms.append((facts.format("", "f.cost_usd >= ?"), wanted.min_cost))
    if wanted.failed:
        terms.append(("(status = 'failed' OR " + facts.format("", "f.errors >= ?") + ")", 1))
    return " AND ".join(term for term, _ in terms) or "1", [value for _, value in terms]


def _with_facts(connection: sqlite3.Connection, info: RunInfo) -> Found:
    row = connection.execute("SELECT cost_usd, keys FROM run_facts WHERE run = ?", (info.run,)).fetchone()
    if row is None:
        return Found(info)
    keys = json.loads(row[1])
    return Found(info, tuple(keys.get("model", ())), tuple(keys.get("tool", ())), row[0], facts=True)
