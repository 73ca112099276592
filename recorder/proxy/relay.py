"""The recording reverse proxy on asyncio: it performs the commands of `ApiSide` on streams, a client and a recording.

The order of the commands is the promise: bytes are recorded before the client gets them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, assert_never

from ..errors import LogError
from ..events import Ending
from ..http.capture import Capture
from ..http.exchange import Failure, Headers, Request
from .api_side import ApiSide
from .commands import (
    ApiCommand,
    BeginCapture,
    CaptureBody,
    CaptureHead,
    CloseClient,
    Connect,
    Done,
    EndCapture,
    Recorded,
    ResetClient,
    SendApi,
    SendClient,
)
from .http1 import STOPPED
from .http_messages import Asked, Peer
from .turn import LoopTurn, turn_of
from .upstream import READ_BYTES, Streams, Upstream

THREADED_BYTES = 256 * 1024
"""Larger requests are parsed and recorded in a thread, because their JSON would delay every other stream."""


class ExchangeRecorder(Protocol):
    """The recording of one exchange: `Capture`, or `Unrecorded`."""

    def response(self, status: int, reason: str, headers: Headers) -> None:
        """Record the head of the answer."""
        ...

    def data(self, *chunks: bytes) -> None:
        """Record pieces of the body."""
        ...

    def end(self, ending: Ending, error: BaseException | None = None, *, failure: Failure | None = None) -> None:
        """Record the ending."""
        ...


class Unrecorded:
    """Takes the place of a Capture if an exchange is passed on without being recorded."""

    def response(self, status: int, reason: str, headers: Headers) -> None:
        """Record nothing."""

    def data(self, *chunks: bytes) -> None:
        """Record nothing."""

    def end(self, ending: Ending, error: BaseException | None = None, *, failure: Failure | None = None) -> None:
        """Record nothing."""


class Relay:
    """Forwards the requests of one client's connection over one connection to the API, and records them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._side = ApiSide(upstream)
        self._streams: Streams | None = None
        self._recording: ExchangeRecorder = Unrecorded()
        self._failure: LogError | None = None
        self._watching: asyncio.Task[None] | None = None
        self._turn: LoopTurn

    async def forward(self, asked: Asked, client: Peer, begin: Callable[[Request], ExchangeRecorder]) -> bool:
        """Send a request to the API and its answer to the client, recorded by the recording that `begin` makes.

        Return whether both connections can carry another request. Raise LogError if recording fails: then the caller must
        close both connections, because the client must get nothing that is not in the log.
        """
        await self._stop_watching()
        self._recording = Unrecorded()
        self._turn = turn_of(asyncio.get_running_loop())
        try:
            return await self._forward(self._side.asked(asked), client, begin)
        except asyncio.CancelledError as cancelled:
            self._turn.end()  # what has arrived is recorded before the ending
            for command in self._side.stop() if cancelled.args == (STOPPED,) else self._side.left():
                self._perform(command, client)
            raise

    async def _forward(
        self, commands: Sequence[ApiCommand], client: Peer, begin: Callable[[Request], ExchangeRecorder]
    ) -> bool:  # fmt: skip
        """Perform commands, wait for the next event, and so on until the exchange is done."""
        while True:
            event: Callable[[Peer], Awaitable[Sequence[ApiCommand]]] = self._read
            for number, command in enumerate(commands):
                match command:
                    case BeginCapture(request):
                        await self._begin(request, begin)
                        await asyncio.sleep(0)
                    case Connect():
                        event = self._connect
                    case ResetClient():
                        await client.reset()
                    case CaptureBody() | EndCapture() if number:
                        await self._let_others_pass(commands[number:], client)
                        self._perform(command, client)
                    case Done(goes_on):
                        if goes_on:
                            self._watching = asyncio.create_task(self._watch(client))
                        return goes_on
                    case _:
                        self._perform(command, client)
            commands = await event(client)

    async def _let_others_pass(self, rest: Sequence[ApiCommand], client: Peer) -> None:
        """Let the frames of other streams pass between two steps of a head or an end, each of which takes 0.3 to 0.5 ms.

        If the client leaves meanwhile, all that has arrived is recorded.
        """
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            for command in rest:
                if isinstance(command, Recorded):
                    self._perform(command, client)
            raise

    def _perform(self, command: ApiCommand, client: Peer) -> None:
        """Perform a command that does not wait."""
        match command:
            case SendClient(data):
                client.write(data)
            case CaptureBody(pieces):
                self._recording.data(*pieces)
            case CaptureHead(status, reason, headers):
                self._recording.response(status, reason, headers)
            case EndCapture(ending, error, failure):
                self._recording.end(ending, error, failure=failure)
            case SendApi(data):
                assert self._streams is not None
                self._streams[1].write(data)
            case CloseClient():
                client.close()
            case BeginCapture() | Connect() | ResetClient() | Done():
                raise AssertionError(f"{command} waits")
            case _:
                assert_never(command)

    async def _begin(self, request: Request, begin: Callable[[Request], ExchangeRecorder]) -> None:
        if len(request.body) <= THREADED_BYTES:
            self._recording = begin(request)
            return
        begun = asyncio.create_task(asyncio.to_thread(begin, request))
        try:
            self._recording = await asyncio.shield(begun)
        except asyncio.CancelledError:
            self._recording = await begun  # the thread goes on, and its recording needs an ending
            raise

    # Events

    async def _connect(self, _: Peer) -> Sequence[ApiCommand]:
        try:
            self._streams = await self._upstream.connect()
        except OSError as error:
            return self._side.broken(error)
        return self._side.connected(self._upstream.forward_proxy)

    async def _read(self, client: Peer) -> Sequence[ApiCommand]:
        await client.drain()
        assert self._streams is not None
        reader = self._streams[0]
        reader.sink = partial(self._passes, client)
        try:
            data = await reader.read(READ_BYTES)
        except OSError as error:
            return self._side.broken(error)
        finally:
            reader.sink = None
            self._turn.end()  # what arrived before is recorded and sent before
        if self._failure is not None:
            raise self._failure
        return self._side.received(data) if data else self._side.ended()

    def _passes(self, client: Peer, data: bytes) -> bool:
        """Record bytes of the API with those of other streams, and send them on; return False if they need the task."""
        capture = self._recording
        if self._failure is not None or not isinstance(capture, Capture) or client.lags:
            return False
        pieces = self._side.chunks_in(data)
        if pieces is None:
            return False
        self._turn.add(capture, pieces, partial(self._recorded, client, data))
        return True

    def _recorded(self, client: Peer, data: bytes, failure: LogError | None) -> None:
        """Send bytes after their commit. If there was none, wake the task, which raises the error."""
        if failure is None:
            client.write(data)
        elif self._streams is not None:
            self._failure = failure
            self._streams[0].set_exception(failure)

    async def _watch(self, client: Peer) -> None:
        """Between two requests, wait until the API closes its connection."""
        for command in await self._read(client):
            self._perform(command, client)

    async def _stop_watching(self) -> None:
        """Stop waiting between two requests: two tasks cannot read one stream."""
        if (watching := self._watching) is not None:
            watching.cancel()
            await asyncio.wait([watching])
            self._watching = None

    def close(self) -> None:
        """Close the connection to the API, at once."""
        if self._watching is not None and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = None
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
