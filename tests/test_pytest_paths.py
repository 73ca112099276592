"""Two tests never share a cassette by accident, even on file systems that treat two names as one."""

import unicodedata
from hashlib import sha256

import pytest

from tests.clients import serve
from tests.suites import Suite

pytest_plugins = ["pytester"]

TWINS = """
@pytest.mark.retold
@pytest.mark.parametrize("answer", ["Yes", "yes", "no"])
def test_it(answer):
    ask(answer)

class TestA:
    @pytest.mark.retold
    def test_it(self):
        ask("A")

class Testa:
    @pytest.mark.retold
    def test_it(self):
        ask("a")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def apart(name: str) -> str:
    return f"cassettes/test_chat/{name}-{sha256(name.encode()).hexdigest()[:8]}.yaml"


def folded(names: list[str]) -> set[str]:
    """Normalise names like a file system that ignores case and has one normal form."""
    return {unicodedata.normalize("NFC", name).casefold() for name in names}


def test_names_that_differ_only_in_case_get_separate_files(suite: Suite) -> None:
    """The files are the same for every selection of tests."""
    suite.write(TWINS)
    expected = [apart(name) for name in ("test_it[Yes]", "test_it[yes]", "TestA.test_it", "Testa.test_it")]
    with serve() as server:
        suite.record("test_chat.py::test_it[yes]", server=server).assert_outcomes(passed=1)
        suite.record("test_chat.py::Testa", server=server).assert_outcomes(passed=1)
        assert suite.files() == sorted([expected[1], expected[3]])
        suite.record(server=server).assert_outcomes(passed=5)
    assert suite.files() == sorted([*expected, "cassettes/test_chat/test_it[no].yaml"])
    assert len(folded(suite.files())) == 5
    suite.run("-k", "Yes or no").assert_outcomes(passed=3, deselected=2)


def test_names_that_differ_only_in_normal_form_get_separate_files(suite: Suite) -> None:
    """An accented letter may be one character or two."""
    suite.write("""
        @pytest.mark.retold
        @pytest.mark.parametrize("one", [1, 2], ids=["\\u00e9", "e\\u0301"])
        def test_it(one):
            ask(str(one))
    """)
    raw_ids = "disable_test_id_escaping_and_forfeit_all_rights_to_community_support=true"
    with serve() as server:
        suite.record("-o", raw_ids, server=server).assert_outcomes(passed=2)
    assert len(folded(suite.files())) == 2


def test_a_file_that_is_older_than_its_twin_is_still_used(suite: Suite) -> None:
    suite.write("@pytest.mark.retold\n@pytest.mark.parametrize('answer', ['Yes'])\ndef test_it(answer):\n    ask(answer)\n")
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=1)
        suite.write(TWINS)
        suite.run("test_chat.py::test_it[Yes]").assert_outcomes(passed=1)
        suite.record("test_chat.py::test_it[yes]", server=server).assert_outcomes(passed=1)
    assert suite.files() == sorted(["cassettes/test_chat/test_it[Yes].yaml", apart("test_it[yes]")])
