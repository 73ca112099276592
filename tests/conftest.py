"""The common ground of all tests: no network but loopback, a clean environment, and a fixture that runs the CLI as users do."""

import contextlib
import gc
import importlib
import importlib.metadata
import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests import forks

with contextlib.suppress(ModuleNotFoundError):
    import pytest_recording  # noqa: F401 - it makes pytest rewrite a module of vcrpy, so it must be imported before vcrpy

# Both clients import their transport at first use. pytester removes modules that were first imported in one of its runs, so a
# second import would create other error classes than those that the client maps.
for transport in ("httpcore", "httpcore2"):
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(transport)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RECORDINGS = SHARED / "recordings"
_folders = itertools.count()


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Fail the test that connects to another machine."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to connect to {address}")


sys.addaudithook(_refuse_network)

# Every SDK client reads the machine's certificates, which takes 20 ms. The tests use no TLS, so this folder has none.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(ROOT / "tests")


# A shell ignores these signals in a job of the background, and `nohup` the third, and children inherit that.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

gc.disable()  # until all tests are collected: the imports create a million objects that live until the end


def pytest_collection_finish() -> None:
    """Exempt the objects of the imports from garbage collection: a collection then takes 1 ms instead of 140 ms."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test if a package that it needs is missing or too old. `make test` has all of them."""
    for text in [text for mark in item.iter_markers("needs") for text in mark.args]:
        needed = Requirement(text)
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {needed}")
        if not needed.specifier.contains(version, prereleases=True):
            pytest.skip(f"needs {needed}, has {version}")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder.

    Replaces pytest's fixture of this name, which also finds a free number and creates a link (1 ms).
    """
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = tmp_path_factory.getbasetemp() / f"{name}-{next(_folders)}"
    folder.mkdir(mode=0o700)
    return folder


def _scrub(patch: pytest.MonkeyPatch) -> None:
    """Remove the user's keys and settings."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE_", "RETOLD_")) or "KEY" in name or "TOKEN" in name or "SECRET" in name:
            patch.delenv(name)
    patch.delenv("TEST_MODE", raising=False)
    patch.delenv("CI", raising=False)


@pytest.fixture(autouse=True, scope="session")
def scrubbed_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scrub the environment once before all fixtures: a module fixture runs before the fixtures of a test."""
    with pytest.MonkeyPatch.context() as patch:
        _scrub(patch)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an empty home and working directory, without the user's keys and settings.

    No signal stays blocked, because every child process of a later test would inherit it. A `--color` option ends with its
    test.
    """
    monkeypatch.setattr("retold.recorder.colour._chosen", "auto")
    _scrub(monkeypatch)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that the SDK meant to wait between its attempts. The SDK does not wait."""
    import anyio

    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("anthropic._base_client.time.sleep", asked.append)
    monkeypatch.setattr(anyio, "sleep", sleep)
    return asked


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment() -> dict[str, str]:
    """Return the environment of a child process: only a path, a home, and UTC, so that times are the same on every machine."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "TZ": "UTC"}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Run `retold ARGS` in a new process, as a user does: `cli("run", path, url=server.url)`. `url` lets it call a server."""

    def run(*args: str | os.PathLike[str], url: str | None = None, env: dict[str, str] | None = None, **kwargs: Any) -> Any:
        own = environment | (env or {})
        if url is not None:
            own |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key"}
        return forks.run("-m", "retold", *map(str, args), env=own, **kwargs)

    return run
