"""The runs of a log as a listing shows them, the query that chooses among them, and how a person names one of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Literal, Protocol

from ..errors import InputError
from ..hints import not_a_run
from ..words import plural

COUNTED = {"messages": "message", "exchanges": "exchange.started", "frames": "frame"}
"""The numbers in the line of a run, each with the kind of event that it counts."""

Mode = Literal["live", "mock", "import", "audit"]
"""A run of mode `audit` records a change of the log itself: an erasure, a redaction, a removal."""

Status = Literal["running", "completed", "failed", "cancelled", "interrupted"]

MAX_SKIP = 2**62
"""The largest N of `last~N`: SQLite accepts no larger number."""

_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run as a listing shows it; times are nanoseconds since the epoch. Numbers of an open run are not yet counted."""

    run: str
    name: str
    mode: str
    status: str
    started_ns: int
    ended_ns: int | None
    messages: int
    exchanges: int
    frames: int
    error: str | None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are asked for; None does not choose.

    `among` are ids, and `prefix` is the beginning of an id. `like` is a pattern for the whole name if it has `*` (any text) or
    `?` (any character), and else a part of the name, in any case of its ASCII letters. Runs that began at `since_ns` or later
    and before `until_ns` (nanoseconds since the epoch) fit.
    """

    run: str | None = None
    among: frozenset[str] | None = None
    prefix: str | None = None
    name: str | None = None
    mode: str | None = None
    without_mode: str | None = None
    like: str | None = None
    status: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def fits(self, info: RunInfo) -> bool:
        """Return whether a run is one of those asked for."""
        return (
            self.run in (None, info.run)
            and (self.among is None or info.run in self.among)
            and info.run.startswith(self.prefix or "")
            and self.name in (None, info.name)
            and self.mode in (None, info.mode)
            and self.without_mode != info.mode
            and (self.like is None or _is_like(info.name, self.like))
            and self.status in (None, info.status)
            and (self.since_ns is None or info.started_ns >= self.since_ns)
            and (self.until_ns is None or info.started_ns < self.until_ns)
        )


EVERY_RUN = RunQuery()
"""The query that every run fits."""


def is_name_pattern(like: str) -> bool:
    """Return whether a text is a pattern for whole names instead of a part of a name."""
    return "*" in like or "?" in like


def _is_like(name: str, like: str) -> bool:
    """Compare a name as SQLite does: a pattern in its exact case, a part of the name in any case of ASCII letters."""
    if not is_name_pattern(like):
        return like.translate(_ASCII_LOWER) in name.translate(_ASCII_LOWER)
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(each) or re.escape(each) for each in like), name, re.DOTALL) is not None


class Runs(Protocol):
    """The method of a store or a listing that returns the runs of a query, newest first."""

    def __call__(self, query: RunQuery, /, *, limit: int | None = None, skip: int = 0) -> Sequence[RunInfo]: ...


def find_run(runs: Runs, path: object, ref: str) -> RunInfo:
    """Return the run that `ref` names: an id, a unique prefix of one, a name (its newest run), `last` or `last~N`.

    `last` leaves out runs of mode `audit`, which record a change of the log itself. Raises InputError if no run has that name.
    """
    if not runs(RunQuery(), limit=1):
        raise InputError(not_a_run(ref) or f"the log {path} holds no runs yet. Record or replay one first: retold run WORKFLOW.")
    if ref == "last" or ref.startswith("last~"):
        shown = RunQuery(without_mode="audit")
        back = ref.removeprefix("last").removeprefix("~") or "0"
        if back.isdecimal() and back.isascii() and int(back) < MAX_SKIP and (found := runs(shown, limit=1, skip=int(back))):
            return found[0]
        held = len(runs(shown))
        raise InputError(f"no run {ref!r}: the log {path} holds {plural(held, 'run')}.")
    for matches in (runs(RunQuery(run=ref)), runs(RunQuery(name=ref), limit=1)):
        if matches:
            return matches[0]
    matches = runs(RunQuery(prefix=ref)) if ref else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        ids = ", ".join(r.run for r in matches[:5])
        raise InputError(f"{ref!r} is the beginning of {len(matches)} runs: {ids}. Give more of the id.")
    raise InputError(not_a_run(ref) or f"no run {ref!r} in the log {path}. `retold ls` lists them; `last` is the newest.")
