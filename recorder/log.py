"""EventLog: the one writer interface of retold, and the readers' way in.

Everything that happens goes through `EventLog.append`; everything else reads. An event is committed when `append` returns, so
whatever is shown or handed on after that survives `kill -9`. Each run has one writer, which keeps the run's next number and
its last hash; several processes write one log, each its own runs.
"""

import os
import secrets
import sqlite3
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from . import ledger, store
from .errors import LogError, LogVersionError, RecordingLostWarning
from .events import Entry, Event, encode
from .listing import COUNTED, Listing, RunInfo, count
from .messages import Message
from .redact import Redactor
from .relisting import relist
from .rows import COLUMNS, INSERT, to_event, to_row
from .transaction import OnFailure, Transaction, default_on_failure, write_error
from .writer import Mode, RunWriter, Status, seal_all

DEFAULT_PATH = Path(".retold") / "log.db"
PAGE = 500
"""Events read at once: memory stays flat and no reader holds a snapshot that keeps the WAL from being reset."""

FIRST_PAGE = 20
"""Events read at first: whoever wants the beginning of a run does not wait for a page of long ones."""

POLL_S = 0.01
"""How often a reader looks for what another process wrote; writes of its own process wake it at once."""


def default_path() -> Path:
    """`RETOLD_DB`, or `.retold/log.db` under the working directory."""
    return Path(os.environ.get("RETOLD_DB") or DEFAULT_PATH)


