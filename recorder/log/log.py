"""EventLog: the one writer interface of retold, and the readers' way in.

Everything that happens goes through `EventLog.append`; everything else reads. An event is committed when `append` returns, so
it survives `kill -9` before the application or a handler sees it. Each run has one writer, which keeps the run's next number
and its last hash; several processes write one log, each its own runs.

Two things can part a writer from its run: an interrupt in the middle of an append (a signal handler that raises), and another
program that moves, replaces or cuts the log's file. Before the next append the writer is compared with the store: what was
committed counts as appended, and if the run is not whole in the file at the log's path, the append raises LogError.
"""

import os
import secrets
import sqlite3
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from ..clock import monotonic_ns
from ..errors import LogError, LogVersionError, RecordingLostWarning
from ..events import Entry, Event, encode
from ..secrets.redactor import Redactor
from . import ledger
from .reading import LogReader
from .run_writer import Mode, RunWriter, Status, seal_all
from .runs import COUNTED
from .sqlite import forks
from .sqlite import opening as store
from .sqlite.catching_up import catch_up
from .sqlite.endings import INSERT_RUN, Also, end_left_runs, ending, payload, restore_run
from .sqlite.rebuild import relist
from .sqlite.rows import INSERT, to_row
from .sqlite.transaction import OnFailure, Transaction, default_on_failure, roll_back, write_error
from .sqlite.watch import Watch

DEFAULT_PATH = Path(".retold") / "log.db"


class _WithinWrite(LogError):
    """A write from within a write of the same thread."""


def default_path() -> Path:
    """`RETOLD_DB`, or `.retold/log.db` under the working directory."""
    return Path(os.environ.get("RETOLD_DB") or DEFAULT_PATH)


