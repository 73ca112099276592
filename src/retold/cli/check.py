"""retold check: hold a recording against an expectation."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from .common import Db, Json, colours, print_json
from .reporting import CheckFormat, FormatOption, JunitOption, refuse_both, reported, write_reports


def check(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, a cassette, a log (FILE.db[:RUN]), a stream-json file, or -.")
    ],
    expect: Annotated[Path, typer.Option("--expect", metavar="FILE", help="The expectation (YAML).")],
    form: FormatOption = CheckFormat.text,
    junit: JunitOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Check a recording against an expectation: tool calls, turns, tokens, cost, texts, and how it ended.

    Exit code 0 if everything holds, 1 if not. The failure shows the run as a table with the first offence marked.

    The keys of FILE are tools, in_order, no_others, never, max_turns, max_tokens, max_cost_usd, text_contains, text_matches,
    ended and steps.

    Example: retold check last --expect expected.yaml
    """
    from ..comparing.sources import read_side
    from ..comparing.varying import PLAIN
    from ..experiments.expectation_file import read_expectation
    from ..experiments.gathering import facts_of
    from ..experiments.verdict import Verdict
    from .terminal import progress

    refuse_both(form, json=json)
    wanted = read_expectation(expect)
    with progress("read", "events") as told:
        verdict = Verdict.on(facts_of(read_side(run, db, told, PLAIN)), wanted.wanted)
    if json:
        found = verdict.as_dict()
        for said, failure in zip(found["failures"], verdict.failures, strict=True):
            said["line"], said["column"] = wanted.position(failure.at)
        print_json(found)
    else:
        with reported(github=form is CheckFormat.github):
            print(verdict.as_text(width=shutil.get_terminal_size((120, 24)).columns, colour=colours()))
    if junit is not None or form is CheckFormat.github:
        from ..ci.report import report_of_check

        write_reports(report_of_check(verdict, wanted), github=form is CheckFormat.github, junit=junit)
    if not verdict.ok:
        raise typer.Exit(1)
