"""Suites of tests as users write them, run by pytest with the plugin installed through its entry point."""

import importlib
import importlib.metadata
import os
import re
from pathlib import Path
from textwrap import dedent

import pytest

from tests.clients import NOWHERE, prompts_of
from tests.conftest import ROOT
from tests.messages_server import MessagesServer

# A session inside this process removes every module that it imported first. The next session imports a slow second copy
# with other classes. So import here every module that is otherwise imported late.
for _late in (
    "genai_prices.decompose",
    "genai_prices.validation",
    "httpcore2",
    "hypothesis.core",
    "pytest_recording.exceptions",
    "pytest_recording.utils",
    "pytest_recording.validation",
    "retold.testing.use_cassette",
    "retold.testing.pytest_plugin",
    "retold.testing.pytest_vcr",
    "retold.recorder.log.sqlite.migrations",
    "retold.comparing.drift",
    "retold.testing.session",
    "retold.testing.vcr_config",
    "retold.testing.vcr_tape",
    "retold.workflow.pricing",
    "truststore",
    "vcr.stubs.aiohttp_stubs",
    "vcr.stubs.httpx_stubs",
):
    importlib.import_module(_late)

PLUGINS = [one for one in importlib.metadata.distributions() if any(point.group == "pytest11" for point in one.entry_points)]
"""Installed packages with a pytest plugin. pytest would search for them among all 200 packages at each of its starts."""

ASKING = """
import os
from tests import clients

URL = os.environ["SERVER_URL"]

def ask(prompt="hi", **fields):
    return clients.ask(prompt, URL, **fields)

def client(**options):
    return clients.client(URL, **options)

def client_async(**options):
    return clients.client_async(URL, **options)
"""


class Suite:
    """A folder of tests. They use `asking`, which knows the server, and no other part of our suite."""

    def __init__(self, pytester: pytest.Pytester, patch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self._patch = patch
        self.folder = pytester.path
        patch.setattr(importlib.metadata, "distributions", lambda **_: PLUGINS)
        self.write(ASKING, "asking.py")
        patch.setenv("SERVER_URL", NOWHERE)
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{self.folder}")
        patch.syspath_prepend(self.folder)

    def write(self, source: str, name: str = "test_chat.py") -> Path:
        """Write a file of the suite. A test module gets its imports as its head."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "import pytest\nfrom asking import ask, client, client_async\n\n" if path.name.startswith("test_") else ""
        path.write_text(head + dedent(source))
        return path

    def run(self, *args: str, server: MessagesServer | None = None, subprocess: bool = False) -> pytest.RunResult:
        """Run the suite, offline if no server is given. Use a new process only if necessary, because that takes a second."""
        self._patch.setenv("SERVER_URL", NOWHERE if server is None else server.url)
        options = ("-p", "no:cacheprovider", "--color=no", *args)
        if subprocess:
            # Plugins that the tests do not need cost a process a third of a second.
            without = [
                part for plugin in ("asyncio", "recording", "hypothesispytest", "anyio") for part in ("-p", f"no:{plugin}")
            ]
            return self.pytester.runpytest_subprocess(*without, *options, timeout=60)
        # pytest-asyncio would warn of a setting that these tests lack.
        options = ("-p", "no:asyncio", *options)
        # A module rewritten since the last session has the same name, size and second, so remove its compiled file.
        for cache in self.folder.rglob("__pycache__"):
            for file in cache.iterdir():
                file.unlink()
        return self.pytester.runpytest_inprocess(*options, no_reraise_ctrlc=True)

    def record(self, *args: str, server: MessagesServer) -> pytest.RunResult:
        """Run the suite and record the missing cassettes."""
        return self.run("--retold-mode=once", *args, server=server)

    def files(self, folder: str = "") -> list[str]:
        """Return every cassette, relative to the suite's folder."""
        found = (self.folder / folder).rglob("*.yaml")
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def summary(result: pytest.RunResult) -> list[str]:
    """Return the lines that the plugin adds at the end."""
    lines: list[str] = list(result.outlines)
    begin = next((number for number, line in enumerate(lines) if re.fullmatch(r"=+ retold =+", line)), None)
    if begin is None:
        return []
    end = next(number for number, line in enumerate(lines) if number > begin and line.startswith("==="))
    return [line for line in lines[begin + 1 : end] if line]


# Suites for pytest-recording


VCR_CONFTEST = """
import re
import pytest

def anonymous(request):
    if b"private" in (request.body or b""):
        return None
    request.body = re.sub(rb"I am \\w+", b"I am NAME", request.body)
    return request

@pytest.fixture(scope="module")
def vcr_config():
    return {
        "filter_headers": ["authorization", ("x-api-key", "FILTERED")],
        "before_record_request": anonymous,
        "match_on": ["method", "path", "body"],
    }
"""


def with_config(entry: str) -> str:
    """Return the same conftest with one more entry in `vcr_config`."""
    return VCR_CONFTEST.replace('"match_on"', f'{entry}, "match_on"')


def asks(*prompts: str, mark: str = "@pytest.mark.vcr") -> str:
    """Return a test that asks these questions."""
    lines = "".join(f"    ask({prompt!r})\n" for prompt in prompts)
    return f"{mark}\ndef test_it(vcr):\n{lines}"


class VcrSuite(Suite):
    """A suite of a pytest-recording user: `test_api.py` and a conftest with its fixtures."""

    cassettes = "cassettes/test_api"

    def write_vcr(self, source: str, config: str = VCR_CONFTEST) -> None:
        self.write(config, "conftest.py")
        self.write(source, "test_api.py")

    def run_vcr(self, *args: str, server: MessagesServer | None = None, installed: bool = False) -> pytest.RunResult:
        """Run the suite on retold. The result is the same with and without pytest-recording `installed`."""
        if installed:
            importlib.import_module("pytest_recording")
        return self.run("-o", "retold_vcr=true", *(() if installed else ("-p", "no:recording")), *args, server=server)

    def prompts(self, name: str = "test_it") -> list[str]:
        """Return the prompts in one of its cassettes."""
        return prompts_of(self.folder / self.cassettes / f"{name}.yaml")
