"""Patch the transports of the Claude Agent SDK, so that the block of a context records or plays each session.

The SDK's one subprocess transport class is patched, so the SDK itself builds the command line from its options. A transport that
a program made itself is wrapped where the program gives it to the SDK. The block is found by the rules of HTTP requests
(`recorder.http.patching.find`) when a session connects.
"""

import functools
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ..recorder.http.patching import after_import, find, sending
from ..recorder.http.recognition import Outgoing
from .recording import ExitCode, Wire

METHODS = ("connect", "write", "read_messages", "end_input", "close", "is_ready")
"""The methods of a transport of the SDK."""

SESSION = Outgoing("an Agent SDK session with", "https://api.anthropic.com", {})
"""A session as the request that it sends, for the rules that find a block."""


def install() -> None:
    """Patch the SDK, now or when it is imported. Idempotent."""
    after_import("claude_agent_sdk", _patch)


def _patch(sdk: Any) -> None:
    from claude_agent_sdk._internal import client as internal
    from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

    if not getattr(SubprocessCLITransport.connect, "_retold", False):
        _patch_subprocess(SubprocessCLITransport, sdk.__version__)
        _patch_given(internal.InternalClient, "process_query", 2, SubprocessCLITransport, sdk.__version__)
        _patch_given(sdk.ClaudeSDKClient, "__init__", 1, SubprocessCLITransport, sdk.__version__)


# The subprocess transport


class _Original:
    """The unpatched methods of a subprocess transport. Its child gets the API's own address, not that of a block's door."""

    def __init__(self, transport: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._transport = transport
        self._methods = methods

    async def connect(self) -> None:
        with sending():
            await self._methods["connect"](self._transport)

    async def write(self, data: str) -> None:
        await self._methods["write"](self._transport, data)

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        try:
            async for line in self._methods["read_messages"](self._transport):
                yield line
        except Exception:
            # The program's callback for stderr gets the reason of the child before the error of the SDK.
            if (stderr := getattr(self._transport, "_stderr_task", None)) is not None:
                import anyio  # the SDK has it

                with anyio.move_on_after(1):
                    await stderr.wait()
            raise

    async def end_input(self) -> None:
        await self._methods["end_input"](self._transport)

    async def close(self) -> None:
        await self._methods["close"](self._transport)

    def is_ready(self) -> bool:
        return bool(self._methods["is_ready"](self._transport))

    def terminate(self) -> None:
        """End the child now. `close` gives it some seconds."""
        process = getattr(self._transport, "_process", None)
        if process is not None and process.returncode is None:
            process.terminate()

    def exit_code(self) -> int | None:
        code = getattr(getattr(self._transport, "_process", None), "returncode", None)
        return code if isinstance(code, int) else None


def _patch_subprocess(kind: Any, sdk: str) -> None:
    methods = {name: getattr(kind, name) for name in METHODS}

    @functools.wraps(methods["connect"])
    async def connect(self: Any) -> None:
        if "_retold_wire" not in vars(self):
            original = _Original(self, methods)
            self._retold_wire = _wire(original, lambda: _started(self, sdk), original.exit_code)
        wire = self._retold_wire
        await (methods["connect"](self) if wire is None else wire.connect())

    def passing(name: str) -> Callable[..., Any]:
        @functools.wraps(methods[name])
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            wire = vars(self).get("_retold_wire")
            return methods[name](self, *args, **kwargs) if wire is None else getattr(wire, name)(*args, **kwargs)

        return call

    connect._retold = True  # type: ignore[attr-defined] # a mark of ours on another library's function
    kind.connect = connect
    for name in METHODS[1:]:
        setattr(kind, name, passing(name))


def _started(transport: Any, sdk: str) -> dict[str, Any]:
    """Return the facts of a session that begins. A replay needs no CLI, so the path of the CLI is no part of them."""
    path, transport._cli_path = transport._cli_path, transport._cli_path or "claude"
    try:
        argv = [str(word) for word in transport._build_command()[1:]]
    finally:
        transport._cli_path = path
    return {**_facts(sdk), "cwd": os.path.abspath(transport._cwd or os.getcwd()), "argv": argv}


def _facts(sdk: str) -> dict[str, Any]:
    return {"wire": "stream-json", "sdk": sdk, "cwd": os.getcwd(), "home": os.path.expanduser("~"), "argv": None}


def _wire(real: Wire, started: Callable[[], dict[str, Any]], exit_code: ExitCode = lambda: None) -> Wire | None:
    """Return the transport of the block that decides about this session, or None if none does. Raises BlockedError, MissError."""
    block = find(SESSION, watches=False)
    decide = None if block is None else getattr(block.interceptor, "agent_wire", None)
    wire: Wire | None = None if decide is None else decide(started(), real, exit_code)
    return wire


# Transports of the program


class GivenWire:
    """A transport that the program made and gave to the SDK."""

    def __init__(self, transport: Any, sdk: str) -> None:
        self._transport = transport
        self._sdk = sdk
        self._wire: Any = transport

    def __repr__(self) -> str:
        return f"<GivenWire {self._transport!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    async def connect(self) -> None:
        """Find the block, and connect."""
        self._wire = _wire(self._transport, lambda: _facts(self._sdk)) or self._transport
        await self._wire.connect()

    async def write(self, data: str) -> None:
        """Send a line."""
        await self._wire.write(data)

    def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the received lines."""
        lines: AsyncIterator[dict[str, Any]] = self._wire.read_messages()
        return lines

    async def end_input(self) -> None:
        """End the input."""
        await self._wire.end_input()

    async def close(self) -> None:
        """End the session."""
        await self._wire.close()

    def is_ready(self) -> bool:
        """Return whether the session is open."""
        return bool(self._wire.is_ready())


def _patch_given(kind: Any, name: str, place: int, subprocess: type, sdk: str) -> None:
    """Wrap the transport that a method takes, by name or at a place after `self`. The patched class needs no wrapping."""
    method = getattr(kind, name)

    def wrapped(transport: Any) -> Any:
        is_ours = transport is None or isinstance(transport, subprocess | GivenWire)
        return transport if is_ours else GivenWire(transport, sdk)

    @functools.wraps(method)
    def wrapping(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "transport" in kwargs:
            kwargs["transport"] = wrapped(kwargs["transport"])
        elif len(args) > place:
            args = (*args[:place], wrapped(args[place]), *args[place + 1 :])
        return method(self, *args, **kwargs)

    setattr(kind, name, wrapping)
