"""With `retold_vcr = true`, vcrpy's own cassette serves the libraries that retold does not patch. No library goes live."""

import gzip
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import vcr
import yaml

import retold
from tests.conftest import ROOT, SHARED
from tests.suites import VcrSuite, summary

pytest_plugins = ["pytester"]

pytestmark = pytest.mark.needs("requests", "aiohttp", "httpx")

WAYS = {
    "urllib": "import urllib.request; return urllib.request.urlopen(URL).read()",
    "urllib3": "import urllib3; return urllib3.request('GET', URL).data",
    "requests": "import requests; return requests.get(URL).content",
    "http.client": (
        "import http.client; c = http.client.HTTPConnection(os.environ['HOST']); c.request('GET', '/x');"
        " return c.getresponse().read()"
    ),
    "httpx": "import httpx; return httpx.get(URL).content",
    "httpx2": "import httpx2; return httpx2.get(URL).content",
    "aiohttp": """
    import aiohttp, asyncio
    async def go():
        async with aiohttp.ClientSession() as session, session.get(URL) as response:
            return await response.read()
    return asyncio.run(go())
""",
}
NAMES = [name.replace(".", "_") for name in WAYS]

GETS = "import os\nURL = os.environ['URL']\n" + "\n".join(
    f"def get_{name}():\n    {body}\n" for name, body in zip(NAMES, WAYS.values(), strict=True)
)
TESTS = "\n".join(f"@pytest.mark.vcr\ndef test_{name}(vcr):\n    assert get_{name}() == b'said'\n" for name in NAMES)


class Live:
    """A server that counts its requests."""

    def __init__(self, port: int) -> None:
        self.calls = 0
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}/x"


