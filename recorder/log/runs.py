"""The runs of a log as a listing shows them, and how a person names one of them."""

import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from ..errors import InputError, LeftOutWarning, LogError
from ..mistaken import not_a_run

COUNTED = {"messages": "message", "exchanges": "exchange.started", "frames": "frame"}
"""What a run's line counts: column and kind."""

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
        row = tuple(
            value if type(value) in types else None if NoneType in types else str(value) if str in types else 0
            for value, types in zip(row, _TYPES, strict=True)
        )
    return RunInfo(*row)


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

    def find(self, ref: str) -> RunInfo:
        """The run that `ref` names: an id, a unique prefix of one, a name (its newest run), `last` or `last~N`.

        Runs that only say what was done to the log (mode `audit`) are nobody's last run: they are named by id or name.
        """
        if not self.select(limit=1):
            raise InputError(
                not_a_run(ref) or f"the log {self._path} holds no runs yet. Record or replay one first: retold run WORKFLOW."
            )
        if ref == "last" or ref.startswith("last~"):
            (held,) = self._connection.execute("SELECT count(*) FROM runs WHERE mode <> 'audit'").fetchone()
            back = ref.removeprefix("last").removeprefix("~") or "0"
            if back.isdecimal() and back.isascii() and int(back) < held:
                return self.select("mode <> 'audit'", limit=1, skip=int(back))[0]
            raise InputError(f"no run {ref!r}: the log {self._path} holds {held} run{'' if held == 1 else 's'}.")
        for matches in (self.select("run = ?", [ref]), self.select("name = ?", [ref], limit=1)):
            if matches:
                return matches[0]
        matches = self.select("substr(run, 1, ?) = ?", [len(ref), ref]) if ref else []
        if len(matches) == 1:
            return matches[0]
        if matches:
            ids = ", ".join(r.run for r in matches[:5])
            raise InputError(f"{ref!r} is the beginning of {len(matches)} runs: {ids}. Give more of the id.")
        raise InputError(
            not_a_run(ref) or f"no run {ref!r} in the log {self._path}. `retold ls` lists them; `last` is the newest."
        )
