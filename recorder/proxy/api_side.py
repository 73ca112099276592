"""The API's side of a relayed connection without I/O: bytes and events in, commands out. `relay.py` performs the commands.

The bytes of an answer are relayed unchanged, with their chunk framing, compression and broken endings. `AnswerParser` reads
them in parallel, for the recording only. Each connection of a client has one connection to the API, and both end together: this
side reports the end, and `ClientSide` closes both. So keep-alive, idle timeouts, cuts and resets reach the client as they would
without a proxy.

An exchange ends in one of these ways:

| event | recorded as | the client's connection |
|---|---|---|
| the answer is complete | complete | stays open if both sides allow it |
| the API closes before the head | no_response | closed |
| the API closes inside a body | cut | closed after the bytes that came |
| the API resets the connection, or cannot be reached | cut or no_response | reset after the bytes that came |
| the answer is not HTTP | cut or no_response, then nothing is recorded | relayed until the API closes |
| the client leaves | closed | gone |
| the server stops | cut | closed |
"""

from collections.abc import Sequence
from typing import Literal
from urllib.parse import SplitResult

from ..http.exchange import Failure, Headers, Request
from .answer_parser import AnswerParser
from .commands import ApiCommand, BeginCapture, CloseClient, Connect, Done, ResetClient, SendApi, SendClient
from .http_messages import Asked
from .upstream import Upstream

_NOT_PASSED_ON = frozenset({"expect", "upgrade", "http2-settings", "proxy-connection", "proxy-authorization"})
"""Headers between the client and the proxy. The proxy has already read the whole body, and it uses HTTP/1.1 only."""

STOPPED_HERE = Failure("Stopped", "the recording proxy was stopped")


def to_request(asked: Asked, upstream: Upstream) -> Request:
    """Return a client's request as it is recorded: with the URL that it is sent to."""
    scheme = "https" if upstream.is_tls else "http"
    headers = passed_on(asked, upstream)
    return Request(asked.method, f"{scheme}://{upstream.authority}{upstream.path}{asked.target}", headers, asked.body)


def passed_on(asked: Asked, upstream: Upstream) -> Headers:
    """Return the headers that the API gets: the client's in their order and case, except for the host."""
    headers, has_length = [], False
    for name, value in asked.headers:
        match name.lower():
            case "host":
                headers.append((name, upstream.authority))
            case "transfer-encoding" | "content-length":
                # The body is complete and has one length. Two servers could read two lengths in two ways (RFC 9112, 6.3).
                if not has_length:
                    headers.append((name if name.lower() == "content-length" else "Content-Length", str(len(asked.body))))
                has_length = True
            case low if low not in _NOT_PASSED_ON and not low.startswith("x-retold-"):
                headers.append((name, value))
    return tuple(headers)


class ApiSide:
    """The state machine of one connection to the API. Each method is an event and returns the commands that follow from it.

    `waiting`: between two requests. `closed`: not connected, or no longer of use.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._proxy: SplitResult | None = None
        self.state: Literal["closed", "connecting", "answering", "waiting"] = "closed"

    def __repr__(self) -> str:
        return f"<ApiSide {self.state}>"

    def asked(self, asked: Asked) -> Sequence[ApiCommand]:
        """A request is to be sent."""
        self._asked = asked
        self._request = to_request(asked, self._upstream)
        self._answer = AnswerParser(asked)
        begin = BeginCapture(self._request)
        if self.state == "waiting":
            return [begin, self._send()]
        self.state = "connecting"
        return [begin, Connect()]

    def connected(self, proxy: SplitResult | None = None) -> Sequence[ApiCommand]:
        """The connection exists: to the API, or to the proxy that reads its requests."""
        self._proxy = proxy
        return [self._send()]

    def received(self, data: bytes) -> Sequence[ApiCommand]:
        """The API sent bytes."""
        if self.state == "waiting":
            # No answer is due. A server may send 408 before it closes an idle connection; the client gets that, too.
            return [SendClient(data), *self._close()]
        return [*self._answer.feed(data), SendClient(data), *self._done_if_over()]

    def chunks_in(self, data: bytes) -> list[bytes] | None:
        """Return the pieces of the body in `data` if recording and sending them is all that follows from it; else None.

        Then `received` need not see the bytes: they do not change the state.
        """
        return self._answer.whole_chunks(data) if self.state == "answering" else None

    def ended(self) -> Sequence[ApiCommand]:
        """The API closed its connection."""
        if self.state == "waiting":
            return self._close()
        return [*self._answer.feed(b""), *self._done_if_over()]

    def broken(self, error: OSError) -> Sequence[ApiCommand]:
        """The connection to the API was reset, or there is none."""
        if self.state == "waiting":
            return self._close()
        self.state = "closed"
        return [*self._answer.broken(error), ResetClient(), Done(goes_on=False)]

    def left(self) -> Sequence[ApiCommand]:
        """The client left before it had the answer."""
        self.state = "closed"
        return self._answer.end("closed")

    def stop(self) -> Sequence[ApiCommand]:
        """The server stopped before the client had the answer."""
        self.state = "closed"
        return self._answer.end("cut", failure=STOPPED_HERE)

    def _send(self) -> SendApi:
        asked = self._asked
        self.state = "answering"
        lines = self._upstream.opening(asked.method, asked.target, asked.http_version, self._proxy)
        lines += [f"{name}: {value}" for name, value in self._request.headers]
        return SendApi(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + asked.body)

    def _done_if_over(self) -> list[ApiCommand]:
        if not self._answer.is_over:
            return []
        self.state = "waiting" if self._answer.goes_on else "closed"
        return [Done(self._answer.goes_on)]

    def _close(self) -> list[ApiCommand]:
        self.state = "closed"
        return [CloseClient()]
