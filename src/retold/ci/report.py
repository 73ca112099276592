"""The result of a command as a report for CI services: named cases, each with the problems that were found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..comparing.compare import Comparison, Difference
from ..comparing.markdown import as_markdown, fenced, plain
from ..comparing.text import as_text, heading, lines_of, marked, summary
from ..experiments import noise
from ..experiments.expectation import name_of
from ..experiments.expectation_file import ExpectationFile
from ..experiments.noise import Judgement
from ..experiments.noise_report import as_markdown as judged_as_markdown
from ..experiments.verdict import Verdict

LIMIT = 50
"""The number of differences in the texts of a report."""


@dataclass(frozen=True)
class CaseProblem:
    """A problem of a case: one line, further lines, and the place in a file if it has one. Lines and columns count from 1."""

    title: str
    text: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class Case:
    """One thing that was checked. It passed if it has no problems."""

    name: str
    problems: tuple[CaseProblem, ...] = ()


@dataclass(frozen=True)
class CiReport:
    """The cases of a command, such as `retold diff`, its verdict in one line, and its result as text and as Markdown."""

    command: str
    verdict: str
    cases: tuple[Case, ...]
    text: str
    markdown: str

    @property
    def problems(self) -> list[tuple[Case, CaseProblem]]:
        """The problems of all cases, in order."""
        return [(case, problem) for case in self.cases for problem in case.problems]


def report_of_diff(found: Comparison, command: str = "retold diff") -> CiReport:
    """Return the report of a comparison: a case for each conversation, and one for the totals."""
    counting = [difference for difference in found.differences if difference.kind != "volatile"]
    file = file_of(found.b.source)
    cases = [
        Case(pair.label or "conversation", tuple(_difference(each, file) for each in counting if _is_in(each, pair.label)))
        for pair in found.pairs
    ]
    totals = tuple(_difference(each, file) for each in counting if each.what == "totals")
    text = as_text(found, limit=LIMIT)
    return CiReport(command, summary(found), (*cases, Case("totals", totals)), text, as_markdown(found, limit=LIMIT))


def _is_in(difference: Difference, label: str) -> bool:
    return difference.what != "totals" and difference.stream == label


def _difference(difference: Difference, file: str | None) -> CaseProblem:
    return CaseProblem(heading(difference), "\n".join(marked(line) for line in lines_of(difference)), file)


def report_of_judgement(found: Judgement) -> CiReport:
    """Return the report of a judged run: a case for each conversation, and one for the totals."""
    file = file_of(found.comparison.b.source)
    problems = [
        (each.stream if each.what != "totals" else "totals",
         CaseProblem(noise.place_of(each), "\n".join(noise.lines_of(each)), file))
        for each in found.regressions
    ]  # fmt: skip
    names = dict.fromkeys([*(label for label in found.conversations), "totals"])
    cases = tuple(Case(name or "conversation", tuple(problem for of, problem in problems if of == name)) for name in names)
    return CiReport("retold diff", found.verdict, cases, found.as_text(LIMIT), judged_as_markdown(found, limit=LIMIT))


def report_of_check(found: Verdict, wanted: ExpectationFile) -> CiReport:
    """Return the report of a check: a case for each single expectation, with the problems at their lines of the file."""
    cases = []
    for at in found.wanted.names:
        line, column = wanted.position(at)
        messages = [failure.message for failure in found.failures if failure.at == at]
        problems = tuple(CaseProblem(message, "", str(wanted.source.path), line, column) for message in messages)
        cases.append(Case(name_of(at), problems))
    text = found.as_text()
    verdict, _, rest = text.partition("\n")
    table = fenced(rest.split("\n"), "") if rest else ""
    markdown = f"### {plain(verdict)}" + (f"\n\n{table}" if table else "")
    return CiReport("retold check", verdict, tuple(cases), text, markdown)


def report_of_lines(command: str, verdict: str, problems: Sequence[tuple[str, str]], text: str) -> CiReport:
    """Return a report of problems that have no place: (name of the case, problem). Without any, it has one case that passed."""
    cases = [Case(name, (CaseProblem(said),)) for name, said in problems] or [Case(verdict)]
    rows = [f"- {plain(f'{name}: {said}')}" for name, said in problems]
    return CiReport(command, verdict, tuple(cases), text, "\n".join([f"### {plain(verdict)}", *(["", *rows] if rows else [])]))


def file_of(source: str) -> str | None:
    """Return the path of a recording that is a file of the project, as an annotation names it; None for any other."""
    path = Path(source)
    return source if source and path.suffix in (".yaml", ".yml", ".json", ".jsonl", ".ndjson") and path.is_file() else None
