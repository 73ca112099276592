"""retold redact: replace the matches of a pattern in an existing log."""

import re
from typing import Annotated

import typer

from .common import Db, Json, ShipOption, note, print_json, say, shipped
from .confirm import DryRun, Who, Why, Yes, confirm


def redact(
    pattern: Annotated[
        list[str], typer.Option("--pattern", metavar="REGEX", help="A regular expression (Python's); may be repeated.")
    ],
    why: Why = None,
    who: Who = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    ship: ShipOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Replace every match of a pattern in every run by REDACTED, also a match that is split over the deltas of a stream.

    A payload in which a part cannot be replaced (a compressed body) is erased completely.

    Example: retold redact --pattern '[\\w.]+@example\\.com' --dry-run
    """
    from ..audit import erase as audit
    from ..audit.leftovers import cassettes_of
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog
    from ..recorder.patience import find_texts
    from ..recorder.words import plural
    from .terminal import progress

    try:
        patterns = [re.compile(each) for each in pattern]
    except re.error as error:
        raise InputError(f"--pattern: {error}.") from error
    if any(each.search("") for each in patterns):
        raise InputError("--pattern matches the empty text; write a pattern that matches only a text to redact.")
    log = EventLog(db)
    cassettes = cassettes_of(log)
    with progress("read", "events") as told:
        plan, found = audit.plan_pattern(log, patterns, progress=told)
    if not json:
        say(f"{plural(len(found), 'text')} found, in {plural(plan.count, 'payload')} of {plural(len(plan.events), 'run')}")
    run = None
    if plan.count and not dry_run:
        reason = confirm(yes, why)
        if any(find_texts(each, text) for each in patterns for text in (reason, who or "")):
            raise InputError("nothing was done: the reason matches the pattern, so the log would keep the text.")
        with log, shipped(log, ship):
            run = audit.redact(log, plan, found, patterns, why=reason, by=who)
    if json:
        print_json({"texts": len(found), "events": plan.count, "runs": sorted(plan.events), "redacted_by": run})
    elif run is not None:
        note(f"retold: redacted; run {run} records it")
    if run is not None:
        audit.check_redacted(log, patterns, found, cassettes)
    if not plan.count:
        raise typer.Exit(1)
