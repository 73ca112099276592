"""Children of the process use the cassette too: forked, spawned, or any program that takes the API's address from a variable.

While a block is in use, `subprocess` and `multiprocessing` are patched and fork hooks are set. A child is pointed at the
block's door: a program by ANTHROPIC_BASE_URL, a spawned Python process of `multiprocessing` by a `Joining`, a forked one by
the block that it inherits (`CassetteSession.handle`). The variables of this process stay as they are: `os.putenv` changes only
the C environment, which children without an environment of their own inherit.
"""

import contextlib
import functools
import multiprocessing.process
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..recorder.http.guard import is_loopback
from ..recorder.http.patching import block_here, is_sending, open_blocks
from ..recorder.http.recognition import BASE_URL_VARIABLES
from .door import Door
from .lead import Joining

NOWHERE = "http://127.0.0.1:9"
"""A port on which nothing listens: for a child that belongs to none of several cassettes in use."""

_doors: dict[int, Door] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def pointed_at(door: Door, interceptor: object) -> Iterator[None]:
    """Point the children that this process starts at a door, while its interceptor is the one of the context."""
    _install()
    _doors[id(interceptor)] = door
    try:
        with door:
            yield
    finally:
        del _doors[id(interceptor)]
        _restore_environment()


def _door_here() -> Door | None:
    """The door of the block that would decide about a request of this context."""
    block = block_here()
    if block is None and len(open_blocks()) == 1 and open_blocks()[0].only_replays:
        (block,) = open_blocks()
    return None if block is None else _doors.get(id(block.interceptor))


def _url_here() -> str | None:
    """Where a child of this context is pointed at; None if no block is concerned, or if the child's session is recorded."""
    if not _doors or is_sending():
        return None
    if (door := _door_here()) is not None:
        return door.url
    return NOWHERE if any(block.only_replays for block in open_blocks()) else None


def pointed(environ: Mapping[Any, Any], url: str) -> dict[Any, Any]:
    """Return a child's environment with the API at `url`, except where it names another server of this machine on purpose."""
    own = dict(environ)
    for name in BASE_URL_VARIABLES:
        key = os.fsencode(name) if any(isinstance(known, bytes) for known in environ) else name
        value = os.fsdecode(own[key]) if key in own else None
        is_fake = value is not None and value != os.environ.get(name) and is_loopback(urlsplit(value).hostname or "")
        if not is_fake and (value is not None or name == "ANTHROPIC_BASE_URL"):
            own[key] = os.fsencode(url) if isinstance(key, bytes) else url
    if any(name.lower() in ("http_proxy", "all_proxy") for name in map(os.fsdecode, own)):
        for name in ("NO_PROXY", "no_proxy"):
            own[name] = ",".join(filter(None, [own.get(name), "127.0.0.1", "localhost"]))
    return own


def _change_environment(url: str) -> None:
    """Let children that inherit the C environment find the door."""
    os.putenv("ANTHROPIC_BASE_URL", url)


def _restore_environment() -> None:
    if (value := os.environ.get("ANTHROPIC_BASE_URL")) is None:
        os.unsetenv("ANTHROPIC_BASE_URL")
    else:
        os.putenv("ANTHROPIC_BASE_URL", value)


# Hooks


def _install() -> None:
    with _lock:
        if getattr(subprocess.Popen.__init__, "_retold", False):
            return
        _patch_popen()
        _patch_multiprocessing()
        os.register_at_fork(before=_open_doors, after_in_child=_forget_doors)
        sys.addaudithook(_audit)


def _patch_popen() -> None:
    start = subprocess.Popen.__init__

    @functools.wraps(start)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if (url := _url_here()) is not None and len(args) < 11:  # the environment is the eleventh argument
            environ = kwargs.get("env")
            kwargs["env"] = pointed(os.environ if environ is None else environ, url)
        start(self, *args, **kwargs)

    init._retold = True  # type: ignore[attr-defined] # a mark of ours on another library's function
    subprocess.Popen.__init__ = init  # type: ignore[method-assign]


def _patch_multiprocessing() -> None:
    start = multiprocessing.process.BaseProcess.start

    @functools.wraps(start)
    def start_joining(self: Any) -> None:
        door = _door_here()
        if door is None:
            if (url := _url_here()) is not None:
                _change_environment(url)
            return start(self)
        _change_environment(door.url)
        self._config["retold"] = Joining(door.lead)
        try:
            return start(self)
        finally:
            self._config.pop("retold", None)

    multiprocessing.process.BaseProcess.start = start_joining  # type: ignore[method-assign]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:  # noqa: ARG001 - as every audit hook
    if _doors and event in ("os.system", "os.spawn", "os.posix_spawn", "os.exec") and (url := _url_here()) is not None:
        _change_environment(url)


def _open_doors() -> None:
    """Before a fork: the child can only ask at a door that is open."""
    for door in list(_doors.values()):
        _ = door.url


def _forget_doors() -> None:
    """In a forked child: the parent's listening sockets are not its own."""
    for door in _doors.values():
        door.forget()
