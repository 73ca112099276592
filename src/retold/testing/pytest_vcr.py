"""`retold_vcr = true`: suites written for pytest-recording run on retold unchanged, reading their cassettes.

It has the same marks (`vcr`, `default_cassette`, `block_network`, `allowed_hosts`), fixtures (`vcr`, `vcr_config`,
`vcr_cassette_dir`, `record_mode` …), options and hook. `vcr_config` goes to vcrpy's own configuration, and vcrpy's matchers and
filters are used unchanged. Two things differ: streams keep their pieces, and damaged cassettes are errors. Retold serves the
requests of httpx2 and httpx, and vcrpy those of other libraries.
"""

import contextlib
import hashlib
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..recorder.patience import find_texts
from .pytest_paths import without_secrets
from .pytest_session import begin

if TYPE_CHECKING:
    from .vcr_tape import VcrUse

MAX_NAME = 250
"""The longest name, in bytes, that file systems allow, without the suffix."""

MODES = ("once", "new_episodes", "none", "all", "rewrite")
_FORBIDDEN = r"<>?%*:|\"'/\\"


def take_over(config: pytest.Config, parser: pytest.Parser) -> None:
    """Block pytest-recording and register this plugin instead. Add its options if it is not installed."""
    if find_spec("vcr") is None:
        raise pytest.UsageError("retold_vcr = true uses vcrpy's matchers and filters, and vcrpy is not there: pip install vcrpy.")
    manager = config.pluginmanager
    if manager.has_plugin("vcr"):
        from . import pytest_vcr_classic

        manager.register(pytest_vcr_classic, "retold-vcr")
        return
    if manager.has_plugin("recording"):
        manager.unregister(name="recording")
    else:
        group = parser.getgroup("retold")
        group.addoption("--record-mode", choices=MODES, default=None, help="Record mode for tests marked with vcr.")
        group.addoption("--block-network", action="store_true", help="Block the network except while recording.")
        group.addoption("--allowed-hosts", default=None, help="Patterns of hosts that stay open, separated by commas.")
        group.addoption("--disable-recording", action="store_true", help="Let every request through.")
    manager.set_blocked("recording")
    manager.register(sys.modules[__name__], "retold-vcr")


class Hooks:
    """The hook that pytest-recording offers."""

    @staticmethod
    @pytest.hookspec(firstresult=True)
    def pytest_recording_configure(config: pytest.Config, vcr: Any) -> None:
        """Configure vcrpy's VCR object. Its matchers and serializers are used."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Offer pytest-recording's hook."""
    if not hasattr(pluginmanager.hook, "pytest_recording_configure"):  # pytest-recording, where installed, has offered it
        pluginmanager.add_hookspecs(Hooks)


def pytest_configure(config: pytest.Config) -> None:
    """Make pytest-recording's marks known."""
    config.addinivalue_line("markers", "vcr: Mark the test as using a cassette.")
    config.addinivalue_line("markers", "block_network: Block network access except while recording.")
    config.addinivalue_line("markers", "default_cassette: Override the default cassette name.")
    config.addinivalue_line("markers", "allowed_hosts: Patterns of hosts that stay open.")


@pytest.fixture(scope="session")
def record_mode(request: pytest.FixtureRequest) -> str:
    """The record mode of the command line, or none."""
    return request.config.getoption("--record-mode") or "none"


@pytest.fixture(scope="session")
def disable_recording(request: pytest.FixtureRequest) -> bool:
    """Whether every request passes through, unrecorded."""
    return bool(request.config.getoption("--disable-recording"))


@pytest.fixture
def vcr_config() -> dict[str, Any]:
    """A suite overrides this with its own configuration."""
    return {}


@pytest.fixture(scope="module")
def vcr_cassette_dir(request: pytest.FixtureRequest) -> str:
    """`cassettes/<module>` beside the module; a suite may override it."""
    path = Path(request.node.path)
    return str(path.parent / "cassettes" / path.stem)


def file_name(name: str) -> str:
    """Return a name that file systems accept. One of more than `MAX_NAME` bytes is shortened and gets a digest."""
    if len(name.encode()) <= MAX_NAME:
        return name
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"{name.encode()[: MAX_NAME - len(digest) - 3].decode('utf-8', 'ignore')}...{digest}"


