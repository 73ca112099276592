"""A shelf in PostgreSQL: `retold[postgres]`, for users who query pages in SQL.

The schema `retold_LOG` has two tables:

    pages (n, source, run, first, last, hash, body, xid)    one row a page; n is the order of arrival
    reports (key, body)                                     the newest report of each source and mirror (reports.py)

A shipper inserts a page on the condition that the run's newest page is the one that the shipper saw. An advisory lock of the run
makes two shippers take turns. The page is durable when `put` returns: the shelf refuses a server without `synchronous_commit` or
`fsync`.

A page is one row, so the shelf inserts it. COPY of one row would need another query for `n`, and took a third more CPU.

PostgreSQL assigns `n` before a transaction commits, so a reader could miss a page that commits late. Therefore a reader takes
only pages with a transaction (`xid`) older than every open one. A transaction of any database of the server that has written and
stays open delays all readers. A waiting reader polls, because a notification would need a second connection for each reader.

An erasure inserts the new page and deletes the old row, which no query finds again. The bytes of the old row stay in the table's
file until later rows use their space. The shelf runs VACUUM after an erasure, which frees that space; only VACUUM FULL writes the
file without the bytes. The server's WAL and backups keep them as long as you keep these.

The URL never holds a password. libpq reads it from PGPASSWORD, ~/.pgpass or a service file.
"""

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ..recorder.errors import InputError, ShelfError
from ..recorder.http.guard import is_loopback
from .pages import Page
from .shelf import Full, PageConflict, Position, Refused, Shelved, Unreachable, check_follows

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

POLL_S = 0.02
"""Seconds after which a waiting reader asks for new pages again."""

BATCH = 64
"""The number of pages in one query of a reader."""

ANSWER_S = 5
"""Seconds after which a server that does not answer is unreachable."""

_LOG = re.compile(r"[0-9A-Za-z_-]{1,50}")  # with its prefix a name of a schema, of which PostgreSQL keeps 63 bytes
_SOURCE = re.compile(r"[0-9A-Za-z_-]{1,120}")
_FULL = ("53100", "53200", "53400")  # disk full, out of memory, a configured limit
_REFUSALS = ("authentication", "certificate", "pg_hba.conf", "no password supplied", "SSL", "does not exist")
"""Texts of connection errors that waiting does not cure. These errors have no code."""
_AWAY = ("08", "40", "53", "55", "57", "58")  # connection, serialization, resources, locks, shutdown and timeouts, system

_SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())"

