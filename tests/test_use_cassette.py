"""`use_cassette` records and replays in a block or a decorated function, in every mode, and writes the expected files."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.recorder.http.patching import current
from tests.clients import ASKING, NOWHERE, Ask, answer_text_async, ask, ask_async, body, client_async, prompts_of, record, serve

CASSETTE = Path("c.yaml")
RECORDING_MODES = ["once", "new_episodes", "refresh", "all", "rewrite"]


@pytest.fixture(name="ask", params=ASKING)
def _ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


def runs() -> list[retold.RunInfo]:
    """Return the runs in the default log, newest first, or none without a log."""
    log = retold.EventLog()
    return log.runs() if log.path.exists() else []


# Blocks


def test_the_next_block_replays_the_recording_of_a_block(ask: Ask) -> None:
    """The second block needs no server."""
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once"):
        said = ask("hi", server.url)
    with retold.use_cassette(CASSETTE):
        assert ask("hi") == said == "You said hi."


def test_an_async_block_works_like_a_block() -> None:
    """`async with` records and replays as `with` does."""

    async def use(url: str) -> tuple[str, int]:
        async with retold.use_cassette(CASSETTE, record_mode="once") as cassette, client_async(url) as asking:
            return (await asking.messages.create(**body())).content[0].to_dict()["text"], cassette.play_count

    with serve() as server:
        assert asyncio.run(use(server.url)) == ("You said hi.", 0)
    assert asyncio.run(use(NOWHERE)) == ("You said hi.", 1)


def test_a_use_can_be_entered_again() -> None:
    """Each time it reads the cassette again."""
    using = retold.use_cassette(CASSETTE, record_mode="once")
    with serve() as server, using as first:
        ask("hi", server.url)
    with using as second:
        ask("hi")
    assert (first.recorded, first.play_count, second.recorded, second.play_count) == (1, 0, 0, 1)


def test_an_inner_block_takes_the_requests_until_it_ends() -> None:
    """Afterwards the requests belong to the outer block again."""
    record(Path("outer.yaml"), "a", "c")
    record(Path("inner.yaml"), "b")
    with retold.use_cassette("outer.yaml") as outer:
        ask("a")
        with retold.use_cassette("inner.yaml") as inner:
            ask("b")
            with pytest.raises(retold.MissError, match=r"in inner\.yaml"):
                ask("c")
        ask("c")
    assert (outer.play_count, outer.all_played, inner.play_count, inner.all_played) == (2, True, 1, True)


def test_a_block_that_ended_has_no_effect() -> None:
    """After a success or a failure, clients work without a cassette again."""
    record(CASSETTE)
    with retold.use_cassette(CASSETTE):
        assert current() is not None
    assert current() is None
    with pytest.raises(retold.MissError), retold.use_cassette(CASSETTE):
        ask("something else")
    assert current() is None


def test_a_block_needs_a_path() -> None:
    """Only a function has a name for a default path."""
    with pytest.raises(retold.InputError, match="needs a path"), retold.use_cassette():
        pass


# Functions


def functions(source: str) -> dict[str, Any]:
    """Return the names of a module in the working directory."""
    names: dict[str, Any] = {"retold": retold, "ask": ask, "ask_async": ask_async, "client_async": client_async, "body": body}
    exec(compile(source, str(Path("module.py").absolute()), "exec"), names)
    return names


SYNC = """
class Greeter:
    @retold.use_cassette(record_mode="once")
    def greet(self, url):
        "Says hi."
        return ask("hi", url)
"""
ASYNC = """
class Greeter:
    @retold.use_cassette(record_mode="once")
    async def greet(self, url):
        "Says hi."
        async with client_async(url) as asking:
            return (await asking.messages.create(**body("hi"))).content[0].text
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_decorated_function_has_a_cassette_named_after_it(kind: str) -> None:
    """It is beside the module of the function. Each call uses it again. The function keeps its name and its docstring."""
    greeter = functions({"sync": SYNC, "async": ASYNC}[kind])["Greeter"]()
    run: Callable[..., str] = asyncio.run if kind == "async" else lambda said: said
    with serve() as server:
        first = run(greeter.greet(server.url))
        assert run(greeter.greet(server.url)) == first == "You said hi."
        assert server.calls == 1
    assert prompts_of(Path("cassettes") / "Greeter.greet.yaml") == ["hi"]
    assert (greeter.greet.__name__, greeter.greet.__doc__) == ("greet", "Says hi.")


