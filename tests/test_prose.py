"""Documentation and docstrings are plain technical English: the rate of some habits per 1,000 words is limited.

Each habit hides the subject or the actor of a sentence, for example "what came is kept" instead of "the parser keeps bytes".
"""

import ast
import re
from collections.abc import Iterable

import pytest

from tests.conftest import ROOT
from tests.documents import PAGES, blocks_of, prose_of
from tests.test_architecture import MODULES, TREES

HABITS = {
    "what": re.compile(r"\bwhat\b", re.IGNORECASE),
    "speaking programs": re.compile(r"\b(?:say|says|said|tell|tells|told|stand|stands|stood)\b(?!-)", re.IGNORECASE),
    "unnamed actors": re.compile(r"\b(?:whoever|whatever|whose|nobody|somebody)\b", re.IGNORECASE),
}
"""Each habit and its words. `stand-in` is a noun."""

READER = re.compile(r"\byour?\b", re.IGNORECASE)
EXAMPLE = re.compile(r"\b(?:example|examples)\b|\be\.g\.", re.IGNORECASE)

LIMIT = {"what": 2.0, "speaking programs": 1.0, "unnamed actors": 0.5}
"""The highest rate of each habit, for every text that has no entry in DOCSTRINGS."""

DOCSTRINGS: dict[str, tuple[float, float, float]] = {
    "retold": (8, 4, 4),
    "retold.audit": (17, 10, 4),
    "retold.formats": (17, 5, 0.5),
    "retold.recorder": (7, 4, 3),
    "retold.wire": (12, 4, 5),
}
"""Packages above LIMIT, with the rates that they must not exceed, in the order of HABITS. Lower them; never raise them."""

FOLDERS = [ROOT / folder / "README.md" for folder in ("benchmarks", "cassettes", "tests")]
GUIDES = [page for page in PAGES if page.name != "cli.md"]


def package_of(module: str) -> str:
    """Return the package that a module belongs to; a package belongs to itself."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


PACKAGES = sorted({package_of(name) for name in MODULES})


def words_in(texts: Iterable[str]) -> int:
    return sum(len(re.findall(r"[A-Za-z']+", text)) for text in texts)


def rate(pattern: re.Pattern[str], texts: list[str]) -> float:
    """Return the number of matches per 1,000 words."""
    return 1000 * sum(len(pattern.findall(text)) for text in texts) / max(words_in(texts), 1)


def offenders(pattern: re.Pattern[str], texts: Iterable[str]) -> list[str]:
    """Return the sentences with a match, for the message of a failed test."""
    sentences = (sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s+|\n\n", text))
    return [" ".join(sentence.split()) for sentence in sentences if pattern.search(sentence)]


def check(texts: list[str], limits: Iterable[float]) -> None:
    """Assert that no habit is more frequent than its limit."""
    for (habit, pattern), limit in zip(HABITS.items(), limits, strict=True):
        found = rate(pattern, texts)
        assert found <= limit, f"{habit!r}: {found:.1f} per 1,000 words, at most {limit}; rewrite {offenders(pattern, texts)}"


def docstrings_of(package: str) -> list[str]:
    """Return the docstrings of the modules directly in a package, of their classes and functions, without command lines."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    modules = [tree for name, tree in TREES.items() if package_of(name) == package]
    nodes = [node for tree in modules for node in ast.walk(tree) if isinstance(node, documented)]
    return [re.sub(r"^Example: .*", "", text, flags=re.MULTILINE) for node in nodes if (text := ast.get_docstring(node))]


def test_documentation_keeps_to_the_limits() -> None:
    """Every page, the streaming guide and the README files of the folders, without their code."""
    check([prose_of(page) for page in (*GUIDES, *FOLDERS)], LIMIT.values())


def test_help_keeps_to_the_limits() -> None:
    """The help texts of all commands."""
    check([block.text for block in blocks_of(ROOT / "docs" / "cli.md")], LIMIT.values())


def test_comments_of_examples_keep_to_the_limits() -> None:
    """Readers copy the examples, with their comments."""
    comments = [re.findall(r"#(.*)", path.read_text("utf-8")) for path in (ROOT / "examples").glob("*.yaml")]
    check([line for lines in comments for line in lines], LIMIT.values())


def test_documentation_addresses_its_reader() -> None:
    """The reader is "you", often enough to be addressed and not in every sentence."""
    assert 2.6 <= rate(READER, [prose_of(page) for page in GUIDES]) <= 21.5


def test_documentation_gives_examples() -> None:
    """An abstract rule is followed by an example."""
    assert rate(EXAMPLE, [prose_of(page) for page in GUIDES]) >= 1.6


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_keep_to_the_limits(package: str) -> None:
    """A package without an entry in DOCSTRINGS keeps to LIMIT."""
    check(docstrings_of(package), DOCSTRINGS.get(package, LIMIT.values()))


def test_packages_with_a_limit_of_their_own_exist() -> None:
    """An entry is removed with its package, and when the package keeps to LIMIT."""
    assert [package for package in DOCSTRINGS if package not in PACKAGES] == []
    assert [package for package, own in DOCSTRINGS.items() if all(a <= b for a, b in zip(own, LIMIT.values(), strict=True))] == []


def test_a_habit_is_counted_in_every_form() -> None:
    """Letter case and inflection do not matter; longer words and `stand-in` do not count."""
    text = "What it says is what it said. It told nobody whose stand-in stands there; somewhat unsaid, understood and retold."
    assert [len(pattern.findall(text)) for pattern in HABITS.values()] == [2, 4, 2]
