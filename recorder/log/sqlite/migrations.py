"""The log's tables, as numbered migrations. Imported only when a log is made or is older than this version.

`events` is the truth. `runs` is a projection for listing, which can be rebuilt from the events; the views are for people and
SQLite tools. `events` is clustered by its key: an append touches one page instead of a page of a table and one of an index, and
a run is read in one sweep. A migration sets `user_version` to its own number in the same transaction, so opening an up-to-date
log takes only one PRAGMA.
"""

import functools
import sqlite3
from contextlib import closing

from . import rows

EVENTS = """
CREATE TABLE events (
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    t_ns INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    step TEXT NOT NULL,
    task TEXT NOT NULL,
    exchange INTEGER,
    payload BLOB NOT NULL,
    digest BLOB NOT NULL,
    hash BLOB NOT NULL,
    schema INTEGER NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE INDEX events_but_frames ON events (run, seq) WHERE kind <> 'frame';
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""

RUNS = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    mode TEXT NOT NULL,
    status TEXT NOT NULL,
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER,
    messages INTEGER NOT NULL DEFAULT 0,
    exchanges INTEGER NOT NULL DEFAULT 0,
    frames INTEGER NOT NULL DEFAULT 0,
    error TEXT
);
CREATE INDEX open_runs ON runs (run) WHERE status = 'running';
"""

VIEWS = """
CREATE VIEW messages AS
SELECT run, seq, t_ns, wall_ns, step, task, exchange,
       json_extract(payload, '$.type') AS type, json_extract(payload, '$.subtype') AS subtype, payload AS message
FROM events WHERE kind = 'message' AND kind <> 'frame';

CREATE VIEW exchanges AS
SELECT s.run, s.exchange, s.step, s.task, s.wall_ns AS started_ns, e.t_ns - s.t_ns AS duration_ns,
       json_extract(s.payload, '$.method') AS method, json_extract(s.payload, '$.uri') AS uri,
       json_extract(s.payload, '$.call') AS call, json_extract(s.payload, '$.attempt') AS attempt,
       json_extract(e.payload, '$.ending') AS ending, json_extract(e.payload, '$.status') AS status,
       json_extract(e.payload, '$.model') AS model, json_extract(e.payload, '$.stop_reason') AS stop_reason,
       json_extract(e.payload, '$.frames') AS frames, json_extract(e.payload, '$.bytes') AS bytes
FROM events s LEFT JOIN events e
  ON e.run = s.run AND e.exchange = s.exchange AND e.kind = 'exchange.ended' AND e.kind <> 'frame' AND e.seq > s.seq
WHERE s.kind = 'exchange.started' AND s.kind <> 'frame';

CREATE VIEW usage AS
SELECT run, exchange, step, task, wall_ns, json_extract(payload, '$.model') AS model,
       json_extract(payload, '$.usage.input_tokens') AS input_tokens,
       json_extract(payload, '$.usage.output_tokens') AS output_tokens,
       json_extract(payload, '$.usage.cache_creation_input_tokens') AS cache_creation_input_tokens,
       json_extract(payload, '$.usage.cache_read_input_tokens') AS cache_read_input_tokens,
       json_extract(payload, '$.cost_usd') AS cost_usd
FROM events WHERE kind = 'exchange.ended' AND kind <> 'frame' AND json_extract(payload, '$.usage') IS NOT NULL;
"""


LEDGER = """
CREATE TABLE ledger (
    n INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    what TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    chain BLOB NOT NULL
);
CREATE TRIGGER ledger_is_not_changed BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_is_not_removed BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""

ERASING = """
CREATE TABLE erasing (run TEXT NOT NULL, seq INTEGER, PRIMARY KEY (run, seq));
DROP TRIGGER events_are_not_changed;
DROP TRIGGER events_are_not_removed;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events WHEN NOT (
    NEW.run = OLD.run AND NEW.seq = OLD.seq AND NEW.t_ns = OLD.t_ns AND NEW.wall_ns = OLD.wall_ns AND NEW.kind = OLD.kind
    AND NEW.step = OLD.step AND NEW.task = OLD.task AND NEW.exchange IS OLD.exchange AND NEW.digest = OLD.digest
    AND NEW.hash = OLD.hash AND NEW.schema = OLD.schema
    AND EXISTS (SELECT 1 FROM erasing WHERE run = OLD.run AND seq = OLD.seq)
)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_not_removed BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM erasing WHERE run = OLD.run AND seq IS NULL)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
"""
"""`erasing` is empty but inside a transaction of erasure.py: it names the payloads that are being replaced, or with seq NULL
the run that is being pruned. Header, digest and hash never change."""

AUDIT_RUNS = """
CREATE INDEX audit_runs ON runs (id, run) WHERE mode = 'audit';
"""

OVER_FOREIGN_ROWS = """
DROP VIEW messages;
DROP VIEW exchanges;
DROP VIEW usage;
CREATE VIEW messages AS
SELECT run, seq, t_ns, wall_ns, step, task, exchange,
       json_extract(payload, '$.type') AS type, json_extract(payload, '$.subtype') AS subtype, payload AS message
