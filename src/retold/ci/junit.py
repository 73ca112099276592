"""JUnit's XML, in the form that Jenkins, GitLab and GitHub's reporters read: one suite, a test case for each case of a report."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ..recorder.errors import InputError
from ..recorder.files import replacing
from ..recorder.words import clean, one_line
from .report import CiReport

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document can hold."""


def junit(report: CiReport) -> bytes:
    """Return a report as an XML document in UTF-8."""
    failed = sum(bool(case.problems) for case in report.cases)
    counts = {"tests": str(len(report.cases)), "failures": str(failed), "errors": "0"}
    suites = Element("testsuites", counts)
    suite = SubElement(suites, "testsuite", {"name": report.command, **counts, "skipped": "0"})
    for case in report.cases:
        test = SubElement(suite, "testcase", {"classname": report.command.replace(" ", "."), "name": _line(case.name)})
        for problem in case.problems:
            text = "\n".join(filter(None, [_position(problem.file, problem.line), problem.title, problem.text]))
            SubElement(test, "failure", {"message": _line(problem.title), "type": "difference"}).text = _valid(text)
    SubElement(suite, "system-out").text = _valid(report.text)
    indent(suites)
    return bytes(tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def write_junit(report: CiReport, path: Path) -> None:
    """Write a report as a file. Raise InputError if it cannot be written."""
    try:
        with replacing(path) as out:
            out.write(junit(report))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}.") from error


def _position(file: str | None, line: int | None) -> str:
    return ":".join(str(part) for part in (file, line) if part is not None)


def _line(text: str) -> str:
    return _valid(one_line(text))


def _valid(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", clean(text))
