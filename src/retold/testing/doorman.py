"""The server behind a block's door, in a thread of its own.

A request that names another API than the environment's, in `x-retold-origin`, needs the block's token: without it the door
would be a proxy to anywhere for every program of this machine.
"""

import asyncio
import hmac
import os
import threading
from dataclasses import replace

from ..recorder.errors import InputError
from ..recorder.http.patching import sending
from ..recorder.proxy.http1 import Server
from ..recorder.proxy.http_messages import Asked, Peer, Refusal
from ..recorder.proxy.upstream import Upstream
from ..servers.gate import Gate
from ..servers.serving import Connection, Serving
from .lead import ORIGIN_HEADER, TOKEN_HEADER
from .session import CassetteSession

API = "https://api.anthropic.com"
GATE = Gate()
GRACE_S = 0.5
"""How long a child may stay connected after the block has ended: its end is seen a moment after it."""


class Doorman:
    """Serves a cassette in use from now on, until `stop`. Raises OSError if no port can be had."""

    def __init__(self, used: CassetteSession, token: str) -> None:
        self._used = used
        self._token = token
        self._servings: dict[str, Serving] = {}
        self._default = os.environ.get("ANTHROPIC_BASE_URL") or API
        self._server = Server(lambda: _Answerer(self))
        self.url = self._server.url
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="retold-door", daemon=True)
        with sending():  # the thread sends what the block decides to record
            self._thread.start()

    def __repr__(self) -> str:
        return f"<Doorman {self.url}>"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.run(self._stop.wait(), grace_s=GRACE_S))

    def stop(self) -> None:
        """Let clients leave, close the port, and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def forget(self) -> None:
        """In a forked child: close its copy of the listening socket, on which connections would wait for ever."""
        self._server.close()

    def refuses(self, asked: Asked) -> Refusal | None:
        """Return the refusal of a request that may not pass the door, None for others."""
        if (refusal := GATE.refuses(asked)) is not None:
            return refusal
        origin = asked.header(ORIGIN_HEADER)
        if origin is not None and not hmac.compare_digest((asked.header(TOKEN_HEADER) or "").encode(), self._token.encode()):
            return Refusal(403, "permission_error", f"the header {TOKEN_HEADER} is missing or wrong")
        try:
            Upstream.parse(origin or self._default)
        except InputError as error:
            return Refusal(400, "invalid_request_error", str(error))
        return None

    def serving(self, asked: Asked) -> tuple[Serving, Asked]:
        """Return the serving of a request's API, and the request without the door's headers."""
        origin = asked.header(ORIGIN_HEADER) or self._default
        if origin not in self._servings:
            self._servings[origin] = Serving({"cassette": self._used}, Upstream.parse(origin))
        own = (ORIGIN_HEADER, TOKEN_HEADER)
        headers = tuple((name, value) for name, value in asked.headers if name.lower() not in own)
        return self._servings[origin], replace(asked, headers=headers)


class _Answerer:
    """Answers the requests of one connection, each with the API that it was made for."""

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._connections: dict[int, Connection] = {}

    def refuses(self, asked: Asked) -> Refusal | None:
        return self._doorman.refuses(asked)

    def refused(self, refusal: Refusal) -> None:
        """The client has read why; there is no summary to count it in."""

    async def answer(self, asked: Asked, client: Peer) -> bool:
        serving, asked = self._doorman.serving(asked)
        return await self._connections.setdefault(id(serving), serving.answerer()).answer(asked, client)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
