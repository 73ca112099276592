"""The rules in README.md and the numbers in the marks of tests are the same: no rule lacks a test."""

import ast
import re

from tests.conftest import ROOT

TESTS = ROOT / "tests"


def listed() -> list[int]:
    """Return the numbers of the rules, in order."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", (TESTS / "README.md").read_text(), re.MULTILINE)]


def marked() -> dict[str, list[int]]:
    """Return the numbers of each test's marks. They are read from the source, so they do not depend on the selected tests."""
    found = {}
    for path in TESTS.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [mark for mark in node.decorator_list if isinstance(mark, ast.Call)]
                marks = [mark for mark in marks if ast.unparse(mark.func) == "pytest.mark.trap"]
                found[f"{path.stem}::{node.name}"] = [ast.literal_eval(number) for mark in marks for number in mark.args]
    return found


def test_rules_are_numbered_without_a_gap() -> None:
    """A number never changes its rule."""
    assert listed() == list(range(1, len(listed()) + 1))


def test_every_rule_has_a_test() -> None:
    """No test has the number of an unlisted rule."""
    assert {number for numbers in marked().values() for number in numbers} == set(listed())
