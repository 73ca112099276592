"""retold ls: the runs in the log."""

import shutil
import sys
import time
from typing import Annotated

import typer

from .common import Db, Json, note, print_json


def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 50,
    json: Json = False,
    db: Db = None,
) -> None:
    """List the runs in the log, newest first.

    Example: retold ls -n 10
    """
    from ..handlers.text import clean, seconds
    from ..recorder.exchange import timestamp
    from ..recorder.log import EventLog

    runs = EventLog(db).runs(limit=limit)
    if json:
        print_json(
            [
                {
                    "run": r.run,
                    "name": r.name,
                    "mode": r.mode,
                    "status": r.status,
                    "started": timestamp(r.started_ns),
                    "ended": None if r.ended_ns is None else timestamp(r.ended_ns),
                    "messages": r.messages,
                    "exchanges": r.exchanges,
                    "frames": r.frames,
                    "error": r.error,
                }
                for r in runs
            ]
        )
    elif runs:
        rows = [("RUN", "STARTED", "MODE", "STATUS", "TOOK", "MSGS", "NAME")]
        for r in runs:
            started = time.strftime("%m-%d %H:%M:%S", time.localtime(r.started_ns / 1e9))
            took = "" if r.ended_ns is None else seconds(r.ended_ns - r.started_ns)
            rows.append((r.run[:8], started, r.mode, r.status, took, str(r.messages), clean(r.name)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()[:wide])
    if not runs:
        note("retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.")
        raise typer.Exit(1)