_TABLES = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.shelf (made text NOT NULL);
CREATE TABLE IF NOT EXISTS {schema}.pages (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text NOT NULL, run text NOT NULL, first bigint NOT NULL,
    last bigint NOT NULL, hash bytea NOT NULL, body bytea NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE TABLE IF NOT EXISTS {schema}.reports (key text PRIMARY KEY, body bytea NOT NULL);
CREATE INDEX IF NOT EXISTS pages_by_run ON {schema}.pages (run, source, last DESC);
INSERT INTO {schema}.shelf (made) SELECT gen_random_uuid()::text WHERE NOT EXISTS (SELECT 1 FROM {schema}.shelf);
"""


class PostgresShelf:
    """A shelf that keeps its pages as rows in the schema `retold_LOG` of a PostgreSQL database. It connects at its first use.

    `url` is `postgresql://[USER@]HOST[:PORT]/DATABASE[?sslrootcert=FILE&service=NAME…]`. Beyond this machine the server must show
    a certificate: `sslmode=verify-full` is added. The first use creates a missing schema or, with `make=False`, raises Refused.
    Raises ShelfError, InputError.
    """

    remains = "The server's WAL and backups keep the erased bytes, and the file of the table until VACUUM FULL."

    def __init__(self, url: str, log: str, *, source: str, make: bool = True) -> None:
        for part, form in ((log, _LOG), (source, _SOURCE)):
            if not form.fullmatch(part):
                raise InputError(f"{part!r} is no name for a part of a shelf: use letters, digits, _ and -.")
        self._make = make
        self._url = url
        self._tls = _tls_of(url)
        parts = urlsplit(url)
        self.name = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}/{log}"
        self.source = source
        self._schema = f'"retold_{log}"'
        self._lock = threading.RLock()
        self._connection: Connection[Any] | None = None
        self._made = ""

    def last(self, run: str) -> Position | None:
        """Return the position of the run's last page."""
        with self._transaction() as cursor:
            return self._last(cursor, run)

    def _last(self, cursor: "Cursor[Any]", run: str) -> Position | None:
        query = (
            f"SELECT last, hash, n FROM {self._schema}.pages WHERE run = %s AND source = %s ORDER BY last DESC, n DESC LIMIT 1"
        )
        row = cursor.execute(query, (run, self.source)).fetchone()
        return None if row is None else Position(row[0], bytes(row[1]), row[2])

    def put(self, page: Page, after: Position | None) -> Position:
        """Insert the page, commit, and return its position."""
        check_follows(page, after)
        with self._transaction() as cursor:
            self._take_turns(cursor, page.run)
            if self._last(cursor, page.run) != after:
                raise PageConflict(f"{page!r} does not follow the last page of its run in {self.name}.")
            return Position(page.last, page.hash, self._insert(cursor, page))

    def _take_turns(self, cursor: "Cursor[Any]", run: str) -> None:
        # The statement after it sees each page that the other shipper committed.
        lock = f"{self._schema}/{self.source}/{run}"
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (lock,))

    def _insert(self, cursor: "Cursor[Any]", page: Page) -> int:
        query = (
            f"INSERT INTO {self._schema}.pages (source, run, first, last, hash, body) VALUES (%s, %s, %s, %s, %s, %s) RETURNING n"
        )
        row = cursor.execute(query, (self.source, page.run, page.first, page.last, page.hash, page.body), binary=True).fetchone()
        assert row is not None
        return int(row[0])

    def pages(self, after: str | None = None, *, run: str | None = None, wait_s: float = 0) -> Iterator[list[Shelved]]:
        """Yield the pages after the cursor. Without one, the pages of one run come in the order of its events."""
        if run is not None and after is None and wait_s == 0:
            yield [self._shelved(row) for row in self._read("run = %s ORDER BY source, first, n", run)]
            return
        at = self._start(after)
        deadline = time.monotonic() + wait_s
        while True:
            rows = self._read(
                f"{_SETTLED} AND n > %s AND (%s::text IS NULL OR run = %s) ORDER BY n LIMIT %s", at, run, run, BATCH
            )
            if rows:
                at = rows[-1][0]
                yield [self._shelved(row) for row in rows]
                deadline = time.monotonic() + wait_s
            elif time.monotonic() >= deadline:
                return
            else:
                time.sleep(min(POLL_S, wait_s))

    def _start(self, after: str | None) -> int:
        """Return the number after which a reader with this cursor begins: 0 if the cursor does not fit."""
        made, number, own = (after or "||").split("|") if (after or "||").count("|") == 2 else ("", "", "")
        with self._transaction() as cursor:
            if made != self._made or not number.isdecimal():
                return 0
            # An erased page is not there any more, but the numbers go on; a database that went back has smaller ones.
            query = f"SELECT hash FROM {self._schema}.pages WHERE n = %s"
            row = cursor.execute(query, (int(number),)).fetchone()
            return int(number) if row is not None and bytes(row[0]).hex() == own else 0

    def _read(self, where: str, *values: object) -> list[Any]:
        query = f"SELECT n, source, run, first, last, hash, body FROM {self._schema}.pages WHERE {where}"
        with self._transaction() as cursor:
            return cursor.execute(query, values, binary=True).fetchall()

    def _shelved(self, row: Any) -> Shelved:
        n, source, run, first, last, own, body = row
        return Shelved(f"{self._made}|{n}|{bytes(own).hex()}", source, Page(run, first, last, bytes(own), bytes(body)))

    # Erasing

    def replace(self, page: Page) -> None:
        """Insert the page and delete the rows with the same events in one transaction, then run VACUUM."""
        with self._transaction() as cursor:
            self._take_turns(cursor, page.run)
            query = f"DELETE FROM {self._schema}.pages WHERE run = %s AND source = %s AND first = %s"
            cursor.execute(query, (page.run, self.source, page.first))
            self._insert(cursor, page)
        self._vacuum()

    def drop(self, run: str) -> None:
        """Delete all pages of the run, then run VACUUM."""
        with self._transaction() as cursor:
            self._take_turns(cursor, run)
            cursor.execute(f"DELETE FROM {self._schema}.pages WHERE run = %s AND source = %s", (run, self.source))
        self._vacuum()

    def _vacuum(self) -> None:
        """Free the deleted rows, without a time limit. If the role does not own the table, the server does nothing."""
        with self._lock, _named(self):
            connection = self._connected()
            connection.execute("SET statement_timeout = 0")
            connection.execute(f"VACUUM {self._schema}.pages")
            connection.execute(f"SET statement_timeout = '{ANSWER_S}s'")

    # Reports

    def report(self, key: str, text: bytes) -> None:
        """Put the text into the row of the key."""
        query = (
            f"INSERT INTO {self._schema}.reports (key, body) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET body = excluded.body"
        )
        with self._transaction() as cursor:
            cursor.execute(query, (key, text))

    def reports(self) -> dict[str, bytes]:
        """Return the newest text under each key."""
        with self._transaction() as cursor:
            rows = cursor.execute(f"SELECT key, body FROM {self._schema}.reports ORDER BY key").fetchall()
        return {str(key): bytes(body) for key, body in rows}

    def has_read(self, cursor: str, run: str) -> bool:
        """Return whether a reader with this cursor has read every page of a run of this source."""
        start = self._start(cursor)
        with self._transaction() as asking:
            query = f"SELECT max(n) FROM {self._schema}.pages WHERE run = %s AND source = %s"
            row = asking.execute(query, (run, self.source)).fetchone()
        return row is not None and row[0] is not None and row[0] <= start

    # The connection

    @contextlib.contextmanager
    def _transaction(self) -> "Iterator[Cursor[Any]]":
        """Run the block in one transaction, one thread at a time. Raises ShelfError."""
        with self._lock, _named(self):
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                yield cursor

    def _connected(self) -> "Connection[Any]":
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise InputError("a shelf in PostgreSQL needs psycopg: pip install 'retold[postgres]'.") from error
        if self._connection is not None and self._connection.closed:
            self._connection = None
        if self._connection is None:
            options = (
                f"-c statement_timeout={ANSWER_S}s -c lock_timeout={ANSWER_S}s -c idle_in_transaction_session_timeout={ANSWER_S}s"
            )
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=ANSWER_S, application_name=f"retold {self.source}", options=options,
                tcp_user_timeout=ANSWER_S * 1000, keepalives_idle=ANSWER_S, **self._tls,
            )  # fmt: skip
            try:
                self._made = self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: "Connection[Any]") -> str:
        """Check that the server keeps its commits, create missing tables, and return the word of the shelf."""
        if connection.info.server_version < 130000:
            raise Refused(f"{self.name} is PostgreSQL {connection.info.server_version // 10000}; retold needs 13 or newer.")
        for setting in ("synchronous_commit", "fsync"):
            row = connection.execute(f"SHOW {setting}").fetchone()
            if row is not None and row[0] == "off":
                raise Refused(f"{self.name} would lose pages: {setting} is off.")
        there = connection.execute("SELECT to_regclass(%s)", (f"{self._schema}.shelf",)).fetchone()
        if there is None or there[0] is None:
            if not self._make:
                raise Refused(f"{self.name} has no schema {self._schema}; the first `retold ship` makes it.")
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (self._schema,))
                connection.execute(_TABLES.format(schema=self._schema))
        row = connection.execute(f"SELECT made FROM {self._schema}.shelf").fetchone()
        return "" if row is None else str(row[0])

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _tls_of(url: str) -> dict[str, Any]:
    """Return the options with which libpq checks the certificate of another machine. Raises InputError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("postgresql", "postgres"):
        raise InputError("this is no address of a PostgreSQL server; write postgresql://HOST:PORT/DATABASE.")
    if parts.password is not None or {"password", "sslpassword"} & options.keys():
        raise InputError("an address of a shelf holds no password; use PGPASSWORD, ~/.pgpass or a service file.")
    hosts = (options.get("host") or parts.netloc.rpartition("@")[2] or os.environ.get("PGHOST", "")).split(",")
    named_elsewhere = {"hostaddr", "service"} & options.keys() or {"PGHOSTADDR", "PGSERVICE"} & os.environ.keys()
    if not named_elsewhere and all(_is_here(host) for host in hosts):
        return {}
    if (mode := options.get("sslmode", "verify-full")) != "verify-full":
        raise InputError(f"sslmode={mode} does not check a server that is not on this machine; write sslmode=verify-full.")
    return {"sslmode": "verify-full"}


def _is_here(host: str) -> bool:
    """Return whether a host of libpq, with or without a port, is a Unix socket or this machine."""
    name = unquote(host)
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    return not name or name.startswith(("/", "@")) or is_loopback(name)


@contextlib.contextmanager
def _named(shelf: PostgresShelf) -> Iterator[None]:
    """Raise a ShelfError with the shelf's name for an error of the server."""
    try:
        import psycopg
    except ModuleNotFoundError:
        yield  # the connection raises the error that names the extra
        return
    try:
        yield
    except ShelfError:
        raise
    except psycopg.Error as error:
        code = error.sqlstate or "08000"  # an error without a code is one of the connection
        text = " ".join(str(error).split())
        kind: type[ShelfError] = Refused
        if code in _FULL:
            kind = Full
        elif code[:2] in _AWAY and not any(word in text for word in _REFUSALS):
            kind = Unreachable
        raise kind(f"{shelf.name}: {text}.".replace("..", ".")) from error
