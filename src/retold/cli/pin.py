"""retold pin: write a recorded run as a regression test."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Json, RunArgument, note, print_json, say

if TYPE_CHECKING:
    from ..experiments.pinning.pin import Pinned


def pin(
    run: RunArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER|FILE", help="The folder of the test, or a file test_….py.")
    ] = Path("tests"),
    redact: Annotated[
        list[str] | None,
        typer.Option(
            "--redact", metavar="PATTERN", help="Take out each text that this regular expression matches; may be repeated."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="PATTERN", help="Keep data about people that this regular expression matches; may be repeated."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace existing files.")] = False,
    json: Json = False,
    db: Db = None,
) -> None:
    """Write a regression test of a run: a file of pytest that replays it offline, and its cassette.

    The test asserts the trajectory: the tools in order with their arguments, the number of turns, parts of the texts, the end.
    A workflow runs again by run_workflow, a command by retold replay; requests and sessions are sent again by their SDK. Secrets
    are removed. If the run holds e-mail addresses, phone numbers, home folders or the like, nothing is written until you take
    them out or keep them.

    Example: retold pin last -o tests/
    """
    from ..experiments.pinning.pin import pin as write_test
    from ..experiments.pinning.plan import PinOptions
    from ..recorder.log.log import EventLog

    options = PinOptions(output, _patterns("--redact", redact), _patterns("--keep", keep), force)
    pinned = write_test(EventLog(db), run, options)
    if json:
        print_json(pinned.as_dict())
    else:
        _print(pinned)


def _patterns(option: str, values: list[str] | None) -> tuple[re.Pattern[str], ...]:
    from ..recorder.errors import InputError

    try:
        patterns = tuple(re.compile(each) for each in values or ())
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{option}: {error}.") from error
    if any(each.search("") for each in patterns):
        raise InputError(f"{option} matches the empty text; write a pattern that matches only a text that must be there.")
    return patterns


def _print(pinned: "Pinned") -> None:
    import shlex
    from importlib.util import find_spec

    from ..recorder.words import counted, plural

    planned = pinned.planned
    draft, found = planned.draft, planned.draft.trajectory
    say(pinned.test)
    say(pinned.cassette)
    held = counted(exchange=len(draft.exchanges), session=len(draft.sessions))
    facts = [held, plural(found.turns, "turn"), plural(len(found.calls), "tool call")]
    note(f"retold: pinned run {draft.run.run[:8]} ({draft.run.name}): {', '.join(facts)}")
    if planned.taken:
        note(f"retold: {plural(planned.taken, 'text')} replaced by REDACTED, which matches any text in a replay")
    if planned.secrets:
        note(f"retold: secrets removed from {plural(planned.secrets, 'text')}")
    if planned.left_out:
        note(f"retold: {plural(planned.left_out, 'exchange')} left out: with other hosts, or checks whether the API answers")
    needs = "" if find_spec("pytest") else " (pip install pytest)"
    note(f"retold: run it with: pytest {shlex.quote(pinned.test)}{needs}")
