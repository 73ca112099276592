"""Export every event of runs as a Parquet file, for example for DuckDB and pandas. It is written group by group in flat memory.

Columns: those of `events`, with `name` and `mode` of the run. `wall` is a timestamp in UTC. `payload` is text; if the payload
is not UTF-8, it is null and `payload_bytes` holds the bytes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..recorder.errors import InputError
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.log.sqlite.rows import to_column

GROUP = 10_000
"""Events in a row group."""


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write every event of the runs. Raises InputError if pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise InputError("Parquet needs pyarrow, which is not installed: pip install 'retold[parquet]'.") from error
    text, integer = pyarrow.string(), pyarrow.int64()
    columns = [
        ("run", text), ("name", text), ("mode", text), ("seq", integer), ("t_ns", integer),
        ("wall", pyarrow.timestamp("ns", "UTC")), ("kind", text), ("step", text), ("task", text), ("exchange", integer),
        ("payload", pyarrow.large_string()), ("payload_bytes", pyarrow.large_binary()), ("digest", pyarrow.binary(32)),
        ("hash", pyarrow.binary(32)), ("schema", integer),
    ]  # fmt: skip
    schema = pyarrow.schema(columns)
    count = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _groups(log, runs):
            values = [list(column) for column in zip(*rows, strict=True)]
            arrays = [pyarrow.array(column, type_) for column, (_, type_) in zip(values, columns, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            count += len(rows)
    return count


def _groups(log: EventLog, runs: Sequence[RunInfo]) -> Iterator[list[tuple[Any, ...]]]:
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        for e in log.events(run.run):
            stored = to_column(e.payload)
            text, data = (stored, None) if isinstance(stored, str) else (None, stored)
            rows.append((e.run, run.name, run.mode, e.seq, e.t_ns, e.wall_ns, e.kind, e.step, e.task, e.exchange, text, data,
                         e.digest, e.hash, e.schema))  # fmt: skip
            if len(rows) == GROUP:
                yield rows
                rows = []
    if rows:
        yield rows
