"""Reports of diff, check, verify and run --check for CI services: GitHub's annotations and step summary, and JUnit's XML."""

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retold
from retold.ci.github import MOST, annotations, command
from retold.ci.junit import junit
from retold.ci.report import Case, CaseProblem, CiReport
from tests.conftest import ROOT
from tests.e2e import in_this_process

WORKFLOW = ROOT / "examples" / "streaming_file_operations.yaml"
CASSETTE = ROOT / "cassettes" / "streaming_file_operations.yaml"

_COMMAND = re.compile(r"::(?P<name>[\w-]+)(?: (?P<properties>[^:]*))?::(?P<data>.*)")


def _read(output: str) -> Iterator[tuple[str, dict[str, str], str]]:
    """Return the commands in an output by the rules of GitHub's runner: (name, properties, data)."""
    stopped = None
    for line in output.splitlines():
        match = _COMMAND.fullmatch(line.lstrip())
        if match is None or (stopped is not None and match["name"] != stopped):
            continue
        if stopped is not None:
            stopped = None
        elif match["name"] == "stop-commands":
            stopped = match["data"]
        else:
            pairs = [pair.split("=", 1) for pair in (match["properties"] or "").split(",") if pair]
            yield match["name"], {key: _plain(value) for key, value in pairs}, _plain(match["data"])
    assert stopped is None


def _plain(text: str) -> str:
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


@given(st.text(), st.text(min_size=1))
def test_a_command_is_one_line_that_the_runner_reads_back(message: str, title: str) -> None:
    """For any text of a model, a command is one line, and ends neither its properties nor itself."""
    line = command("error", message, title=title)
    assert len(line.splitlines()) <= 1 or "\n" not in line
    ((name, properties, _),) = list(_read(line.replace("\x85", "")))
    assert (name, set(properties)) == ("error", {"title"})


@given(st.text(), st.text())
def test_junit_is_xml_for_any_text(title: str, text: str) -> None:
    """Characters that XML does not allow are replaced."""
    report = CiReport("retold diff", "1", (Case(text, (CaseProblem(title, text),)), Case("good")), text, "")
    root = ElementTree.fromstring(junit(report))
    _check_junit(root)
    assert [root.get(key) for key in ("tests", "failures")] == ["2", "1"]


def _check_junit(root: ElementTree.Element) -> None:
    """Check the common rules of the schemas for Jenkins and Ant: elements, attributes, and counts that add up."""
    assert root.tag == "testsuites"
    for suite in root:
        assert (suite.tag, {"name", "tests", "failures", "errors"} <= set(suite.attrib)) == ("testsuite", True)
        cases = [child for child in suite if child.tag == "testcase"]
        assert [child.tag for child in suite if child.tag != "testcase"] == ["system-out"]
        assert int(suite.attrib["tests"]) == len(cases)
        assert int(suite.attrib["failures"]) == sum(case.find("failure") is not None for case in cases)
        for case in cases:
            assert {"name", "classname"} <= set(case.attrib)
            assert all(child.tag == "failure" and {"message", "type"} == set(child.attrib) for child in case)


def test_problems_beyond_githubs_limit_are_counted() -> None:
    """The last of ten annotations counts the omitted ones."""
    problems = tuple(CaseProblem(f"problem {n}", "", "a.yaml", n, 1) for n in range(1, 13))
    lines = list(annotations(CiReport("retold check", "v", (Case("c", problems),), "", "")))
    assert len(lines) == MOST
    assert "3 more problems" in lines[-1]
    assert lines[0] == "::error title=retold check%3A c,file=a.yaml,line=1,col=1::problem 1"