@pytest.fixture
def default_cassette_name(request: pytest.FixtureRequest) -> str:
    """The file name of the test's cassette, without its suffix."""
    marker = request.node.get_closest_marker("default_cassette")
    if marker is not None:
        return str(marker.args[0])
    name = request.node.name if request.cls is None else f"{request.cls.__name__}.{request.node.name}"
    name = without_secrets(request.node, name)
    return file_name("".join("-" if char in _FORBIDDEN else char for char in name))


@pytest.fixture
def vcr_markers(request: pytest.FixtureRequest) -> list[pytest.Mark]:
    """Every `vcr` mark of the test, the closest first."""
    return list(request.node.iter_markers(name="vcr"))


@pytest.fixture
def allowed_hosts(request: pytest.FixtureRequest, vcr_config: dict[str, Any]) -> Sequence[str]:
    """Patterns of hosts that stay open if the network is blocked: from the mark, the option, or `vcr_config`."""
    marker = request.node.get_closest_marker("block_network")
    named = marker.kwargs.get("allowed_hosts") if marker is not None else None
    named = named or request.config.getoption("--allowed-hosts") or vcr_config.get("allowed_hosts") or ()
    return named.split(",") if isinstance(named, str) else named


@pytest.fixture(autouse=True)
def block_network(
    request: pytest.FixtureRequest, record_mode: str, vcr_markers: list[pytest.Mark], vcr_config: dict[str, Any]
) -> Iterator[None]:
    """Close sockets if the mark or the option asks for it, unless the test records."""
    asked = request.node.get_closest_marker("block_network") or request.config.getoption("--block-network")
    if vcr_markers and request.config.getoption("--record-mode") is None:
        record_mode = _merged(vcr_config, vcr_markers).get("record_mode", "none")
    if asked and (not vcr_markers or str(getattr(record_mode, "value", record_mode)) == "none"):
        with blocked_sockets(request.getfixturevalue("allowed_hosts")):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def vcr(
    request: pytest.FixtureRequest,
    vcr_markers: list[pytest.Mark],
    vcr_config: dict[str, Any],
    vcr_cassette_dir: str,
    default_cassette_name: str,
    record_mode: str,
    disable_recording: bool,
) -> Iterator[Any]:
    """The cassette of a test marked with vcr, in use; None for other tests."""
    if disable_recording or not vcr_markers:
        yield None
        return
    config = _merged(vcr_config, vcr_markers)
    mode = request.config.getoption("--record-mode") or config.get("record_mode") or record_mode
    tape = taped(request.node, config, Path(vcr_cassette_dir), default_cassette_name, str(getattr(mode, "value", mode)))
    begin(request.node, tape)
    yield tape.joined


def taped(item: pytest.Item, config: dict[str, Any], folder: Path, name: str, mode: str) -> "VcrUse":
    """Return vcrpy's and retold's use of a test's cassette, as the suite has configured vcrpy."""
    from vcr import VCR

    from .vcr_config import in_test
    from .vcr_tape import use_both

    serializer = config.get("serializer", "yaml")
    folder = Path(config.get("cassette_library_dir") or folder)
    path = folder / (name if name.endswith(f".{serializer}") else f"{name}.{serializer}")
    also = [folder / extra for mark in item.iter_markers(name="vcr") for extra in mark.args]
    vcr = VCR()
    own = vcr.persister
    item.config.hook.pytest_recording_configure(config=item.config, vcr=vcr)
    known = {key: value for key, value in config.items() if key not in ("allowed_hosts", "record_mode", "cassette_library_dir")}
    return use_both(vcr, path, known, mode, make=in_test(item, path, also), also=also, is_taught=vcr.persister is not own)


def _merged(config: dict[str, Any], marks: list[pytest.Mark]) -> dict[str, Any]:
    """Return the configuration with the arguments of the marks. The closest mark overrides the others."""
    merged = dict(config)
    for mark in reversed(marks):
        merged |= mark.kwargs
    return merged


@contextlib.contextmanager
def blocked_sockets(allowed: Sequence[str]) -> Iterator[None]:
    """Refuse to connect anywhere but to hosts that match one of the patterns."""
    patterns = [re.compile(pattern) for pattern in allowed]

    def guard(name: str) -> Any:
        connect = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any) -> Any:
            host = address[0] if isinstance(address, tuple) else None
            if host is not None and not any(find_texts(pattern, str(host), at_start=True) for pattern in patterns):
                raise RuntimeError(f"Network is disabled for host '{host}'")
            return connect(self, address)

        return guarded

    before = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    for name in before:
        setattr(socket.socket, name, guard(name))
    try:
        yield
    finally:
        for name, connect in before.items():
            setattr(socket.socket, name, connect)
