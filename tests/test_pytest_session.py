"""The summary and the recordings of a pytest session: totals, failures, unplayed recordings, orphans and workers."""

import re

import pytest

import retold
from retold.workflow.pricing import price
from tests.clients import MODEL, serve
from tests.messages_server import MessagesServer, Reply, text
from tests.suites import Suite, summary

pytest_plugins = ["pytester"]

FOLDER = "cassettes/test_chat"
TWO = """
@pytest.mark.retold
def test_one():
    ask("one")

@pytest.mark.retold
def test_two():
    ask("two")
    ask("more")
"""

PLAIN = f"""
import os
import httpx2

MODEL = {MODEL!r}
HEADERS = dict([("anthropic-version", "2023-06-01")])

def ask(prompt):
    body = dict(model=MODEL, max_tokens=64, messages=[dict(role="user", content=prompt)], stream=True)
    httpx2.post(os.environ["SERVER_URL"] + "/v1/messages", json=body, headers=HEADERS, verify=False).raise_for_status()

client = client_async = None
"""
"""Send the same question without the SDK, which each worker would import in one and a half seconds."""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


@pytest.fixture
def recorded(suite: Suite) -> Suite:
    """Return a suite of two tests with three recorded calls."""
    suite.write(TWO)
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=2)
    return suite


# The summary


def test_the_summary_counts_replayed_calls_and_saved_costs(suite: Suite) -> None:
    """It has the input and output tokens with their price by today's table, and names a model without a known price."""
    suite.write("""
        @pytest.mark.retold
        def test_priced():
            ask("one")
            ask("two")

        @pytest.mark.retold
        def test_unpriced():
            ask("three")
    """)
    models = ["claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929", "unheard-of-1"]
    usage = {"input_tokens": 1000, "output_tokens": 500}
    with MessagesServer([Reply([text("yes")], model=model, usage=usage) for model in models]) as server:
        result = suite.record(server=server)
        assert summary(result) == ["0 replayed, 3 recorded, 0 missed, 0 recordings not played"]
    spared = price(models[0], {"input_tokens": 2000, "output_tokens": 1000})
    assert spared is not None
    assert spared > 0
    assert summary(suite.run()) == [
        "3 replayed, 0 recorded, 0 missed, 0 recordings not played",
        f"4500 tokens and ${spared:.4f} not spent (price of unheard-of-1 not known)",
    ]


def test_a_mode_without_marked_tests_is_reported(suite: Suite) -> None:
    """Otherwise a user who forgot the marks would pay for each run and keep no recording."""
    suite.write("def test_one():\n    ask('one')\n")
    with serve() as server:
        assert summary(suite.run("--retold-mode=once", server=server)) == [
            "--retold-mode did nothing: no test that ran is marked, so none used a cassette",
            "Mark a test with @pytest.mark.retold, or a whole module with: pytestmark = pytest.mark.retold",
        ]


def test_the_summary_counts_misses_and_unplayed_recordings(recorded: Suite) -> None:
    """The summary lists each unplayed recording with its file."""
    recorded.write("""
        @pytest.mark.retold
        def test_one():
            ask("another")

        @pytest.mark.retold
        def test_two():
            ask("two")
    """)
    result = recorded.run()
    result.assert_outcomes(passed=1, failed=1)
    assert summary(result)[:2] == [
        "1 replayed, 0 recorded, 1 missed, 1 recordings not played",
        f"  not played: 1 in {FOLDER}/test_two.yaml",
    ]


MISSES = {
    'ask("on")': [
        'retold.MissError: messages[0].content: recorded "one", now "on"',
        "no recorded exchange answers call 1, POST /v1/messages, in FOLDER/test_one.yaml; nearest is recorded exchange 1.",
        "To record this test again: pytest test_chat.py::test_one --retold-mode=refresh",
    ],
    'ask("on", system="Be brief.", max_tokens=9)': [
        "retold.MissError: max_tokens: recorded 64, now 9",
        "no recorded exchange answers call 1, POST /v1/messages, in FOLDER/test_one.yaml; nearest is recorded exchange 1.",
        "It differs in messages[0].content, system, too.",
        "To record this test again: pytest test_chat.py::test_one --retold-mode=refresh",
    ],
    'ask("one"), ask("one")': [
        "retold.MissError: no recorded exchange answers call 2, POST /v1/messages, in FOLDER/test_one.yaml: the same request was "
        "recorded once and has been played once already.",
        "To record this test again: pytest test_chat.py::test_one --retold-mode=refresh",
    ],
}
"""A request of a test, and the lines of its miss."""


