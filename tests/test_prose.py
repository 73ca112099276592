"""Documentation and docstrings are plain technical English: the rate of some habits per 1,000 words is limited.

Each habit hides the subject or the actor of a sentence, for example "what came is kept" instead of "the parser keeps bytes".
"""

import ast
import re
from collections.abc import Iterable

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


def check(texts: list[str], limits: Iterable[float]) -> None:
    """Assert that no habit is more frequent than its limit."""
    for (habit, pattern), limit in zip(HABITS.items(), limits, strict=True):
        found = rate(pattern, texts)
        assert found <= limit, f"{habit!r}: {found:.1f} per 1,000 words, at most {limit}; rewrite {offenders(pattern, texts)}"


def docstrings_of(package: str) -> list[str]:
    """Return the docstrings of the modules of a package, of their classes and functions, without command lines."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    modules = [tree for name, tree in trees().items() if package_of(name) == package]
    nodes = [node for tree in modules for node in ast.walk(tree) if isinstance(node, documented)]
    return [re.sub(r"^Example: .*", "", text, flags=re.MULTILINE) for node in nodes if (text := ast.get_docstring(node))]


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


def test_packages_with_limits_exist() -> None:
    """An entry is removed with its package."""
    assert [package for package in DOCSTRINGS if package not in MODULES] == []


def test_a_habit_is_counted_in_every_form() -> None:
    """Letter case and inflection do not matter. Longer words and `stand-in` do not count."""
    text = "What it says is what it said. It told nobody whose stand-in stands there; somewhat unsaid, understood and retold."
    assert [len(pattern.findall(text)) for pattern in HABITS.values()] == [2, 4, 2]