FROM events WHERE kind = 'message' AND kind <> 'frame' AND json_valid(payload);

CREATE VIEW exchanges AS
SELECT s.run, s.exchange, s.step, s.task, s.wall_ns AS started_ns, e.t_ns - s.t_ns AS duration_ns,
       json_extract(s.payload, '$.method') AS method, json_extract(s.payload, '$.uri') AS uri,
       json_extract(s.payload, '$.call') AS call, json_extract(s.payload, '$.attempt') AS attempt,
       json_extract(e.payload, '$.ending') AS ending, json_extract(e.payload, '$.status') AS status,
       json_extract(e.payload, '$.model') AS model, json_extract(e.payload, '$.stop_reason') AS stop_reason,
       json_extract(e.payload, '$.frames') AS frames, json_extract(e.payload, '$.bytes') AS bytes
FROM events s LEFT JOIN events e
  ON e.run = s.run AND e.exchange = s.exchange AND e.kind = 'exchange.ended' AND e.kind <> 'frame' AND e.seq > s.seq
 AND json_valid(e.payload)
WHERE s.kind = 'exchange.started' AND s.kind <> 'frame' AND json_valid(s.payload);

CREATE VIEW usage AS
SELECT run, exchange, step, task, wall_ns, json_extract(payload, '$.model') AS model,
       json_extract(payload, '$.usage.input_tokens') AS input_tokens,
       json_extract(payload, '$.usage.output_tokens') AS output_tokens,
       json_extract(payload, '$.usage.cache_creation_input_tokens') AS cache_creation_input_tokens,
       json_extract(payload, '$.usage.cache_read_input_tokens') AS cache_read_input_tokens,
       json_extract(payload, '$.cost_usd') AS cost_usd
FROM events
WHERE kind = 'exchange.ended' AND kind <> 'frame' AND json_valid(payload) AND json_extract(payload, '$.usage') IS NOT NULL;
"""
"""A row that another program wrote and whose payload is no JSON made every query of a view fail."""

TOOL_USES = """
CREATE VIEW tool_uses AS
SELECT e.run, e.seq, e.t_ns, e.wall_ns, e.step, e.task, e.exchange, json_extract(b.value, '$.id') AS id,
       json_extract(b.value, '$.name') AS name, json_extract(b.value, '$.input') AS input
FROM (
    SELECT *, iif(json_valid(payload), payload, '{}') AS message FROM events WHERE kind = 'message' AND kind <> 'frame'
) e, json_each(e.message, '$.message.content') b
WHERE json_extract(e.message, '$.type') = 'assistant' AND json_type(e.message, '$.message.content') = 'array'
  AND b.type = 'object' AND json_extract(b.value, '$.type') IN ('tool_use', 'server_tool_use', 'mcp_tool_use');
"""


RECEIVED = """
CREATE TABLE received (run TEXT PRIMARY KEY, shelf TEXT NOT NULL, source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE shelves (shelf TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
"""
"""The runs that other logs record, and how far the pages of each shelf were read."""


def _log(connection: sqlite3.Connection) -> None:
    """Create the first version of the log."""
    for statements in (EVENTS, RUNS, VIEWS):
        _script(connection, statements)


def _ledger(connection: sqlite3.Connection) -> None:
    """Chain runs to each other, allow erasing, add a view of tool uses, and let the views skip foreign rows."""
    for statements in (LEDGER, ERASING, AUDIT_RUNS, OVER_FOREIGN_ROWS, TOOL_USES):
        _script(connection, statements)
    for (run,) in connection.execute("SELECT run FROM runs ORDER BY id").fetchall():
        ends = "SELECT kind, seq, hash FROM events WHERE run = ? ORDER BY seq"
        first = connection.execute(f"{ends} LIMIT 1", (run,)).fetchone()
        last = connection.execute(f"{ends} DESC LIMIT 1", (run,)).fetchone()
        if first is not None:
            rows.enter(connection, run, "started", first[1], first[2])
        if last is not None and last[0] == "run.ended":
            rows.enter(connection, run, "ended", last[1], last[2])


def _received(connection: sqlite3.Connection) -> None:
    """Let the log receive the runs of other logs."""
    _script(connection, RECEIVED)


MIGRATIONS = (_log, _ledger, _received)
"""Migration n brings a log from version n to n + 1; the log's version is SQLite's `user_version`."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the log up to this version; every migration commits in a transaction of its own, with its number.

    The caller holds the lock of the log's folder. Raises sqlite3.Error; the log then has the version before.
    """
    for version in range(connection.execute("PRAGMA user_version").fetchone()[0], len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            MIGRATIONS[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise


def _script(connection: sqlite3.Connection, script: str) -> None:
    """Execute a script inside the open transaction; `executescript` would commit it first."""
    for statement in _statements(script):
        connection.execute(statement)


@functools.cache
def _statements(script: str) -> list[str]:
    statements, pending = [], ""
    for line in script.split("\n"):
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


@functools.cache
def schema() -> list[tuple[str, str, str, str | None]]:
    """Return (type, name, table, SQL) of everything that a log of this version declares."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
