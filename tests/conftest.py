"""What every test stands on: no network but loopback, an environment of its own, and a way to run the CLI as a user does."""

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
    import pytest_recording  # noqa: F401 - it asks pytest to rewrite a module of vcrpy's, so it must come before vcrpy does

# Both clients import their transport at first use. pytester forgets modules that were first imported in one of its runs, so a
# second import would make other classes of errors than those that the client maps.
for transport in ("httpcore", "httpcore2"):
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(transport)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
RECORDINGS = SHARED / "recordings"
_folders = itertools.count()


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Connecting anywhere but to this machine is a failed test, not a request."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to connect to {address}")


sys.addaudithook(_refuse_network)

# Every SDK client reads the machine's certificates, 20 ms each; nothing here speaks TLS. This folder has none.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(ROOT / "tests")


gc.disable()  # until all tests are collected: the imports make a million objects that stay


def pytest_collection_finish() -> None:
    """Whatever the imports made stays for the session: a collection that need not look at it takes 1 ms instead of 140."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test if a package that it needs is missing or older; `make test` has them all."""
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
    """Return an empty folder, as pytest's fixture of this name, which also looks for a free number and makes a link: 1 ms."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = tmp_path_factory.getbasetemp() / f"{name}-{next(_folders)}"
    folder.mkdir(mode=0o700)
    return folder


def _scrub(patch: pytest.MonkeyPatch) -> None:
    """Remove the keys and settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CLAUDE_", "RETOLD_")) or "KEY" in name or "TOKEN" in name or "SECRET" in name:
            patch.delenv(name)
    patch.delenv("TEST_MODE", raising=False)
    patch.delenv("CI", raising=False)


@pytest.fixture(autouse=True, scope="session")
def scrubbed_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scrub it once before all fixtures: one of a module comes before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        _scrub(patch)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty home and working directory, no keys or settings of whoever runs the tests; no signal is left blocked, which
    every child of a later test would inherit, and a `--color` ends with its test."""
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
    """The seconds that the SDK was to wait between its attempts. It does not wait."""
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
    """What a child process gets: the path and a home, nothing else; UTC, so that times are the same everywhere."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LANG": "C.UTF-8", "TZ": "UTC"}


@pytest.fixture
def cli(environment: dict[str, str]) -> Cli:
    """Run `retold ARGS` in a process of its own, as a user does: `cli("run", path, url=server.url)`; `url` makes it live."""

    def run(*args: str | os.PathLike[str], url: str | None = None, env: dict[str, str] | None = None, **kwargs: Any) -> Any:
        own = environment | (env or {})
        if url is not None:
            own |= {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "test-key"}
        return forks.run("-m", "retold", *map(str, args), env=own, **kwargs)

    return run
