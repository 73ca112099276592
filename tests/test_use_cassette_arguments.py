"""Wrong arguments of use_cassette are refused or interpreted as the user means them."""

import inspect
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

import retold
from tests.clients import NOWHERE, ask
from tests.messages_server import MessagesServer, Reply, text

OLD = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="seconds")


def record(path: str) -> bytes:
    """Return a cassette of one call, made a hundred days ago."""
    with MessagesServer([Reply([text("one")])]) as server, retold.use_cassette(path, record_mode="once"):
        ask("hi", server.url)
    old = "".join(
        f"    recorded_at: '{OLD}'\n" if "recorded_at" in line else line
        for line in Path(path).read_text().splitlines(keepends=True)
    )
    Path(path).write_text(old)
    return Path(path).read_bytes()


def test_an_unknown_value_of_on_expired_is_refused() -> None:
    """A misspelt value is never taken for another one."""
    with pytest.raises(retold.InputError, match="unknown on_expired 'fial': give warn, fail or rerecord"):
        retold.use_cassette("c.yaml", on_expired="fial")  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["hosts", "redact", "ignore"])
def test_a_single_string_is_one_value(option: str) -> None:
    """Otherwise each letter would be a host pattern, a secret, or a path."""
    options: dict[str, Any] = {option: "quux-zz"}
    before = record("c.yaml")
    with retold.use_cassette("c.yaml", **options) as cassette:
        assert ask("hi", NOWHERE) == "one"
        assert cassette.all_played
    assert Path("c.yaml").read_bytes() == before


def test_an_override_takes_precedence_over_rerecord(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit mode none means none for a cassette of any age."""
    before = record("c.yaml")
    monkeypatch.setenv("RETOLD_RECORD_MODE", "none")
    with (
        pytest.warns(retold.ExpiredWarning),
        retold.use_cassette("c.yaml", max_age="90d", on_expired="rerecord") as cassette,
    ):
        assert ask("hi", NOWHERE) == "one"
    assert (cassette.record_mode, Path("c.yaml").read_bytes()) == ("none", before)


def test_a_use_cannot_be_nested_in_itself() -> None:
    """It would lose the recordings of the outer block. One block after the other is allowed."""
    record("c.yaml")
    using = retold.use_cassette("c.yaml")
    with using, pytest.raises(retold.InputError, match="is in use already"), using:
        pass
    with using:
        assert ask("hi", NOWHERE) == "one"


class TakesTimes(Protocol):
    """A function with a keyword-only parameter, which `Callable` cannot express."""

    def __call__(self, name: str, *, times: int = 1) -> list[str]: ...


@retold.use_cassette("c.yaml")
def decorated(name: str, *, times: int = 1) -> list[str]:
    """Return the answers."""
    return [ask(name, NOWHERE) for _ in range(times)]


@retold.use_cassette("c.yaml")
async def decorated_coroutine(name: str) -> str:
    """Return the answer."""
    return ask(name, NOWHERE)


def test_a_decorated_function_keeps_its_signature() -> None:
    """Type checkers and `inspect` get the same parameters, types and result type."""
    function: TakesTimes = decorated
    assert function is decorated
    typed: Callable[[str], Coroutine[Any, Any, str]] = decorated_coroutine
    assert typed is decorated_coroutine
    assert str(inspect.signature(decorated)) == "(name: str, *, times: int = 1) -> list[str]"
    assert (decorated.__name__, decorated.__doc__) == ("decorated", "Return the answers.")
    record("c.yaml")
    assert decorated("hi") == ["one"]


PLUMBING = {"everywhere", "mode_override", "since", "recordings", "also", "leads", "keep", "recorded", "stamped", "data", "hint"}


def test_users_can_pass_only_documented_parameters() -> None:
    """Plugins and servers pass their settings to `Use`. Passing such an argument here is a TypeError."""
    parameters = inspect.signature(retold.use_cassette).parameters
    assert PLUMBING & set(parameters) == set()
    with pytest.raises(TypeError, match="unexpected keyword argument 'everywhere'"):
        retold.use_cassette("c.yaml", everywhere=True)  # type: ignore[call-arg]
