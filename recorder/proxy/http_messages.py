"""An HTTP/1.1 request as a server has read it, and the bytes of an answer."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

from .. import clock, strict_json
from ..http.exchange import Headers, header
from ..http.recognition import REFUSED_HEADER


class Refusal(NamedTuple):
    """A request that gets an answer of the server's own: status, the kind of error in the API's envelope, and the reason."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a client sent it: target in origin form, headers in their order and case, the whole body.

    `arrived_ns` is when it was whole, on the monotonic clock.
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    http_version: str = "1.1"
    arrived_ns: int = field(default_factory=clock.monotonic_ns)

    def header(self, name: str) -> str | None:
        """The value of the first header of that name, in any case; None where there is none."""
        return header(self.headers, name)

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants the connection to go on."""
        return self.http_version == "1.1" and "close" not in (self.header("connection") or "").lower()


def refusal(
    status: int, kind: str, message: str, *, closes: bool = False, head: bool = False, mark: str | None = None
) -> bytes:  # fmt: skip
    """Return an answer of retold's own: Anthropic's error envelope, and a header that keeps SDKs from asking again.

    `head` leaves out the body, as an answer to HEAD must; `mark` names the error for retold's own clients.
    """
    body = strict_json.dumps(
        {"type": "error", "error": {"type": kind, "message": f"retold: {message}"}}, ensure_ascii=True
    ).encode()
    headers = [("content-type", "application/json"), ("x-should-retry", "false"), ("content-length", str(len(body)))]
    headers += [(REFUSED_HEADER, mark)] if mark is not None else []
    headers += [("connection", "close")] if closes else []
    return head_bytes(status, phrase(status), headers) + (b"" if head else body)


def head_bytes(status: int, reason: str, headers: Headers | list[tuple[str, str]]) -> bytes:
    """Status line and headers as they go over the wire."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def phrase(status: int) -> str:
    """The usual reason phrase of a status; none for one that HTTP does not know."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
