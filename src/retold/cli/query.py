"""retold query: read the log with SQL."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Annotated, Any

import typer

from ..recorder.words import plural
from .common import Csv, Db, Json, form_of, note, print_json_list

ROWS = 1000
"""Rows of a table. JSON and CSV have all rows, because they need not be held."""


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, or - to read it from stdin.")],
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, help="Maximum number of rows; 0 prints all.", show_default="1000 in a table, else all"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, metavar="SECONDS", help="How long it may compute.")] = 60.0,
    csv: Csv = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Read the log with one SQL statement of SQLite. It cannot change anything, neither in the log nor elsewhere.

    The tables and views are runs, events, messages, exchanges, usage, tool_uses and ledger; PRAGMA table_info(runs) lists
    the columns of one. NULL is an unknown value, and bytes are printed as hexadecimal digits. Exit code 1 if there are no rows.

    Example: retold query "SELECT name, sum(output_tokens) FROM usage JOIN runs USING (run) GROUP BY name"
    """
    from ..recorder.log.log import EventLog
    from ..recorder.log.sqlite.query import SqlQuery
    from .table import print_csv

    form = form_of(json=json, csv=csv)
    usual = ROWS if form == "text" else 0
    most = usual if limit is None else limit
    with SqlQuery(EventLog(db), timeout) as asked:
        found = asked.ask(sys.stdin.read() if sql == "-" else sql)
        rows = (tuple(map(_value, row)) for row in found.rows)
        counted = _Counted(islice(rows, most) if most else rows)
        if form == "json":
            print_json_list(_objects(found.names, counted))
        elif form == "csv":
            print_csv(found.names, counted)
        else:
            _print(found.names, list(counted))
        is_cut = next(rows, None) is not None
    if is_cut:
        note(f"retold: the first {plural(most, 'row')}; more with -n {most * 5}, all with -n 0")
    if not counted.count:
        note("retold: the query has no rows")
        raise typer.Exit(1)


class _Counted:
    """Rows that are counted while they are printed."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for row in self._rows:
            self.count += 1
            yield row


def _value(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _objects(names: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield each row as an object. A repeated name gets a number: `run`, `run_2`."""
    keys: list[str] = []
    for name in names:
        numbered = (name if number == 1 else f"{name}_{number}" for number in count(1))
        keys.append(next(each for each in numbered if each not in keys))
    return (dict(zip(keys, row, strict=True)) for row in rows)


def _print(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    from .table import print_table

    if rows:
        right = [column for column in range(len(names)) if all(_is_number(row[column]) for row in rows)]
        texts = [["NULL" if value is None else str(value) for value in row] for row in rows]
        ids = [column for column, name in enumerate(names) if name == "run"]  # to copy into another command
        print_table([names, *texts], right=right, whole=ids)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)
