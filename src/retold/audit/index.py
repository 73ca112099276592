"""The index beside a log: its words for searching and its accounts for statistics, brought up to date when somebody asks.

It is a file of its own, `log.db.index`, so that indexing never makes a writer of the log wait, and so that nothing is lost
with it: it is made again from the events whenever it is missing, damaged, of another version or of another log, and after
every erasure. It takes the events of each run up to a stored cursor, in transactions of its own.

Rows of `texts` are numbered by their time in microseconds since the epoch: newest first is descending order of rowid, which
FTS5 gives without ranking, and a time range is a range of rowids.
"""

import json
import os
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import LeftOutWarning, LogError
from ..recorder.event_shapes import fault_in_payload, fault_in_row
from ..recorder.log.log import EventLog
from ..recorder.log.sqlite import opening as store
from ..recorder.log.sqlite.erasure import ERASED, PRUNED, REDACTED
from .accounts import SUMS, Account, Key, RunAccount, zone
from .texts import Text, storable, text_of_message, text_of_request

VERSION = 2
BATCH = 4000
"""Events a transaction: long enough for FTS5 to write long segments, short enough to show progress."""

MUCH = 100_000
"""Events taken at once after which the segments of the words are merged into one: a phrase is found a fifth faster."""

FACETS = ("run", "step", "type", "tool", "model")
"""Columns of `texts` beside the words, by which a search is narrowed inside the index."""

_SCHEMA = f"""
CREATE TABLE state (name TEXT PRIMARY KEY, value);
CREATE TABLE pending (id INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE VIRTUAL TABLE texts USING fts5(text, {", ".join(FACETS)}, seq UNINDEXED);
CREATE TABLE counted (identity TEXT PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run_facts (run TEXT PRIMARY KEY, cost_usd REAL, errors INTEGER NOT NULL, keys TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE accounts (
    dimension TEXT, key TEXT, day TEXT, mode TEXT, {", ".join(f"{name} NOT NULL" for name in SUMS)}, first TEXT, took TEXT,
    PRIMARY KEY (dimension, day, key, mode)
) WITHOUT ROWID;
"""
_TABLES = ("state", "pending", "texts", "counted", "run_facts", "accounts")

_IN = "'run.started', 'message', 'exchange.started', 'exchange.ended', 'run.ended'"

Progress = Callable[[int], None]


def path_of(log: EventLog) -> Path:
    """Where the index of a log is kept."""
    return log.path.with_name(log.path.name + ".index")


@contextmanager
def opened(log: EventLog, *, progress: Progress = lambda _: None) -> Iterator[sqlite3.Connection]:
    """A connection to the index of a log, up to date, with the log itself attached for reading as `log`.

    Where the folder cannot be written the index is made in memory, each time. Raises LogError.
    """
    log.reader().close()  # there is a log, of this version or migrated
    path = path_of(log)
    try:
        try:
            connection = _current(log, path, progress)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a full disk, say
                raise
            discard_file(path)  # damaged: nothing is lost with it
            connection = _current(log, path, progress)
        with closing(connection):
            yield connection
    except sqlite3.Error as error:
        raise LogError(f"cannot use the log {log.path} or its index {path}: {error}.") from error


def _current(log: EventLog, path: Path, progress: Progress) -> sqlite3.Connection:
    connection = _connect(log, path)
    try:
        if not _is_current(connection) or _has_news(connection):
            filler = _Filler(connection, progress)
            while _transact(connection, filler.step):
                pass
            if filler.done >= MUCH:
                connection.execute("INSERT INTO texts (texts) VALUES ('optimize')")
    except BaseException:
        connection.close()
        raise
    return connection