@pytest.mark.parametrize("asking", MISSES)
def test_a_miss_fails_its_test_with_at_most_four_lines(recorded: Suite, asking: str) -> None:
    """The lines have the difference, the relative path of the cassette, and the command that records this test again."""
    recorded.write(f"@pytest.mark.retold\ndef test_one():\n    {asking}\n")
    result = recorded.run()
    result.assert_outcomes(failed=1)
    assert errors(result) == [line.replace("FOLDER", FOLDER) for line in MISSES[asking]]
    assert "site-packages" not in str(result.stdout)
    assert re.search(r"clients\.py:\d+: MissError$", str(result.stdout), re.MULTILINE)


def errors(result: pytest.RunResult) -> list[str]:
    """Return the lines of the errors."""
    return [line[1:].strip() for line in result.outlines if line.startswith("E  ")]


def test_the_command_of_a_miss_selects_one_test_and_keeps_a_shared_cassette(recorded: Suite) -> None:
    """The argument is quoted for a shell and relative to the folder in which pytest was started."""
    recorded.write("""
        @pytest.mark.retold("test_one.yaml")
        @pytest.mark.parametrize("prompt", ["on my way"])
        def test_one(prompt):
            ask(prompt)
    """)
    assert errors(recorded.run())[-1] == (
        "To record this test again: pytest 'test_chat.py::test_one[on my way]' --retold-mode=refresh"
    )


def test_a_miss_with_the_full_trace_shows_the_frames_of_the_sdk(recorded: Suite) -> None:
    recorded.write("@pytest.mark.retold\ndef test_one():\n    ask('on')\n")
    assert "_base_client.py" in str(recorded.run("--full-trace").stdout)


def test_the_error_of_a_missing_cassette_names_the_way_to_record_it(suite: Suite) -> None:
    """In CI the error gives the reason why pytest did not record it."""
    suite.write(TWO)
    result = suite.run("-k", "one")
    result.stdout.fnmatch_lines([
        f"E  *retold.MissError: no cassette at {FOLDER}/test_one.yaml.",
        "E  *To record this test: pytest test_chat.py::test_one --retold-mode=once",
    ])  # fmt: skip
    assert summary(result)[0] == "0 replayed, 0 recorded, 1 missed, 0 recordings not played"


def test_drift_is_reported(recorded: Suite) -> None:
    """In mode verify, each changed place is one line, and no file changes."""
    before = [recorded.read(name) for name in recorded.files()]
    with serve("You said one.", "You said too.", "You said more.") as server:
        result = recorded.run("--retold-mode=verify", "-W", "default", server=server)
        assert server.calls == 3
    result.assert_outcomes(passed=2)
    assert summary(result)[:2] == [
        "0 replayed, 3 recorded, 0 missed, 0 recordings not played",
        '  drift: call 1: content[0].text: recorded "You said two.", now "You said too."',
    ]
    assert [recorded.read(name) for name in recorded.files()] == before


# Failures


FAILURES = {
    "in the test": "def test_one():\n    ask('new')\n    assert False\n",
    "in a fixture's setup": (
        "@pytest.fixture\ndef broken():\n    ask('new')\n    raise ValueError('bad')\n\n"
        "@pytest.mark.retold\ndef test_one(broken):\n    pass\n"
    ),
    "in a fixture's teardown": (
        "@pytest.fixture\ndef broken():\n    yield\n    raise ValueError('bad')\n\n"
        "@pytest.mark.retold\ndef test_one(broken):\n    ask('new')\n"
    ),
    "by an interrupt": "def test_one():\n    ask('new')\n    raise KeyboardInterrupt\n",
    "by an exit": "def test_one():\n    ask('new')\n    pytest.exit('enough')\n",
}


@pytest.mark.trap(40)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_test_never_replaces_a_good_cassette(failure: str, recorded: Suite) -> None:
    """A failure in any phase counts. The recording stays in the log, as a failed run."""
    before = recorded.read(f"{FOLDER}/test_one.yaml")
    source = FAILURES[failure]
    recorded.write(source if "@pytest.mark.retold" in source else "@pytest.mark.retold\n" + source)
    with serve() as server:
        recorded.run("--retold-mode=rewrite", "-k", "one", server=server)
        assert server.calls == 1
    run = retold.EventLog(recorded.folder / ".retold/log.db").runs()[0]
    assert (run.name, run.exchanges) == ("test_chat.py::test_one", 1)
    assert (recorded.read(f"{FOLDER}/test_one.yaml") == before, run.status == "completed") == (True, False)


def test_a_failed_test_leaves_no_new_cassette(suite: Suite) -> None:
    """The next run must not replay half of a test."""
    suite.write(TWO + "    assert False\n")
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=1, failed=1)
    assert suite.files() == [f"{FOLDER}/test_one.yaml"]