class EventLog:
    """The append-only store of events, at `path` (default: `RETOLD_DB` or `.retold/log.db`).

    The file is opened, and made, by the first write; reading needs no write access. `durability="power"` syncs every commit to
    the disk. Opening for writing marks runs whose writer died as interrupted. Raises LogError, LogVersionError.

    `on_failure` says what becomes of the application when the log cannot be written, its disk being full, say: `stop` raises
    LogError in it (nothing is shown that is not recorded), `go_on` warns once and lets it run on unrecorded: the run ends in
    the log where it stopped, as interrupted. The default is `RETOLD_ON_LOG_FAILURE`, or `stop`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: store.Durability = "process",
        on_failure: OnFailure | None = None,
    ) -> None:  # fmt: skip
        self.path = Path(path) if path is not None else default_path()
        self.durability: store.Durability = durability
        self.on_failure = on_failure or default_on_failure()
        self._lock = threading.RLock()
        self._deferred: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._appends = 0
        self._waiting = 0
        self._connection: sqlite3.Connection | None = None
        self._alive = store.Liveness(self.path)
        self._checkpoints = store.Checkpoints(self.path)

    def __repr__(self) -> str:
        return f"<EventLog {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the file for writing now, or make it, instead of at the first write. Raises LogError, LogVersionError."""
        with self._lock:
            self._writable()

    def close(self) -> None:
        """Close the connection for writing, after what was deferred; the log can be used again and opens another one."""
        self._do_deferred()
        with self._lock:
            if self._connection is not None:
                self._checkpoints.wait()
                self._connection.close()
                self._connection = None

    # Writing

    def start(
        self, *, name: str, mode: Mode, data: dict[str, Any] | None = None, redactor: Redactor | None = None,
        recorded_ns: int | None = None,
    ) -> RunWriter:  # fmt: skip
        """Begin a run and return its writer. `data` says what it is a run of; it is kept in the run's first event.

        `redactor` removes secrets from whatever is appended; by default those that the environment holds. `recorded_ns` is when
        an imported run began, since the epoch: its events are stamped with the time at which they happened.
        """
        writer = RunWriter(self, secrets.token_hex(8), name, redactor, recorded_ns=recorded_ns)
        first = Entry("run.started", encode({"name": writer.name, "mode": mode, **(data or {})}), t_ns=0)
        events = seal_all(writer, [first])
        try:
            with self._lock:
                connection = self._writable()
                self._alive.claim(writer.run)
                with self._transaction(connection):
                    connection.executemany(INSERT, map(to_row, events))
                    connection.execute(
                        "INSERT INTO runs (run, name, mode, status, started_ns) VALUES (?, ?, ?, 'running', ?)",
                        (writer.run, events[0].data["name"], mode, events[0].wall_ns),
                    )
                    ledger.enter(connection, writer.run, "started", 0, events[0].hash)
        except LogError as error:
            self._lose(writer, error)
        writer.moved_past(events)
        self._notify()
        return writer

    def append(self, writer: RunWriter, entries: Sequence[Entry]) -> list[Event]:
        """Append to the writer's run, all or nothing, and commit. Raises LogError; then nothing was appended."""
        self._do_deferred()
        if not entries:
            return []
        if writer.ended:
            raise LogError(f"run {writer.run} has ended; nothing can be appended to it.")
        with self._lock:
            events = seal_all(writer, entries)
            if writer.lost:
                writer.moved_past(events)
                return events
            try:
                connection = self._writable()
                if len(events) == 1:  # one INSERT is its own transaction: half the cost of BEGIN … COMMIT
                    try:
                        connection.execute(INSERT, to_row(events[0]))
                    except sqlite3.Error as error:
                        raise write_error(self.path, error) from error
                else:
                    with self._transaction(connection):
                        connection.executemany(INSERT, map(to_row, events))
            except LogError as error:
                self._lose(writer, error)
            writer.moved_past(events)
            self._checkpoints.note(len(events))
        self._notify()
        return events

    def end(self, writer: RunWriter, status: Status, error: str | None) -> None:
        """Write the last event of a run and its line in the listing."""
        self._do_deferred()
        counts = {key: writer.counts[kind] for key, kind in COUNTED.items()}
        error = None if error is None else writer.redactor.text(error)
        last = Entry("run.ended", encode({"status": status, "error": error, **counts}))
        with self._lock:
            events = seal_all(writer, [last])
            try:
                if not writer.lost:
                    connection = self._writable()
                    with self._transaction(connection):
                        self._insert_end(connection, events[0], status, error, counts, ended_ns=events[0].wall_ns)
            except LogError as failure:
                self._lose(writer, failure)
            writer.moved_past(events)
            self._alive.release(writer.run)
        self._notify()

    def amend(self, writer: RunWriter, entry: Entry, change: Callable[[sqlite3.Connection], None]) -> None:
        """Append an event that says what is done to the log itself, and do it, in one transaction. Raises LogError."""
        with self._lock:
            connection = self._writable()
            events = seal_all(writer, [entry])
            with self._transaction(connection):
                connection.execute(INSERT, to_row(events[0]))
                change(connection)
            writer.moved_past(events)
        self._notify()

    def restore(self, events: Iterable[Event], *, name: str, mode: str) -> int:
        """Write a run that another log exported, event by event as it was there, all or nothing; returns how many.

        The caller has checked its chain. A run without an end is one whose writer died. Raises LogError.
        """
        with self._lock:
            connection = self._writable()
            counts: Counter[str] = Counter()
            with self._transaction(connection):
                for event in events:
                    if event.seq == 0:
                        insert = "INSERT INTO runs (run, name, mode, status, started_ns) VALUES (?, ?, ?, 'running', ?)"
                        connection.execute(insert, (event.run, name, mode, event.wall_ns))
                        ledger.enter(connection, event.run, "started", 0, event.hash)
                    if event.kind == "run.ended":
                        told = {key: counts[kind] for key, kind in COUNTED.items()}
                        status, error = event.data["status"], event.data.get("error")
                        self._insert_end(connection, event, status, error, told, ended_ns=event.wall_ns)
                    else:
                        connection.execute(INSERT, to_row(event))
                    counts[event.kind] += 1
        self._notify()
        return counts.total()

    def relist(self) -> None:
        """Make the listing again from the events, and end the runs whose writer died. Raises LogError."""
        with self._lock:
            connection = self._writable()
            with self._transaction(connection):
                relist(connection)
            self._end_interrupted(connection)

    def vacuum(self) -> None:
        """Write the file anew, so that nothing that was taken out is left in it or in the WAL; others wait. Raises LogError."""
        with self._lock:
            try:
                store.vacuum(self._writable())
            except sqlite3.Error as error:
                raise LogError(
                    f"what was taken out of {self.path} is gone from its tables, but its bytes may still stand in the file: "
                    f"{error}. Do the same again when that is mended."
                ) from error

    def defer(self, write: Callable[[], None]) -> None:
        """Have something written before the next event is, for those who cannot write now (a garbage collector)."""
        self._deferred.append(write)

    def _do_deferred(self) -> None:
        while self._deferred:
            self._deferred.popleft()()

    def _insert_end(
        self, connection: sqlite3.Connection, event: Event, status: str, error: str | None, counts: dict[str, int], *,
        ended_ns: int,
    ) -> None:  # fmt: skip
        connection.execute(INSERT, to_row(event))
        connection.execute(
            "UPDATE runs SET status = ?, error = ?, messages = ?, exchanges = ?, frames = ?, ended_ns = ? WHERE run = ?",
            (status, error, *(counts[key] for key in COUNTED), ended_ns, event.run),
        )
        ledger.enter(connection, event.run, "ended", event.seq, event.hash)

    def _transaction(self, connection: sqlite3.Connection) -> Transaction:
        return Transaction(connection, self.path)

    def _lose(self, writer: RunWriter, error: LogError) -> None:
        """The log cannot be written: that is the application's end, or that of the recording of this run."""
        if self.on_failure == "stop" or isinstance(error, LogVersionError):
            raise error
        writer.lost = True
        self._alive.release(writer.run)  # whoever follows the run need not wait for more of it
        warnings.warn(f"run {writer.run} is not recorded any further: {error}", RecordingLostWarning, stacklevel=4)

    def _writable(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = store.open_for_writing(self.path, self.durability)
            self._end_interrupted(self._connection)
        return self._connection

    def _end_interrupted(self, connection: sqlite3.Connection) -> None:
        """Close the runs whose writer died, so that no run looks open for ever."""
        query = "SELECT run FROM runs WHERE status = 'running'"
        if all(self._alive.is_alive(run) for (run,) in connection.execute(query).fetchall()):
            return
        with self._transaction(connection):
            # Read again under the write lock: another process may be doing the same.
            for (run,) in connection.execute(query).fetchall():
                if not self._alive.is_alive(run):
                    self._write_interrupted(connection, run)

    def _write_interrupted(self, connection: sqlite3.Connection, run: str) -> None:
        last = self._row(connection, run)
        if last is None:
            return  # a line that another program wrote: there is no such run
        writer = RunWriter(self, run, "")
        writer.moved_past([last])
        counts = count(connection, run)
        entry = Entry("run.ended", encode({"status": "interrupted", "error": None, **counts}), t_ns=last.t_ns)
        self._insert_end(connection, seal_all(writer, [entry])[0], "interrupted", None, counts, ended_ns=last.wall_ns)
        self._alive.forget(run)

    def _notify(self) -> None:
        # Whoever begins to wait now looks at the counter first, so that the lock is taken for those alone who wait already.
        self._appends += 1
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    # Reading

    def runs(self, *, limit: int | None = None) -> list[RunInfo]:
        """The runs, newest first. One whose writer died without ending it has the status `interrupted`."""
        with closing(self.reader()) as connection:
            return self.listing(connection).select(limit=limit)

    def find(self, ref: str) -> RunInfo:
        """The run that `ref` names: an id, a unique prefix of one, a name (its newest run), `last` or `last~N`."""
        with closing(store.open_for_reading(self.path, ref)) as connection:
            return self.listing(connection).find(ref)

    def listing(self, connection: sqlite3.Connection) -> Listing:
        """The runs, read through a connection that somebody else opened."""
        return Listing(connection, self.path, self._alive.is_alive)

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
        """Like `events`, but waits for more until the run ends, its writer dies, or `until` says so of an event.

        With `kinds`, the events that `until` looks for must be among them; `run.ended` always is.
        """
        wanted = None if kinds is None else (*kinds, "run.ended")
        connection = self.reader()
        try:
            while True:
                seen, alive = self._appends, self._alive.is_alive(run)
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
                    with self._changed:
                        self._waiting += 1
                        if self._appends == seen:
                            self._changed.wait(POLL_S)
                        self._waiting -= 1
        finally:
            connection.close()

    def reader(self) -> sqlite3.Connection:
        """A read-only connection, for questions that have no method here; whoever asks closes it. Raises LogError."""
        return store.open_for_reading(self.path)

    def _page(
        self, connection: sqlite3.Connection, run: str, after: int, kinds: Sequence[str] | None, exchange: int | None,
        step: str | None, limit: int = PAGE,
    ) -> list[Event]:  # fmt: skip
        where, values = ["run = ?", "seq > ?"], [run, after]  # type: list[str], list[object]
        if kinds is not None:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            values.extend(kinds)
            if "frame" not in kinds:
                where.append("kind <> 'frame'")  # said again in the index's words, so that it is used
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

    def _row(self, connection: sqlite3.Connection, run: str) -> Event | None:
        row = connection.execute(f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY seq DESC LIMIT 1", (run,)).fetchone()
        return None if row is None else to_event(row)
