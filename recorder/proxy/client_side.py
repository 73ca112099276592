"""The client's side of a connection without I/O: bytes and events in, commands out. `http1.py` performs the commands.

A request passes four gates in this order, each before more of it is read:

1. The connection is one of `Limits.clients`.
2. The head is complete within `head_s`, and valid.
3. `refuses` returns no refusal. It checks the host, the token and the web page that sent the request.
4. The body fits into the bytes left, and its pieces keep coming.

If a request fails at a gate, the server answers it with an error and closes the connection.

    idle ── first byte ──→ head ── head complete ──→ body ── body complete ──→ answering ──→ idle (next request)
                             └──── a gate fails ───────┴──→ refused (reads and drops the rest) ──→ closed
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import h11

from .. import clock
from .commands import (
    AbortClient,
    Answer,
    CancelAnswer,
    ClientCommand,
    CloseApi,
    CloseClient,
    EndClient,
    Refuse,
    SendClient,
    Wait,
)
from .http_messages import MAX_HEAD_BYTES, Asked, Refusal, refusal

LINGER_S = 2.0
"""How long the remaining bytes of a refused client are read and dropped. Closing at once would reset the connection, and the
client would lose the answer."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server: bytes, connections, and seconds for reading a request. Answers may take any time.

    The API itself accepts bodies of 32 MB, and 500 MB for files.
    """

    body_bytes: int = 256 * 1024 * 1024
    """The longest request body."""
    held_bytes: int = 512 * 1024 * 1024
    """The bodies of all requests together that are being read or answered."""
    clients: int = 512
    """Simultaneous connections; fewer if the process may not open two files for each."""
    idle_s: float = 300.0
    """Between two requests, and before the first one."""
    head_s: float = 30.0
    """From the first byte of a request to the end of its headers."""
    gap_s: float = 30.0
    """Between two pieces of a body."""
    body_s: float = 600.0
    """For the whole body."""


class Room:
    """The room for request bodies, shared by all connections of a server. `held` counts the bytes in use."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0