@pytest.mark.parametrize("mark", ["xfail", "xfail(strict=True, raises=ValueError)"])
def test_a_test_that_fails_as_expected_keeps_its_recording(mark: str, suite: Suite) -> None:
    """The test ended as intended. Without a cassette, all later runs would end in another way."""
    suite.write(f"@pytest.mark.{mark}\n@pytest.mark.retold\ndef test_one():\n    raise ValueError(ask('one'))\n")
    with serve() as server:
        suite.record(server=server).assert_outcomes(xfailed=1)
    assert suite.files() == [f"{FOLDER}/test_one.yaml"]
    result = suite.run()
    result.assert_outcomes(xfailed=1)
    assert summary(result)[0] == "1 replayed, 0 recorded, 0 missed, 0 recordings not played"


def test_a_damaged_cassette_is_an_error_of_its_test_only(recorded: Suite) -> None:
    """The report names the line, and no mode changes the file."""
    path = recorded.folder / FOLDER / "test_one.yaml"
    path.write_text("version: 1\ninteractions: [\n")
    with serve() as server:
        result = recorded.run("--retold-mode=all", server=server)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([f"E*CassetteError: *{FOLDER}/test_one.yaml:3: the cassette is damaged: *"])
    assert path.read_text() == "version: 1\ninteractions: [\n"


# Unplayed recordings


@pytest.mark.trap(43)
def test_unplayed_recordings_of_failed_or_deselected_tests_are_not_reported(recorded: Suite) -> None:
    """Their requests were not reached, or not selected."""
    recorded.write(TWO.replace('    ask("two")\n', '    assert False\n    ask("two")\n'))
    assert summary(recorded.run())[0] == "1 replayed, 0 recorded, 0 missed, 0 recordings not played"
    assert summary(recorded.run("-k", "one"))[0] == "1 replayed, 0 recorded, 0 missed, 0 recordings not played"


def test_unplayed_recordings_are_reported_in_mode_once_too(recorded: Suite) -> None:
    """If a cassette exists, `once` replays like `none`."""
    recorded.write(TWO.replace('    ask("more")\n', ""))
    assert summary(recorded.run("--retold-mode=once"))[:2] == [
        "2 replayed, 0 recorded, 0 missed, 1 recordings not played",
        f"  not played: 1 in {FOLDER}/test_two.yaml",
    ]


def test_a_recording_of_a_shared_cassette_counts_as_played_by_any_test(suite: Suite) -> None:
    """Two tests that share a file play all of it together."""
    suite.write(TWO.replace("@pytest.mark.retold", '@pytest.mark.retold("shared.yaml")'))
    with serve() as server:
        suite.run("--retold-mode=new_episodes", server=server).assert_outcomes(passed=2)
    assert summary(suite.run())[0] == "3 replayed, 0 recorded, 0 missed, 0 recordings not played"


# Orphans


def orphans(suite: Suite, *args: str) -> tuple[list[str], int]:
    """Return the files that the report lists as orphans, and the exit code."""
    result = suite.run("--retold-check-orphans", *args)
    return re.findall(r"^  orphan: (\S+) belongs to no test$", result.stdout.str(), re.MULTILINE), int(result.ret)


@pytest.mark.trap(43)
def test_a_cassette_without_a_test_is_an_orphan(recorded: Suite) -> None:
    """pytest reports it only on request, and then fails the session."""
    recorded.write(TWO.replace("test_two", "test_renamed"))
    (recorded.folder / FOLDER / "old.json").write_text("{}")
    found = [f"{FOLDER}/old.json", f"{FOLDER}/test_two.yaml"]
    assert orphans(recorded, "-k", "one") == (found, 1)
    assert recorded.run("-k", "one").ret == 0


@pytest.mark.trap(43)
def test_a_cassette_of_a_test_that_did_not_run_is_not_an_orphan(recorded: Suite) -> None:
    """The test is deselected, skipped, or not the selected one."""
    for args in (("-k", "one"), ("--deselect", "test_chat.py::test_two"), ("test_chat.py::test_one",), ("-m", "not retold")):
        assert orphans(recorded, *args)[0] == []
    recorded.write(TWO.replace("def test_two", "@pytest.mark.skip\ndef test_two"))
    assert orphans(recorded) == ([], 0)


def test_selecting_one_module_partly_hides_no_orphan_of_another(recorded: Suite) -> None:
    """The plugin checks each module separately."""
    recorded.write(TWO.replace("test_chat", "test_more"), "test_more.py")
    (recorded.folder / FOLDER / "a.yaml").touch()
    (recorded.folder / "cassettes/test_more").mkdir()
    (recorded.folder / "cassettes/test_more/b.yaml").touch()
    assert orphans(recorded, "test_chat.py::test_one", "test_more.py", "-k", "one")[0] == ["cassettes/test_more/b.yaml"]


