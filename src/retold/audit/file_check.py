"""Checking the file around the rows: its schema, its settings, its indexes, and the tables that hold no events.

A changed schema can hide rows without touching one: an index with a condition, a view in the place of a table, a column that
compares in another way. So the schema is compared, text by text, with that of a log made now. SQLite's own check then compares
each index with its table: an index can be built under one text and described by another.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime

from ..recorder.log.sqlite import opening as store
from .chain import Finding

INTEGRITY_LINES = 5
"""How many lines of SQLite's own check are kept."""

_MIGRATIONS = "_sqlite_migrations"
_EARLY = [("retold", "m001_log"), ("retold", "m002_ledger")]

_Schema = dict[tuple[str, str], tuple[str, str | None]]


def check_schema(connection: sqlite3.Connection) -> tuple[list[Finding], bool]:
    """Return the differences from the schema of a new log, and whether the tables can be read all the same.

    If a table is missing, replaced by a view or declared otherwise, a query on it proves nothing; one on a view may never end.
    """
    from ..recorder.log.sqlite import migrations

    expected, found = _by_name(migrations.schema()), _schema(connection)
    if ("table", _MIGRATIONS) in found:  # made by sqlite-utils, which early versions used and which wrote it in several ways
        found = {key: value for key, value in found.items() if value[0] != _MIGRATIONS}
    differences = [key for key in expected.keys() | found.keys() if not _equal(key, expected, found)]
    findings = [_finding(*key, expected=key in expected, found=key in found) for key in sorted(differences)]
    return findings, all(_is_read(name, expected[kind, name], found) for kind, name in expected if kind == "table")


def _is_read(name: str, expected: tuple[str, str | None], found: _Schema) -> bool:
    """Whether queries on a table mean what they say; a table that others added a column to is still one."""
    declared = found.get(("table", name))
    return declared == expected or (name == "runs" and declared is not None and str(declared[1]).startswith("CREATE TABLE"))


def _schema(connection: sqlite3.Connection) -> _Schema:
    return _by_name(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall())


def _by_name(rows: list[tuple[str, str, str, str | None]]) -> _Schema:
    return {(str(kind), str(name)): (table, sql) for kind, name, table, sql in rows}


def _equal(key: tuple[str, str], expected: _Schema, found: _Schema) -> bool:
    return expected.get(key) == found.get(key)


def _finding(kind: str, name: str, *, expected: bool, found: bool) -> Finding:
    if not found:
        detail = f"the {kind} {name} is missing"
    elif expected:
        detail = f"the {kind} {name} is not declared as retold declares it"
    else:
        detail = f"the {kind} {name} is not one of retold's"
    return Finding("", None, "schema", detail)


def check_settings(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Compare what the file holds beside runs and events: its version, the migrations, and the list of erasures under way."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != store.VERSION:
        yield Finding("", None, "schema", f"the version of the file is {version}; a log of this schema has {store.VERSION}")
    if not _migrations_fit(connection):
        yield Finding("", None, "schema", "the list of migrations is not as it was written")
    if connection.execute("SELECT 1 FROM erasing LIMIT 1").fetchone() is not None:
        yield Finding("", None, "schema", "the table erasing is not empty: it allows payloads to be replaced")


def _migrations_fit(connection: sqlite3.Connection) -> bool:
    """Whether the list of migrations is absent, as in new logs, or as early versions wrote it."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_MIGRATIONS,)).fetchone() is None:
        return True
    cursor = connection.execute(f"SELECT * FROM {_MIGRATIONS} ORDER BY rowid")
    columns = [column for column, *_ in cursor.description]
    rows = [dict(zip(columns, row, strict=True)) for row in cursor]
    named = [(row.get("migration_set"), row.get("name")) for row in rows]
    numbered = "id" not in columns or [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    return named in (_EARLY[:1], _EARLY) and numbered and all(_is_moment(row.get("applied_at")) for row in rows)


def _is_moment(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def check_integrity(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Run SQLite's own check, which reads every page and compares each index with its table."""
    rows = connection.execute(f"PRAGMA integrity_check({INTEGRITY_LINES})").fetchall()
    lines = [line for (text,) in rows if text != "ok" for line in str(text).split("\n")]
    for line in lines[:INTEGRITY_LINES]:
        yield Finding("", None, "damaged", f"{line}: queries may skip rows or show wrong ones; see `retold recover`")
