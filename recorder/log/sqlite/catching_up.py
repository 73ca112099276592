"""Compare a writer with its run in the store, after an interrupted write or when the file was opened again."""

import sqlite3
from pathlib import Path

from ...errors import LogError
from ..reading import last_row
from ..run_writer import RunWriter
from ..runs import count_kinds
from .transaction import write_error


def catch_up(connection: sqlite3.Connection, writer: RunWriter, opened: int, path: Path, locks: Path) -> None:
    """Move the writer to the last event of its run in the log at `path`. Raises LogError if that is not an event of its own."""
    try:
        last, kinds = last_row(connection, writer.run), count_kinds(connection, writer.run)
    except sqlite3.Error as error:
        raise write_error(path, error) from error
    flying = writer.in_flight[-1] if writer.in_flight else None
    if last is not None and kinds.total() == last.seq + 1:
        landed = flying is not None and last.hash == flying.hash
        if landed or (last.seq + 1 == writer.seq and last.hash == writer.hash):
            writer.caught_up(last, kinds, opened)
            return
        if last.kind == "run.ended":
            writer.ended = True
            raise LogError(
                f"run {writer.run} was ended by another process: its lock in {locks} was gone. The log holds "
                "what was recorded until then; begin a new run."
            )
    elif last is None and writer.seq == 0:
        writer.in_flight, writer.opened = None, opened
        return
    there = "holds no such run" if last is None else f"holds {kinds.total()} of its {writer.seq} events"
    raise LogError(
        f"the log {path} was replaced or changed by another program while run {writer.run} was recorded: the file "
        f"there {there}. Put the right file back to go on with this run, or begin a new one."
    )
