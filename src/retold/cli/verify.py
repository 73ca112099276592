"""retold verify: check that the log is unchanged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..recorder.words import one_line
from .common import Db, Json, note, print_json, say
from .reporting import CheckFormat, FormatOption, JunitOption, refuse_both, reported, write_reports

if TYPE_CHECKING:
    from ..audit.chain import Finding
    from ..audit.verify import Report
    from ..recorder.log.log import EventLog


VerifiedArgument = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="An id, prefix, name, last, or last~N.", show_default="every run")
]
HeadOption = Annotated[bool, typer.Option("--head", help="Print the head of the log, to keep elsewhere, without a check.")]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="HEAD",
        help="An earlier head, or a file that holds one: prove that no event before it was changed.",
    ),
]
NewOption = Annotated[
    bool,
    typer.Option(
        "--new", help="Check only what the last check did not prove. It misses later changes of the rows that it proved."
    ),
]


def verify(
    run: VerifiedArgument = None,
    head: HeadOption = False,
    against: AgainstOption = None,
    new: NewOption = False,
    form: FormatOption = CheckFormat.text,
    junit: JunitOption = None,
    json: Json = False,
    db: Db = None,
) -> None:
    """Check the hash chain of every run and name the first row that was edited, removed, inserted, moved or cut off.

    A fork is compared with its parent up to the point of the fork. A check of the whole log that finds nothing is remembered in a
    file beside the log, for --new. Exit code 0 if the log is unchanged, 1 if it was changed.

    Example: retold verify --against head.txt
    """
    from ..audit.proof import Proof
    from ..audit.verify import verify as check
    from ..recorder.errors import InputError
    from ..recorder.log.log import EventLog
    from ..recorder.log.store import Head
    from .terminal import progress

    refuse_both(form, json=json)
    log = EventLog(db)
    if head:
        if junit is not None or form is not CheckFormat.text:
            raise InputError("--head checks nothing; leave out --format and --junit.")
        if run is not None or against is not None or new:
            raise InputError("--head prints the head of the whole log; leave out RUN, --against and --new.")
        now = log.head()
        print_json({"head": str(now)}) if json else say(str(now))
        return
    kept = None if against is None else Head.parse(_text_of(against))
    if new and run is not None:
        raise InputError("--new checks the whole log; leave out RUN.")
    only = None if run is None else log.find(run).run
    proof = Proof.read(log) if new else None
    with progress("checked", "events") as told:
        report = check(log, only, against=kept, proof=proof, progress=told)
    if only is None:
        _remember(log, report, is_wanted=new)
    if json:
        print_json(report.as_dict())
    else:
        with reported(github=form is CheckFormat.github):
            _print(report, against=against is not None)
    _report(report, against=against is not None, github=form is CheckFormat.github, junit=junit)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: "Report", *, against: bool) -> None:
    say("\n".join([*_lines(report), _summary(report, against)]))


def _report(report: "Report", *, against: bool, github: bool, junit: Path | None) -> None:
    """Write the reports for CI services that are asked for."""
    if junit is None and not github:
        return
    from ..ci.report import report_of_lines

    problems = [(_place(finding), one_line(f"{finding.what}: {finding.detail}")) for finding in report.findings]
    verdict = _summary(report, against)
    made = report_of_lines("retold verify", verdict, problems, "\n".join([*_lines(report), verdict]))
    write_reports(made, github=github, junit=junit)


def _lines(report: "Report") -> list[str]:
    found = [one_line(f"{_place(finding)}: {finding.what}: {finding.detail}") for finding in report.findings]
    return [*found, *map(one_line, report.unproven)]


def _place(finding: "Finding") -> str:
    event = "" if finding.seq is None else f"event {finding.seq}"
    return one_line(", ".join(filter(None, (f"run {finding.run}" if finding.run else "the log", event))))


def _remember(log: "EventLog", report: "Report", *, is_wanted: bool) -> None:
    """Keep what the check proved for the next one with --new, or forget what earlier ones proved.

    A folder that is not writable, such as an archive, matters only to a user of --new.
    """
    from ..audit import proof

    try:
        if report.ok:
            at = proof.now()
            proof.Proof(report.head, at if report.before is None else report.before.whole_at, at).keep(log)
        else:
            proof.forget(log)
    except OSError as error:
        if is_wanted:
            note(f"retold: what was checked is not remembered for --new: {proof.path_of(log)}: {error.strerror or error}")


def _text_of(head: str) -> str:
    """Return a printed head, or the content of the file that holds it. Raise InputError if the file cannot be read."""
    try:
        return Path(head).read_text() if Path(head).is_file() else head
    except (OSError, UnicodeDecodeError) as error:
        from ..recorder.errors import InputError

        raise InputError(f"cannot read the head in {head}: {error}.") from error


def _summary(report: "Report", against: bool) -> str:
    from ..recorder.words import plural

    before = report.before
    parts = [f"{plural(report.runs, 'run')}, {report.events:,} events{'' if before is None else ' checked now'}"]
    if report.open:
        parts.append(f"{report.open} open")
    for count, done in ((report.erased, "erased"), (report.redacted, "redacted")):
        if count:
            parts.append(f"{plural(count, 'payload')} {done}")
    if report.pruned:
        parts.append(f"{plural(report.pruned, 'run')} pruned")
    if report.forks:
        parts.append(f"{plural(report.forks, 'fork')} {'begins' if report.forks == 1 else 'begin'} as the parent")
    if report.ok:
        verdict = "unchanged since the head" if against else "nothing was changed"
    else:
        verdict = plural(len(report.findings), "finding")
    said = f"{verdict}: {', '.join(parts)}"
    if before is not None:
        when = f"at {before.at}" if before.whole_at == before.at else f"between {before.whole_at} and {before.at}"
        said += f"; {plural(before.runs, 'run')}, {before.events:,} events not read again: checked {when}"
    return said
