"""retold try: fork a run with several models side by side."""

import os
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Db, Json, RunArgument, UpstreamOption, note, print_json, say
from .fork import FailedOption, SetOption, UnpricedOption

if TYPE_CHECKING:
    from ..experiments.tries import Attempt, Trial
    from ..recorder.log.log import EventLog


class TableFormat(StrEnum):
    """Format of a table."""

    text = "text"
    json = "json"
    markdown = "markdown"
    csv = "csv"


def try_(
    run: RunArgument,
    models: Annotated[str, typer.Option("--models", metavar="A,B,…", help="The models to try.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CMD...]", help="The program and its arguments, after --; not for the run of a workflow."),
    ] = None,
    at: Annotated[str, typer.Option("--at", metavar="POINT", help="Where the forks begin, e.g. 2; see retold fork.")] = "1",
    verify: Annotated[
        str | None,
        typer.Option(
            "--verify", metavar="CMD", help="Judge each fork by this shell command, with the program's output on its stdin.",
            show_default="the program's exit code",
        ),
    ] = None,
    times: Annotated[int, typer.Option("-n", "--times", min=1, metavar="N", help="Forks of each model.")] = 1,
    max_parallel: Annotated[
        int, typer.Option("--max-parallel", min=1, metavar="N", help="The most programs at once; workflows run one by one.")
    ] = 4,
    assignments: SetOption = None,
    failed: FailedOption = False,
    unpriced: UnpricedOption = False,
    upstream: UpstreamOption = None,
    form: Annotated[TableFormat, typer.Option("--format", help="The format of the table.")] = TableFormat.text,
    json: Json = False,
    db: Db = None,
) -> None:  # fmt: skip
    """Fork a run once for each model, side by side, and compare verdicts, tokens, cost and time.

    The shared part is replayed in each fork. Tokens and cost are those of the live part; an unknown cost stays unknown.
    A workflow goes on by itself, without a command. Exit code 1 if a verdict failed, 3 if the program left the recording before
    the point.

    Example: retold try last --models claude-haiku-4-5,claude-opus-5-5 --at 2 --verify 'grep -q 42' -- python hello.py
    """
    from ..experiments.changes import Changes
    from ..experiments.plan import Wanted
    from ..experiments.tries import Trial
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog
    from .table import print_csv_of

    named = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    if not named:
        raise InputError("--models names no model; give them with commas: --models claude-haiku-4-5,claude-opus-5-5.")
    wanted = {name: Wanted(at, Changes.parse(name, assignments or ()), failed=failed, unpriced=unpriced) for name in named}
    trial = Trial(run, wanted, command or (), verify, times, max_parallel)
    if not command and upstream is not None:
        raise InputError("--upstream is for a command; a workflow calls the API that ANTHROPIC_BASE_URL names.")
    with EventLog(db) as log:
        made = _tried(trial, log, upstream)
    if json or form is TableFormat.json:
        print_json({"run": run, "at": at, "attempts": [each.as_dict() for each in made]})
    elif form is TableFormat.csv:
        print_csv_of([each.as_dict() for each in made])
    elif form is TableFormat.markdown:
        say(_markdown(made))
    else:
        _print(made)
    _judge(made)


def _judge(made: "list[Attempt]") -> None:
    """Print the reasons of verdicts. Raise MissError if a program left the recording, and exit with 1 if a verdict failed."""
    from ..recorder.errors import MissError

    if left := next((each.error for each in made if each.verdict == "left"), None):
        raise MissError(left)
    for reason in dict.fromkeys(each.error for each in made if each.error):
        note(f"retold: {reason}")
    if any(each.verdict != "passed" for each in made):
        raise typer.Exit(1)


def _tried(trial: "Trial", log: "EventLog", upstream: str | None) -> "list[Attempt]":
    """Run the forks of a command, or of the workflow that the run is of."""
    from ..experiments.tries import run_trial
    from ..experiments.workflow_tries import run_workflow_trial
    from ..recorder.http.platforms import api_of
    from ..recorder.proxy.upstream import Upstream

    if not trial.command:
        return run_workflow_trial(trial, log, lambda line: note(f"retold: {line}"))
    return run_trial(trial, log, Upstream.parse(upstream or api_of(os.environ)), lambda line: note(f"retold: {line}"))


HEAD = ("MODEL", "N", "VERDICT", "IN", "OUT", "COST", "TOOK", "RUN", "FIRST DIVERGENCE")


def _rows(made: "list[Attempt]") -> list[tuple[str, ...]]:
    from .table import dollars

    def count(tokens: int | None) -> str:
        return "?" if tokens is None else f"{tokens:,}"

    return [
        (
            each.model, str(each.number), each.verdict, count(each.input_tokens), count(each.output_tokens),
            dollars(each.cost_usd), f"{each.seconds:.1f}s", (each.run or "")[:8], each.divergence or "none",
        )
        for each in made
    ]  # fmt: skip


def _print(made: "list[Attempt]") -> None:
    from .table import print_table

    print_table([HEAD, *_rows(made)])


def _markdown(made: "list[Attempt]") -> str:
    cells = [HEAD, ("---",) * len(HEAD), *_rows(made)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)