def reset(log: EventLog) -> None:
    """Empty the index, so that what was erased from the log is not in it: to the last byte, under whoever else uses it."""
    path = path_of(log)
    if not path.exists():
        return
    connection = sqlite3.connect(path, timeout=store.BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        _transact(connection, lambda: _create(connection, None))
        store.vacuum(connection)
    except sqlite3.DatabaseError:
        discard_file(path)
    finally:
        connection.close()


def discard_file(path: Path) -> None:
    """Remove an index that cannot be used."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _connect(log: EventLog, path: Path) -> sqlite3.Connection:
    target = str(path) if os.access(path.parent, os.W_OK) else ":memory:"
    with store.locked(path.parent):  # two processes that make it at once would disturb each other
        if target == str(path):
            store.create_private(path)
        connection = sqlite3.connect(target, timeout=store.BUSY_TIMEOUT_S, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("ATTACH ? AS log", (store.reading_uri(log.path),))
        except BaseException:
            connection.close()
            raise
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.execute("PRAGMA main.synchronous = NORMAL")
    connection.execute("PRAGMA main.secure_delete = ON")
    connection.execute("PRAGMA main.cache_size = -16000")
    return connection


def _transact(connection: sqlite3.Connection, work: Callable[[], Any]) -> Any:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return result


def _is_current(connection: sqlite3.Connection) -> bool:
    """Whether what is indexed is a beginning of this log, and nothing was erased from it since."""
    if connection.execute("PRAGMA main.user_version").fetchone()[0] != VERSION:
        return False
    state = dict(connection.execute("SELECT name, value FROM state").fetchall())
    (chain,) = connection.execute("SELECT chain FROM log.ledger WHERE n = ?", (state["n"],)).fetchone() or (None,)
    if state["zone"] != zone():  # days are local
        return False
    return state["chain"] in (chain, b"" if state["n"] == 0 else None) and state["erasures"] == _erasures(connection)


def _erasures(connection: sqlite3.Connection) -> int:
    """How many events of audit runs say that something was taken out of the log."""
    query = (
        "SELECT count(*) FROM log.runs r JOIN log.events e ON e.run = r.run WHERE r.mode = 'audit' AND e.kind <> 'frame' "
        f"AND e.kind IN ('{ERASED}', '{REDACTED}', '{PRUNED}')"
    )
    return int(connection.execute(query).fetchone()[0])


def _has_news(connection: sqlite3.Connection) -> bool:
    """Whether there are events that were not indexed yet."""
    seen = connection.execute("SELECT value FROM state WHERE name = 'seen'").fetchone()[0]
    if connection.execute("SELECT 1 FROM log.runs WHERE id > ? LIMIT 1", (seen,)).fetchone() is not None:
        return True
    pending = connection.execute("SELECT run, seq FROM pending").fetchall()
    return any(_goes_on(connection, run, seq) for run, seq in pending)


def _goes_on(connection: sqlite3.Connection, run: str, seq: int) -> bool:
    """Whether a run, or what was one, has something behind `seq` to be indexed."""
    newer = f"SELECT 1 FROM log.events WHERE run = ? AND seq > ? AND kind <> 'frame' AND kind IN ({_IN}) LIMIT 1"
    return connection.execute(newer, (run, seq)).fetchone() is not None


def _create(connection: sqlite3.Connection, erasures: int | None) -> None:
    """Make the tables anew, empty; a version of 0 has them made once more by whoever comes next."""
    for table in _TABLES:
        connection.execute(f"DROP TABLE IF EXISTS main.{table}")
    if erasures is None:
        connection.execute("PRAGMA main.user_version = 0")
        return
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)
    state = {"seen": 0, "n": 0, "chain": b"", "erasures": erasures, "zone": zone()}
    connection.executemany("INSERT INTO state VALUES (?, ?)", state.items())
    connection.execute(f"PRAGMA main.user_version = {VERSION}")


class _Filler:
    """Takes the next events into the index, a batch at a time, each in the transaction of its caller."""

    def __init__(self, connection: sqlite3.Connection, progress: Progress) -> None:
        self.connection = connection
        self.progress = progress
        self.done = 0
        self.runs: dict[str, _Run] = {}

    def step(self) -> bool:
        """Take a batch; says whether there may be more."""
        db = self.connection
        if not _is_current(db):
            _create(db, _erasures(db))
            self.runs.clear()
        self._see_new_runs()
        taken, batch = 0, BATCH
        for id_, run, seq in db.execute("SELECT id, run, seq FROM pending ORDER BY id").fetchall():
            if _goes_on(db, run, seq):
                taken += self._take(id_, run, seq, batch - taken)
            if taken >= batch:
                break
        n, chain = db.execute("SELECT n, chain FROM log.ledger ORDER BY n DESC LIMIT 1").fetchone() or (0, b"")
        db.executemany("UPDATE state SET value = ? WHERE name = ?", [(n, "n"), (chain, "chain")])
        self.done += taken
        self.progress(self.done)
        return taken >= batch or self._see_new_runs()

    def _see_new_runs(self) -> bool:
        db = self.connection
        (seen,) = db.execute("SELECT value FROM state WHERE name = 'seen'").fetchone()
        new = db.execute("SELECT id, run FROM log.runs WHERE id > ? ORDER BY id LIMIT 1000", (seen,)).fetchall()
        if new:
            db.executemany("INSERT INTO pending (id, run, seq) VALUES (?, ?, -1)", new)
            db.execute("UPDATE state SET value = ? WHERE name = 'seen'", (new[-1][0],))
        return bool(new)

    def _take(self, id_: int, run: str, seq: int, most: int) -> int:
        state = self.runs.get(run)
        if state is None or state.seq != seq:
            state = self.runs[run] = _Run.resumed(self.connection, id_, run, seq)
        taken = state.take(most)
        state.save()
        if state.ended or state.gone:
            self.connection.execute("DELETE FROM pending WHERE id = ?", (id_,))
            del self.runs[run]
        else:
            self.connection.execute("UPDATE pending SET seq = ? WHERE id = ?", (state.seq, id_))
        return taken


class _Run:
    """One run on its way into the index."""

    def __init__(self, connection: sqlite3.Connection, id_: int, run: str) -> None:
        self.connection = connection
        self.run = run
        self.seq = -1
        self.ended = False
        self.mode: str
        self.tools: dict[str, str] = {}
        self.last_id = 0
        line = connection.execute("SELECT name, mode, started_ns FROM log.runs WHERE id = ? AND run = ?", (id_, run)).fetchone()
        self.gone = line is None
        name, self.mode, started_ns = ("", "", 0) if line is None else (str(line[0]), str(line[1]), line[2])
        started_ns = started_ns if isinstance(started_ns, int) else 0
        self.account = RunAccount(name, started_ns, self._first_ns, self._counted)
        self.texts: list[tuple[int, Text, str, int]] = []

    @classmethod
    def resumed(cls, connection: sqlite3.Connection, id_: int, run: str, seq: int) -> "_Run":
        """A run that was indexed up to `seq`: what came before is read again, and not kept, to know what was open."""
        state = cls(connection, id_, run)
        if not state.gone:
            state.account.began()
        while state.seq < seq and state.take(BATCH, upto=seq):
            state.texts.clear()
        if seq >= 0:
            state.account.booked.clear()
            state.texts.clear()
            state.seq = seq
        return state

    def take(self, most: int, upto: int | None = None) -> int:
        """Read at most so many events on."""
        query = (
            f"SELECT seq, t_ns, wall_ns, kind, step, exchange, payload FROM log.events WHERE run = ? AND seq > ? AND seq <= ? "
            f"AND kind <> 'frame' AND kind IN ({_IN}) ORDER BY seq LIMIT ?"
        )
        rows = self.connection.execute(query, (self.run, self.seq, 2**62 if upto is None else upto, most)).fetchall()
        for row in rows:
            self._note(row)
        return len(rows)

    def _note(self, row: tuple[Any, ...]) -> None:
        """Take an event. One that readers cannot rely on is named and left out, and the rest of the log is indexed."""
        seq, t_ns, wall_ns, kind, step, exchange, payload = row
        fault = fault_in_row((self.run, seq, t_ns, wall_ns, kind, step, "", exchange, payload, b"", b"", 0))
        data: Any = None
        if fault is None:
            try:
                data = json.loads(payload)
                fault = fault_in_payload(kind, data)
            except (ValueError, RecursionError):
                fault = "is not JSON"
        if fault is None:
            return self._event(seq, t_ns, wall_ns, kind, step, exchange, data)
        self.seq = seq if isinstance(seq, int) else 2**62
        self.ended = self.ended or kind == "run.ended"
        message = f"run {self.run}, event {seq}: not indexed ({fault}); see `retold verify`"
        warnings.warn(message[:300], LeftOutWarning, stacklevel=2)
        return None

    def _event(self, seq: int, t_ns: int, wall_ns: int, kind: str, step: str, exchange: int | None, data: dict[str, Any]) -> None:
        self.seq = seq
        text = None
        if kind == "message":
            text = text_of_message(data, self.tools)
            self.account.message(data, step, exchange, t_ns, wall_ns)
        elif kind == "exchange.started":
            text = text_of_request(data)
            self.account.exchange_started(seq, data.get("attempt") or 1, t_ns)
        elif kind == "exchange.ended" and exchange is not None:
            self.account.exchange_ended(exchange, data, step, seq, t_ns, wall_ns)
        elif kind == "run.ended":
            self.account.ended()
            self.ended = True
        if text is not None:
            self.texts.append((wall_ns // 1000, text, step, seq))

    def _counted(self, identity: str) -> bool:
        """Whether a message was counted in another run; else it is counted in this one. A mock run has those that it retells."""
        if self.mode not in ("live", "import"):
            return False
        self.connection.execute("INSERT OR IGNORE INTO counted VALUES (?, ?)", (identity, self.run))
        (run,) = self.connection.execute("SELECT run FROM counted WHERE identity = ?", (identity,)).fetchone()
        return bool(run != self.run)

    def _first_ns(self, exchange: int, ended: int) -> int | None:
        """When the first piece with content came: a delta of a stream, the body of anything else."""
        query = (
            "SELECT t_ns FROM log.events WHERE run = ? AND seq > ? AND seq < ? AND exchange = ? "
            "AND (kind = 'chunk' OR kind = 'frame' AND instr(payload, 'content_block_delta')) ORDER BY seq LIMIT 1"
        )
        row = self.connection.execute(query, (self.run, exchange, ended, exchange)).fetchone()
        return row[0] if row is not None and isinstance(row[0], int) else None

    def save(self) -> None:
        """Write what was read since the last time."""
        insert = f"INSERT INTO texts (rowid, text, {', '.join(FACETS)}, seq) VALUES ({', '.join('?' * (len(FACETS) + 3))})"
        for wall_us, text, step, seq in self.texts:
            # Several events may share a microsecond: the next free number keeps their order.
            id_ = self.last_id + 1 if wall_us <= self.last_id < wall_us + 1_000_000 else wall_us
            values = (storable(text.text), self.run, step, text.type, text.tool, text.model, seq)
            while True:
                try:
                    self.connection.execute(insert, (id_, *values))
                    break
                except sqlite3.IntegrityError:
                    id_ += 1
            self.last_id = id_
        self.texts.clear()
        for key, account in self.account.booked.items():
            _book(self.connection, key, self.mode, account)
        self.account.booked.clear()
        keys = {dimension: list(found) for dimension, found in self.account.keys.items() if dimension in ("model", "tool")}
        self.connection.execute(
            "INSERT OR REPLACE INTO run_facts VALUES (?, ?, ?, ?)",
            (self.run, self.account.cost_usd, self.account.errors, strict_json.dumps(keys)),
        )


def _book(connection: sqlite3.Connection, key: Key, mode: str, account: Account) -> None:
    dimension, name, day = key
    where = "dimension = ? AND day = ? AND key = ? AND mode = ?"
    row = connection.execute(f"SELECT first, took FROM accounts WHERE {where}", (dimension, day, name, mode)).fetchone()
    sums = [account.sums[each] for each in SUMS]
    if row is None:
        places = ", ".join("?" * (len(SUMS) + 6))
        columns = f"dimension, key, day, mode, {', '.join(SUMS)}, first, took"
        values = (dimension, name, day, mode, *sums, to_json(account.first), to_json(account.took))
        connection.execute(f"INSERT INTO accounts ({columns}) VALUES ({places})", values)
        return
    first, took = from_json(row[0]) + account.first, from_json(row[1]) + account.took
    add = ", ".join(f"{each} = {each} + ?" for each in SUMS)
    connection.execute(
        f"UPDATE accounts SET {add}, first = ?, took = ? WHERE {where}",
        (*sums, to_json(first), to_json(took), dimension, day, name, mode),
    )


def to_json(buckets: Counter[int]) -> str:
    """Counted buckets as they are stored."""
    return strict_json.dumps(buckets, separators=(",", ":"))


def from_json(stored: str) -> Counter[int]:
    """The inverse of `to_json`."""
    return Counter({int(number): count for number, count in json.loads(stored).items()})
