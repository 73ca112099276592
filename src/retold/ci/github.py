"""GitHub Actions: a report as annotations, which the runner reads from stdout, and as the summary of a step.

The runner obeys each line that begins with `::`, after spaces too. A recorded text may have such lines, so everything but
retold's own commands is printed between `::stop-commands::TOKEN` and `::TOKEN::`, with a token that no recording knows.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..recorder.errors import InputError
from ..recorder.words import clean, plural
from .report import CaseProblem, CiReport

MOST = 10
"""The number of annotations of one kind that GitHub shows of a step."""

MAX_SUMMARY_BYTES = 1_000_000
"""GitHub drops a summary of more than 1 MiB."""

MAX_MESSAGE_CHARS = 4_000
"""The number of characters of one annotation."""


def annotations(report: CiReport) -> Iterator[str]:
    """Yield the workflow commands of a report: an error for each problem, at most MOST, or a notice if there is none."""
    problems = report.problems
    if not problems:
        yield command("notice", report.verdict, title=report.command)
        return
    shown = problems if len(problems) <= MOST else problems[: MOST - 1]
    for case, problem in shown:
        text = "\n".join(filter(None, [problem.title, problem.text]))
        yield command("error", text, title=f"{report.command}: {case.name}", **_place(problem))
    if len(shown) < len(problems):
        more = plural(len(problems) - len(shown), "more problem")
        yield command("error", f"{more}; the log of this step and its summary have them.", title=report.command)


def _place(problem: CaseProblem) -> dict[str, str]:
    found = {"file": problem.file, "line": problem.line, "col": problem.column}
    return {name: str(value) for name, value in found.items() if value is not None}


def command(name: str, message: str, **properties: str) -> str:
    """Return a workflow command in one line, with its data and its properties escaped."""
    message = clean(message)
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[:MAX_MESSAGE_CHARS] + "…"
    given = ",".join(
        f"{key}={_escaped(clean(value)).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{name}{' ' + given if given else ''}::{_escaped(message)}"


def _property(text: str) -> str:
    return _escaped(clean(text)).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


@contextmanager
def commands_stopped() -> Iterator[None]:
    """Let the runner obey no line of stdout during the block."""
    token = secrets.token_hex(16)
    print(f"::stop-commands::{token}", flush=True)
    try:
        yield
    finally:
        print(f"\n::{token}::", flush=True)


def write_summary(report: CiReport) -> None:
    """Append a report to the summary of the step, if there is one. Raise InputError if it cannot be written."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    text = f"## {report.command}\n\n{report.markdown}\n\n"
    if len(text.encode()) > MAX_SUMMARY_BYTES:
        first_line = report.markdown.partition("\n")[0]
        text = f"## {report.command}\n\n{first_line}\n\nThe log of the step has the rest.\n\n"
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"cannot write the summary to GITHUB_STEP_SUMMARY={path}: {error.strerror or error}.") from error