def test_a_decorated_function_that_fails_keeps_its_cassette() -> None:
    """A failed block does the same."""
    before = record(CASSETTE, "old").read_bytes()

    @retold.use_cassette(CASSETTE, record_mode="rewrite")
    def fail(url: str) -> None:
        ask("new", url)
        raise ValueError("bad")

    with serve() as server, pytest.raises(ValueError, match="bad"):
        fail(server.url)
    assert CASSETTE.read_bytes() == before


def test_a_decorated_function_may_call_itself() -> None:
    """Every call, also an inner one, is a separate use."""
    record(CASSETTE)

    @retold.use_cassette(CASSETTE)
    def ask_down(times: int) -> list[str]:
        return [ask("hi"), *(ask_down(times - 1) if times else [])]

    assert ask_down(2) == ["You said hi."] * 3


def test_one_decorator_names_each_function_after_itself() -> None:
    """Two functions with the same options do not share a cassette."""
    names = functions(
        "using = retold.use_cassette(record_mode='once')\n"
        "@using\ndef one(url): return ask('one', url)\n"
        "@using\ndef two(url): return ask('two', url)\n"
    )
    with serve() as server:
        names["one"](server.url)
        try:
            names["two"](server.url)
        except retold.MissError as miss:
            raise AssertionError("the second function replays from the first one's cassette") from miss
    assert [path.name for path in sorted(Path("cassettes").iterdir())] == ["one.yaml", "two.yaml"]


def test_a_decorated_generator_has_its_cassette_while_it_runs() -> None:
    """Its body runs after the call, as in a pytest fixture that yields. Its requests must not reach the network."""
    record(CASSETTE, "a", "b")

    @retold.use_cassette(CASSETTE)
    def answers() -> Iterator[str]:
        yield ask("a")
        yield ask("b")

    assert list(answers()) == ["You said a.", "You said b."]
    assert current() is None


def test_a_decorated_async_generator_uses_its_cassette_while_it_runs() -> None:
    """An async fixture is an example."""
    record(CASSETTE, "a", "b")

    @retold.use_cassette(CASSETTE)
    async def answers() -> AsyncIterator[str]:
        async with client_async(max_retries=0) as asking:
            yield await answer_text_async(asking, "a")
            yield await answer_text_async(asking, "b")

    async def collect() -> list[str]:
        return [answer async for answer in answers()]

    assert asyncio.run(collect()) == ["You said a.", "You said b."]


# Modes


def test_without_a_mode_nothing_is_recorded(ask: Ask) -> None:
    """`none` is the default: no request is sent, and neither cassette nor log appears."""
    with serve() as server, retold.use_cassette(CASSETTE) as cassette, pytest.raises(retold.MissError):
        ask("hi", server.url)
    assert (cassette.record_mode, server.calls, CASSETTE.exists(), runs()) == ("none", 0, False, [])


def test_once_records_a_missing_cassette_and_then_only_replays(ask: Ask) -> None:
    """If the cassette exists, a request that it lacks is a miss, and the cassette stays unchanged."""
    with serve() as server:
        with retold.use_cassette(CASSETTE, record_mode="once"):
            ask("a", server.url)
            ask("b", server.url)
        before = CASSETTE.read_bytes()
        with retold.use_cassette(CASSETTE, record_mode="once"):
            assert ask("b", server.url) == "You said b."
            with pytest.raises(retold.MissError, match=r"messages\[0\]\.content: recorded \"a\", now \"c\""):
                ask("c", server.url)
        assert server.calls == 2
    assert CASSETTE.read_bytes() == before


