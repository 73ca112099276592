"""`retold_vcr = true`: a suite for pytest-recording runs on retold unchanged, with its cassettes, marks and fixtures."""

import json
from pathlib import Path
from typing import Any

import pytest
import vcr

import retold
import retold.testing.pytest_vcr
from retold.testing.pytest_vcr import MAX_NAME, file_name
from tests.clients import ask, serve
from tests.messages_server import MessagesServer, Reply, text
from tests.suites import VCR_CONFTEST, VcrSuite, asks, summary, with_config

pytest_plugins = ["pytester"]

SUITE = """
@pytest.mark.vcr
def test_stream(vcr):
    assert ask("I am Bob") == "You said I am Alice."
    assert vcr.play_count == 1
    assert vcr.all_played
    assert [request.method for request in vcr.requests] == ["POST"]

@pytest.mark.vcr("shared.yaml")
def test_extra(vcr):
    assert ask("extra") == "You said extra."
    assert ask("shared") == "You said shared."

@pytest.mark.default_cassette("custom.yaml")
@pytest.mark.vcr
def test_custom():
    assert ask("custom") == "You said custom."

@pytest.mark.vcr
@pytest.mark.block_network
class TestBlocked:
    def test_replay(self):
        assert ask("blocked") == "You said blocked."

    @pytest.mark.parametrize("name", ["a/b"])
    def test_each(self, name):
        assert ask(name) == f"You said {name}."

@pytest.mark.block_network(allowed_hosts=["127.*"])
def test_refused():
    import socket
    with socket.socket() as one, pytest.raises(RuntimeError, match="Network is disabled"):
        one.connect(("10.0.0.1", 9))
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", 9))

def test_unmarked(vcr):
    assert vcr is None
"""
RECORDED = {
    "test_stream": "I am Alice", "test_extra": "extra", "shared": "shared", "custom": "custom",
    "TestBlocked.test_replay": "blocked", "TestBlocked.test_each[a-b]": "a/b",
}  # fmt: skip


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> VcrSuite:
    return VcrSuite(pytester, monkeypatch)


INSTALLED = pytest.mark.parametrize(
    "installed",
    [pytest.param(False, id="without pytest-recording"), pytest.param(True, id="with pytest-recording")],
)


def anonymous(request: Any) -> Any:
    request.body = request.body.replace(b"Alice", b"NAME")
    return request


@pytest.fixture
def taped(suite: VcrSuite) -> tuple[VcrSuite, MessagesServer]:
    """Return the suite with cassettes that vcrpy wrote, and the server that was recorded."""
    suite.write_vcr(SUITE)
    with serve() as server:
        for name, prompt in RECORDED.items():
            path = str(suite.folder / suite.cassettes / f"{name}.yaml")
            with vcr.use_cassette(path, filter_headers=["authorization"], before_record_request=anonymous):
                ask(prompt, server.url)
    assert server.calls == len(RECORDED)
    return suite, server


# An unchanged suite


@INSTALLED
def test_a_suite_for_pytest_recording_runs_unchanged(installed: bool, taped: tuple[VcrSuite, MessagesServer]) -> None:
    """It runs offline from cassettes that vcrpy wrote, and changes none of them."""
    suite, server = taped
    before = {name: suite.read(name) for name in suite.files()}
    result = suite.run_vcr(server=server, installed=installed)
    result.assert_outcomes(passed=7)
    assert summary(result)[0] == "6 replayed, 0 recorded, 0 missed, 0 recordings not played"
    assert {name: suite.read(name) for name in suite.files()} == before


def test_the_suite_runs_on_pytest_recording_itself(taped: tuple[VcrSuite, MessagesServer]) -> None:
    """It passes on pytest-recording and vcrpy without retold, so it is not made for retold."""
    suite, server = taped
    suite.run("-p", "no:retold", server=server).assert_outcomes(passed=7)


@INSTALLED
def test_a_recording_is_filtered_and_vcrpy_can_replay_it(installed: bool, suite: VcrSuite) -> None:
    """`vcr_config` filters headers and bodies, and excludes private requests."""
    suite.write_vcr("""
        @pytest.mark.vcr
        def test_stream():
            assert ask("I am Alice", extra_headers={"x-api-key": "secret-enough"}) == "You said I am Alice."
            assert ask("private") == "You said private."
    """)  # fmt: skip
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server, installed=installed).assert_outcomes(passed=1)
    assert suite.files() == [f"{suite.cassettes}/test_stream.yaml"]
    (exchange,) = retold.read_cassette(suite.folder / suite.cassettes / "test_stream.yaml").exchanges
    assert json.loads(exchange.request.body)["messages"][0]["content"] == "I am NAME"
    names = {name.lower() for name, _ in exchange.request.headers}
    assert ("authorization" in names, b"secret-enough" in suite.read(f"{suite.cassettes}/test_stream.yaml")) == (False, False)
    with vcr.use_cassette(str(suite.folder / suite.cassettes / "test_stream.yaml"), record_mode="none") as cassette:
        assert ask("I am Carol", server.url) == "You said I am Alice."
        assert cassette.all_played


# Modes


MODES: dict[str, tuple[str, ...]] = {
    "none": (),
    "new_episodes": ("--record-mode=new_episodes",),
    "all": ("--record-mode=all",),
    "rewrite": ("--record-mode=rewrite",),
}
PROMPTS = {"none": ["a", "b"], "new_episodes": ["a", "b", "c"], "all": ["a", "b", "c"], "rewrite": ["b", "c"]}


