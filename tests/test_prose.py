"""Documentation, docstrings and names of tests are plain technical English: the rate of some habits per 1,000 words is limited.

Each habit hides the subject or the actor of a sentence, for example "what came is kept" instead of "the parser keeps bytes".
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import PAGES, blocks_of, prose_of
from tests.test_architecture import MODULES, trees

HABITS = {
    "what": re.compile(r"\bwhat\b", re.IGNORECASE),
    "speaking programs": re.compile(r"\b(?:say|says|said|tell|tells|told|stand|stands|stood)\b(?!-)", re.IGNORECASE),
    "unnamed actors": re.compile(r"\b(?:whoever|whatever|whose|nobody|somebody)\b", re.IGNORECASE),
}
"""Each habit and its words. `stand-in` is a noun."""

READER = re.compile(r"\byour?\b", re.IGNORECASE)
EXAMPLE = re.compile(r"\b(?:example|examples)\b|\be\.g\.", re.IGNORECASE)

LIMIT = (2, 1, 0.5)
"""The highest rate of each habit in documentation, in the order of HABITS."""

DOCSTRINGS: dict[str, tuple[float, float, float]] = {
    "retold": LIMIT,
    "retold.audit": LIMIT,
    "retold.cli": LIMIT,
    "retold.comparing": LIMIT,
    "retold.experiments": LIMIT,
    "retold.fleet": LIMIT,
    "retold.formats": LIMIT,
    "retold.handlers": LIMIT,
    "retold.pages": LIMIT,
    "retold.recorder": LIMIT,
    "retold.recorder.log": LIMIT,
    "retold.replay": LIMIT,
    "retold.view": LIMIT,
    "retold.servers": LIMIT,
    "retold.testing": LIMIT,
    "retold.workflow": LIMIT,
}
"""The same for the docstrings below each package that has no closer entry. Lower them to LIMIT, and never raise them."""

FOLDERS = [ROOT / folder / "README.md" for folder in ("benchmarks", "cassettes", "tests")]
TESTS = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
GENERATED = [ROOT / "docs" / "api.md", ROOT / "docs" / "cli.md"]
GUIDES = [page for page in PAGES if page not in GENERATED]


def package_of(module: str) -> str:
    """Return the closest package of a module that has an entry in DOCSTRINGS."""
    return max((name for name in DOCSTRINGS if f"{module}.".startswith(f"{name}.")), key=len)


def words_in(texts: Iterable[str]) -> int:
    return sum(len(re.findall(r"[A-Za-z']+", text)) for text in texts)


def rate(pattern: re.Pattern[str], texts: list[str]) -> float:
    """Return the number of matches per 1,000 words."""
    return 1000 * sum(len(pattern.findall(text)) for text in texts) / max(words_in(texts), 1)


def offenders(pattern: re.Pattern[str], texts: Iterable[str]) -> list[str]:
    """Return the sentences with a match, for the message of a failed test."""
    sentences = (sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text))
    return [" ".join(sentence.split()) for sentence in sentences if pattern.search(sentence)]


def excess(texts: list[str], limits: Iterable[float]) -> list[str]:
    """Return a line for each habit that is more frequent than its limit, with its sentences."""
    rates = [
        (habit, pattern, rate(pattern, texts), limit) for (habit, pattern), limit in zip(HABITS.items(), limits, strict=True)
    ]
    return [
        f"{habit!r}: {found:.1f} per 1,000 words, at most {limit}; rewrite {offenders(pattern, texts)}"
        for habit, pattern, found, limit in rates
        if found > limit
    ]


def check(texts: list[str], limits: Iterable[float]) -> None:
    """Assert that no habit is more frequent than its limit."""
    assert excess(texts, limits) == []


def docstrings_of(package: str) -> list[str]:
    """Return the docstrings of the modules of a package, of their classes and functions, without command lines."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    modules = [tree for name, tree in trees().items() if package_of(name) == package]
    nodes = [node for tree in modules for node in ast.walk(tree) if isinstance(node, documented)]
    return [re.sub(r"^Example: .*", "", text, flags=re.MULTILINE) for node in nodes if (text := ast.get_docstring(node))]


def words_of_a_test(source: str) -> list[str]:
    """Return the docstrings of a module of tests without code and quotations, and its names of functions and classes as words."""
    nodes = list(ast.walk(ast.parse(source)))
    values = [node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    docstrings = [re.sub(r"`[^`]*`|\"[^\"]*\"", "", value.value) for value in values if isinstance(value.value, str)]
    named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return docstrings + [node.name.replace("_", " ") for node in nodes if isinstance(node, named)]


def test_documentation_keeps_to_the_limits() -> None:
    """Every page, the streaming guide and the README files of the folders, without their code."""
    check([prose_of(page) for page in (*GUIDES, *FOLDERS)], LIMIT)


def test_help_keeps_to_the_limits() -> None:
    """The help texts of all commands."""
    check([block.text for block in blocks_of(ROOT / "docs" / "cli.md")], LIMIT)


def test_the_reference_keeps_to_the_limits() -> None:
    """The docstrings of public names, as the page of the Python API shows them."""
    check([prose_of(ROOT / "docs" / "api.md")], LIMIT)


def test_comments_of_examples_keep_to_the_limits() -> None:
    """Readers copy the examples, with their comments."""
    comments = [re.findall(r"#(.*)", path.read_text("utf-8")) for path in (ROOT / "examples").glob("*.yaml")]
    check([line for lines in comments for line in lines], LIMIT)


def test_documentation_addresses_its_reader() -> None:
    """The reader is "you", often enough to be addressed and not in every sentence."""
    assert 2.6 <= rate(READER, [prose_of(page) for page in GUIDES]) <= 21.5


def test_documentation_gives_examples() -> None:
    """An abstract rule is followed by an example."""
    assert rate(EXAMPLE, [prose_of(page) for page in GUIDES]) >= 1.6


@pytest.mark.parametrize("package", DOCSTRINGS)
def test_docstrings_keep_to_the_limits(package: str) -> None:
    """Every docstring of a package, public or not."""
    check(docstrings_of(package), DOCSTRINGS[package])


def test_each_file_of_tests_keeps_to_the_limits() -> None:
    """A file is short, so a single word in it usually exceeds its limit."""
    found = {str(path.relative_to(ROOT)): excess(words_of_a_test(path.read_text("utf-8")), LIMIT) for path in TESTS}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_habits_in_names_and_docstrings_of_tests_are_found() -> None:
    """Code and quotations are literal, so they do not count."""
    habits = 'def test_what_is_told():\n    """Nobody asks."""\n\nLIMIT = 1\n"""It stands for one."""\n'
    quoted = 'def test_a_call():\n    """The call of `say` returns "Whatever you say"."""\n'
    assert [line.partition(":")[0] for line in excess(words_of_a_test(habits), LIMIT)] == [repr(habit) for habit in HABITS]
    assert [len(excess([text], LIMIT)) for text in words_of_a_test(habits)] == [1, 1, 2]
    assert excess(words_of_a_test(quoted), LIMIT) == []
    assert Path(__file__) in TESTS


def test_packages_with_limits_exist() -> None:
    """An entry is removed with its package."""
    assert [package for package in DOCSTRINGS if package not in MODULES] == []


def test_a_habit_is_counted_in_every_form() -> None:
    """Letter case and inflection do not matter. Longer words and `stand-in` do not count."""
    text = "What it says is what it said. It told nobody whose stand-in stands there; somewhat unsaid, understood and retold."
    assert [len(pattern.findall(text)) for pattern in HABITS.values()] == [2, 4, 2]
