"""retold ls: list the runs in the log."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Db, Json, note, one_of, print_json

if TYPE_CHECKING:
    from ..audit.runs import Chosen, Found
    from ..fleet.presence import Pulls
    from ..recorder.log.log import EventLog

GREEN, AMBER, RED = "32", "33", "31"


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
    """List the runs in the log, newest first, and the forks of a run below it.

    In a mirror, SOURCE has the source of each run, and HEARD its last report, for a run that goes on: `5 s ago`, or `gone`.

    ERRORS has the calls that failed, and the failed attempts that a retry healed: `2 of 3, 1 healed`. Exit code 1 if there are
    no runs.

    Example: retold ls --since 7d --model 'claude-opus*' --min-cost 0.50
    """
    from typing import get_args

    from ..audit.runs import Chosen
    from ..audit.when import moment
    from ..fleet.presence import kept_by
    from ..recorder.log.log import EventLog
    from ..recorder.log.run_writer import Mode

    one_of("--mode", mode, get_args(Mode))
    check_status(status)
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
    )
    log = EventLog(db)
    runs = _found(log, wanted, limit, must_know=cost or wanted.needs_index)
    pulls = kept_by(log)
    if json:
        print_json([_as_json(found, pulls) for found in runs])
    elif runs:
        _print(runs, pulls, costs=cost or wanted.asks_for_facts)
    if not runs and log.runs(limit=1):
        note("retold: no run matches; `retold ls` lists all runs, --error those that failed or have a failed call.")
        raise typer.Exit(1)
    if not runs:
        note("retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.")
        raise typer.Exit(1)


def check_status(status: str | None) -> None:
    """Raise InputError if the value of `--status` is no status of a run."""
    from typing import get_args

    from ..recorder.log.run_writer import Status

    one_of("--status", status, get_args(Status))


def _found(log: "EventLog", wanted: "Chosen", limit: int, *, must_know: bool) -> "list[Found]":
    """Return the runs with their facts. Without an index, for example on a full disk, they are listed without facts."""
    from ..audit.runs import listed_runs
    from ..recorder.errors import LogError
    from .progress import progress

    with progress("indexed", "events") as told:
        runs, problem = listed_runs(log, wanted, limit=limit, progress=told)
    if problem is not None and must_know:
        raise LogError(problem)
    if problem is not None:
        note(f"retold: the errors of the runs are unknown: {problem}")
    return runs


def _as_json(found: "Found", pulls: "Pulls") -> dict[str, Any]:
    from ..recorder.http.exchange import timestamp

    r = found.info
    facts: dict[str, Any] = {}
    if found.facts is not None:
        cost = None if found.cost_usd is None else round(found.cost_usd, 10)
        facts = {"models": found.facts.models, "tools": found.facts.tools, "cost_usd": cost}
        facts |= {"calls": found.facts.calls, "failed_calls": found.facts.failed, "healed_attempts": found.facts.healed}
        facts |= {"outcome": found.outcome}
    if (heard := pulls.sources.get(found.source or "")) is not None:
        facts |= {"heard": timestamp(heard.report.at_ns), "left": heard.report.left, "pulled": timestamp(heard.pulled_ns)}
        facts |= {"source_ended": heard.report.ended, "source_gone": heard.is_gone}
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
        "fork": None if found.origin is None else found.origin.as_dict(),
        **facts,
    }


def _branch(depth: int) -> str:
    return "   " * (depth - 1) + "└─ " if depth else ""


def _heard(found: "Found", pulls: "Pulls") -> str:
    """Return the age of the last report of the source of a run that goes on."""
    from ..fleet.presence import ago

    heard = pulls.sources.get(found.source or "")
    if heard is None or found.info.status != "running":
        return ""
    age = ago(heard.report.at_ns)
    if heard.report.ended:
        return f"ended {age}"
    left = f", {heard.report.left} left" if heard.report.left else ""
    return f"gone, {age}{left}" if heard.is_gone else f"{age}{left}"


def _print(runs: "list[Found]", pulls: "Pulls", *, costs: bool) -> None:
    from ..audit.runs import as_tree
    from ..fleet.presence import ago
    from ..handlers.text import seconds
    from .common import colours
    from .table import dollars, print_table

    sources = any(found.source is not None for found in runs)
    head = ("RUN", "STARTED", "MODE", "STATUS", "TOOK", "MSGS", "ERRORS")
    rows: list[tuple[str, ...]] = [(*head, *(("COST",) if costs else ()), *(("SOURCE", "HEARD") if sources else ()), "NAME")]
    tree = as_tree(runs)
    for depth, found in tree:
        r = found.info
        started = time.strftime("%m-%d %H:%M:%S", time.localtime(r.started_ns / 1e9))
        took = "" if r.ended_ns is None else seconds(r.ended_ns - r.started_ns)
        cost = (dollars(found.cost_usd),) if costs else ()
        source = (found.source or "", _heard(found, pulls)) if sources else ()
        rows.append(
            (r.run[:8], started, r.mode, r.status, took, str(r.messages), _errors(found), *cost, *source, _branch(depth) + r.name)
        )

    def colour(row: int, column: int) -> str:
        return _colour(tree[row - 1][1]) if row and head[column : column + 1] in (("STATUS",), ("ERRORS",)) else ""

    print_table(rows, cut=sys.stdout.isatty(), colour=colour if colours() else None)
    for shelf, at_ns in sorted(pulls.shelves.items()):
        note(f"retold: pulled from {shelf} {ago(at_ns)}")


def _errors(found: "Found") -> str:
    """Return `2 of 3` for the calls that failed, `1 healed` for the failed attempts that a retry repaired, or both."""
    if found.facts is None:
        return "?"
    failed = f"{found.facts.failed} of {found.facts.calls}" if found.facts.failed else ""
    healed = f"{found.facts.healed} healed" if found.facts.healed else ""
    return ", ".join(filter(None, (failed, healed)))


def _colour(found: "Found") -> str:
    """Return the colour of a run's status, as SGR parameters: amber if only some of its calls failed."""
    if found.info.status == "completed":
        return AMBER if found.outcome != "completed" else GREEN
    return RED if found.info.status in ("failed", "interrupted") else ""
