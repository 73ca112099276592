"""`pytest --retold-prune` removes recordings that no test played, and no others."""

import pytest

from tests.clients import prompts_of, serve
from tests.suites import Suite, summary

pytest_plugins = ["pytester"]

FOLDER = "cassettes/test_chat"
KEPT = " (kept, because not every test that may use it ran and passed)"
SHARED = """
    @pytest.mark.retold("shared.yaml", record_mode="new_episodes")
    def test_one():
        ask("one")

    @pytest.mark.retold("shared.yaml", record_mode="new_episodes")
    def test_two():
        ask("two")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def recorded(suite: Suite, source: str) -> None:
    suite.write(source)
    with serve() as server:
        suite.run("--retold-mode=new_episodes", server=server).assert_outcomes(passed=source.count("def test_"))


def held(suite: Suite, name: str) -> list[str]:
    return prompts_of(suite.folder / FOLDER / name)


@pytest.mark.parametrize("options", [("--retold-mode=refresh",), ("--retold-mode=new_episodes", "--retold-prune")])
def test_a_session_replaces_missed_recordings_and_removes_unplayed_ones(suite: Suite, options: tuple[str, ...]) -> None:
    """Only the changed request is sent."""
    recorded(suite, "@pytest.mark.retold\ndef test_one():\n    ask('one')\n    ask('two')\n")
    suite.write("@pytest.mark.retold\ndef test_one():\n    ask('one')\n    ask('new')\n")
    with serve() as server:
        result = suite.run(*options, server=server)
        assert server.calls == 1
    assert summary(result)[1] == f"  not played: 1 in {FOLDER}/test_one.yaml (removed)"
    assert held(suite, "test_one.yaml") == ["one", "new"]
    suite.run("--retold-prune").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "option",
    ["--retold-prune", "--retold-mode=refresh", pytest.param("--retold-mode=refresh -n 2", marks=pytest.mark.stress)],
)
def test_a_shared_cassette_keeps_the_recordings_of_each_test(suite: Suite, option: str) -> None:
    recorded(suite, SHARED)
    recorded(suite, SHARED.replace('"two"', '"too"'))
    assert held(suite, "shared.yaml") == ["one", "two", "too"]
    suite.run(*option.split()).assert_outcomes(passed=2)
    assert held(suite, "shared.yaml") == ["one", "too"]


@pytest.mark.parametrize(
    ("options", "source"),
    {
        "deselected": (("-k", "one"), SHARED),
        "selected by its id": (("test_chat.py::test_one",), SHARED),
        "failed": ((), SHARED.replace('ask("two")', "assert False")),
        "skipped": ((), SHARED.replace('ask("two")', "pytest.skip()")),
        "missed": (("--retold-mode=none",), SHARED.replace('ask("two")', "with pytest.raises(Exception):\n            ask('x')")),
        "another spelling": ((), SHARED.replace('"shared.yaml"', '"../test_chat/shared.yaml"', 1)),
    }.values(),
)
def test_a_cassette_is_kept_if_another_test_may_play_the_rest(suite: Suite, options: tuple[str, ...], source: str) -> None:
    recorded(suite, SHARED)
    suite.write(source.replace("new_episodes", "refresh"))
    result = suite.run("--retold-prune", *options)
    assert held(suite, "shared.yaml") == ["one", "two"]
    unplayed = [line for line in summary(result) if "not played: " in line]
    assert unplayed
    assert all(line.endswith(KEPT) for line in unplayed)