@pytest.mark.parametrize("mode", MODES)
def test_the_record_mode_of_the_command_line_counts(mode: str, suite: VcrSuite) -> None:
    """The default is none: a request without a recording is a miss."""
    suite.write_vcr(asks("a", "b"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
        suite.write_vcr(asks("b", "c"))
        result = suite.run_vcr(*MODES[mode], server=server)
    result.assert_outcomes(**{"failed" if mode == "none" else "passed": 1})
    assert suite.prompts() == PROMPTS[mode]
    if mode == "none":
        result.stdout.fnmatch_lines(["E*retold.MissError: *"])


@pytest.mark.parametrize("where", ["config", "mark"])
def test_the_record_mode_of_the_suite_counts(where: str, suite: VcrSuite) -> None:
    """The mode is in `vcr_config` or in the mark."""
    config = with_config('"record_mode": "once"') if where == "config" else VCR_CONFTEST
    suite.write_vcr(asks("a", mark=f"@pytest.mark.vcr({'record_mode=' + repr('once') if where == 'mark' else ''})"), config)
    with serve() as server:
        suite.run_vcr(server=server).assert_outcomes(passed=1)
    suite.run_vcr().assert_outcomes(passed=1)
    assert suite.prompts() == ["a"]


def test_recording_can_be_disabled(suite: VcrSuite) -> None:
    """Every request is sent, and no cassette is written."""
    suite.write_vcr("@pytest.mark.vcr\ndef test_it(vcr):\n    assert vcr is None\n    ask('a')\n")
    with serve() as server:
        suite.run_vcr("--disable-recording", server=server).assert_outcomes(passed=1)
        assert server.calls == 1
    assert suite.files() == []


def test_a_failed_test_never_replaces_a_good_cassette(suite: VcrSuite) -> None:
    """pytest-recording itself would have deleted the cassette."""
    suite.write_vcr(asks("a"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server)
        before = suite.read(f"{suite.cassettes}/test_it.yaml")
        suite.write_vcr(asks("b") + "    assert False\n")
        suite.run_vcr("--record-mode=rewrite", server=server).assert_outcomes(failed=1)
    assert suite.read(f"{suite.cassettes}/test_it.yaml") == before


def test_a_damaged_cassette_is_an_error_and_stays_unchanged(suite: VcrSuite) -> None:
    """vcrpy would load it as an empty cassette, and then overwrite it."""
    suite.write_vcr(asks("a"))
    path = suite.folder / suite.cassettes / "test_it.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("version: 1\ninteractions: [\n")
    with serve() as server:
        suite.run_vcr("--record-mode=new_episodes", server=server).assert_outcomes(errors=1)
    assert path.read_text() == "version: 1\ninteractions: [\n"


# Beside retold's own mark


def test_a_cassette_of_a_test_with_the_vcr_mark_is_not_an_orphan(taped: tuple[VcrSuite, MessagesServer]) -> None:
    """The cassette belongs to its test."""
    suite, server = taped
    result = suite.run_vcr("--retold-check-orphans", server=server)
    assert (result.ret, [line for line in summary(result) if "orphan" in line]) == (0, [])


def test_a_suite_can_use_both_marks(suite: VcrSuite) -> None:
    """Users can convert one test after another."""
    suite.write_vcr(asks("a") + "\n@pytest.mark.retold\ndef test_own(retold_cassette):\n    ask('b')\n")
    with serve() as server:
        suite.run_vcr("--record-mode=once", "--retold-mode=once", server=server).assert_outcomes(passed=2)
    assert summary(suite.run_vcr())[0] == "2 replayed, 0 recorded, 0 missed, 0 recordings not played"


def test_streams_are_recorded_without_delay(suite: VcrSuite) -> None:
    """Under vcrpy the client would get the first event together with the last."""
    suite.write_vcr("""
        import time

        @pytest.mark.vcr
        def test_it():
            from tests.clients import body
            with client() as asking, asking.messages.create(**body("a"), stream=True) as stream:
                times = [time.monotonic() for event in stream]
            assert times[-1] - times[0] >= 0.05
    """)  # fmt: skip
    with MessagesServer([Reply([text("Hello there")], gap_s=[0.1])]) as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)


def test_a_session_without_vcrpy_names_the_missing_package(suite: VcrSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    """retold uses its matchers and filters. One line replaces an ImportError for each test."""
    monkeypatch.setattr(retold.testing.pytest_vcr, "find_spec", lambda _: None)
    suite.write_vcr(asks("a"))
    result = suite.run_vcr()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "ERROR: retold_vcr = true uses vcrpy's matchers and filters, and vcrpy is not there: pip install vcrpy."
        in result.errlines
    )


@pytest.mark.parametrize("char", ["a", "\u00e9", "\u5929", "\U0001f600"])
def test_a_long_name_of_a_cassette_fits_a_file_system_that_counts_bytes(char: str) -> None:
    """Two names that differ after the cut stay different."""
    one, two = (file_name(f"test_it[{char * 300}{end}]") for end in ("x", "y"))
    assert one != two
    for name in (one, two):
        assert len(name.encode()) <= MAX_NAME
        Path(f"{name}.yaml").write_text("")
    assert file_name(f"test_it[{char}]") == f"test_it[{char}]"
