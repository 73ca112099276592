"""The table `runs`: read its lines by value, and count the events of a run."""

import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from types import NoneType
from typing import Any

from ... import strict_json
from ...errors import LeftOutWarning, LogError
from ..runs import COUNTED, RunInfo, RunQuery, is_name_pattern

COLUMNS = "run, name, mode, status, started_ns, ended_ns, messages, exchanges, frames, error"

INSERT_RUN = "INSERT INTO runs (run, name, mode, status, started_ns) VALUES (?, ?, ?, 'running', ?)"

PAGE = 200
"""Lines read at once while the status of each is compared."""

_TYPES: tuple[tuple[type, ...], ...] = (
    *[(str,)] * 4, (int,), (int, NoneType), (int,), (int,), (int,), (str, NoneType)
)  # fmt: skip
"""The types of `COLUMNS`."""


def count_kinds(connection: sqlite3.Connection, run: str) -> Counter[str]:
    """Return the number of events of each kind that a run holds now."""
    return Counter(dict(connection.execute("SELECT kind, count(*) FROM events WHERE run = ? GROUP BY kind", (run,)).fetchall()))


def count(connection: sqlite3.Connection, run: str) -> dict[str, int]:
    """Return the number of messages, exchanges and frames that a run holds now."""
    kinds = count_kinds(connection, run)
    return {key: kinds[kind] for key, kind in COUNTED.items()}


class Listing:
    """The table `runs` read through one connection; `status` gives status and error of a run without a last event."""

    def __init__(
        self, connection: sqlite3.Connection, path: object, status: Callable[[str], tuple[str, str | None]]
    ) -> None:  # fmt: skip
        self._connection = connection
        self._path = path
        self._status = status

    def runs(self, query: RunQuery, *, limit: int | None = None, skip: int = 0) -> list[RunInfo]:
        """Return the runs that fit the query, newest first. Raises LogError."""
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

    def select(
        self, where: str = "1", values: Sequence[object] = (), *, limit: int | None = None, skip: int = 0
    ) -> list[RunInfo]:
        """Return the runs for which `where` holds, newest first. Raises LogError."""
        query = f"SELECT {COLUMNS} FROM runs WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?"
        before = self._connection.text_factory
        # A changed cell may hold bytes that are not UTF-8. The listing shows them; events with such cells are errors.
        self._connection.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        try:
            rows = self._connection.execute(query, (*values, -1 if limit is None else limit, skip)).fetchall()
            return [self._listed(_readable(row)) for row in rows]
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self._path}: {error}. `retold recover` saves what can be read.") from error
        finally:
            self._connection.text_factory = before

    def _listed(self, info: RunInfo) -> RunInfo:
        if info.status != "running":
            return info
        counts: dict[str, Any] = count(self._connection, info.run)
        status, error = self._status(info.run)
        return replace(info, status=status, error=error, **counts)


def _where(query: RunQuery) -> tuple[str, list[object]]:
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
    if query.among is not None:
        wanted.append(("run IN (SELECT value FROM json_each(?))", [strict_json.dumps(sorted(query.among))]))
    if query.prefix is not None:
        wanted.append(("substr(run, 1, ?) = ?", [len(query.prefix), query.prefix]))
    if query.like is not None:
        is_pattern = is_name_pattern(query.like)
        literal = query.like.replace("[", "[[]") if is_pattern else query.like  # `[` begins a class of characters in GLOB
        wanted.append(("name GLOB ?" if is_pattern else "instr(lower(name), lower(?))", [literal]))
    where = " AND ".join(term for term, _ in wanted) or "1"
    return where, [value for _, values in wanted for value in values]


def _readable(row: tuple[Any, ...]) -> RunInfo:
    """Return a line of the listing. Replace a value of a type that is never written, with a warning."""
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