@contextmanager
def live() -> Iterator[Live]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.calls += 1
            self.send_response(200)
            self.send_header("content-length", "4")
            self.end_headers()
            self.wfile.write(b"said")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Live(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> VcrSuite:
    return VcrSuite(pytester, monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    with live() as state:
        monkeypatch.setenv("URL", state.url)
        monkeypatch.setenv("HOST", state.host)
        yield state


def test_every_library_is_recorded_and_replayed(suite: VcrSuite, server: Live) -> None:
    """Recording sends one request each, and replay sends none. vcrpy can read the files, and each run is in the log."""
    suite.write_vcr(GETS + TESTS, "")
    suite.run_vcr("--record-mode=once").assert_outcomes(passed=len(NAMES))
    assert server.calls == len(NAMES)
    result = suite.run_vcr()
    result.assert_outcomes(passed=len(NAMES))
    assert server.calls == len(NAMES)
    assert summary(result)[0] == f"{len(NAMES)} replayed, 0 recorded, 0 missed, 0 recordings not played"
    for name in NAMES:
        path = suite.folder / suite.cassettes / f"test_{name}.yaml"
        (exchange,) = retold.read_cassette(path).exchanges
        assert exchange.response is not None
        assert exchange.response.body == b"said"
        with vcr.use_cassette(str(path), record_mode="none") as cassette:
            assert len(cassette) == 1
    with retold.EventLog(suite.folder / ".retold" / "log.db") as log:
        assert len(log.runs()) == len(NAMES)


def test_no_library_goes_live_in_mode_none(suite: VcrSuite, server: Live) -> None:
    """Without a cassette, retold refuses the request of every library."""
    suite.write_vcr(GETS + TESTS, "")
    suite.run_vcr().assert_outcomes(failed=len(NAMES))
    assert server.calls == 0


def test_the_vcr_fixture_is_vcrpys_cassette(suite: VcrSuite, server: Live) -> None:
    """Its requests, responses, data and counts include those that retold played and those that vcrpy played."""
    reads = """
    assert [(r.method, r.path, r.host) for r in vcr.requests] == [("GET", "/x", "127.0.0.1")]
    assert vcr.requests[0].headers.get("USER-AGENT") == vcr.requests[0].headers.get("user-agent")
    assert vcr.responses[0]["body"]["string"] == b"said"
    assert vcr.responses[0]["status"]["code"] == 200
    assert vcr.data[0][0].method == "GET"
    assert (len(vcr), str(vcr._path).endswith(".yaml")) == (1, True)
"""
    tests = "\n".join(
        f"@pytest.mark.vcr\ndef test_{name}(vcr):\n    get_{name}()\n{reads}"
        "    assert (dict(vcr.play_counts), vcr.play_count, vcr.all_played) == PLAYED\n"
        for name in ("requests", "httpx")
    )
    suite.write_vcr(f"{GETS}PLAYED = ({{}}, 0, True)\n{tests}", "")
    suite.run_vcr("--record-mode=once").assert_outcomes(passed=2)
    suite.write_vcr(f"{GETS}PLAYED = ({{0: 1}}, 1, True)\n{tests}", "")
    suite.run_vcr().assert_outcomes(passed=2)
    assert server.calls == 2


TAUGHT = """
import gzip, pathlib, pytest, yaml
from vcr.request import Request

class Serializer:
    @staticmethod
    def deserialize(data):
        return yaml.safe_load(gzip.decompress(data))

class Persister:
    @staticmethod
    def load_cassette(path, serializer):
        if not pathlib.Path(path).exists():
            from vcr.persisters.filesystem import CassetteNotFoundError
            raise CassetteNotFoundError
        kept = serializer.deserialize(pathlib.Path(path).read_bytes())
        return [Request(**request) for request in kept["requests"]], kept["responses"]

    @staticmethod
    def save_cassette(path, cassette, serializer):
        kept = {"requests": [r._to_dict() for r in cassette["requests"]], "responses": cassette["responses"]}
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_bytes(gzip.compress(yaml.safe_dump(kept).encode()))

def pytest_recording_configure(config, vcr):
    vcr.register_persister(Persister())
    vcr.register_serializer("yaml.gz", Serializer())

@pytest.fixture(scope="module")
def vcr_config():
    return {"serializer": "yaml.gz", "match_on": ["method", "path"]}
"""


def test_a_suite_with_its_own_file_format_for_vcrpy_keeps_it(suite: VcrSuite, server: Live) -> None:
    """The suite registers a persister and a serializer. They read and write requests of httpx and of other libraries."""
    tests = "\n".join(
        f"@pytest.mark.vcr\ndef test_{name}(vcr):\n    assert get_{name}() == b'said'\n    assert len(vcr) == 1\n"
        for name in ("requests", "httpx")
    )
    suite.write_vcr(GETS + tests, TAUGHT)
    suite.run_vcr("--record-mode=once").assert_outcomes(passed=2)
    assert server.calls == 2
    path = suite.folder / suite.cassettes / "test_httpx.yaml.gz"
    assert yaml.safe_load(gzip.decompress(path.read_bytes()))["responses"][0]["body"]["string"] == b"said"
    assert suite.files() == []
    suite.run_vcr().assert_outcomes(passed=2)
    assert server.calls == 2


def test_a_failed_test_does_not_change_a_file_in_that_format(suite: VcrSuite, server: Live) -> None:
    """Neither vcrpy nor retold writes to the file."""
    ok = "@pytest.mark.vcr\ndef test_it(vcr):\n    get_httpx()\n    get_requests()\n"
    suite.write_vcr(GETS + ok, TAUGHT)
    suite.run_vcr("--record-mode=once").assert_outcomes(passed=1)
    path = suite.folder / suite.cassettes / "test_it.yaml.gz"
    before = path.read_bytes()
    suite.write_vcr(GETS + ok + "    assert False\n", TAUGHT)
    suite.run_vcr("--record-mode=rewrite").assert_outcomes(failed=1)
    assert path.read_bytes() == before
    assert server.calls == 4


def test_a_vcrpy_option_that_changes_files_works(suite: VcrSuite, server: Live) -> None:
    """`filter_sensitive_data` hides a value on saving and restores it on loading."""
    suite.write_vcr(
        GETS + "@pytest.mark.vcr\ndef test_httpx(vcr):\n    assert get_httpx() == b'said'\n",
        'import pytest\n@pytest.fixture\ndef vcr_config():\n    return {"filter_sensitive_data": [("<WORD>", "said")]}\n',
    )
    suite.run_vcr("--record-mode=once").assert_outcomes(passed=1)
    written = suite.read(f"{suite.cassettes}/test_httpx.yaml")
    assert (b"said" in written, b"<WORD>" in written) == (False, True)
    suite.run_vcr().assert_outcomes(passed=1)
    assert server.calls == 1


CLASSIC = ROOT / ".clients" / "pytest-vcr"
"""The folder of pytest-vcr, which cannot be installed beside pytest-recording. CI puts it here."""

needs_classic = pytest.mark.skipif(not CLASSIC.is_dir(), reason="pytest-vcr is not installed")


@pytest.fixture
def classic(suite: VcrSuite, monkeypatch: pytest.MonkeyPatch) -> VcrSuite:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{CLASSIC}")
    return suite


@pytest.mark.stress
@needs_classic
def test_a_suite_for_pytest_vcr_runs_too(classic: VcrSuite, server: Live) -> None:
    """It uses the module's `vcr` fixture, several cassettes at once, and the options of pytest-vcr."""
    configured = "@pytest.fixture(scope='module', autouse=True)\ndef configured(vcr):\n    vcr.match_on = ['method', 'uri']\n"
    classic.write_vcr(f"{GETS}{configured}{TESTS.replace('(vcr)', '(vcr_cassette)')}", "")
    asked = ("-o", "retold_vcr=true", "-p", "no:recording")
    classic.run(*asked, "--vcr-record=once", subprocess=True).assert_outcomes(passed=len(NAMES))
    assert (server.calls, Path(classic.folder, "cassettes", "test_httpx.yaml").is_file()) == (len(NAMES), True)
    result = classic.run(*asked, "--vcr-record=none", subprocess=True)
    result.assert_outcomes(passed=len(NAMES))
    assert summary(result)[0] == f"{len(NAMES)} replayed, 0 recorded, 0 missed, 0 recordings not played"
    assert server.calls == len(NAMES)


SUITES = SHARED / "faults" / "suites"


@pytest.mark.skipif(not SUITES.is_dir(), reason="the shared inputs are not here")
@pytest.mark.parametrize(
    ("files", "outcomes"),
    [
        (("test_net.py",), {"passed": 6, "failed": 1}),
        (("test_vcr_fixture.py",), {"passed": 9}),
        (("gz_suite",), {"passed": 1}),
    ],
)
@pytest.mark.stress
def test_suites_of_other_projects_have_the_results_of_vcrpy(
    files: tuple[str, ...], outcomes: dict[str, int], suite: VcrSuite
) -> None:
    """The one failure is a test without a cassette, which vcrpy refuses too."""
    for path in SUITES.rglob("*"):
        if path.is_file():
            target = suite.folder / path.relative_to(SUITES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    suite.run("-o", "retold_vcr=true", *files, subprocess=True).assert_outcomes(**outcomes)
