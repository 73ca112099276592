"""retold ls: list the runs in the log."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import Csv, Db, Json, form_of, note, one_of, print_json

if TYPE_CHECKING:
    from ..audit.runs import Chosen, Found
    from ..fleet.presence import Pulls
    from ..recorder.log.log import EventLog

RIGHT = ("TOOK", "MSGS", "COST")
"""The columns of figures."""

GREEN, AMBER, RED = "32", "33", "31"

CSV_COLUMNS = (
    "run", "name", "mode", "status", "started", "ended", "messages", "exchanges", "frames", "error", "source", "parent", "models",
    "tools", "cost_usd", "calls", "failed_calls", "healed_attempts", "outcome",
)  # fmt: skip
"""The columns of --csv: values of --json, with the run that a fork continues as `parent`. Lists are joined by spaces."""


class SortKey(StrEnum):
    """The columns by which a listing can be sorted."""

    started = "started"
    name = "name"
    mode = "mode"
    status = "status"
    took = "took"
    messages = "messages"
    errors = "errors"
    cost = "cost"
    source = "source"


def ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Maximum number of runs; 0 lists all.")] = 50,
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
    sort: Annotated[
        SortKey, typer.Option("--sort", help="Times and numbers from the largest down, texts from A to Z.")
    ] = SortKey.started,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The other way round.")] = False,
    csv: Csv = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """List the runs in the log, newest first, and the forks of a run below it unless --sort names a column.

    In a mirror, SOURCE has the source of each run, and HEARD its last report, for a run that goes on: `5 s ago`, or `gone`.

    ERRORS has the calls that failed, and the failed attempts that a retry healed: `2 of 3, 1 healed`. Exit code 1 if there are
    no runs.

    Example: retold ls --since 7d --model 'claude-opus*' --min-cost 0.50
    """
    from typing import get_args

    from ..audit.runs import Chosen
    from ..audit.when import moment
    from ..recorder.log.log import EventLog
    from ..recorder.log.runs import Mode

    form = form_of(json=json, csv=csv)
    one_of("--mode", mode, get_args(Mode))
    check_status(status)
    since_ns = None if since is None else moment(since, "--since")
    until_ns = None if until is None else moment(until, "--until")
    wanted = Chosen(
        since_ns, until_ns, name=name, mode=mode, status=status, model=model, tool=tool, min_cost=min_cost, failed=error
    )
    costs = cost or sort is SortKey.cost
    _list(EventLog(db), wanted, limit, sort, reverse, form, costs=costs)


def _list(
    log: "EventLog", wanted: "Chosen", limit: int, sort: SortKey, reverse: bool, form: str, *, costs: bool
) -> None:  # fmt: skip
    from ..fleet.presence import kept_by
    from ..recorder.words import plural

    runs, is_cut = _sorted(log, wanted, limit, sort, reverse, must_know=costs or wanted.needs_index)
    is_newest_first = sort is SortKey.started and not reverse
    pulls = kept_by(log)
    if form == "json":
        print_json([_as_json(found, pulls) for found in runs])
    elif form == "csv":
        _print_csv(runs, pulls)
    elif runs:
        _print(runs, pulls, costs=costs or wanted.asks_for_facts, is_tree=is_newest_first)
    if is_cut:
        first = "newest" if is_newest_first else "first"
        note(f"retold: the {first} {plural(limit, 'run')}; more with -n {limit * 5}, all with -n 0")
    if not runs and log.runs(limit=1):
        note("retold: no run matches; `retold ls` lists all runs, --error those that failed or have a failed call.")
        raise typer.Exit(1)
    if not runs:
        note("retold: the log holds no runs yet. Record or replay one first: retold run WORKFLOW.")
        raise typer.Exit(1)


def check_status(status: str | None) -> None:
    """Raise InputError if the value of `--status` is no status of a run."""
    from typing import get_args

    from ..recorder.log.runs import Status

    one_of("--status", status, get_args(Status))


def _sorted(
    log: "EventLog", wanted: "Chosen", limit: int, sort: SortKey, reverse: bool, *, must_know: bool
) -> "tuple[list[Found], bool]":  # fmt: skip
    """Return the first runs in an order, and whether there are more. The log itself lists the newest first."""
    in_log_order = sort is SortKey.started and not reverse
    runs = _found(log, wanted, limit + 1 if in_log_order and limit else None, must_know=must_know)
    if not in_log_order:
        known = [found for found in runs if _key(found, sort) is not None]
        is_text = sort in (SortKey.name, SortKey.mode, SortKey.status, SortKey.source)
        known.sort(key=lambda found: _key(found, sort), reverse=is_text == reverse)
        runs = known + [found for found in runs if _key(found, sort) is None]
    return runs[: limit or None], bool(limit) and len(runs) > limit


def _key(found: "Found", sort: SortKey) -> Any:
    """Return the value of a run in a column; None if it is unknown, which comes last in either direction."""
    info, facts = found.info, found.facts
    match sort:
        case SortKey.started:
            return info.started_ns
        case SortKey.took:
            return None if info.ended_ns is None else info.ended_ns - info.started_ns
        case SortKey.errors:
            return None if facts is None else (facts.failed, facts.healed)
        case SortKey.cost:
            return found.cost_usd
        case SortKey.source:
            return found.source
    return getattr(info, sort.value)


def _found(log: "EventLog", wanted: "Chosen", limit: int | None, *, must_know: bool) -> "list[Found]":
    """Return the runs with their facts. Without an index, for example on a full disk, they are listed without facts."""
    from ..audit.runs import listed_runs
    from ..recorder.errors import LogError
    from .terminal import progress

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
        facts |= {"outcome": found.outcome, "copy_of": found.facts.copy_of or None}
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


def _print_csv(runs: "list[Found]", pulls: "Pulls") -> None:
    from .table import print_csv

    rows = []
    for found in runs:
        line = _as_json(found, pulls) | {"parent": None if found.origin is None else found.origin.parent}
        values = (line.get(name) for name in CSV_COLUMNS)
        rows.append([" ".join(value) if isinstance(value, tuple) else value for value in values])
    print_csv(CSV_COLUMNS, rows)


def _branch(depth: int) -> str:
    return "   " * (depth - 1) + "└─ " if depth else ""


def _name(found: "Found") -> str:
    """Return the name of a run. If it recorded the session of another one, that one counts in sums."""
    copy_of = "" if found.facts is None else found.facts.copy_of
    return found.info.name + (f" (counted in {copy_of[:8]})" if copy_of else "")


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


def _print(runs: "list[Found]", pulls: "Pulls", *, costs: bool, is_tree: bool) -> None:
    from ..audit.runs import as_tree
    from ..fleet.presence import ago
    from ..recorder.words import seconds
    from .table import dollars, is_narrow, print_table

    tree = as_tree(runs) if is_tree else [(0, found) for found in runs]
    infos, narrow = [found.info for _, found in tree], is_narrow()
    clock = "%m-%d %H:%M" if narrow else "%m-%d %H:%M:%S"
    columns = {
        "RUN": [info.run[:8] for info in infos],
        "STARTED": [time.strftime(clock, time.localtime(info.started_ns / 1e9)) for info in infos],
        "MODE": [info.mode for info in infos],
        "STATUS": [info.status for info in infos],
        "TOOK": ["" if info.ended_ns is None else seconds(info.ended_ns - info.started_ns) for info in infos],
        "MSGS": [str(info.messages) for info in infos],
        "ERRORS": [_errors(found) for _, found in tree],
    }
    if costs:
        columns["COST"] = [dollars(found.cost_usd) for _, found in tree]
    if costs and narrow:
        del columns["MSGS"]  # the name needs the room
    if any(found.source is not None for found in runs):
        columns |= {"SOURCE": [found.source or "" for _, found in tree], "HEARD": [_heard(found, pulls) for _, found in tree]}
    columns["NAME"] = [_branch(depth) + _name(found) for depth, found in tree]
    heads = list(columns)

    def colour(row: int, column: int) -> str:
        return _colour(tree[row - 1][1]) if row and heads[column] in ("STATUS", "ERRORS") else ""

    right = [heads.index(each) for each in heads if each in RIGHT]
    print_table([heads, *zip(*columns.values(), strict=True)], right=right, colour=colour, whole=range(4))
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
