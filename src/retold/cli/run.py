"""retold run: run a workflow, offline from its cassette or live."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import (
    Db,
    Handlers,
    IdleLimit,
    Json,
    ShipOption,
    SpeedOption,
    handler_specs,
    note,
    print_json,
    say,
    shipped,
    test_mode,
    timing_of,
)
from .endings import check_cassette
from .fork import AnswerOption, FailedOption, ModelOption, SetOption, UnpricedOption, wanted
from .reporting import CheckFormat, FormatOption, JunitOption, refuse_both, reported, write_reports

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ci.report import CiReport
    from ..comparing.compare import Comparison
    from ..experiments.plan import PlannedFork
    from ..recorder.log.log import EventLog
    from ..replay.timing.timing import Until
    from ..workflow.results import RunResult
    from ..workflow.runner import RunOptions
    from .watch import Theatre


LiveOption = Annotated[
    bool | None,
    typer.Option("--live/--mock", help="Call the API and record, or replay the cassette.", show_default="TEST_MODE, or mock"),
]
CassetteOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Use this cassette instead of the workflow's own.")]
CheckOption = Annotated[
    str | None,
    typer.Option("--check", metavar="GOLDEN", help="Exit with 1 if the run differs from this recording; see retold diff."),
]
CheckIgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--check-ignore", metavar="ITEM", help="Leave out of the check, e.g. thinking, totals. May be repeated."),
]
ForkOption = Annotated[
    str | None,
    typer.Option("--fork", metavar="RUN", help="Go on from a recorded run: replay it up to --at, and run the rest live."),
]
ForkAtOption = Annotated[
    str | None, typer.Option("--at", metavar="POINT", help="Where the fork begins, e.g. greet.2: before turn 2 of step greet.")
]


def run(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="The workflow file (YAML).")],
    live: LiveOption = None,
    timing: Annotated[
        str | None,
        typer.Option("--timing", metavar="T", help="instant, original, or a factor such as 2x.", show_default="instant"),
    ] = None,
    speed: SpeedOption = None,
    idle_limit: IdleLimit = None,
    handler: Handlers = None,
    cassette: CassetteOption = None,
    check: CheckOption = None,
    check_ignore: CheckIgnoreOption = None,
    form: FormatOption = CheckFormat.text,
    junit: JunitOption = None,
    fork: ForkOption = None,
    at: ForkAtOption = None,
    model: ModelOption = None,
    assignments: SetOption = None,
    answer: AnswerOption = None,
    failed: FailedOption = False,
    unpriced: UnpricedOption = False,
    json: Json = False,
    ship: ShipOption = None,
    db: Db = None,
) -> None:
    """Run a workflow offline from its cassette (the default, without a key), or live against the API and record it.

    On a terminal, --timing original or -s 2 types the text as it streamed; `?` lists the keys.

    With --fork, no tool of the recorded part runs again, and the cassette is written only if --cassette names one.

    Example: retold run examples/clean_streaming_numbers.yaml
    """
    from ..recorder.log.log import EventLog
    from ..replay.timing.timing import Timing

    _refuse_reports(check, form, junit, json=json)
    handlers: list[tuple[str, dict[str, Any]]] | None = handler_specs(handler, workflow.parent) if handler else None
    branching = _forking(live, fork, at, model, assignments, answer, failed=failed, unpriced=unpriced)
    mode = "live" if branching is not None else _mode(live)
    pace = Timing.parse(timing_of(timing, speed, "instant"), idle_limit)
    if mode == "live":
        check_cassette(cassette)
    is_github = form is CheckFormat.github
    with EventLog(db) as log, shipped(log, ship), reported(github=True) if is_github else nullcontext():
        compared = None if check is None else _compared(check, check_ignore or [], log)
        options: RunOptions = {
            "mode": mode, "timing": pace, "handlers": handlers, "cassette": cassette, "log": log, "fork": branching,
            "out": sys.stderr if json else sys.stdout, "show": bool(handler) or not json,
            "notify": note if sys.stderr.isatty() else None,
        }  # fmt: skip
        result = _ran(workflow, options, watches=mode == "mock" and not json and sys.stdout.isatty() and not pace.is_instant)
        found = None if compared is None else compared(result)
        _tell(result, log, found, check, json=json, is_github=is_github)
    if found is not None and (is_github or junit is not None):
        write_reports(_report(found, result), github=is_github, junit=junit)
    if not result.ok or (found is not None and not found.same):
        raise typer.Exit(1)


def _tell(
    result: "RunResult", log: "EventLog", found: "Comparison | None", golden: str | None, *, json: bool, is_github: bool,
) -> None:  # fmt: skip
    """Print a result, and its comparison with the golden recording if there is one."""
    if json:
        print_json(result.as_dict() | ({} if found is None else {"check": found.as_dict()}))
    else:
        _show_unstreamed(result)
        if sys.stderr.isatty():
            from .step_table import print_steps

            print_steps(result, log)
    _summarise(result)
    if found is not None:
        from ..comparing.text import as_text

        (say if is_github else note)(f"retold: compared with {golden}\n{as_text(found)}")  # stdout alone is fenced


def _ran(workflow: Path, options: "RunOptions", *, watches: bool) -> "RunResult":
    """Run a workflow and return its result, for a person who watches or for any other reader."""
    from ..workflow.runner import arun_watched, run_workflow
    from .keyboard import can_take_keys

    if not watches:
        return run_workflow(workflow, **options)
    if not can_take_keys():
        import asyncio

        return asyncio.run(arun_watched(workflow, types=True, **options))
    from .run_watch import notes_of, watch_run

    pace = options["timing"]
    assert not isinstance(pace, str)

    async def work(until: "Until", theatre: "Theatre") -> "RunResult":
        notify = notes_of(theatre) if options.get("notify") else None
        shown: RunOptions = {**options, "out": theatre.out, "notify": notify}
        return await arun_watched(workflow, until, types=True, **shown)

    return watch_run(work, pace)


def _forking(
    live: bool | None, run: str | None, at: str | None, model: str | None, assignments: list[str] | None, answer: Path | None, *,
    failed: bool, unpriced: bool,
) -> "PlannedFork | None":  # fmt: skip
    """Return the fork that the options ask for, or None. Raise InputError for options that need --fork."""
    from ..recorder.errors import InputError

    if run is None:
        given = {
            "--at": at,
            "--model": model,
            "--set": assignments,
            "--answer": answer,
            "--failed": failed,
            "--unpriced": unpriced,
        }
        if alone := [option for option, value in given.items() if value]:
            raise InputError(f"{alone[0]} changes a fork; name the run with --fork RUN, such as --fork last --at greet.2.")
        return None
    if live is False:
        raise InputError("--fork runs live from the point on; leave out --mock.")
    if at is None:
        raise InputError("--fork needs a point: --at STEP.TURN, such as --at greet.2.")
    from ..experiments.plan import PlannedFork

    return PlannedFork(run, wanted(at, model, assignments, answer, failed=failed, unpriced=unpriced))


def _refuse_reports(check: str | None, form: CheckFormat, junit: Path | None, *, json: bool) -> None:
    """Raise InputError for a report without a check, or for two formats."""
    from ..recorder.errors import InputError

    if form is not CheckFormat.text:
        refuse_both(form, json=json)
    if check is None and (junit is not None or form is not CheckFormat.text):
        raise InputError(f"{'--format' if junit is None else '--junit'} reports a check; add --check GOLDEN.")


def _report(found: "Comparison", result: "RunResult") -> "CiReport":
    """Return the report of a checked run: its comparison, and a case for the run itself."""
    from dataclasses import replace

    from ..ci.report import Case, CaseProblem, report_of_diff

    failed = [result.error] if result.error is not None else result.handler_errors
    run = Case("run", tuple(CaseProblem(said) for said in failed))
    report = report_of_diff(found, "retold run --check")
    return replace(report, cases=(run, *report.cases))


def _mode(live: bool | None) -> Literal["live", "mock"]:
    if live is None:
        return test_mode()
    return "live" if live else "mock"


def _compared(golden: str, ignore: list[str], log: "EventLog") -> "Callable[[RunResult], Comparison]":
    """Read the golden recording now, before the run can cost anything or replace it; return a function that compares a run."""
    from ..comparing.focus import Focus
    from ..comparing.sources import compare, read_side

    Focus(ignore=tuple(ignore))
    side = read_side(golden, log)
    return lambda result: compare(side, result, ignore=ignore)


def _show_unstreamed(result: "RunResult") -> None:
    from ..recorder.words import clean

    for step in result.steps:
        if not step.streamed and step.error is None and step.status != "skipped":
            # A terminal executes a model's escapes and mixes its lines with notes. A file or a program gets the text unchanged.
            print(re.sub("^retold:", "  retold:", clean(step.text), flags=re.M) if sys.stdout.isatty() else step.text)
    sys.stdout.flush()  # notes follow the text even if both go to the same file


def _summarise(result: "RunResult") -> None:
    from ..recorder.words import one_line, plural

    messages = sum(step.messages for step in result.steps)
    steps = f"{plural(len(result.steps), 'step')}, {plural(messages, 'message')}"
    verb = "replayed" if result.mode == "mock" else "recorded"
    where = f"{verb} {'from' if result.mode == 'mock' else 'to'} {result.cassette or result.log}"
    if result.error is not None:
        note(f"retold: run {result.run[:8]} failed ({result.mode}; {steps}): {one_line(result.error)}")
    else:
        note(f"retold: run {result.run[:8]} {result.status}: {steps}, {where}")
    wrote = [
        f"{plural(made['written'], 'message')} of step {step.name!r} written to {made['path']}"
        for step in result.steps
        for made in step.handler_results
        if "written" in made
    ]
    for remark in (*wrote, *result.handler_errors, *result.notes):
        note(f"retold: {one_line(remark)}")
