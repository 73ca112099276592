"""An HTTP/1.1 request that a server has read, and the bytes of an answer."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, Protocol

from .. import clock, strict_json
from ..http.exchange import Headers, header
from ..http.recognition import REFUSED_HEADER

MAX_HEAD_BYTES = 256 * 1024
"""The longest start line and headers of a request or an answer."""


class Refusal(NamedTuple):
    """The server's own answer to a request: status, the kind of error in the API's envelope, and the reason."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a client sent it: target in origin form, headers in their order and case, the whole body.

    `arrived_ns` is the time when it was complete, in nanoseconds of the monotonic clock.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    http_version: str = "1.1"
    arrived_ns: int = field(default_factory=clock.monotonic_ns)

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name, in any case; None if there is none."""
        return header(self.headers, name)

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        return self.http_version == "1.1" and "close" not in (self.header("connection") or "").lower()


class Peer(Protocol):
    """The client's connection for the answerer of a request: `Client` in `http1.py`, or a list of bytes in a test."""

    def write(self, data: bytes) -> None:
        """Write bytes, without waiting."""
        ...

    @property
    def lags(self) -> bool:
        """Whether `drain` would wait."""
        ...

    async def drain(self) -> None:
        """Wait until the client no longer lags far behind."""
        ...

    async def wait_gone(self, seconds: float) -> bool:
        """Wait until the client has left, for at most so many seconds; return whether it has left."""
        ...

    async def reset(self) -> None:
        """Send everything written, then reset the connection."""
        ...

    def close(self) -> None:
        """Close the connection after everything written has been sent."""
        ...


def refusal(
    status: int, kind: str, message: str, *, closes: bool = False, head: bool = False, mark: str | None = None
) -> bytes:  # fmt: skip
    """Return an error answer of retold itself: Anthropic's error envelope, and a header that stops SDKs from retrying.

    `head` omits the body, as an answer to HEAD must; `mark` names the error for retold's own clients.
    """
    body = strict_json.dumps(
        {"type": "error", "error": {"type": kind, "message": f"retold: {message}"}}, ensure_ascii=True
    ).encode()
    headers = [("content-type", "application/json"), ("x-should-retry", "false"), ("content-length", str(len(body)))]
    headers += [(REFUSED_HEADER, mark)] if mark is not None else []
    headers += [("connection", "close")] if closes else []
    return head_bytes(status, phrase(status), headers) + (b"" if head else body)


def head_bytes(status: int, reason: str, headers: Headers | list[tuple[str, str]]) -> bytes:
    """Return the status line and headers as bytes for the wire."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def phrase(status: int) -> str:
    """Return the usual reason phrase of a status; empty if HTTP does not define the status."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
