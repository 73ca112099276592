"""SqliteStore: a log in an SQLite file, written by several processes at once.

The file may change under a running writer: other programs move, replace, overwrite and cut it, and signal handlers interrupt a
write. So the store remembers the end of each run that it writes only as long as it is certain: it forgets the end
before each write and remembers the new one afterwards, and it forgets all of them if the file was opened again. The end of a
forgotten run is read from the file. If the run is not whole there, the write raises Conflict.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...clock import monotonic_ns
from ...errors import LogError
from ...events import Event
from ..runs import RunInfo
from ..store import SEALED, Batch, Conflict, Ended, SealedFrames, Store, Tip
from . import endings, erasure, forks, opening, reading, reserve, rows
from .checkpoints import Checkpoints
from .listing import INSERT_RUN
from .reading import OneByOne
from .rebuild import relist
from .rows import (
    AT_ONCE,
    INSERT,
    Transaction,
    insert_frames,
    insertion,
    insertion_of_any,
    roll_back,
    to_row,
    waiting,
    when_free,
    write_error,
)  # fmt: skip
from .sharing import Bell, Change, Liveness, Watch

Also = Callable[[sqlite3.Connection], None]
"""The rest of a transaction that begins with the insertion of events."""


class SqliteStore(OneByOne, Store):
    """The log at `path`. The first write makes the file; reading needs no write access.

    `durability="power"` syncs every commit to the disk; the default survives the death of the process. Opening for writing ends
    the runs of writers that died. `Erasable` and `Salvageable`.
    """

    def __init__(self, path: Path, *, durability: opening.Durability = "process") -> None:
        self.path = path
        self.durability: opening.Durability = durability
        self.lock = threading.RLock()
        self._file = path.absolute()  # the working directory may change
        self._alive = Liveness(self._file)
        self._bell = Bell.of(self._file)
        self._is_writing = False
        self._connection: sqlite3.Connection | None = None
        self._tips: dict[str, tuple[int, bytes]] = {}
        self._noted: set[str] = set()
        self._is_suspect = False
        self._watch = Watch(self._file, self._alive.folder, self._renew)
        self._checkpoints = Checkpoints(self._file)
        forks.shut_before.add(self)

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path}>"

    def open(self) -> None:
        """Open the file for writing, or make it. Raises LogError, LogVersionError."""
        with self.lock:
            self._writable()

    def close(self) -> None:
        """Close the connection for writing; the next write opens another one."""
        with self.lock:
            self.shut()

    def reopened(self) -> "SqliteStore":
        """Return a store of the same file that shares no connection with this one, for a forked child."""
        return SqliteStore(self.path, durability=self.durability)

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

    def begin(self, run: RunInfo, first: Event) -> None:
        """Keep the first event of a run, and lock the file that proves the life of its writer. Raises Conflict, LogError."""
        with self.lock:
            if run.run != first.run or self._alive.is_held(first.run):
                raise Conflict(f"run {first.run} has begun already.")
            self._writable()
            self._alive.claim(first.run)
            try:
                self._write([first], lambda connection: _list(connection, run, first))
            except LogError:
                self._alive.release(first.run)
                raise

    def append(self, events: Sequence[Event]) -> None:
        """Keep events of one run, all or none, committed on return. Raises Conflict, LogError."""
        if events:
            self._write(events)

    def end(self, last: Event, run: RunInfo) -> None:
        """Keep the last event of a run. Look first whether the file at the path is still the log. Raises Conflict, LogError."""
        with self.lock:
            if run.run != last.run:
                raise Conflict(f"the last event of run {run.run} is one of run {last.run}.")
            self._write([last], lambda connection: endings.finish(connection, last, run), thorough=True)
            self._tips.pop(last.run, None)
            self._noted.discard(last.run)
            self._alive.release(last.run)

    def note_ending(self, run: str, status: str, error: str | None) -> None:
        """Note the ending in the lock file of the run, for the process that opens the log next."""
        self._noted.add(run)
        self._alive.note(run, status, error)

    def leave(self, run: str) -> None:
        """Unlock the file of a run. A note stays until a process opens the log for writing and ends the run."""
        self._alive.release(run, keep_note=run in self._noted)
        self._noted.discard(run)
        self._bell.ring()

    def replace_payloads(self, run: str, payloads: Sequence[tuple[int, bytes]], record: Event) -> None:
        """Replace payloads and keep the event that records this. Raises Conflict, LogError."""
        self._write([record], lambda connection: erasure.replace_payloads(connection, run, payloads))

    def prune(self, run: str, record: Event) -> None:
        """Remove a run and keep the event that records this. Raises Conflict, LogError."""
        self._write([record], lambda connection: erasure.prune(connection, run))

    def restore(self, events: Iterable[Event], *, name: str, mode: str) -> int:
        """Keep the events of a run that another log exported, and return their number. Raises LogError."""
        with self.lock, self._transaction(connection := self._writable()):
            restored = endings.restore_run(connection, events, name, mode)
        self._bell.ring()
        return restored

    def receive(self, batch: Batch) -> None:
        """Keep a batch of events that other logs record. Raises Conflict, LogError."""
        with self.lock, self._transaction(connection := self._writable()):
            try:
                endings.receive(connection, batch)
            except sqlite3.IntegrityError as error:
                raise Conflict(f"another process received the same events: {error}.") from error
        self._bell.ring()

    def relist(self) -> None:
        """Rebuild the listing from the events, and end the runs of writers that died. Raises LogError."""
        with self.lock:
            with self._transaction(connection := self._writable()):
                relist(connection)
            self._end_left_runs(connection)

    def vacuum(self) -> bool:
        """Remove the last copies of removed content from the file and the WAL. Raises LogError.

        A small file is written anew, while others wait; a large one is overwritten in place, in turns, and keeps its length.
        Return False if the disk had no room for that: the bytes were overwritten in place, and the file keeps its length.
        """
        try:
            with self.lock:
                is_large = opening.is_large(self._writable())
            # Without the lock of this process: its writers go on between the turns, too.
            is_clean = is_large and opening.scrub_large(self._file)
            with self.lock, waiting(connection := self._writable()):
                is_clean = is_clean or opening.vacuum(connection, self._file)
                reserve.keep(self._file, beside=0)
                self._adopt()
        except (sqlite3.Error, OSError) as error:
            raise LogError(
                f"what was taken out of {self.path} is gone from its tables, but its bytes may still stand in the file: "
                f"{error}. Do the same again when that is mended."
            ) from error
        return is_clean

    def make_room(self) -> None:
        """Fold the WAL into the file and empty it, if that is possible: on a full disk, this and the reserve is all the room.

        One half of the reserve is for the WAL of what follows, the other for folding it. `vacuum` makes the reserve whole again.
        """
        with self.lock:
            if reserve.is_nearly_full(self._file):
                reserve.give_up(self._file)
            opening.fold(self._writable())
            reserve.keep(self._file, size=reserve.RESERVE_BYTES // 2, beside=0)
            self._adopt()

    def _write(self, events: Sequence[Event], also: Also | None = None, *, thorough: bool = False) -> None:
        """Commit the next events of a run, and the rest of their transaction. Raises Conflict, LogError."""
        first = events[0]
        run = first.run
        with self.lock:
            try:
                self._is_writing = True
                connection = self._connection
                if connection is None or thorough or not self._watch.is_quiet():
                    connection = self._connected(make=first.seq == 0, thorough=thorough)
                if not isinstance(events, SEALED) or self._tips.get(run) != (first.seq, events.before):
                    self._check(connection, run, events)
                self._tips.pop(run, None)  # forgotten until the events are kept: an interrupt may come at any moment
                try:
                    self._insert(connection, events, also)
                except LogError as error:
                    # A full disk has room for more if the WAL can be folded: SQLite then writes it from its beginning.
                    if not opening.is_full(error.__cause__) or not opening.fold_with_reserve(connection, self._file):
                        raise
                    self._adopt()
                    self._insert(connection, events, also)
                last = events[-1]
                self._tips[run] = last.seq + 1, last.hash
                checkpoints = self._checkpoints
                payloads = events.payloads if type(events) is SealedFrames else [event.payload for event in events]
                checkpoints.pages += 2 + len(events) // 4 + 2 * sum(map(len, payloads)) // opening.PAGE_BYTES
                if checkpoints.pages >= checkpoints.due:
                    checkpoints.begin(connection)
            finally:
                self._is_writing = False
                if self._connection is not None and self._connection.in_transaction:
                    roll_back(self._connection)
        self._bell.ring()

    def _insert(self, connection: sqlite3.Connection, events: Sequence[Event], also: Also | None) -> None:
        # One INSERT is its own transaction: half the cost of BEGIN … COMMIT.
        statement: tuple[str, Sequence[Any]] | None = None
        if also is None and len(events) == 1:
            statement = INSERT, _plain_row(events[0]) or to_row(events[0])
        elif also is None and len(events) <= AT_ONCE:
            statement = insertion(events, 0, len(events)) if type(events) is SealedFrames else insertion_of_any(events)
        if statement is not None:
            try:
                connection.execute(*statement)
            except sqlite3.Error as error:
                when_free(error, connection, self.path, *statement)
            return
        with self._transaction(connection):
            if type(events) is SealedFrames:
                insert_frames(connection, events)
            else:
                connection.executemany(INSERT, [to_row(event) for event in events])
            if also is not None:
                also(connection)

    def _check(self, connection: sqlite3.Connection, run: str, events: Sequence[Event]) -> None:
        """Compare the events with the remembered end of their run, or read it from the file.

        Raises Conflict unless the run is whole there and the events follow.
        """
        if run in self._tips:
            return Tip(*self._tips[run]).check(run, events)
        began_ns = monotonic_ns()
        try:
            with waiting(connection):
                last, held = reading.last_row(connection, run), endings.count_events(connection, run)
        except sqlite3.Error as error:
            raise write_error(self.path, error) from error
        self._watch.spare(monotonic_ns() - began_ns)  # a long run takes long to count
        is_ours, begins = self._alive.is_held(run), events[0].seq == 0
        if last is None and not is_ours:
            raise Conflict(f"run {run} has not begun.")
        if last is None and begins:
            return Tip().check(run, events)
        if begins:
            raise Conflict(f"run {run} has begun already.")
        if last is not None and held == last.seq + 1:
            tip = Tip.after(last)
            if tip.is_ended and is_ours:
                self._alive.release(run)
                raise Ended(
                    f"run {run} was ended by another process: its lock in {self._alive.folder} was gone. The log holds "
                    "what was recorded until then; begin a new run."
                )
            try:
                return tip.check(run, events)
            except Conflict:
                if not is_ours:
                    raise
        there = "holds no such run" if last is None else f"holds {held} of its {events[0].seq} events"
        raise Conflict(
            f"the log {self.path} was replaced or changed by another program while run {run} was recorded: the file "
            f"there {there}. Put the right file back to go on with this run, or begin a new one."
        )

    def _transaction(self, connection: sqlite3.Connection) -> Transaction:
        return Transaction(connection, self.path)

    def _end_left_runs(self, connection: sqlite3.Connection) -> None:
        endings.end_left_runs(connection, self._alive, lambda: self._transaction(connection))

    # The file

    def _renew(self) -> None:
        if self._alive.renew():
            self._tips.clear()  # another process may have ended a run of ours: compare every run

    def _adopt(self, cost_ns: int = 0) -> None:
        self._checkpoints.taken()
        self._watch.adopt(cost_ns)

    def _look(self, *, thorough: bool = True) -> Change | None:
        running, left = self._checkpoints.taken() if self._checkpoints.has_written else (False, None)
        return self._watch.look(own_checkpoint=running, left=left, thorough=thorough)

    def _connected(self, *, make: bool, thorough: bool) -> sqlite3.Connection:
        """Return the connection for writing, after a look at the files. Raises LogError."""
        connection = self._connection
        if connection is None or self._look(thorough=thorough):
            connection = self._writable(make=make)
        return connection

    def _writable(self, *, make: bool = True) -> sqlite3.Connection:
        """Return the connection for writing, opened again if the file at the path was replaced or changed by others."""
        began_ns = monotonic_ns()
        if self._connection is not None:
            change = self._look()
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
        self._connection = opening.open_for_writing(self._file, self.durability, named=self.path)
        self._tips.clear()
        self._adopt(monotonic_ns() - began_ns)
        if self._is_suspect and (damage := opening.check_pages(self._connection)) is not None:
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
            if not opening.is_full(error.__cause__):
                raise
        self._connection.execute("PRAGMA busy_timeout = 0")  # `when_free` waits instead
        return self._connection

    def _let_go(self) -> None:
        """Give up the connection, with its writes folded into the file that it has open, wherever that is now."""
        assert self._connection is not None
        connection, self._connection = self._connection, None
        self._checkpoints.wait()
        roll_back(connection)
        moved = self._watch.is_elsewhere
        folded = (moved or self._watch.is_empty) and opening.fold(connection)
        if not moved:
            connection.close()
            return
        opening.abandon(connection)
        if folded:
            self._watch.remove_beside()


def _plain_row(event: Event) -> tuple[Any, ...] | None:
    """Return `to_row` of an event with a payload in ASCII without NUL, as that of most frames, at less cost; else None."""
    payload = event.payload
    if not payload.isascii() or b"\0" in payload:
        return None
    return *event[:8], payload.decode(), bytearray(event.digest), bytearray(event.hash), event.schema


def _list(connection: sqlite3.Connection, run: RunInfo, first: Event) -> None:
    """Write the line of a run that begins, and its entry in the ledger."""
    connection.execute(INSERT_RUN, (run.run, run.name, run.mode, run.started_ns))
    rows.enter(connection, first.run, "started", first.seq, first.hash)