AFTERWARDS = {"new_episodes": ["a", "b", "c"], "refresh": ["b", "c"], "all": ["a", "b", "c"], "rewrite": ["b", "c"]}


@pytest.mark.parametrize("mode", AFTERWARDS)
def test_each_recording_mode_sends_and_keeps_its_requests(mode: str) -> None:
    """new_episodes and refresh send missing requests. refresh removes unplayed exchanges, and rewrite removes unrepeated ones."""
    record(CASSETTE, "a", "b")
    is_paid_again = mode in ("all", "rewrite")
    with serve("new b", "new c") as server:
        with retold.use_cassette(CASSETTE, record_mode=mode):
            said = [ask("b", server.url), ask("c", server.url)]
        assert said == (["new b", "new c"] if is_paid_again else ["You said b.", "new b"])
        assert [request.json["messages"][0]["content"] for request in server.requests] == (["b", "c"] if is_paid_again else ["c"])
    assert prompts_of(CASSETTE) == AFTERWARDS[mode]
    with retold.use_cassette(CASSETTE) as cassette:
        assert [ask("b"), ask("c")] == said
        assert len(cassette.unplayed) == len(AFTERWARDS[mode]) - 2


def test_all_keeps_exchanges_that_were_not_repeated_under_predicates_too() -> None:
    """The matching rules decide whether a request was repeated."""
    record(CASSETTE, "a", "b")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="all", match_on=[lambda a, b: a.body == b.body]):
        ask("b", server.url)
    assert prompts_of(CASSETTE) == ["a", "b"]


def test_new_episodes_into_a_log_keeps_each_recording_once() -> None:
    """The run has the replayed exchanges, too, but they are not recorded again."""
    record(CASSETTE, "a")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="new_episodes", log="log.db"):
        ask("a", server.url)
        ask("b", server.url)
    assert prompts_of(CASSETTE) == ["a", "b"]


@pytest.mark.parametrize("mode", RECORDING_MODES)
def test_a_block_without_requests_does_not_change_the_cassette(mode: str) -> None:
    """It creates no cassette, changes none, and records no run."""
    with retold.use_cassette("none.yaml", record_mode=mode):
        pass
    before = record(CASSETTE).read_bytes()
    with retold.use_cassette(CASSETTE, record_mode=mode):
        pass
    assert (Path("none.yaml").exists(), CASSETTE.read_bytes(), len(runs())) == (False, before, 1)


@pytest.mark.parametrize("mode", [*RECORDING_MODES, "verify"])
@pytest.mark.parametrize("ci", ["true", "1"])
def test_ci_forces_none(mode: str, ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, and the miss names the reason and the option that overrides it."""
    monkeypatch.setenv("CI", ci)
    expected = "CI=true allows no recording unless one of the two overrides allows it."
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode), pytest.raises(retold.MissError, match=expected):
        ask("hi", server.url)
    assert (server.calls, CASSETTE.exists()) == (0, False)


@pytest.mark.parametrize("ci", ["", "0", "false", "False"])
def test_ci_set_to_no_does_not_count(ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this value the user switched it off."""
    monkeypatch.setenv("CI", ci)
    with retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        assert cassette.record_mode == "once"


@pytest.mark.parametrize("ci", ["", "true"])
@pytest.mark.parametrize("mode", [None, "none", "all"])
def test_the_environment_overrides_the_mode_of_the_code(mode: str | None, ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable overrides the mode in the code, under CI too."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("RETOLD_RECORD_MODE", "new_episodes")
    with retold.use_cassette(CASSETTE, record_mode=mode) as cassette:
        assert cassette.record_mode == "new_episodes"


def test_an_unknown_mode_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is true for every place of the mode."""
    with pytest.raises(retold.InputError, match="unknown record mode 'new_episode'; did you mean 'new_episodes'"):
        retold.use_cassette(CASSETTE, record_mode="new_episode")
    monkeypatch.setenv("RETOLD_RECORD_MODE", "onec")
    with pytest.raises(retold.InputError, match="unknown record mode 'onec'; did you mean 'once'"):
        retold.use_cassette(CASSETTE)
