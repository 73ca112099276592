"""The guard of gRPC, tested on fake modules in gRPC's form. The table of clients, which CI runs, uses the real ones."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retold.recorder.errors import BlockedError
from retold.recorder.http import guard
from retold.recorder.http.guard import guarded, model_apis

SYNC = """
class _Core:
    def __init__(self, target): self._known = target
    def target(self): return self._known.encode()

class Channel:
    def __init__(self, target, options=None): self._channel = _Core(target)
    def unary_unary(self, method): return _UnaryUnaryMultiCallable(self._channel)

class _UnaryUnaryMultiCallable:
    def __init__(self, channel): self._channel = channel
    def __call__(self, request): return "sent"
    def with_call(self, request): return "sent"
    def future(self, request): return "sent"
"""
ASYNC = SYNC.replace("def target(self): return self._known.encode()", "target = property(lambda self: self._known.encode())")


@pytest.fixture
def grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Create a package in gRPC's form, which imports the modules of its channels late."""
    for folder, text in (("grpc", SYNC), ("grpc/aio", ASYNC)):
        (tmp_path / "made" / folder).mkdir(parents=True)
        (tmp_path / "made" / folder / "__init__.py").touch()
        (tmp_path / "made" / folder / "_channel.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "made")
    monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", "http://127.0.0.1:4242")
    known = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "grpc"}
    forget()
    yield
    forget()
    sys.modules.update(known)


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "grpc"]:
        del sys.modules[name]


def refused(run: Any) -> bool:
    try:
        run()
    except BlockedError as error:
        return "was refused: c.yaml only replays" in str(error)
    return False


@pytest.mark.parametrize("name", ["grpc._channel", "grpc.aio._channel"])
@pytest.mark.usefixtures("grpc")
def test_channels_are_refused_whenever_grpc_is_imported(name: str) -> None:
    """gRPC is imported in the block, or before it with an open channel. Nothing is refused after the block."""
    with guarded(model_apis("c.yaml")):
        module: ModuleType = importlib.import_module(name)
        assert refused(lambda: module.Channel("api.anthropic.com:443"))
    call = module.Channel("dns:///api.anthropic.com:443").unary_unary("/a/b")
    with guarded(model_apis("c.yaml")):
        assert all(refused(lambda way=way: way(b"x")) for way in (call, call.with_call, call.future))
        assert module.Channel("localhost:50051").unary_unary("/a/b")(b"x") == "sent"
    assert call(b"x") == "sent"


@pytest.mark.parametrize(
    ("target", "is_refused"),
    [
        ("api.anthropic.com", True),
        ("api.anthropic.com:443", True),
        ("dns:api.anthropic.com", True),
        ("dns://8.8.8.8/api.anthropic.com:443", True),
        ("passthrough:///api.anthropic.com:443", True),
        (b"dns:///api.anthropic.com:443", True),
        ("ipv4:127.0.0.1:4242", True),
        ("ipv4:127.0.0.1:9,127.0.0.1:4242", True),
        ("ipv6:[::1]:4242", True),
        ("localhost:4242", True),
        ("localhost:4243", False),
        ("ipv6:[::1]:4243", False),
        ("::1", False),
        ("[::1]", False),
        ("unix:/run/api.anthropic.com", False),
        ("unix-abstract:api.anthropic.com", False),
        ("collector.example:4317", False),
    ],
)
def test_targets_are_read_in_every_form(monkeypatch: pytest.MonkeyPatch, target: str | bytes, is_refused: bool) -> None:
    """Forms are schemes, authorities, lists, IPv6 and names without a port. A socket file does not lead to the API."""
    monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", "http://127.0.0.1:4242")
    with guarded(model_apis("c.yaml")):
        assert refused(lambda: guard._refuse_target(target)) is is_refused