def test_every_cassette_that_a_test_uses_belongs_to_it(suite: Suite) -> None:
    """The cassettes are parametrised, shared, or those of a test with only the fixture."""
    suite.write("""
        @pytest.mark.retold
        @pytest.mark.parametrize("name", ["a/b", "c"])
        def test_each(name):
            ask(name)

        @pytest.mark.retold("sub/named.yaml")
        def test_named():
            ask("named")

        def test_fixture(retold_cassette):
            ask("fixture")
    """)
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=4)
    assert len(suite.files()) == 4
    assert orphans(suite) == ([], 0)


def test_a_failed_session_stays_failed(recorded: Suite) -> None:
    """Orphans change only the exit code of a passed session. A session without tests is not a success either."""
    recorded.write("@pytest.mark.retold\ndef test_one():\n    raise KeyboardInterrupt\n")
    assert orphans(recorded)[1] == pytest.ExitCode.INTERRUPTED
    assert orphans(recorded, "-k", "nothing")[1] == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("how", ["module gone", "marks gone"])
def test_the_cassettes_of_a_module_without_marked_tests_are_orphans(how: str, recorded: Suite) -> None:
    """The last test of the module is gone, or the module itself."""
    recorded.write("def test_nothing():\n    pass\n", "test_chat.py" if how == "marks gone" else "test_other.py")
    if how == "module gone":
        (recorded.folder / "test_chat.py").unlink()
    assert orphans(recorded) == ([f"{FOLDER}/test_one.yaml", f"{FOLDER}/test_two.yaml"], 1)


def test_a_module_that_was_not_selected_has_no_orphans(recorded: Suite) -> None:
    """Its tests were not collected."""
    recorded.write("@pytest.mark.retold\ndef test_nothing():\n    pass\n", "test_other.py")
    assert orphans(recorded, "test_other.py") == ([], 0)


def test_a_cassette_named_by_way_of_another_folder_belongs_to_its_test(suite: Suite) -> None:
    """Its path may have any spelling."""
    suite.write('@pytest.mark.retold("../test_shared/one.yaml")\ndef test_one():\n    ask("one")\n')
    with serve() as server:
        suite.record(server=server).assert_outcomes(passed=1)
    assert suite.files() == ["cassettes/test_shared/one.yaml"]
    assert orphans(suite) == ([], 0)


def test_a_folder_without_a_module_has_no_orphans(recorded: Suite) -> None:
    """The plugin does not report files that a suite keeps there for `retold.use_cassette`."""
    recorded.write("version: 1\ninteractions: []\n", "cassettes/samples/mine.yaml")
    recorded.write("version: 1\ninteractions: []\n", "cassettes/mine.yaml")
    assert orphans(recorded) == ([], 0)


# Workers


@pytest.mark.stress
@pytest.mark.trap(43)
def test_the_numbers_of_all_workers_are_added(recorded: Suite) -> None:
    """These are replayed, missed and unplayed recordings and tokens. Each orphan appears once and changes the exit code."""
    (recorded.folder / FOLDER / "old.yaml").touch()
    recorded.write(TWO.replace('    ask("more")\n', ""))
    alone = recorded.run("--retold-check-orphans")
    recorded.write(PLAIN, "asking.py")
    shared = recorded.run("--retold-check-orphans", "-n2", subprocess=True)
    shared.assert_outcomes(passed=2)
    assert summary(shared) == summary(alone) != []
    assert (alone.ret, shared.ret) == (1, 1)
    assert any("not played: 1 in" in line for line in summary(shared))
    assert sum("orphan" in line for line in summary(shared)) == 1


@pytest.mark.trap(38)
def test_workers_record_into_one_log(suite: Suite) -> None:
    """Each test has its own run and its own cassette."""
    suite.write("@pytest.mark.retold\n@pytest.mark.parametrize('n', range(6))\ndef test_n(n):\n    ask(f'number {n}')\n")
    suite.write(PLAIN, "asking.py")
    with serve() as server:
        result = suite.run("--retold-mode=once", "-n2", server=server, subprocess=True)
    assert summary(result)[0] == "0 replayed, 6 recorded, 0 missed, 0 recordings not played"
    runs = retold.EventLog(suite.folder / ".retold/log.db").runs()
    assert sorted((run.name, run.status) for run in runs) == [(f"test_chat.py::test_n[{n}]", "completed") for n in range(6)]
    assert suite.files() == [f"{FOLDER}/test_n[{n}].yaml" for n in range(6)]
