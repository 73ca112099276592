"""retold obeys `vcr_config`, hooks and options of a suite for pytest-recording."""

import json
from pathlib import Path

import pytest

import retold
from tests.clients import serve
from tests.suites import VCR_CONFTEST, VcrSuite, asks, with_config

pytest_plugins = ["pytester"]

KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> VcrSuite:
    return VcrSuite(pytester, monkeypatch)


# Configuration


def test_without_match_on_the_rules_of_vcrpy_apply(suite: VcrSuite) -> None:
    """These are method, scheme, host, port, path and query. The body does not count, and the port does."""
    suite.write_vcr(asks("a"), config="")
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    suite.write_vcr(asks("b"), config="")
    suite.run_vcr(server=server).assert_outcomes(passed=1)
    suite.run_vcr().assert_outcomes(failed=1)


def test_the_hook_of_pytest_recording_configures_vcrpy(suite: VcrSuite) -> None:
    """A suite can name a matcher that it registers."""
    config = """
        import pytest

        def pytest_recording_configure(config, vcr):
            vcr.register_matcher("anything", lambda one, other: True)

        @pytest.fixture
        def vcr_config():
            return {"match_on": ["anything"]}
    """
    suite.write_vcr(asks("a"), config)
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    suite.write_vcr(asks("b"), config)
    suite.run_vcr().assert_outcomes(passed=1)


def test_the_suite_sets_the_place_of_cassettes(suite: VcrSuite) -> None:
    """It overrides `vcr_cassette_dir`, sets `cassette_library_dir`, or gives the absolute path of another cassette."""
    config = VCR_CONFTEST + """
@pytest.fixture(scope="module")
def vcr_cassette_dir(request):
    return str(request.config.rootpath / "tapes")
"""  # fmt: skip
    suite.write_vcr(asks("a"), config)
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
        assert suite.files() == ["tapes/test_it.yaml"]
        suite.write_vcr(asks("a", mark=f"@pytest.mark.vcr({str(suite.folder / 'tapes/test_it.yaml')!r})"))
        suite.run_vcr().assert_outcomes(passed=1)
        library = str(suite.folder / "lib")
        suite.write_vcr(asks("b"), with_config(f'"cassette_library_dir": {library!r}'))
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    assert suite.files() == ["lib/test_it.yaml", "tapes/test_it.yaml"]


def test_json_cassettes_are_json(suite: VcrSuite) -> None:
    """The suite selects the serializer of that name."""
    config = with_config('"serializer": "json"')
    suite.write_vcr(asks("a"), config)
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    assert json.loads(suite.read(f"{suite.cassettes}/test_it.json"))["version"] == 1
    suite.run_vcr().assert_outcomes(passed=1)


def test_playback_repeats_follow_vcr_config(suite: VcrSuite) -> None:
    """They are allowed only if `vcr_config` allows them."""
    suite.write_vcr(asks("a"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server)
    suite.write_vcr(asks("a", "a"))
    suite.run_vcr().assert_outcomes(failed=1)
    suite.write_vcr(asks("a", "a"), with_config('"allow_playback_repeats": True'))
    suite.run_vcr().assert_outcomes(passed=1)


def test_responses_are_filtered_by_the_suite(suite: VcrSuite) -> None:
    """A suite that filters its responses must not commit unfiltered ones."""
    config = with_config('"before_record_response": scrub') + """
def scrub(response):
    response["body"]["string"] = response["body"]["string"].replace(b"Alice", b"NAME!")
    return response
"""  # fmt: skip
    suite.write_vcr(asks("Alice"), config)
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    (exchange,) = retold.read_cassette(suite.folder / suite.cassettes / "test_it.yaml").exchanges
    assert exchange.response is not None
    assert (b"Alice" in exchange.response.body, b"NAME!" in exchange.response.body) == (False, True)


def test_the_length_of_the_vcr_fixture_is_that_of_its_cassette(suite: VcrSuite) -> None:
    """Suites assert the number of recorded requests."""
    suite.write_vcr(asks("a", "b"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server)
    suite.write_vcr(asks("a", "b") + "    assert len(vcr) == 2\n")
    suite.run_vcr().assert_outcomes(passed=1)


def test_a_long_name_is_shortened_as_in_pytest_recording(suite: VcrSuite) -> None:
    """The short name is the beginning of the name and an md5 of the whole."""
    suite.write_vcr(
        "@pytest.mark.vcr\n@pytest.mark.parametrize('name', ['x'], ids=['x' * 300])\ndef test_it(name):\n    ask('a')\n"
    )
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    (name,) = suite.files(suite.cassettes)
    assert Path(name).name.startswith("test_it[xxx")


def test_a_suite_without_filters_writes_no_key(suite: VcrSuite) -> None:
    """retold removes keys with any `vcr_config`."""
    call = f"ask('my key is {KEY}', extra_headers={{'x-api-key': '{KEY}'}})"
    suite.write_vcr(f"@pytest.mark.vcr\ndef test_it():\n    {call}\n", config="")
    with serve("yes") as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    assert KEY in server.requests[0].body.decode()
    assert KEY.encode() not in suite.read(f"{suite.cassettes}/test_it.yaml")


# The network


CONNECTS = """
def test_unmarked():
    import os, socket
    from urllib.parse import urlsplit
    with socket.socket() as one:
        one.connect(("127.0.0.1", urlsplit(os.environ["SERVER_URL"]).port))
"""


def test_the_network_can_be_blocked_for_every_test(suite: VcrSuite) -> None:
    """Recording and allowed hosts are exempt."""
    suite.write_vcr(asks("a") + CONNECTS)
    with serve() as server:
        suite.run_vcr("--block-network", "--record-mode=once", "-k", "it", server=server).assert_outcomes(passed=1)
        suite.run_vcr("--block-network", "--allowed-hosts=127.0.0.1,other", server=server).assert_outcomes(passed=2)
        result = suite.run_vcr("--block-network", server=server)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*RuntimeError: Network is disabled*127.0.0.1*"])


def test_a_blocked_connection_has_the_message_of_pytest_recording(suite: VcrSuite) -> None:
    """Suites match this message."""
    suite.write_vcr(CONNECTS)
    with serve() as server:
        result = suite.run_vcr("--block-network", server=server)
    assert "RuntimeError: Network is disabled for host '127.0.0.1'" in result.stdout.str()


def test_a_miss_names_the_matcher_that_refused(suite: VcrSuite) -> None:
    """The name is that in the suite's `match_on`."""
    suite.write_vcr(asks("a"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    suite.write_vcr(asks("b"))
    assert "body in match_on rejects it." in suite.run_vcr().stdout.str()
