"""The runs of a log as a listing shows them, and how a person names one of them."""

import re
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from string import ascii_lowercase, ascii_uppercase
from types import NoneType
from typing import Any, Protocol

from ..errors import InputError, LeftOutWarning, LogError
from ..hints import not_a_run

COUNTED = {"messages": "message", "exchanges": "exchange.started", "frames": "frame"}
"""What a run's line counts: column and kind."""

MAX_SKIP = 2**62
"""Runs that `last~N` may go back at most: SQLite takes no larger number."""

PAGE = 200
"""Lines of the listing that are read at once while each is compared."""

_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)

COLUMNS = "run, name, mode, status, started_ns, ended_ns, messages, exchanges, frames, error"


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


def count_kinds(connection: sqlite3.Connection, run: str) -> Counter[str]:
    """How many events of each kind a run holds now."""
    return Counter(dict(connection.execute("SELECT kind, count(*) FROM events WHERE run = ? GROUP BY kind", (run,)).fetchall()))


def count(connection: sqlite3.Connection, run: str) -> dict[str, int]:
    """How many messages, exchanges and frames a run holds now."""
    kinds = count_kinds(connection, run)
    return {key: kinds[kind] for key, kind in COUNTED.items()}


_TYPES: tuple[tuple[type, ...], ...] = (
    *[(str,)] * 4, (int,), (int, NoneType), (int,), (int,), (int,), (str, NoneType)
)  # fmt: skip
"""The types of `COLUMNS`."""


def _readable(row: tuple[Any, ...]) -> RunInfo:
    """A line of the listing. A value of a type that is never written is shown as best can be, with a warning."""
    odd = [name for name, value, types in zip(COLUMNS.split(", "), row, _TYPES, strict=True) if type(value) not in types]
    if odd:
        message = f"run {row[0]}: its line in the listing has an unreadable {', '.join(odd)}; `retold recover` writes it again"
        warnings.warn(message[:300], LeftOutWarning, stacklevel=2)
        row = tuple(_shown_as(types, value) for value, types in zip(row, _TYPES, strict=True))
    return RunInfo(*row)


def _shown_as(types: tuple[type, ...], value: Any) -> Any:
    """Return the value if its type is one of `types`, else the nearest value that has one of them."""
    if type(value) in types:
        return value
    if NoneType in types:
        return None
    return str(value) if str in types else 0


class Listing:
    """The `runs` table read through one connection; `status` gives status and error of a run without a last event."""

    def __init__(
        self, connection: sqlite3.Connection, path: object, status: Callable[[str], tuple[str, str | None]]
    ) -> None:  # fmt: skip
        self._connection = connection
        connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        self._path = path
        self._status = status

    def select(
        self, where: str = "1", values: Sequence[object] = (), *, limit: int | None = None, skip: int = 0
    ) -> list[RunInfo]:
        """The runs for which `where` holds, newest first."""
        query = f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?"
        try:
            rows = self._connection.execute(query, (*values, -1 if limit is None else limit, skip)).fetchall()
            return [self._listed(_readable(row)) for row in rows]
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self._path}: {error}. `retold recover` saves what can be read.") from error

    def _listed(self, info: RunInfo) -> RunInfo:
        if info.status != "running":
            return info
        counts: dict[str, Any] = count(self._connection, info.run)
        status, error = self._status(info.run)
        return replace(info, status=status, error=error, **counts)

    def runs(self, query: "RunQuery", *, limit: int | None = None, skip: int = 0) -> list[RunInfo]:
        """Return the runs that fit the query, newest first."""
        where, values = _where(query)
        if query.status is None:
            return self.select(where, values, limit=limit, skip=skip)
        # The lock file of a run without a last event holds its status, so SQL chooses from candidates.
        fitting = (info for info in self._each(where, values) if info.status == query.status)
        return list(islice(fitting, skip, None if limit is None else skip + limit))

    def _each(self, where: str, values: Sequence[object]) -> Iterator[RunInfo]:
        """Yield the runs for which `where` holds, newest first, page by page."""
        skip = 0
        while page := self.select(where, values, limit=PAGE, skip=skip):
            yield from page
            skip += len(page)


def _where(query: "RunQuery") -> tuple[str, list[object]]:
    """Return the condition of a query and its values. If a status is asked for, running runs fit it too."""
    terms = {
        "run = ?": query.run,
        "name = ?": query.name,
        "mode = ?": query.mode,
        "mode <> ?": query.without_mode,
        "started_ns >= ?": query.since_ns,
        "started_ns < ?": query.until_ns,
        "status IN ('running', ?)": query.status,
    }
    wanted: list[tuple[str, list[object]]] = [(term, [value]) for term, value in terms.items() if value is not None]
    if query.prefix is not None:
        wanted.append(("substr(run, 1, ?) = ?", [len(query.prefix), query.prefix]))
    if query.like is not None:
        is_pattern = is_name_pattern(query.like)
        literal = query.like.replace("[", "[[]") if is_pattern else query.like  # `[` begins a class of characters in GLOB
        wanted.append(("name GLOB ?" if is_pattern else "instr(lower(name), lower(?))", [literal]))
    where = " AND ".join(term for term, _ in wanted) or "1"
    return where, [value for _, values in wanted for value in values]


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs are asked for; None does not choose.

    `prefix` is the beginning of an id. `like` is a pattern for the whole name if it has `*` (any text) or `?` (any character),
    and else a part of the name, in any case of its ASCII letters. Runs that began at `since_ns` or later and before
    `until_ns` (nanoseconds since the epoch) fit.
    """

    run: str | None = None
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
        raise InputError(f"no run {ref!r}: the log {path} holds {held} run{'' if held == 1 else 's'}.")
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
