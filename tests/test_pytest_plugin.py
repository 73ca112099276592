"""The pytest plugin: each test with the mark or the fixture has a cassette. Marks, options and settings control its use."""

from hashlib import sha256

import pytest

from tests.clients import serve
from tests.messages_server import MessagesServer, Reply, text
from tests.suites import Suite, summary

pytest_plugins = ["pytester"]

HI = """
@pytest.mark.retold
def test_hi():
    assert ask("hi") == "You said hi."
"""
CASSETTE = "cassettes/test_chat/test_hi.yaml"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


# Paths of cassettes


def test_every_test_has_its_own_file_beside_its_module(suite: Suite) -> None:
    """The tests are functions, methods and parameters. Every file stays in its folder, and two names never share one."""
    suite.write("""
        import unittest

        @pytest.mark.retold
        def test_plain():
            assert ask("plain") == "You said plain."

        @pytest.mark.retold
        class TestChat:
            def test_method(self):
                assert ask("method") == "You said method."

            class TestInner:
                def test_method(self):
                    assert ask("inner") == "You said inner."

        class Cased(unittest.TestCase):
            @pytest.mark.retold
            def test_method(self):
                self.assertEqual(ask("cased"), "You said cased.")

        IDS = ["a", "a/b", "a-b", "../../up", "x" * 300, "a b"]

        @pytest.mark.retold
        @pytest.mark.parametrize("number", range(len(IDS)), ids=IDS)
        def test_ids(number):
            assert ask(f"id {number}") == f"You said id {number}."
    """)
    suite.write("@pytest.mark.retold\ndef test_plain():\n    ask('deep')\n", "deep/er/test_deep.py")
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=11)

    def digest(name: str) -> str:
        return sha256(name.encode()).hexdigest()[:8]

    assert suite.files() == sorted([
        "cassettes/test_chat/test_plain.yaml",
        "cassettes/test_chat/TestChat.test_method.yaml",
        "cassettes/test_chat/TestChat.TestInner.test_method.yaml",
        "cassettes/test_chat/Cased.test_method.yaml",
        "cassettes/test_chat/test_ids[a].yaml",
        "cassettes/test_chat/test_ids[a-b].yaml",
        f"cassettes/test_chat/test_ids[a-b]-{digest('test_ids[a/b]')}.yaml",
        f"cassettes/test_chat/test_ids[..-..-up]-{digest('test_ids[../../up]')}.yaml",
        f"cassettes/test_chat/test_ids[{'x' * 191}-{digest('test_ids[' + 'x' * 300 + ']')}.yaml",
        "cassettes/test_chat/test_ids[a b].yaml",
        "deep/er/cassettes/test_deep/test_plain.yaml",
    ])  # fmt: skip
    suite.run().assert_outcomes(passed=11)


def test_a_mark_can_name_the_file(suite: Suite) -> None:
    """The path is relative to the folder of the module's cassettes. Several tests can share one file."""
    suite.write("""
        @pytest.mark.retold("shared.yaml", record_mode="new_episodes")
        def test_one():
            ask("one")

        @pytest.mark.retold(path="shared.yaml", record_mode="new_episodes")
        def test_two():
            ask("two")

        @pytest.mark.retold("../elsewhere/named.yaml", record_mode="once")
        def test_three():
            ask("three")
    """)
    with serve() as server:
        suite.run(server=server).assert_outcomes(passed=3)
    assert suite.files() == ["cassettes/elsewhere/named.yaml", "cassettes/test_chat/shared.yaml"]
    suite.run().assert_outcomes(passed=3)


# Tests with cassettes