class EventLog(LogReader):
    """The append-only store of events, at `path` (default: `RETOLD_DB` or `.retold/log.db`).

    The file is opened, and made, by the first write; reading needs no write access. `durability="power"` syncs every commit to
    the disk. Opening for writing ends runs whose writer died. Raises LogError, LogVersionError.

    `on_failure` decides about the application if the log cannot be written, because its disk is full, for instance: `stop`
    raises LogError in it (nothing is shown that is not recorded), `go_on` warns once and lets it run on unrecorded: the run
    ends in the log where it stopped, as interrupted. The default is `RETOLD_ON_LOG_FAILURE`, or `stop`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: store.Durability = "process",
        on_failure: OnFailure | None = None,
    ) -> None:  # fmt: skip
        super().__init__(Path(path) if path is not None else default_path())
        self.durability: store.Durability = durability
        self.on_failure = on_failure or default_on_failure()
        self.lock = threading.RLock()
        self._is_writing = False
        self._deferred: deque[Callable[[], None]] = deque()
        self._unended: list[RunWriter] = []
        self._connection: sqlite3.Connection | None = None
        self._opened = 0
        self._is_suspect = False
        self._watch = Watch(self._file, self._alive.folder, self._renew)
        self._checkpoints = store.Checkpoints(self._file)
        forks.shut_before(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Open the file for writing now, or make it, instead of at the first write. Raises LogError, LogVersionError."""
        with self.lock:
            self._writable()

    def close(self) -> None:
        """Close the connection for writing, after deferred writes; the next write opens another one."""
        self._do_deferred()
        self._write_endings()
        with self.lock:
            self.shut()

    def shut(self) -> None:
        """Close the connection, under the lock; within a write, leave it open."""
        if self._connection is None or self._is_writing:
            return
        self._checkpoints.wait()
        if self._watch.look(own_checkpoint=True) == "moved":
            self._let_go()
        else:
            self._connection.close()
        self._connection = None
        self._watch.let_go()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.shut()  # Python's own connections are in a cycle, and stay open until the garbage collector runs

    # Writing

    def start(
        self, *, name: str, mode: Mode, data: dict[str, Any] | None = None, redactor: Redactor | None = None,
        recorded_ns: int | None = None,
    ) -> RunWriter:  # fmt: skip
        """Begin a run and return its writer. `data` is kept in the run's first event beside its name and mode.

        `redactor` removes secrets from whatever is appended; by default those that the environment holds. `recorded_ns` is
        the time at which an imported run began, since the epoch: its events are stamped with the time at which they happened.
        """
        self._do_deferred()
        self._write_endings()
        writer = RunWriter(self, secrets.token_hex(8), name, redactor, recorded_ns=recorded_ns)
        first = Entry("run.started", encode({"name": writer.name, "mode": mode, **(data or {})}), t_ns=0)

        def list_it(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
            connection.execute(INSERT_RUN, (writer.run, events[0].data["name"], mode, events[0].wall_ns))
            ledger.enter(connection, writer.run, "started", 0, events[0].hash)

        try:
            with self.lock:
                self._writable()
                self._alive.claim(writer.run)
                self._commit(writer, [first], list_it)
        except LogError as error:
            self._alive.release(writer.run)
            self._lose(writer, error)
            writer.moved_past(seal_all(writer, [first]))
        except BaseException as error:
            self._alive.note(writer.run, "cancelled", type(error).__name__)
            self._alive.release(writer.run, keep_note=True)
            raise
        self._bell.ring()
        return writer

    def append(self, writer: RunWriter, entries: Sequence[Entry]) -> list[Event]:
        """Append to the writer's run, all or nothing, and commit. Raises LogError; then nothing was appended."""
        if self._deferred:
            self._do_deferred()
        if not entries:
            return []
        try:
            events = self._commit(writer, entries)
        except LogError as error:
            if writer.ended or isinstance(error, _WithinWrite):
                raise
            self._lose(writer, error)
            return self.append(writer, entries)
        self._bell.ring()
        return events

    def end(self, writer: RunWriter, status: Status, error: str | None) -> None:
        """Write the last event of a run and its line in the listing, once.

        An ending that cannot be written is noted beside the log, and written when that is possible: by the next call, by
        `start` or `close`, or by the process that opens the log next.
        """
        self._do_deferred()
        error = None if error is None else writer.redactor.text(error)
        try:
            for exchange in list(writer.open.values()):
                exchange.end("closed")
            with self.lock:
                if not writer.lost:
                    self._connected(writer, thorough=True)
                if not writer.ended and not writer.lost:
                    counts = {key: writer.counts[kind] for key, kind in COUNTED.items()}
                    last = Entry("run.ended", payload(status, error, counts))
                    self._commit(writer, [last], ending(status, error, counts))
                writer.ended = True
        except LogError as failure:
            if not writer.ended:  # else an interrupted call had written it
                self._alive.note(writer.run, status, error)
                if writer not in self._unended:
                    self._unended.append(writer)
                self._lose(writer, failure)
                writer.ended = True
        if writer in self._unended:
            self._unended.remove(writer)
        self._alive.release(writer.run)
        self._bell.ring()

    def amend(self, writer: RunWriter, entry: Entry, change: Callable[[sqlite3.Connection], None]) -> None:
        """Append an event about a change of the log itself, and make the change, in one transaction. Raises LogError."""
        self._commit(writer, [entry], lambda connection, _: change(connection))
        self._bell.ring()

    def restore(self, events: Iterable[Event], *, name: str, mode: str) -> int:
        """Write a run that another log exported, event by event as it was there, all or nothing; returns how many.

        The caller has checked its chain. A run without an end is one whose writer died. Raises LogError.
        """
        with self.lock:
            connection = self._writable()
            with self._transaction(connection):
                restored = restore_run(connection, events, name, mode)
        self._bell.ring()
        return restored

    def relist(self) -> None:
        """Make the listing again from the events, and end the runs whose writer died. Raises LogError."""
        with self.lock:
            connection = self._writable()
            with self._transaction(connection):
                relist(connection)
            self._end_left_runs(connection)

    def vacuum(self) -> None:
        """Write the file anew, so that nothing that was taken out is left in it or in the WAL; others wait. Raises LogError."""
        with self.lock:
            try:
                store.vacuum(self._writable())
            except sqlite3.Error as error:
                raise LogError(
                    f"what was taken out of {self.path} is gone from its tables, but its bytes may still stand in the file: "
                    f"{error}. Do the same again when that is mended."
                ) from error
            self._watch.adopt()

    def make_room(self) -> None:
        """Fold the WAL into the file and empty it, if that is possible: on a full disk this is the room that there is."""
        with self.lock:
            store.fold(self._writable())
            self._watch.adopt()

    def defer(self, write: Callable[[], None]) -> None:
        """Write something before the next event, for callers that cannot write now (a garbage collector)."""
        self._deferred.append(write)

    def _do_deferred(self) -> None:
        while self._deferred:
            with suppress(LogError):  # an exchange that cannot be ended now is ended with its run
                self._deferred.popleft()()

    def _write_endings(self) -> None:
        """Write the endings of runs that could not be written when they ended."""
        for writer in list(self._unended):
            with suppress(LogError):
                writer.end()

    def _commit(self, writer: RunWriter, entries: Sequence[Entry], also: Also | None = None) -> list[Event]:
        """Seal entries as the next events of the writer's run and commit them, with whatever `also` writes. Raises LogError."""
        with self.lock:
            if self._is_writing:
                raise _WithinWrite(
                    f"run {writer.run} was written to from within a write to the log {self.path}, by a signal handler or a "
                    "finalizer. Let it raise or set a flag, and write when it has returned."
                )
            try:
                self._is_writing = True
                if writer.lost:
                    events = seal_all(writer, entries)
                    writer.moved_past(events)
                    return events
                connection = self._connection
                if connection is None or writer.opened != self._opened or writer.in_flight or not self._watch.is_quiet():
                    connection = self._connected(writer)
                if writer.ended:
                    raise LogError(f"run {writer.run} has ended; nothing can be appended to it.")
                writer.in_flight = events = seal_all(writer, entries)
                try:
                    self._insert(connection, events, also)
                except LogError as error:
                    # A full disk has room for more if the WAL can be folded: SQLite then writes it from its beginning.
                    if not store.is_full(error.__cause__) or not store.fold(connection):
                        raise
                    self._watch.adopt()
                    self._insert(connection, events, also)
                writer.moved_past(events)
                self._checkpoints.note(len(events))
                return events
            finally:
                self._is_writing = False
                if self._connection is not None and self._connection.in_transaction:
                    roll_back(self._connection)

    def _insert(self, connection: sqlite3.Connection, events: list[Event], also: Also | None) -> None:
        if len(events) == 1 and also is None:  # one INSERT is its own transaction: half the cost of BEGIN … COMMIT
            try:
                connection.execute(INSERT, to_row(events[0]))
            except sqlite3.Error as error:
                raise write_error(self.path, error) from error
            return
        with self._transaction(connection):
            connection.executemany(INSERT, [to_row(event) for event in events])
            if also is not None:
                also(connection, events)

    def _transaction(self, connection: sqlite3.Connection) -> Transaction:
        return Transaction(connection, self.path)

    def _end_left_runs(self, connection: sqlite3.Connection) -> None:
        end_left_runs(connection, self, self._alive, lambda: self._transaction(connection))

    def _lose(self, writer: RunWriter, error: LogError) -> None:
        """The log cannot be written: raise in the application, or stop recording this run."""
        if self.on_failure == "stop" or isinstance(error, LogVersionError):
            raise error
        if not writer.lost:
            writer.lost = True
            if writer not in self._unended:
                self._alive.note(writer.run, "interrupted", f"the log could not be written: {error.__cause__ or error}")
            self._alive.release(writer.run, keep_note=True)  # readers that follow the run need not wait for more of it
            warnings.warn(f"run {writer.run} is not recorded any further: {error}", RecordingLostWarning, stacklevel=4)

    def has(self, run: str, exchange: int, kind: str) -> bool:
        """Whether an exchange of a run has an event of that kind. Raises LogError."""
        return next(self.events(run, exchange=exchange, kinds=(kind,)), None) is not None

    # The file

    def _renew(self) -> None:
        if self._alive.renew():
            self._opened += 1  # another process may have ended a run of ours: compare every writer

    def _connected(self, writer: RunWriter, *, thorough: bool = False) -> sqlite3.Connection:
        """The connection for writing, in which the writer's run is whole up to its last event. Raises LogError."""
        connection = self._connection
        if connection is None or self._watch.look(own_checkpoint=self._checkpoints.wrote(), thorough=thorough):
            connection = self._writable(make=writer.seq == 0)
        if writer.in_flight or writer.opened != self._opened:
            catch_up(connection, writer, self._opened, self.path, self._alive.folder)
        return connection

    def _writable(self, *, make: bool = True) -> sqlite3.Connection:
        """The connection for writing, opened again if the file at the path is another one or was changed by others."""
        began_ns = monotonic_ns()
        if self._connection is not None:
            change = self._watch.look(own_checkpoint=self._checkpoints.wrote())
            if change is None:
                roll_back(self._connection)
                return self._connection
            self._is_suspect = self._is_suspect or change == "shrunk"
            self._let_go()
        if not make and not self._file.exists():
            raise LogError(
                f"the log {self.path} is no longer there: it was deleted or moved while a run was recorded. If it was moved, "
                "it holds the run up to here; move it back to go on with this run, or begin a new one."
            )
        self._connection = store.open_for_writing(self._file, self.durability, named=self.path)
        self._opened += 1
        self._watch.adopt(monotonic_ns() - began_ns)
        if self._is_suspect and (damage := store.check_pages(self._connection)) is not None:
            self._let_go()
            raise LogError(
                f"the log {self.path} was cut or overwritten while it was open, and is damaged: {damage}. `retold recover` "
                "saves what can be read; record into another log with --db FILE."
            )
        self._is_suspect = False
        self._alive.renew()
        try:
            self._end_left_runs(self._connection)
        except LogError as error:  # on a full disk they are ended another time
            if not store.is_full(error.__cause__):
                raise
        return self._connection

    def _let_go(self) -> None:
        """Let go of the connection, with what it wrote folded into the file that it has open, wherever that is now."""
        assert self._connection is not None
        connection, self._connection = self._connection, None
        self._checkpoints.wait()
        roll_back(connection)
        moved = self._watch.is_elsewhere
        folded = (moved or self._watch.is_empty) and store.fold(connection)
        if not moved:
            connection.close()
            return
        store.abandon(connection)
        if folded:
            self._watch.remove_beside()
