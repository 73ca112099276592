"""Lead requests to the door of a block: from another process, or from a client that cannot be answered in process.

A `Lead` is small and can be pickled: a spawned child gets one, and sends its API requests to the parent's door with it.
"""

import atexit
import contextlib
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any
from urllib.parse import urlsplit

from ..recorder.errors import BlockedError, MissError
from ..recorder.http.guard import guarded, model_apis
from ..recorder.http.patching import Block, Led, Send, SendAsync, miss_of
from ..recorder.http.recognition import REFUSED_HEADER, Outgoing, is_api, library_of
from ..recorder.http.sdk_errors import for_sdk

ORIGIN_HEADER = "x-retold-origin"
"""The header in which a led request names the scheme and host that it was made for."""

TOKEN_HEADER = "x-retold-token"


@dataclass(frozen=True)
class Lead:
    """The way to a block's door at `url`.

    hosts          further hosts that the block records, as patterns
    block_network  whether other requests are refused
    only_replays   whether nothing can be recorded
    """

    url: str
    token: str
    source: str
    hosts: tuple[str, ...] = ()
    block_network: bool = False
    only_replays: bool = True

    def covers(self, asked: Outgoing) -> bool:
        """Return whether the block records or plays a request."""
        return is_api(asked) or any(fnmatch(asked.host, pattern) for pattern in self.hosts)

    def lead(self, asked: Outgoing) -> Led | None:
        """Return the door for a request, None for one that the block does not cover. Raises BlockedError."""
        if not self.covers(asked):
            if self.block_network:
                raise blocked(asked)
            return None
        parts = urlsplit(asked.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Led(self.url + target, {ORIGIN_HEADER: f"{parts.scheme}://{parts.netloc}", TOKEN_HEADER: self.token})

    def handle(self, request: Any, send: Send) -> Any:
        """Send a request of httpx2 or httpx to the door, or elsewhere if the block does not cover it. Raises MissError."""
        request.read()
        if (led := self._led(request)) is None:
            return send(request)
        try:
            response = send(led)
        except library_of(request).ConnectError as error:
            raise self._closed(request) from error
        if REFUSED_HEADER in response.headers:
            raise miss_of(response.read())
        return response

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        """Do the same for an async client."""
        await request.aread()
        if (led := self._led(request)) is None:
            return await send(request)
        try:
            response = await send(led)
        except library_of(request).ConnectError as error:
            raise self._closed(request) from error
        if REFUSED_HEADER in response.headers:
            raise miss_of(await response.aread())
        return response

    def _closed(self, request: Any) -> BaseException:
        text = f"{self.source} is no longer in use: {request.method} {request.url} came after its block ended."
        return for_sdk(MissError(text))

    def _led(self, request: Any) -> Any | None:
        """The request to the door, or None for one that the block does not cover. Raises BlockedError."""
        led = self.lead(Outgoing(request.method, str(request.url), request.headers, request.content))
        if led is None:
            return None
        kind = library_of(request).Request
        headers = [*request.headers.multi_items(), *led.headers.items()]
        return kind(request.method, led.url, headers=headers, content=request.content, extensions=request.extensions)

    def join(self) -> None:
        """Take every API request of this process to the door from now on: a spawned child calls this once."""
        Block(self, only_replays=self.only_replays, everywhere=True, covers=self.covers, lead=self.lead).open()
        if self.only_replays:
            stack = contextlib.ExitStack()
            stack.enter_context(guarded(model_apis(self.source)))
            atexit.register(stack.close)


@dataclass(frozen=True)
class Joining:
    """A Lead that joins its block when it is unpickled: the first thing that a spawned child does."""

    lead: Lead

    def __reduce__(self) -> Any:
        return (_join, (self.lead,))


def _join(lead: Lead) -> Joining:
    lead.join()
    return Joining(lead)


def blocked(asked: Outgoing) -> BaseException:
    """Return the error for a request that block_network refuses."""
    return for_sdk(BlockedError(f"{asked} was refused: block_network is set and no recording covers it."))