def test_a_test_has_a_cassette_if_it_has_the_mark_or_the_fixture(suite: Suite) -> None:
    """The fixture returns the use of the cassette. Other tests have no cassette."""
    suite.write("""
        def test_asks(retold_cassette):
            ask("asks")

        @pytest.mark.retold
        def test_is_marked():
            ask("is marked")

        @pytest.mark.retold
        def test_does_both(retold_cassette):
            ask("does both")
    """)
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=3)
    suite.write("""
        from retold.recorder.http.patching import current

        def test_asks(retold_cassette):
            assert (retold_cassette.play_count, retold_cassette.all_played, len(retold_cassette.requests)) == (0, False, 1)
            ask("asks")
            assert (retold_cassette.play_count, retold_cassette.all_played, retold_cassette.unplayed) == (1, True, [])
            assert (retold_cassette.path.name, retold_cassette.record_mode) == ("test_asks.yaml", "none")
            assert current() is retold_cassette

        @pytest.mark.retold
        def test_is_marked():
            ask("is marked")

        @pytest.mark.retold
        def test_does_both(retold_cassette):
            ask("does both")
            assert retold_cassette.play_count == 1

        def test_does_neither():
            assert current() is None
    """)
    suite.run().assert_outcomes(passed=4)


def test_a_fixture_can_use_the_cassette_of_its_test(suite: Suite) -> None:
    """Requests of the test's fixtures before and after the test are recorded, too."""
    suite.write("""
        @pytest.fixture
        def greeting():
            yield ask("before")
            ask("after")

        @pytest.mark.retold
        def test_greets(greeting):
            assert (greeting, ask("in")) == ("You said before.", "You said in.")
    """)
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=1)
        assert server.calls == 3
    assert summary(suite.run())[0] == "3 replayed, 0 recorded, 0 missed, 0 recordings not played"


ON_A_LOOP = """
pytestmark = pytest.mark.MARK

FIXTURE
async def shared():
    async with client_async() as asking:
        yield asking

@pytest.mark.retold
async def test_one(shared):
    assert (await shared.messages.create(**body("one"))).content[0].text == "You said one."

@pytest.mark.retold
async def test_two(shared):
    async with shared.messages.stream(**body("two")) as stream:
        assert await stream.get_final_text() == "You said two."

@pytest.mark.retold
async def test_many(shared):
    import asyncio
    from tests.clients import answer_text_async
    said = await asyncio.gather(*(answer_text_async(shared, str(number)) for number in range(3)))
    assert said == ["You said 0.", "You said 1.", "You said 2."]
"""


def on_a_loop(suite: Suite, source: str, *args: str, subprocess: bool = False) -> None:
    """Run async tests with a client that is older than each test. Record and replay them, each from its own cassette."""
    suite.write("from tests.clients import body\n" + source)
    with serve() as server:
        suite.run("--retold-mode=once", *args, server=server, subprocess=subprocess).assert_outcomes(passed=3)
        assert server.calls == 5
    assert [name.rpartition("/")[2].partition(".")[0] for name in suite.files()] == ["test_many", "test_one", "test_two"]
    result = suite.run(*args, subprocess=subprocess)
    result.assert_outcomes(passed=3)
    assert summary(result)[0] == "5 replayed, 0 recorded, 0 missed, 0 recordings not played"


def test_async_tests_of_anyio_have_cassettes(suite: Suite) -> None:
    """The loop that runs the tests began before them."""
    suite.write("import pytest\n@pytest.fixture(scope='session')\ndef anyio_backend():\n    return 'asyncio'\n", "conftest.py")
    on_a_loop(suite, ON_A_LOOP.replace("MARK", "anyio").replace("FIXTURE", '@pytest.fixture(scope="module")'))


def test_async_tests_of_pytest_asyncio_have_cassettes(suite: Suite) -> None:
    """The loop of this plugin began before the tests, too."""
    source = ON_A_LOOP.replace("MARK", 'asyncio(loop_scope="module")')
    source = source.replace("FIXTURE", '@pytest_asyncio.fixture(loop_scope="module", scope="module")')
    options = ("-o", "asyncio_default_fixture_loop_scope=function", "-o", "asyncio_default_test_loop_scope=function")
    on_a_loop(suite, "import pytest_asyncio\n" + source, "-p", "asyncio", *options)


# Modes


