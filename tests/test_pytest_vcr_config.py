"""What a suite for pytest-recording says in `vcr_config`, by hooks and on the command line holds on retold, too."""

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


def test_without_match_on_vcrpys_own_rules_hold(suite: VcrSuite) -> None:
    """Method, scheme, host, port, path and query: the body does not count, the port does."""
    suite.write_vcr(asks("a"), config="")
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    suite.write_vcr(asks("b"), config="")
    suite.run_vcr(server=server).assert_outcomes(passed=1)
    suite.run_vcr().assert_outcomes(failed=1)


def test_the_hook_of_pytest_recording_configures_vcrpy(suite: VcrSuite) -> None:
    """A matcher that the suite registers is one that it can name."""
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


def test_the_suite_says_where_cassettes_are(suite: VcrSuite) -> None:
    """By overriding `vcr_cassette_dir`, by `cassette_library_dir`, by an absolute path of a further cassette."""
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
    """With the serializer of that name."""
    config = with_config('"serializer": "json"')
    suite.write_vcr(asks("a"), config)
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    assert json.loads(suite.read(f"{suite.cassettes}/test_it.json"))["version"] == 1
    suite.run_vcr().assert_outcomes(passed=1)


def test_playback_repeats_are_vcrpys(suite: VcrSuite) -> None:
    """Where `vcr_config` allows them."""
    suite.write_vcr(asks("a"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server)
    suite.write_vcr(asks("a", "a"))
    suite.run_vcr().assert_outcomes(failed=1)
    suite.write_vcr(asks("a", "a"), with_config('"allow_playback_repeats": True'))
    suite.run_vcr().assert_outcomes(passed=1)


def test_responses_are_filtered_as_the_suite_says(suite: VcrSuite) -> None:
    """A suite that scrubs its responses must not find them unscrubbed in git."""
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


def test_the_vcr_fixture_is_as_long_as_its_cassette(suite: VcrSuite) -> None:
    """Suites assert how many requests were recorded."""
    suite.write_vcr(asks("a", "b"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server)
    suite.write_vcr(asks("a", "b") + "    assert len(vcr) == 2\n")
    suite.run_vcr().assert_outcomes(passed=1)


def test_a_name_that_is_too_long_is_shortened_as_pytest_recording_does(suite: VcrSuite) -> None:
    """To its beginning and an md5 of the whole."""
    suite.write_vcr(
        "@pytest.mark.vcr\n@pytest.mark.parametrize('name', ['x'], ids=['x' * 300])\ndef test_it(name):\n    ask('a')\n"
    )
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    (name,) = suite.files(suite.cassettes)
    assert Path(name).name.startswith("test_it[xxx")


def test_a_suite_that_filters_nothing_writes_no_key_all_the_same(suite: VcrSuite) -> None:
    """What retold removes by itself is removed whatever `vcr_config` says."""
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
    """But not while recording, and not for hosts that are allowed."""
    suite.write_vcr(asks("a") + CONNECTS)
    with serve() as server:
        suite.run_vcr("--block-network", "--record-mode=once", "-k", "it", server=server).assert_outcomes(passed=1)
        suite.run_vcr("--block-network", "--allowed-hosts=127.0.0.1,other", server=server).assert_outcomes(passed=2)
        result = suite.run_vcr("--block-network", server=server)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E*RuntimeError: Network is disabled*127.0.0.1*"])


def test_a_blocked_connection_is_refused_in_the_words_of_pytest_recording(suite: VcrSuite) -> None:
    """Suites match them."""
    suite.write_vcr(CONNECTS)
    with serve() as server:
        result = suite.run_vcr("--block-network", server=server)
    assert "RuntimeError: Network is disabled for host '127.0.0.1'" in result.stdout.str()


def test_a_miss_names_the_matcher_that_refused(suite: VcrSuite) -> None:
    """By the name that the suite gave in `match_on`."""
    suite.write_vcr(asks("a"))
    with serve() as server:
        suite.run_vcr("--record-mode=once", server=server).assert_outcomes(passed=1)
    suite.write_vcr(asks("b"))
    assert "body in match_on rejects it." in suite.run_vcr().stdout.str()
