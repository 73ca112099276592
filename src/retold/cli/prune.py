"""retold prune: remove whole old runs."""

import time
from typing import Annotated

import typer

from .common import Db, Json, ShipOption, note, print_json, say, shipped
from .confirm import DryRun, Who, Why, Yes, confirm


def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Remove runs that began longer ago: 90d, 12h, 4w.")
    ],
    keep: Annotated[int, typer.Option("--keep", min=0, metavar="N", help="Keep the newest N runs of any age.")] = 0,
    why: Why = "retention",
    who: Who = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    ship: ShipOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Remove ended runs that began before the given age, and free their space.

    The log keeps an entry and the last hash of each removed run, so `retold verify` still succeeds.

    Example: retold prune --older-than 90d --keep 100 --dry-run
    """
    from ..audit import erase as audit
    from ..audit.when import age
    from ..recorder.http.exchange import timestamp
    from ..recorder.log.log import EventLog
    from ..recorder.words import one_line, plural
    from .terminal import progress

    before_ns = time.time_ns() - int(age(older_than, "--older-than").total_seconds() * 1e9)
    log = EventLog(db)
    runs = audit.plan_prune(log, before_ns, keep=keep)
    if not json:
        for info in runs:
            say(f"{info.run}  {timestamp(info.started_ns)[:19]}  {one_line(info.name)}")
        say(f"{plural(len(runs), 'run')} to remove")
    run = None
    if runs and not dry_run:
        reason = confirm(yes, why)
        with log, shipped(log, ship), progress("removed", "runs") as told:
            run = audit.prune(log, runs, why=reason, by=who, progress=told)
    if json:
        print_json({"runs": [info.run for info in runs], "pruned_by": run})
    elif run is not None:
        note(f"retold: removed; run {run} records it")
