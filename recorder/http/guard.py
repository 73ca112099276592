"""Refuse connections that leave the process past every interceptor: sockets of any library, and gRPC channels.

An audit hook sees each `connect`, `sendto` and name lookup of Python's `socket` module, for every library. It costs nothing
measurable while no guard is set. gRPC has sockets of its own in C, so its calls are patched. A library that brings its
own sockets in C (pycurl, uvloop's `create_connection`) is seen by neither.

A request that an interceptor has decided to send passes (`patching.sending`).
"""

import contextlib
import ipaddress
import os
import sys
from collections.abc import Callable, Iterator
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
        _installed = True
    _guard_grpc()
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


def _guard_grpc() -> None:
    """Patch the calls of gRPC's channels, sync and async, if gRPC is imported."""
    for name in ("grpc._channel", "grpc.aio._channel"):
        module = sys.modules.get(name)
        for kind in [] if module is None else vars(module).values():
            if isinstance(kind, type) and kind.__name__.endswith("MultiCallable") and kind.__module__ == name:
                for call in ("__call__", "with_call", "future"):
                    if call in vars(kind):
                        _patch_call(kind, call)


def _patch_call(kind: type, name: str) -> None:
    call = vars(kind)[name]
    if getattr(call, "_retold", False):
        return

    def guarded_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _guards and (target := _target_of(self)) is not None:
            _refuse(*target)
        return call(self, *args, **kwargs)

    guarded_call._retold = True  # type: ignore[attr-defined] # a mark of ours on another library's class
    setattr(kind, name, guarded_call)


def _target_of(callable_: Any) -> tuple[str, int | None] | None:
    """Return host and port of a channel's target, such as `dns:///host:443`; None for a Unix socket."""
    target = callable_._channel.target()
    target = target.decode() if isinstance(target, bytes) else str(target)
    if target.startswith("unix"):
        return None
    host, _, port = target.rpartition("/")[2].removeprefix("dns:").rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() and host else (target.rpartition("/")[2], None)
