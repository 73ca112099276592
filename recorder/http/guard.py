"""Refuse connections that leave the process past every interceptor: sockets of any library, and gRPC channels.

An audit hook sees each `connect`, `sendto` and name lookup of Python's `socket` module, for every library. It costs nothing
measurable while no guard is set. gRPC has sockets of its own in C, so its channels and calls are patched. A library that brings
its own sockets in C (pycurl, uvloop's `create_connection`) is seen by neither.

A request that an interceptor has decided to send passes (`patching.sending`).
"""

import contextlib
import functools
import importlib.abc
import importlib.machinery
import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ..errors import BlockedError
from .patching import is_sending
from .recognition import BASE_URL_VARIABLES, is_model_host
from .sdk_errors import for_sdk

Refuses = Callable[[str, int | None], str | None]
"""Return the reason for refusing a host and port (None if it is unknown), or None to let the connection pass."""

_guards: list[Refuses] = []
_installed = False

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKS_UP = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})


@contextlib.contextmanager
def guarded(refuses: Refuses) -> Iterator[None]:
    """Ask `refuses` about every connection of the process until the block ends. Refusals raise BlockedError in the client."""
    global _installed
    if not _installed:
        sys.addaudithook(_audit)
        _guard_grpc()
        _installed = True
    _guards.append(refuses)
    try:
        yield
    finally:
        _guards.remove(refuses)


def model_apis(source: str) -> Refuses:
    """Refuse the hosts that serve Claude models, and the addresses that the environment names as the API's."""
    named = _named_addresses()

    def refuses(host: str, port: int | None) -> str | None:
        if not is_model_host(host) and not _is_named(host, port, named):
            return None
        return (
            f"{_shown(host, port)} was refused: {source} only replays, and this connection is made by a client that retold "
            "does not record. Nothing was sent."
        )

    return refuses


def everything(source: str) -> Refuses:
    """Refuse every host except this machine, and the addresses of this machine that the environment names as the API's."""
    named = _named_addresses()

    def refuses(host: str, port: int | None) -> str | None:
        if is_loopback(host) and not _is_named(host, port, named):
            return None
        return f"{_shown(host, port)} was refused: block_network is set ({source}). Nothing was sent."

    return refuses


def is_loopback(host: str) -> bool:
    """Return whether a connection to this host ends at this machine."""
    name = host.partition("%")[0].lower()
    if name in ("", "localhost", "0.0.0.0", "::") or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _named_addresses() -> list[tuple[str, int]]:
    """Return host and port of the API that the environment names."""
    found = []
    for variable in BASE_URL_VARIABLES:
        with contextlib.suppress(ValueError):
            parts = urlsplit(os.environ.get(variable, ""))
            if parts.hostname:
                found.append((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)))
    return found


def _is_named(host: str, port: int | None, named: list[tuple[str, int]]) -> bool:
    """Return whether an address is one of them. For this machine the port must match, because fakes listen on it too."""
    if is_loopback(host):
        return any(is_loopback(name) and port == of for name, of in named)
    return any(host.lower() == name and port in (None, of) for name, of in named)


def _shown(host: str, port: int | None) -> str:
    return host if port is None else f"{host}:{port}"


def _refuse(host: str, port: int | None) -> None:
    if is_sending():
        return
    for refuses in reversed(_guards):
        if (reason := refuses(host, port)) is not None:
            raise for_sdk(BlockedError(reason))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guards or not event.startswith("socket."):
        return
    if event in _CONNECTS:
        address = arguments[1]
        if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[1], int):  # else a path or another family
            _refuse(_text(address[0]), address[1])
    elif event in _LOOKS_UP and arguments[0] is not None:
        port = arguments[1] if len(arguments) > 1 else None
        _refuse(_text(arguments[0]), int(port) if isinstance(port, int) or (isinstance(port, str) and port.isdigit()) else None)


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)


# gRPC

_GRPC = ("grpc._channel", "grpc.aio._channel")
_CALLS = ("__call__", "with_call", "future")
_NO_NETWORK = ("unix:", "unix-abstract:", "vsock:")
_SCHEMES = re.compile(r"^(?:dns|ipv4|ipv6|passthrough):")


class _GrpcFinder(importlib.abc.MetaPathFinder):
    """Patches gRPC's modules whenever they are imported: `import grpc` alone does not import them, the first channel does."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module of gRPC, with a loader that also patches it."""
        if name not in _GRPC:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_and_patch(module: ModuleType) -> None:
                execute(module)
                _patch_grpc(module)

            spec.loader.exec_module = exec_and_patch  # type: ignore[method-assign]
        return spec


def _guard_grpc() -> None:
    sys.meta_path.insert(0, _GrpcFinder())
    for name in _GRPC:
        if (module := sys.modules.get(name)) is not None:
            _patch_grpc(module)


def _patch_grpc(module: ModuleType) -> None:
    """Patch the opening of channels, and the calls of channels that are open already, sync or async."""
    for kind in vars(module).values():
        if not isinstance(kind, type) or kind.__module__ != module.__name__:
            continue
        if kind.__name__ == "Channel":
            _patch_opening(kind)
        elif kind.__name__.endswith("MultiCallable"):
            for name in _CALLS:
                if name in vars(kind):
                    _patch_call(kind, name)


def _patch_opening(kind: Any) -> None:
    init = kind.__init__

    @functools.wraps(init)
    def guarded_init(self: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        if _guards:
            _refuse_target(target)
        init(self, target, *args, **kwargs)

    kind.__init__ = guarded_init


def _patch_call(kind: type, name: str) -> None:
    call = vars(kind)[name]

    @functools.wraps(call)
    def guarded_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _guards:
            _refuse_target(_target_of(self))
        return call(self, *args, **kwargs)

    setattr(kind, name, guarded_call)


def _target_of(callable_: Any) -> Any:
    """The target of a channel: the async one's attribute; the sync one's method, which older versions have alone."""
    if (target := getattr(callable_, "_target", None)) is not None:
        return target
    target = callable_._channel.target
    return target() if callable(target) else target


def _refuse_target(target: Any) -> None:
    """Refuse the addresses of a target, such as `dns:///host:443` or `ipv4:10.0.0.1:443,10.0.0.2:443`; a socket file is none."""
    text = _text(target)
    if text.startswith(_NO_NETWORK):
        return
    for address in _SCHEMES.sub("", text.rpartition("/")[2]).split(","):
        host, _, port = address.rpartition(":")
        is_host_alone = not host or not port.isdigit() or host.endswith(":")  # ::1 is a host, [::1]:443 has a port
        if is_host_alone:
            _refuse(address.strip("[]"), None)
        else:
            _refuse(host.strip("[]"), int(port))
