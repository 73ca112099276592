"""retold erase: erase a run, a message or a text from the log permanently."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Json, ShipOption, note, print_json, say, shipped
from .confirm import DryRun, Who, Why, Yes, confirm

if TYPE_CHECKING:
    from ..audit.erase import Plan
    from ..recorder.log.log import EventLog
    from ..recorder.log.runs import RunInfo

_NAMES = {
    "message": "message", "body": "piece", "exchange.started": "request", "exchange.ended": "ending", "response.started": "head",
}  # fmt: skip


def erase(
    what: Annotated[
        str | None, typer.Argument(metavar="[RUN|RUN#SEQ]", help="A run, or one message as named by `retold search`.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEXT", help="Erase every payload of any run that holds this text, in any case."),
    ] = None,
    why: Why = None,
    who: Who = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    ship: ShipOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Erase a run, a message and its repetitions, or every payload with a text, from the tables and from the file's bytes.

    The place, time and digest of each payload stay, so `retold verify` still succeeds. Cassettes are not changed. With a shelf,
    the erasure is shipped, and mirrors that have not pulled it are named.

    Example: retold erase --text "Jane Doe" --why "request 4711" --dry-run
    """
    from ..audit import erase as audit
    from ..audit.leftovers import cassettes_of, left_behind
    from ..audit.occurrences import contains
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog

    if (what is None) == (text is None):
        raise InputError("name a run, a message (RUN#SEQ), or --text TEXT to erase: exactly one of them.")
    if text is not None and any(contains(text)(each) for each in (why or "", who or "")):
        raise InputError("the reason holds the text to erase, so the log would keep it.")
    log = EventLog(db)
    cassettes = [] if text is None else cassettes_of(log)
    plan, whole = _planned(log, what, text)
    label = what if what is not None else "the text"
    if not json:
        _say(plan, label)
    run = None
    if plan.count and not dry_run:
        reason = confirm(yes, why)
        with log, shipped(log, ship):
            run = audit.erase(log, plan, why=reason, by=who, whole=None if whole is None else whole.run)
    elif text is not None and not dry_run and left_behind(log, text):
        with log:
            audit.clean(log)  # an erasure was interrupted
    if json:
        print_json({"events": plan.count, "kinds": plan.kinds, "runs": sorted(plan.events), "erased_by": run})
    elif run is not None:
        note(f"retold: erased; run {run} records it")
    if text is not None and not dry_run:
        audit.check_gone(log, text, cassettes)
    if not plan.count:
        raise typer.Exit(1)


def _planned(log: "EventLog", what: str | None, text: str | None) -> "tuple[Plan, RunInfo | None]":
    from ..audit import erase as audit
    from .terminal import progress

    with progress("read", "events") as told:
        if text is not None:
            return audit.plan_text(log, text, progress=told), None
        assert what is not None
        message = re.fullmatch(r"(.+)#(\d+)", what)
        if message is not None:
            return audit.plan_message(log, log.find(message[1]).run, int(message[2]), progress=told), None
        whole = log.find(what)
        return audit.plan_run(log, whole), whole


def _say(plan: "Plan", label: str) -> None:
    from ..recorder.words import plural

    if plan.count:
        kinds = [plural(count, _NAMES.get(kind, f"{kind} event")) for kind, count in plan.kinds.most_common() if count]
        runs = plural(len(plan.events), "run")
        say(f"{label}: {plural(plan.count, 'payload')} of {runs} to erase: {', '.join(kinds)}")
        for run, seqs in plan.events.items():
            say(f"  {run}  {plural(len(seqs), 'payload')}")
    else:
        say(f"{label}: nothing to erase")
    if plan.unreadable:
        note(f"retold: {plural(plan.unreadable, 'compressed body')} could not be read; their content is unknown")
    if plan.in_headers:
        note("retold: the name of a step or task holds it too; names are covered by the hash chain: prune those runs")