def mode_of(suite: Suite, *args: str, mark: str = "@pytest.mark.retold") -> str:
    """Return the mode of a test's cassette."""
    suite.write(f"{mark}\ndef test_mode(retold_cassette):\n    print('mode', retold_cassette.record_mode)\n")
    result = suite.run("-s", *args)
    return next(line for line in result.outlines if "mode " in line).partition("mode ")[2].rstrip(".")


ONCE = '@pytest.mark.retold(record_mode="once")'


def test_the_mode_comes_from_the_mark_or_the_ini_or_is_none(suite: Suite) -> None:
    """The mark takes precedence over the ini."""
    assert mode_of(suite) == "none"
    assert mode_of(suite, "-o", "retold_mode=new_episodes") == "new_episodes"
    assert mode_of(suite, "-o", "retold_mode=new_episodes", mark=ONCE) == "once"


def test_ci_forces_mode_none_unless_the_user_gives_a_mode(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI neither mark nor ini count. The environment counts, and the option takes precedence over it."""
    monkeypatch.setenv("CI", "true")
    assert mode_of(suite, "-o", "retold_mode=new_episodes", mark=ONCE) == "none"
    monkeypatch.setenv("RETOLD_RECORD_MODE", "rewrite")
    assert mode_of(suite, mark=ONCE) == "rewrite"
    assert mode_of(suite, "--retold-mode=all", mark=ONCE) == "all"


def test_an_unknown_mode_is_refused(suite: Suite) -> None:
    """A wrong option is a usage error. A wrong ini or mark is an error that suggests the nearest mode."""
    suite.write(HI)
    refused = suite.run("--retold-mode=onec")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*argument --retold-mode: invalid choice: 'onec' (choose from *"])
    result = suite.run("-o", "retold_mode=onec")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*InputError: unknown record mode 'onec'; did you mean 'once'?*"])


# Other arguments and settings


def test_an_unknown_argument_of_a_mark_is_an_error(suite: Suite) -> None:
    """The error is at its test and suggests the nearest argument. A second path is an error, too."""
    suite.write(
        "@pytest.mark.retold(recordmode='once')\ndef test_hi():\n    ask('hi')\n\n"
        "@pytest.mark.retold('a.yaml', 'once')\ndef test_ho():\n    ask('ho')\n"
    )
    result = suite.run()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "E*unknown argument 'recordmode' of @pytest.mark.retold; did you mean 'record_mode'?",
            "E*@pytest.mark.retold takes one path, and then arguments by name; it was given 'once' too.",
        ]
    )


def test_the_timing_comes_from_the_option_or_the_mark_or_the_ini(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """With original timing, a test takes at least as long as its recording."""
    module = """
        import os, time

        @pytest.mark.retold(MARK)
        def test_hi():
            began = time.monotonic()
            ask("hi")
            print("slow" if time.monotonic() - began >= float(os.environ.get("LEAST", 0)) else "fast")
    """
    suite.write(module.replace("MARK", ""))
    with MessagesServer([Reply([text("Hello there")], gap_s=0.05)]) as server:
        suite.record(server=server)
    sent = [at for at, _ in server.sent[0]]
    monkeypatch.setenv("LEAST", str((sent[-1] - sent[0]) / 1e9 * 0.9))

    def pace(mark: str, *args: str) -> str:
        suite.write(module.replace("MARK", mark))
        return next(word for line in suite.run("-s", *args).outlines for word in ("slow", "fast") if word in line)

    assert pace("") == "fast"
    assert pace("", "-o", "retold_timing=original") == "slow"
    assert pace("timing='instant'", "-o", "retold_timing=original") == "fast"
    assert pace("timing='instant'", "--retold-timing=original") == "slow"


def test_an_unknown_timing_is_refused(suite: Suite) -> None:
    """The error lists the valid options."""
    suite.write(HI)
    result = suite.run("--retold-timing=slow")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*InputError: unknown timing 'slow': give instant, original, or a factor*"])


def test_the_ini_names_hosts_and_blocks_the_others(suite: Suite) -> None:
    """The settings have the same meaning as the arguments of the mark."""
    suite.write(
        """
        import os
        import httpx2
        import retold

        @pytest.mark.retold
        def test_get():
            with httpx2.Client() as plain:
                assert plain.get(os.environ["SERVER_URL"] + "/v1/files").content == b"content"

        @pytest.mark.retold
        def test_other():
            with httpx2.Client() as plain, pytest.raises(retold.BlockedError, match="http://other.test/ was refused"):
                plain.get("http://other.test/?a=1")
    """
    )
    with MessagesServer([]) as server:
        server.routes["GET", "files"] = ("text/plain", b"content")
        ini = ("-o", "retold_hosts=127.0.0.1", "-o", "retold_block_network=true")
        suite.run("--retold-mode=once", *ini, server=server).assert_outcomes(passed=2)
    suite.run(*ini).assert_outcomes(passed=2)
    assert suite.files() == ["cassettes/test_chat/test_get.yaml"]


def test_the_ini_limits_the_age_of_cassettes(suite: Suite) -> None:
    """An expired cassette is a warning of pytest."""
    suite.write(HI)
    with serve() as server:
        suite.record(server=server)
    path = suite.folder / CASSETTE
    before, _, after = path.read_text().partition("recorded_at: '")
    path.write_text(f"{before}recorded_at: '2020-{after.partition('-')[2]}")
    suite.run("-o", "retold_max_age=90d", "-W", "default").stdout.fnmatch_lines([
        "*ExpiredWarning: cassettes/test_chat/test_hi.yaml was recorded * days ago, longer than its max_age of 90 days*"
    ])  # fmt: skip


@pytest.mark.parametrize("named", [None, "logs/other.db"])
def test_recordings_go_to_a_log_beside_the_ini_file(named: str | None, suite: Suite) -> None:
    """The runs have the names of their tests, in any working directory. Replays leave no file."""
    import retold

    suite.write(HI, "deep/test_chat.py")
    options = () if named is None else ("-o", f"retold_log={named}")
    with serve() as server:
        suite.record(*options, "--rootdir", str(suite.folder), "deep", server=server).assert_outcomes(passed=1)
    log = retold.EventLog(suite.folder / (named or ".retold/log.db"))
    assert [(run.name, run.status) for run in log.runs()] == [("deep/test_chat.py::test_hi", "completed")]
    suite.run(*options, "--rootdir", str(suite.folder)).assert_outcomes(passed=1)
    assert len(log.runs()) == 1


def test_the_mark_and_the_options_are_documented(suite: Suite) -> None:
    """`--strict-markers` accepts the mark, and `--help` lists the options and settings."""
    suite.write(HI)
    suite.run("--markers").stdout.fnmatch_lines(["@pytest.mark.retold(path=None, **options): record or replay *"])
    helped = suite.run("--help").stdout.str()
    for name in ("--retold-mode", "--retold-timing", "--retold-check-orphans", "retold_mode", "retold_timing", "retold_max_age",
                 "retold_hosts", "retold_block_network", "retold_log", "retold_vcr"):  # fmt: skip
        assert name in helped
    with serve() as server:
        suite.run("--strict-markers", "--retold-mode=once", server=server).assert_outcomes(passed=1)


def test_a_suite_without_marks_is_not_affected(suite: Suite) -> None:
    """It gets no line at the end, no folder and no import of the SDK. The suite includes doctests."""
    source = """
        import sys

        def double(number):
            '''
            >>> double(2)
            4
            '''
            return 2 * number

        def test_nothing():
            assert not {"anthropic", "httpx2", "vcr", "retold.testing.use_cassette"} & sys.modules.keys()
    """
    suite.write(source, "plain_test.py")
    result = suite.run("--doctest-modules", "plain_test.py", subprocess=True)
    result.assert_outcomes(passed=2)
    assert (summary(result), suite.files(), (suite.folder / ".retold").exists()) == ([], [], False)
