"""retold diff: the differences between two recordings."""

from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..recorder import strict_json
from ..recorder.collector import without_collections
from ..recorder.errors import InputError
from ..recorder.words import clean_json
from .common import Db, colours, print_json
from .endings import file_of, form_of_file, printed_to
from .reporting import JunitOption, reported, write_reports

if TYPE_CHECKING:
    from ..ci.report import CiReport
    from ..comparing.compare import Comparison
    from ..comparing.focus import Focus
    from ..comparing.reading import Side
    from ..experiments.noise import Judgement


class ReportFormat(StrEnum):
    """Format of a comparison."""

    text = "text"
    json = "json"
    markdown = "markdown"
    html = "html"
    github = "github"


_ENDINGS = {
    ".txt": ReportFormat.text,
    ".json": ReportFormat.json,
    ".md": ReportFormat.markdown,
    ".markdown": ReportFormat.markdown,
    ".html": ReportFormat.html,
    ".htm": ReportFormat.html,
}


A = Annotated[str, typer.Argument(metavar="A", help="A run, a cassette, a log (FILE.db[:RUN]), a stream-json file, or -.")]
B = Annotated[str, typer.Argument(metavar="B", help="The recording to compare with A, named in the same way.")]
MoreArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MORE]...", help="With three or more recordings, the last is judged by the others.", show_default=False
    ),
]
ReportFormatOption = Annotated[
    ReportFormat | None,
    typer.Option(
        "--format",
        help="The format of the output; github: annotations, and a summary of the step.",
        show_default="by the file's ending, or text",
    ),
]
ItemIgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="ITEM", help="Leave out, e.g. thinking, tool_use.input.path, totals, order. May be repeated."
    ),
]
OnlyOption = Annotated[list[str] | None, typer.Option("--only", metavar="ITEM", help="Compare only this. May be repeated.")]
ToleranceOption = Annotated[
    list[str] | None,
    typer.Option("--tolerance", metavar="TOTAL=N", help="Allow a total to differ: duration=20%, cost=0.01. May be repeated."),
]
VolatileOption = Annotated[bool, typer.Option("--volatile", help="List ids, times and signatures too; they never count.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="Print at most this many differences; 0 prints all.")]
StatOption = Annotated[bool, typer.Option("--stat", help="Only count the differences, by stream and kind of item.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code is the answer.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write.", show_default="stdout")
]


@without_collections()  # half of the time of a long comparison
def diff(
    ctx: typer.Context,
    a: A,
    b: B,
    more: MoreArgument = None,
    form: ReportFormatOption = None,
    ignore: ItemIgnoreOption = None,
    only: OnlyOption = None,
    tolerance: ToleranceOption = None,
    volatile: VolatileOption = False,
    limit: LimitOption = 50,
    stat: StatOption = False,
    quiet: QuietOption = False,
    output: OutputOption = None,
    junit: JunitOption = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    db: Db = None,
) -> None:
    """Compare two recordings by meaning: exit code 0 if they are the same, 1 if they differ.

    Ids, times, signatures and durations do not count. ITEM is one of request, prompt, text, thinking, tool_use, tool_result,
    answer, init, result, system, session, totals, order, or one with a path in it, such as request.system or tool_use.input.*.

    With three or more, as in BASELINE BASELINE -- RUN, the last run is judged by the others: the exit code is 1 only if it lies
    outside of the band in which they vary.

    Example: retold diff last~1 last --ignore thinking
    """
    from ..comparing.compare import compare_sides
    from ..comparing.focus import Focus, parse_tolerances
    from ..comparing.sources import read_sides
    from .terminal import progress

    if late := next((name for name in more or () if name.startswith("--")), None):
        raise InputError(f"{late} comes after `--`, so it would name a recording; put options before `--`.")
    is_judged = bool(more) or ctx.meta.get("retold.separated", False)
    file = file_of(output)
    form = ReportFormat.json if json else form or _by_ending(file)
    _check(form, file, is_judged=is_judged, volatile=volatile, stat=stat, quiet=quiet)
    focus = Focus(tuple(ignore or ()), tuple(only or ()), parse_tolerances(tolerance or ()), volatile)
    with progress("read", "events") as told:
        sides = read_sides([a, b, *(more or [])], db, told)
    found = _judged_by(sides, focus) if is_judged else compare_sides(sides[0], sides[1], focus)
    is_github = form is ReportFormat.github
    if not quiet:
        with reported(github=True) if is_github else nullcontext(), printed_to(file, what="the differences"):
            _print(found, form, limit or None, stat=stat)
    if junit is not None or is_github:
        write_reports(_report(found), github=is_github, junit=junit)
    is_same = found.same
    del sides, found  # before the exception keeps this frame, and the collector at the exit walks through all items
    if not is_same:
        raise typer.Exit(1)


def _judged_by(sides: "list[Side]", focus: "Focus") -> "Judgement":
    from ..experiments.noise import judge

    return judge(sides[:-1], sides[-1], focus)


def _report(found: "Comparison | Judgement") -> "CiReport":
    from ..ci.report import report_of_diff, report_of_judgement
    from ..comparing.compare import Comparison

    return report_of_diff(found) if isinstance(found, Comparison) else report_of_judgement(found)


def _check(
    form: ReportFormat, output: Path | None, *, is_judged: bool, volatile: bool, stat: bool, quiet: bool
) -> None:  # fmt: skip
    """Raise InputError for options that exclude each other."""
    for option, is_given in (("--volatile", volatile), ("--stat", stat)):
        if is_judged and is_given:
            raise InputError(f"{option} is for two recordings; leave it out if several judge a run.")
    if form is ReportFormat.github and output is not None:
        raise InputError("--format github prints annotations; leave out --output.")
    if quiet and (stat or output is not None):
        raise InputError("-q prints nothing; leave out --stat and -o.")
    if stat and form not in (ReportFormat.text, ReportFormat.json):
        raise InputError(f"--stat has no {form} report; choose text or json.")


def _by_ending(output: Path | None) -> ReportFormat:
    return ReportFormat.text if output is None else ReportFormat(form_of_file(output, _ENDINGS, "text"))


def _print(found: "Comparison | Judgement", form: ReportFormat, limit: int | None, *, stat: bool) -> None:
    from ..comparing.compare import Comparison
    from ..comparing.stat import rows
    from ..comparing.stat import stat as counted
    from ..comparing.text import summary
    from .table import print_table

    if not stat or not isinstance(found, Comparison):
        print(_written(found, form, limit))
        return
    lines = counted(found)
    if form is ReportFormat.json:
        print_json({"same": found.same, "stat": [line.as_dict() for line in lines]})
        return
    if lines:
        table = rows(lines)
        print_table(table, right=range(len(table[0]) - 5, len(table[0]) - 1))
        print()
    print(summary(found))


def _written(found: "Comparison | Judgement", form: ReportFormat, limit: int | None) -> str:
    from ..comparing.compare import Comparison

    if form is ReportFormat.json:
        return clean_json(strict_json.dumps(found.as_dict(), indent=2))
    if not isinstance(found, Comparison):
        return _judged(found, form, limit)
    match form:
        case ReportFormat.markdown:
            from ..comparing.markdown import as_markdown

            return as_markdown(found, limit=limit)
        case ReportFormat.html:
            from ..pages.diff_page import diff_page

            return diff_page(found)
    from ..comparing.text import as_text

    return as_text(found, colour=form is ReportFormat.text and colours(), limit=limit)


def _judged(found: "Judgement", form: ReportFormat, limit: int | None) -> str:
    match form:
        case ReportFormat.markdown:
            from ..experiments.noise_report import as_markdown

            return as_markdown(found, limit=limit)
        case ReportFormat.html:
            from ..experiments.noise_report import as_page

            return as_page(found)
    return found.as_text(limit)
