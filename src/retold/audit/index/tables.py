"""The tables of the index, and its state: the part of the log that is in it.

1. Rows of `texts` are numbered by their time in microseconds since the epoch: newest first is the descending order of rowid,
   which FTS5 returns without ranking, and a time range is a range of rowids.
2. `words` is the index of `texts` by FTS5. It holds the words of a text and two numbers of rows in `facets`: one row has its run,
   the other its step, type, tool and model. Many texts share a row, so FTS5 takes 2 more words of a text instead of about 8.
3. `facet_words` is the index of `facets` by FTS5. A search is first narrowed there, and then by the numbers that it found.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

from ...recorder import strict_json
from ...recorder.log.sqlite.feed import Feed
from ..accounts import SUMS, zone
from ..texts import encodable

VERSION = 10

KINDS = (
    "run.started", "message", "exchange.started", "exchange.ended", "session.started", "wire.sent", "run.ended",
)  # fmt: skip
"""The kinds of events that are indexed."""

FACETS = ("run", "step", "type", "tool", "model")
"""The columns of `facets`. A search is narrowed by them inside the index."""

_FACETS = ", ".join(FACETS)

_SCHEMA = f"""
CREATE TABLE state (name TEXT PRIMARY KEY, value);
CREATE TABLE pending (id INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE texts (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, run INTEGER NOT NULL, facets INTEGER NOT NULL, seq INTEGER NOT NULL,
    copy TEXT NOT NULL
);
CREATE VIRTUAL TABLE words USING fts5(text, run, facets, content='texts', content_rowid='id', columnsize=0);
CREATE TABLE facets (
    id INTEGER PRIMARY KEY, {", ".join(f"{name} TEXT NOT NULL" for name in FACETS)}, UNIQUE ({_FACETS})
);
CREATE VIRTUAL TABLE facet_words USING fts5({_FACETS}, content='facets', content_rowid='id');
CREATE TABLE counted (identity TEXT PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE run_facts (
    run TEXT PRIMARY KEY, cost_usd REAL, errors INTEGER NOT NULL, calls INTEGER NOT NULL, failed INTEGER NOT NULL,
    healed INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, prompt TEXT NOT NULL,
    times TEXT NOT NULL, keys TEXT NOT NULL, copy_of TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE accounts (
    dimension TEXT, key TEXT, day TEXT, mode TEXT, {", ".join(f"{name} NOT NULL" for name in SUMS)}, first TEXT, took TEXT,
    PRIMARY KEY (dimension, day, key, mode)
) WITHOUT ROWID;
"""
_TABLES = ("state", "pending", "words", "texts", "facet_words", "facets", "counted", "run_facts", "accounts")


def create(connection: sqlite3.Connection, erasures: int | None) -> None:
    """Recreate the tables empty. With `erasures` of None no table is left, and version 0 makes the next opener rebuild them."""
    for table in _TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    if erasures is None:
        connection.execute("PRAGMA user_version = 0")
        return
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)
    state = {"seen": 0, "n": 0, "chain": b"", "erasures": erasures, "zone": zone()}
    connection.executemany("INSERT INTO state VALUES (?, ?)", state.items())
    connection.execute(f"PRAGMA user_version = {VERSION}")


def is_current(connection: sqlite3.Connection, feed: Feed) -> bool:
    """Return whether the indexed part is a beginning of this log, and nothing was erased from the log since."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        return False
    state = dict(connection.execute("SELECT name, value FROM state").fetchall())
    if state["zone"] != zone():  # days are local
        return False
    expected = (feed.chain(state["n"]), b"" if state["n"] == 0 else None)
    return state["chain"] in expected and state["erasures"] == feed.erasures()


def has_news(connection: sqlite3.Connection, feed: Feed) -> bool:
    """Return whether the log has events that are not indexed yet."""
    seen = connection.execute("SELECT value FROM state WHERE name = 'seen'").fetchone()[0]
    if feed.runs(seen, 1):
        return True
    pending = connection.execute("SELECT run, seq FROM pending").fetchall()
    return any(feed.has_more(run, seq) for run, seq in pending)


class Facets:
    """The numbers of the rows in `facets`, which gets a row for new values. Valid within one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[tuple[str, ...], int] = {}

    def of_run(self, run: str) -> int:
        """Return the number of the row that has only a run."""
        return self._number((run, "", "", "", ""))

    def of_text(self, step: str, type_: str, tool: str, model: str) -> int:
        """Return the number of the row that has these values and no run."""
        return self._number(("", step, type_, tool, model))

    def _number(self, values: tuple[str, ...]) -> int:
        number = self._numbers.get(values)
        if number is None:
            number = self._numbers[values] = self._stored(values)
        return number

    def _stored(self, values: tuple[str, ...]) -> int:
        db, places, values = self._connection, ", ".join("?" * len(FACETS)), tuple(map(encodable, values))
        found = db.execute(f"SELECT id FROM facets WHERE ({_FACETS}) = ({places})", values).fetchone()
        if found is not None:
            return int(found[0])
        number = db.execute(f"INSERT INTO facets ({_FACETS}) VALUES ({places})", values).lastrowid or 0
        db.execute(f"INSERT INTO facet_words (rowid, {_FACETS}) VALUES (?, {places})", (number, *values))
        return number


def transact(connection: sqlite3.Connection, work: Callable[[], Any]) -> Any:
    """Return the result of `work`, which writes in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return result


def to_json(buckets: Counter[int]) -> str:
    """Return counted buckets as the index stores them."""
    return strict_json.dumps(buckets, separators=(",", ":"))


def from_json(stored: str) -> Counter[int]:
    """Return the buckets that `to_json` was given."""
    return Counter({int(number): count for number, count in json.loads(stored).items()} if stored != "{}" else {})