@pytest.fixture
def recorded(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Record a run, a cassette that differs from it in a text that looks like a command, and the summary of a step."""
    del cli
    retold.run_workflow(WORKFLOW, show=False)
    Path("other.yaml").write_text(CASSETTE.read_text().replace("Now I", "::error::forged\\n::add-mask::x\\nNow I"))
    summary = Path("summary.md").absolute()
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    return summary


def test_diff_for_github_and_junit(recorded: Path) -> None:
    """There is one annotation at the cassette, and none that the recording's text forged.

    The summary has the difference in a code block.
    """
    done = in_this_process("diff", "last", "other.yaml", "--format", "github", "--junit", "junit.xml")
    assert done.returncode == 1
    assert "::error::forged" in done.stdout
    ((name, properties, message),) = list(_read(done.stdout))
    assert (name, properties["file"], properties["title"]) == ("error", "other.yaml", "retold diff: file_operations")
    assert message.startswith("file_operations, turn 2, text, changed\n{+::error::forged")
    assert "```diff" in recorded.read_text()
    root = ElementTree.parse("junit.xml").getroot()
    _check_junit(root)
    cases = {case.get("name"): case.find("failure") is None for case in root.iter("testcase")}
    assert cases == {"file_operations": False, "totals": True}
    done = in_this_process("diff", "last", str(CASSETTE), "--format", "github")
    assert [name for name, _, _ in _read(done.stdout)] == ["notice"]
    assert (done.returncode, recorded.read_text().count("## retold diff\n")) == (0, 2)


def test_a_judged_diff_for_github_and_junit(recorded: Path) -> None:
    """A judged run has its regressions as annotations, and a case for each conversation."""
    done = in_this_process("diff", "last", str(CASSETTE), "other.yaml", "--format", "github", "--junit", "junit.xml")
    assert done.returncode == 1
    assert [message.splitlines()[0] for _, _, message in _read(done.stdout)] == ["file_operations, turn 2, text, text"]
    assert "judged by 2 baseline runs" in recorded.read_text()
    cases = {case.get("name"): case.find("failure") is None for case in ElementTree.parse("junit.xml").getroot().iter("testcase")}
    assert cases == {"file_operations": False, "totals": True}


def test_check_for_github_and_junit(recorded: Path) -> None:
    """Each offence is an annotation at its line of the expectation; each expectation is a test case."""
    Path("expected.yaml").write_text("tools: [Read]\nmax_turns: 2\nnever:\n  - Grep\n  - Bash\nsteps:\n  x:\n    max_turns: 1\n")
    done = in_this_process("check", "last", "--expect", "expected.yaml", "--format", "github", "--junit", "junit.xml")
    found = [(at["title"], at["file"], at["line"], message.split(",")[0]) for _, at, message in _read(done.stdout)]
    assert found == [
        ("retold check: never[1]", "expected.yaml", "5", "Bash was called once"),
        ("retold check: max_turns", "expected.yaml", "2", "5 turns"),
        ("retold check: steps.x.max_turns", "expected.yaml", "8", "the run has no step 'x'; there are file_operations"),
    ]
    root = ElementTree.parse("junit.xml").getroot()
    _check_junit(root)
    assert {case.get("name"): case.find("failure") is None for case in root.iter("testcase")} == {
        "tools[0]": True, "never[0]": True, "never[1]": False, "max_turns": False, "steps.x.max_turns": False,
    }  # fmt: skip
    assert "turn  what" in recorded.read_text()
    done = in_this_process("check", "last", "--expect", "expected.yaml", "--format", "github", "--json")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


def test_verify_for_github_and_junit(recorded: Path) -> None:
    """An unchanged log has one passed case. An edited row is a problem of its run."""
    done = in_this_process("verify", "--format", "github", "--junit", "junit.xml")
    assert (done.returncode, [name for name, _, _ in _read(done.stdout)]) == (0, ["notice"])
    _check_junit(ElementTree.parse("junit.xml").getroot())
    with sqlite3.connect(".retold/log.db") as log:
        log.execute("DROP TRIGGER IF EXISTS events_are_never_updated")
        triggers = [name for (name,) in log.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        for name in triggers:
            log.execute(f"DROP TRIGGER {name}")
        log.execute("UPDATE events SET payload = replace(payload, 'alpha', 'omega')")
    log.close()
    done = in_this_process("verify", "--format", "github", "--junit", "junit.xml")
    assert done.returncode == 1
    assert any("edited" in message for name, _, message in _read(done.stdout) if name == "error")
    root = ElementTree.parse("junit.xml").getroot()
    _check_junit(root)
    assert "findings" in recorded.read_text()
    assert in_this_process("verify", "--head", "--junit", "x.xml").returncode == 2


def test_a_checked_run_for_github_and_junit(recorded: Path) -> None:
    """The output of the run is fenced. Its comparison and its own end are cases. Without --check both options are refused."""
    ways = ("--format", "github", "--junit", "junit.xml", "--check")
    done = in_this_process("run", str(WORKFLOW), *ways, "other.yaml")
    assert [name for name, _, _ in _read(done.stdout)] == ["error"]
    root = ElementTree.parse("junit.xml").getroot()
    _check_junit(root)
    cases = {case.get("name"): case.find("failure") is None for case in root.iter("testcase")}
    assert (done.returncode, cases) == (1, {"run": True, "file_operations": False, "totals": True})
    assert "## retold run --check" in recorded.read_text()
    assert in_this_process("run", str(WORKFLOW), *ways, str(CASSETTE)).returncode == 0
    done = in_this_process("run", str(WORKFLOW), "--junit", "x.xml")
    assert (done.returncode, "--junit reports a check; add --check GOLDEN." in done.stderr) == (2, True)


def test_a_report_that_cannot_be_written_is_an_error(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files exit with code 2 and name the path."""
    Path("folder").mkdir()
    done = in_this_process("diff", "last", str(CASSETTE), "--junit", "folder")
    assert (done.returncode, "cannot write folder: " in done.stderr) == (2, True)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(recorded.parent / "none" / "summary.md"))
    done = in_this_process("diff", "last", str(CASSETTE), "--format", "github")
    assert (done.returncode, "GITHUB_STEP_SUMMARY" in done.stderr) == (2, True)
    assert json.loads(in_this_process("diff", "last", str(CASSETTE), "--json").stdout)["same"]
