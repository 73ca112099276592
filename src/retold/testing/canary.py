"""A canary: check that requests still pass the patches, before the first cassette of a process is used.

If a library or an SDK stopped calling the patched methods, retold would silently record and replay nothing, and tests would
reach the network. So one request of each client is sent to a caged interceptor. It fails loudly if it does not arrive.
"""

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from ..recorder.errors import RetoldError
from ..recorder.http.patching import Block, Led, Send, SendAsync, install
from ..recorder.http.recognition import Outgoing

NOWHERE = "http://127.0.0.1:9"
"""Nothing listens on this port: a request that escapes the cage fails there."""

_checked: set[tuple[str, str]] = set()


class _Caught(Exception):
    """The canary arrived."""


class _Cage:
    arrived = False

    def _catch(self) -> _Caught:
        self.arrived = True
        return _Caught()

    def handle(self, request: Any, send: Send) -> Any:  # noqa: ARG002 - as every interceptor
        raise self._catch()

    async def handle_async(self, request: Any, send: SendAsync) -> Any:  # noqa: ARG002 - as every interceptor
        raise self._catch()

    def lead(self, asked: Outgoing) -> Led | None:  # noqa: ARG002 - as every block's
        raise self._catch()


def check_clients() -> None:
    """Raise RetoldError if an imported client library or the `anthropic` SDK bypasses the patches."""
    install()
    flights = {"httpx2": _flies_by_httpx, "httpx": _flies_by_httpx, "aiohttp": _flies_by_aiohttp, "anthropic": _flies_by_sdk}
    for name, flies in flights.items():
        library = sys.modules.get(name)
        version = str(getattr(library, "__version__", ""))
        if library is None or (name, version) in _checked:
            continue
        if not flies(library):
            advice = " Or record explicitly: Anthropic(middleware=[retold.recording(log)])." if name == "anthropic" else ""
            raise RetoldError(
                f"{name} {version} does not send its requests as this retold expects, so they could neither be recorded nor "
                f"replayed. Update retold.{advice}"
            )
        _checked.add((name, version))


def _flies_by_sdk(sdk: Any) -> bool:
    client = sdk.Anthropic(api_key="canary", base_url=NOWHERE, max_retries=0)
    try:
        # Every method of every version calls `post`; old versions have no `models`.
        return _is_caught(lambda: client.post("/v1/messages", cast_to=object, body={}))
    finally:
        client.close()


def _flies_by_httpx(library: Any) -> bool:
    class Transport(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc] # either library's
        """A transport of a class that no client library defines."""

    request = library.Request("POST", NOWHERE)
    with library.Client(transport=Transport()) as client:
        by_sync = _is_caught(lambda: client.send(request))
    client_async = library.AsyncClient(transport=Transport())

    async def send() -> None:
        await client_async.send(library.Request("POST", NOWHERE))

    # httpx 0.27 asks for the running event loop before it sends.
    return by_sync and (_is_caught(lambda: _step(send())) or _is_caught(lambda: _run_aside(send)))


def _flies_by_aiohttp(library: Any) -> bool:
    class SessionPart:
        """The part of a session that a request uses before it is sent; a real session needs an event loop."""

        _request = library.ClientSession._request
        _build_url = staticmethod(str)
        _prepare_headers = staticmethod(lambda headers: headers or {})

    return _is_caught(lambda: _step(library.ClientSession.post(SessionPart(), NOWHERE).__await__()))


def _step(coroutine: Any) -> None:
    """Run a coroutine to its first suspension, without an event loop. A caught request never suspends."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


def _run_aside(send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in an event loop of its own, in another thread, because this one may have a loop."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(_run_quietly, send), name="retold-canary")
    thread.start()
    thread.join()


def _run_quietly(send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with contextlib.suppress(Exception):
        asyncio.run(send())


def _is_caught(fly: Any) -> bool:
    cage = _Cage()
    block = Block(cage, lead=cage.lead)
    block.enter()
    try:
        with contextlib.suppress(Exception):
            fly()
    finally:
        block.is_open = False
        block.leave()
    return cage.arrived
