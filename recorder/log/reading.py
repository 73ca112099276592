"""LogReader: the questions that a log answers, and how a reader follows a run that is still being written."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ..errors import LogError
from ..events import Event
from ..messages import Message
from .bell import Bell
from .runs import EVERY_RUN, Listing, RunInfo, RunQuery, find_run
from .sqlite import opening as store
from .sqlite.liveness import Liveness
from .sqlite.rows import COLUMNS, to_event

PAGE = 500
"""Events read at once: memory stays flat and no reader holds a snapshot that keeps the WAL from being reset."""

FIRST_PAGE = 20
"""Events read at first: the beginning of a run does not wait for a page of long events."""

POLL_S = 0.01
"""How often a reader looks for commits of another process."""

LOOK_EVERY = 10
"""After so many polls without a commit the reader looks whether the writer is alive."""

WAIT_S = 1.0
"""How long a reader waits for the bell of its own process: longer only loses a ring that an interrupt swallowed."""


class LogReader:
    """The reading half of `EventLog`. A relative path is taken from the working directory of the moment it is given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.absolute()
        self._alive = Liveness(self._file)
        self._bell = Bell.of(self._file)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def runs(self, query: RunQuery = EVERY_RUN, *, limit: int | None = None, skip: int = 0) -> list[RunInfo]:
        """Return the runs that fit the query, newest first. A run whose writer died without ending it is `interrupted`."""
        with closing(self.reader()) as connection:
            return self.listing(connection).runs(query, limit=limit, skip=skip)

    def find(self, ref: str) -> RunInfo:
        """The run that `ref` names: an id, a unique prefix of one, a name (its newest run), `last` or `last~N`."""
        with closing(store.open_for_reading(self._file, ref, named=self.path)) as connection:
            return find_run(self.listing(connection).runs, self.path, ref)

    def listing(self, connection: sqlite3.Connection) -> Listing:
        """The runs, read through a connection of the caller."""
        return Listing(connection, self.path, self._alive.status)

    def events(
        self, run: str, *, after: int = -1, kinds: Sequence[str] | None = None, exchange: int | None = None,
        step: str | None = None,
    ) -> Iterator[Event]:  # fmt: skip
        """The events of a run in order, from the one after `after`, page by page in flat memory."""
        connection, limit = self.reader(), FIRST_PAGE
        try:
            while page := self._page(connection, run, after, kinds, exchange, step, limit):
                yield from page
                after, limit = page[-1].seq, PAGE
        finally:
            connection.close()

    def messages(self, run: str, *, after: int = -1, step: str | None = None) -> Iterator[Message]:
        """The complete messages of a run in order."""
        for event in self.events(run, after=after, kinds=("message",), step=step):
            yield Message.of(event)

    def follow(
        self, run: str, *, after: int = -1, kinds: Sequence[str] | None = None, until: Callable[[Event], bool] | None = None
    ) -> Iterator[Event]:
        """Like `events`, but waits for more until the run ends, its writer dies, or `until` is true of an event.

        With `kinds`, the events that `until` looks for must be among them; `run.ended` always is.
        """
        wanted = None if kinds is None else (*kinds, "run.ended")
        connection = self.reader()
        try:
            while True:
                seen, version, alive = self._bell.rung, store.data_version(connection), self._alive.is_alive(run)
                page = self._page(connection, run, after, wanted, None, None)
                for event in page:
                    if event.kind != "run.ended" or kinds is None or "run.ended" in kinds:
                        yield event
                    if event.kind == "run.ended" or (until is not None and until(event)):
                        return
                    after = event.seq
                if not page:
                    if not alive:
                        return
                    self._wait(connection, run, seen, version)
        finally:
            connection.close()

    def _wait(self, connection: sqlite3.Connection, run: str, seen: int, version: int) -> None:
        """Wait for a commit: a writer of this process rings, for those of others SQLite is polled."""
        if self._alive.is_held(run):
            self._bell.wait(seen, WAIT_S)
            return
        for _ in range(LOOK_EVERY):
            self._bell.wait(seen, POLL_S)
            if self._bell.rung != seen or store.data_version(connection) != version:
                return

    def reader(self) -> sqlite3.Connection:
        """A read-only connection, for questions that have no method here; the caller closes it. Raises LogError."""
        return store.open_for_reading(self._file, named=self.path)

    def _page(
        self, connection: sqlite3.Connection, run: str, after: int, kinds: Sequence[str] | None, exchange: int | None,
        step: str | None, limit: int = PAGE,
    ) -> list[Event]:  # fmt: skip
        where, values = ["run = ?", "seq > ?"], [run, after]  # type: list[str], list[object]
        if kinds is not None:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values.extend(kinds)
            if "frame" not in kinds:
                where.append("kind <> 'frame'")  # repeated in the words of the index, so that SQLite uses it
        if exchange is not None:
            where.append("exchange = ?")
            values.append(exchange)
        if step is not None:
            where.append("step = ?")
            values.append(step)
        query = f"SELECT {COLUMNS} FROM events WHERE {' AND '.join(where)} ORDER BY seq LIMIT {limit}"
        try:
            return [to_event(row) for row in connection.execute(query, values)]
        except sqlite3.Error as error:
            raise LogError(f"cannot read the log {self.path}: {error}.") from error


def last_row(connection: sqlite3.Connection, run: str) -> Event | None:
    """Return the last event of a run, or None if it has none. Raise LogError if a cell of its row was changed."""
    query = f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1"
    try:
        row = connection.execute(query, (run,)).fetchone()
    except sqlite3.OperationalError as error:  # text that is not UTF-8
        raise LogError(f"cannot read the last event of run {run}: {error}; see `retold verify`.") from error
    return None if row is None else to_event(row)