class ClientSide:
    """The state machine of one client's connection. Each method is an event and returns the commands that follow from it.

    `refuses` returns the refusal of a request by its head, or None. `now_ns` is a monotonic clock in nanoseconds.
    """

    def __init__(
        self, room: Room, refuses: Callable[[Asked], Refusal | None], now_ns: Callable[[], int] = clock.monotonic_ns
    ) -> None:  # fmt: skip
        self._room = room
        self._limits = room.limits
        self._refuses = refuses
        self._now_ns = now_ns
        self._held = 0  # bytes of `room.held` that belong to this connection
        self._dropped = 0  # bytes read after a refusal
        self._is_stopping = False
        self._next_request()

    def _next_request(self) -> None:
        self.state: Literal["idle", "head", "body", "answering", "refused", "closed"] = "idle"
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._asked: Asked | None = None
        self._body = bytearray()

    def __repr__(self) -> str:
        return f"<ClientSide {self.state}>"

    # Events

    def connected(self) -> Sequence[ClientCommand]:
        """The client connected."""
        return [Wait(self._limits.idle_s)]

    def crowded_out(self, others: int) -> Sequence[ClientCommand]:
        """The client connected while `others` use all places."""
        return [*self._refuse(503, "overloaded_error", f"all {others} connections are in use"), CloseClient()]

    def received(self, data: bytes) -> Sequence[ClientCommand]:
        """The client sent bytes."""
        match self.state:
            case "closed":
                return []
            case "refused":
                self._dropped += len(data)
                return [AbortClient()] if self._dropped > self._limits.body_bytes else []
            case "answering":
                # A client may send its next requests before it has the answer, but not without limit.
                self._parser.receive_data(data)
                return [AbortClient()] if len(self._parser.trailing_data[0]) > MAX_HEAD_BYTES else []
            case _:
                self._parser.receive_data(data)
                return self._parsed()

    def late(self) -> Sequence[ClientCommand]:
        """The time of the last `Wait` is over."""
        match self.state:
            case "head":
                return self._late("headers", self._limits.head_s)
            case "body":
                return self._late("body", min(self._limits.gap_s, self._limits.body_s))
            case "refused":
                return [AbortClient()]
            case _:  # idle: the client asks nothing, so it needs no answer
                return self._close()

    def answered(self, *, goes_on: bool) -> Sequence[ClientCommand]:
        """The answer ended. `goes_on`: it is complete, and the client is still connected and may send another request."""
        self._release()
        if not goes_on or self._is_stopping:
            return self._close()
        pipelined, _ = self._parser.trailing_data
        self._next_request()
        return self.received(pipelined) if pipelined else [Wait(self._limits.idle_s)]

    def left(self) -> Sequence[ClientCommand]:
        """The client's connection ended."""
        if self.state == "answering":
            return [CancelAnswer(stopped=False)]
        self._release()
        self.state = "closed"
        return [Wait(None), CloseApi()]

    def stop(self) -> Sequence[ClientCommand]:
        """The server stops, or needs the place of an idle client, or the API closed its connection."""
        if self.state == "answering":
            self._is_stopping = True  # the answer may have ended already: then there is nothing to cancel
            return [CancelAnswer(stopped=True)]
        return self._close()

    # Reading a request

    def _parsed(self) -> list[ClientCommand]:
        """Parse the bytes that have come, until the request is complete or refused."""
        began = self.state == "idle"
        self.state = "head" if began else self.state
        commands: list[ClientCommand] = []
        try:
            while self.state in ("head", "body"):
                event = self._parser.next_event()
                if isinstance(event, h11.Request):
                    commands += self._begin(event)
                elif isinstance(event, h11.Data):
                    commands += self._add(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    commands += self._complete()
                else:
                    break  # more bytes are needed
        except h11.RemoteProtocolError as error:
            reason = f"this is not an HTTP/1.1 request: {error}"
            return [*commands, *self._refuse(error.error_status_hint, "invalid_request_error", reason)]
        if self.state == "head" and began:
            commands.append(Wait(self._limits.head_s))  # for the whole head: later bytes do not extend it
        elif self.state == "body":
            left_s = (self._body_due_ns - self._now_ns()) / 1e9
            commands.append(Wait(max(0.0, min(self._limits.gap_s, left_s))))
        return commands

    def _begin(self, head: h11.Request) -> list[ClientCommand]:
        """Check a head. If it passes, its body is read next."""
        target = head.target.decode("latin-1")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers.raw_items())
        asked = self._asked = Asked(head.method.decode("ascii"), target, headers, b"", head.http_version.decode("ascii"))
        if asked.method == "CONNECT" or not target.startswith("/"):
            # RFC 9112, 3.2.2 and 3.2.3: these ask for another host. This server must never be a proxy to any host.
            status = 405 if asked.method == "CONNECT" else 400
            return self._refuse(
                status, "invalid_request_error", "this server serves one API only; request a path, not another host"
            )
        if (refused := self._refuses(asked)) is not None:
            return self._refuse(*refused)
        if int(asked.header("content-length") or 0) > self._limits.body_bytes:  # h11 has checked that it is a number
            return self._refuse_length()
        self.state = "body"
        self._body_due_ns = self._now_ns() + int(self._limits.body_s * 1e9)
        # The client waits for permission to send the body. No gate is left that its body could not pass unread.
        return [SendClient(b"HTTP/1.1 100 Continue\r\n\r\n")] if self._parser.they_are_waiting_for_100_continue else []

    def _add(self, data: bytes | bytearray) -> list[ClientCommand]:
        """Add a piece of a body, if there is room for it."""
        self._body += data
        self._held += len(data)
        self._room.held += len(data)
        if self._held > self._limits.body_bytes:
            return self._refuse_length()
        if self._room.held > self._limits.held_bytes:
            return self._refuse(503, "overloaded_error", f"the bodies of all requests exceed {self._limits.held_bytes} bytes")
        return []

    def _complete(self) -> list[ClientCommand]:
        assert self._asked is not None
        self.state = "answering"
        asked = replace(self._asked, body=bytes(self._body), arrived_ns=self._now_ns())
        self._body = bytearray()
        return [Wait(None), Answer(asked)]

    def _release(self) -> None:
        """Return the room of a body."""
        self._room.held -= self._held
        self._held = 0
        self._body = bytearray()

    # Ending

    def _late(self, part: str, seconds: float) -> list[ClientCommand]:
        return self._refuse(408, "timeout_error", f"the {part} of the request did not come within {seconds:g} s")

    def _refuse_length(self) -> list[ClientCommand]:
        return self._refuse(413, "request_too_large", f"the body has more than {self._limits.body_bytes} bytes")

    def _refuse(self, status: int, kind: str, message: str) -> list[ClientCommand]:
        """Answer with an error of the server, then wait until the client has read it."""
        self.state = "refused"
        self._release()
        is_head = self._asked is not None and self._asked.method == "HEAD"
        answer = refusal(status, kind, message, closes=True, head=is_head)
        return [Refuse(Refusal(status, kind, message)), CloseApi(), SendClient(answer), EndClient(), Wait(LINGER_S)]

    def _close(self) -> list[ClientCommand]:
        self.state = "closed"
        return [Wait(None), CloseApi(), CloseClient()]
