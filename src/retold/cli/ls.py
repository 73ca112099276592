"""retold ls: list the runs in the log."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Db, Json, note, print_json

if TYPE_CHECKING:
    from ..audit.runs import Found


def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of runs, newest first.")] = 50,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Began since: 2h or 7d (ago), today, a date, a time.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Began until: the same forms.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="TEXT", help="Part of the name, or a pattern with *.")] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="live, mock, import or audit.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="running, completed, failed, cancelled or interrupted.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Used this model; * matches any text.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="NAME", help="Used this tool; * matches any text.")] = None,
    min_cost: Annotated[float | None, typer.Option("--min-cost", metavar="USD", help="Cost at least this amount.")] = None,
    error: Annotated[bool, typer.Option("--error", help="The run or one of its exchanges failed.")] = False,
    cost: Annotated[bool, typer.Option("--cost", help="Show the cost of each run.")] = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """List the runs in the log, newest first. If other logs record some of them, a column has their sources.

    Exit code 1 if there are none.

    Example: retold ls --since 7d --model 'claude-opus*' --min-cost 0.50
    """
    from typing import get_args

    from ..audit.runs import Chosen, chosen_runs
    from ..audit.when import moment
    from ..recorder.log.log import EventLog
    from ..recorder.log.run_writer import Mode, Status
    from .progress import progress

    _one_of("--mode", mode, get_args(Mode))
    _one_of("--status", status, get_args(Status))
    wanted = Chosen(
        since_ns=None if since is None else moment(since, "--since"),
        until_ns=None if until is None else moment(until, "--until"),
        name=name,
        mode=mode,
        status=status,
        model=model,
        tool=tool,
        min_cost=min_cost,
        failed=error,
        facts=cost,
    )
    log = EventLog(db)
    with progress("indexed", "events") as told:
        runs = chosen_runs(log, wanted, limit=limit, progress=told)
    if json:
        print_json([_as_json(found) for found in runs])
    elif runs:
        _print(runs)
    if not runs and log.runs(limit=1):
        note("retold: no run matches; `retold ls` lists all runs.")
        raise typer.Exit(1)
    if not runs:
        note("retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.")
        raise typer.Exit(1)


def _one_of(option: str, value: str | None, values: Sequence[str]) -> None:
    if value is not None and value not in values:
        from ..recorder.errors import InputError

        raise InputError(f"{option} {value!r}: one of {', '.join(values)}.")


def _as_json(found: "Found") -> dict[str, Any]:
    from ..recorder.http.exchange import timestamp

    r = found.info
    facts = {}
    if found.facts is not None:
        cost = None if found.cost_usd is None else round(found.cost_usd, 10)
        facts = {"models": found.facts.models, "tools": found.facts.tools, "cost_usd": cost}
    return {
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
        "source": found.source,
        **facts,
    }


def _print(runs: "list[Found]") -> None:
    from ..handlers.text import seconds
    from .table import dollars, print_table

    costs = any(found.facts is not None for found in runs)
    sources = any(found.source is not None for found in runs)
    head = ("RUN", "STARTED", "MODE", "STATUS", "TOOK", "MSGS")
    rows: list[tuple[str, ...]] = [(*head, *(("COST",) if costs else ()), *(("SOURCE",) if sources else ()), "NAME")]
    for found in runs:
        r = found.info
        started = time.strftime("%m-%d %H:%M:%S", time.localtime(r.started_ns / 1e9))
        took = "" if r.ended_ns is None else seconds(r.ended_ns - r.started_ns)
        cost = (dollars(found.cost_usd),) if costs else ()
        source = (found.source or "",) if sources else ()
        rows.append((r.run[:8], started, r.mode, r.status, took, str(r.messages), *cost, *source, r.name))
    print_table(rows, cut=sys.stdout.isatty())
