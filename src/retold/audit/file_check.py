"""Check the file around the rows: its schema, its settings, its indexes, and the tables without events.

A changed schema can hide rows without touching one: an index with a condition, a view in the place of a table, a column that
compares in another way. So the schema is compared, text by text, with that of a log made now. SQLite's own check then compares
each index with its table: an index can be built under one text and described by another.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ..recorder.log.sqlite.evidence import MIGRATIONS, VERSION, Declared, Evidence, declarations, is_ordinary
from .chain import Finding

INTEGRITY_LINES = 5
"""Lines of SQLite's own check that are kept."""

_EARLY = [("retold", "m001_log"), ("retold", "m002_ledger")]

_Schema = dict[tuple[str, str], tuple[str, str | None]]


def check_schema(evidence: Evidence) -> tuple[list[Finding], bool]:
    """Return the differences from the schema of a new log, and whether the tables can be read all the same.

    If a table is missing, replaced by a view or declared otherwise, a query on it proves nothing; one on a view may never end.
    """
    expected, found = _by_name(declarations()), _by_name(evidence.declared())
    if ("table", MIGRATIONS) in found:
        found = {key: value for key, value in found.items() if value[0] != MIGRATIONS}
    differences = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    findings = [_finding(*key, expected=key in expected, found=key in found) for key in sorted(differences)]
    return findings, all(_is_read(name, expected[kind, name], found) for kind, name in expected if kind == "table")


def _is_read(name: str, expected: tuple[str, str | None], found: _Schema) -> bool:
    """Return whether queries on a table read its rows. Other programs may have added a column to `runs`."""
    declared = found.get(("table", name))
    return declared == expected or (name == "runs" and declared is not None and is_ordinary(declared[1]))


def _by_name(rows: list[Declared]) -> _Schema:
    return {(str(kind), str(name)): (table, sql) for kind, name, table, sql in rows}


def _finding(kind: str, name: str, *, expected: bool, found: bool) -> Finding:
    if not found:
        detail = f"the {kind} {name} is missing"
    elif expected:
        detail = f"the {kind} {name} is not declared as retold declares it"
    else:
        detail = f"the {kind} {name} is not one of retold's"
    return Finding("", None, "schema", detail)


def check_settings(evidence: Evidence) -> Iterator[Finding]:
    """Compare the rest of the file: its version, the list of migrations, and the list of erasures under way."""
    version = evidence.version()
    if version != VERSION:
        yield Finding("", None, "schema", f"the version of the file is {version}; a log of this schema has {VERSION}")
    rows = evidence.migrations()
    if rows is not None and not _migrations_fit(rows):
        yield Finding("", None, "schema", "the list of migrations was changed")
    if evidence.is_erasing():
        yield Finding("", None, "schema", "the table erasing is not empty: it allows payloads to be replaced")


def _migrations_fit(rows: list[dict[str, Any]]) -> bool:
    """Return whether the list of migrations is one that an early version wrote."""
    named = [(row.get("migration_set"), row.get("name")) for row in rows]
    numbered = all(row.get("id", number) == number for number, row in enumerate(rows, 1))
    return named in (_EARLY[:1], _EARLY) and numbered and all(_is_moment(row.get("applied_at")) for row in rows)


def _is_moment(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def check_integrity(evidence: Evidence) -> Iterator[Finding]:
    """Run SQLite's own check, which reads every page and compares each index with its table."""
    for line in evidence.integrity(INTEGRITY_LINES):
        yield Finding("", None, "damaged", f"{line}: queries may skip rows or show wrong ones; see `retold recover`")
