"""Parse the API's answer in parallel to relaying it: head, body and ending, for the recording only.

h11 parses strictly. A client may be more lenient and read an answer that h11 refuses. So if h11 refuses a head, `lenient_head`
reads it, and h11 parses the body behind an equivalent head.
"""

import re
from typing import NamedTuple

import h11

from ..events import Ending
from ..http.exchange import Failure, Headers
from .commands import CaptureBody, CaptureHead, EndCapture, Recorded
from .http_messages import MAX_HEAD_BYTES, Asked

DISCONNECTED = Failure("h11.RemoteProtocolError", "Server disconnected without sending a response.")


class AnswerParser:
    """Parses one answer. `is_over`: no more bytes belong to it; `goes_on`: the connection can carry another request."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._head = bytearray()
        self._lenient: LenientHead | None = None
        self._has_head = False
        self._has_ended = False
        self.is_over = False
        self.goes_on = False
        self._unfinished: bytes | None = None
        """The bytes behind the last whole chunk of a chunked body; None if it is not known where a chunk begins."""
        self._start()

    def whole_chunks(self, data: bytes) -> list[bytes] | None:
        """Return the body in `data` if a chunk begins with it, and it is whole chunks of which none is the last; else None.

        h11 need not see such bytes, because they leave its state as it is. Most reads of a stream are one or more of them, and
        h11 would take longer for a chunk than everything else that is done with it.
        """
        if self._unfinished != b"" or self._has_ended:
            return None
        found, end = _chunks(data)
        return found if end == len(data) else None

    def _follow(self, data: bytes) -> None:
        """Follow the chunks of a body that h11 reads, up to the end of the last whole one."""
        if self._unfinished is not None:
            unfinished = self._unfinished + data
            rest = unfinished[_chunks(unfinished)[1] :]
            self._unfinished = rest if len(rest) <= _MAX_FOLLOWED_BYTES else None

    def _start(self) -> None:
        asked = self._asked
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        # h11 must know the request: the method decides whether an answer has a body, and `Connection: close` ends both sides.
        closes = [("Connection", "close")] if not asked.keeps_alive else []
        self._parser.send(h11.Request(method=asked.method, target="/", headers=[("Host", "upstream"), *closes]))
        self._parser.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> list[Recorded]:
        """Parse bytes of the answer, or the end of the connection (empty). Return the records that they complete."""
        if self._has_ended:
            # Parsing failed earlier, so the end of the answer is unknown. Relay until the API closes, but record nothing.
            self.is_over = not data
            return []
        found, failure = self._parsed(data)
        if failure is not None and not self._has_head and (head := lenient_head(bytes(self._head))) is not None:
            self._lenient = head
            self._start()
            found, failure = self._parsed(head.framing + head.rest)
        if self.is_over:
            are_done = self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE
            self.goes_on = are_done and bool(data)
            return [*found, *self.end("complete")]
        if failure is not None or not data:
            self.is_over = not data
            return [*found, *self._broken(failure, is_closed=not data)]
        return found

    def end(self, ending: Ending, error: BaseException | None = None, *, failure: Failure | None = None) -> list[Recorded]:
        """Return the record of the ending. The first ending counts; later ones return nothing."""
        if self._has_ended:
            return []
        self._has_ended = True
        return [EndCapture(ending, error, failure)]

    def broken(self, error: BaseException) -> list[Recorded]:
        """Return the record of an answer that an error interrupted."""
        return self.end("cut" if self._has_head else "no_response", error)

    def _broken(self, failure: h11.RemoteProtocolError | None, *, is_closed: bool) -> list[Recorded]:
        if is_closed and not self._has_head:
            return self.end("no_response", failure=DISCONNECTED)
        return self.end("cut" if self._has_head else "no_response", failure)

    def _parsed(self, data: bytes) -> tuple[list[Recorded], h11.RemoteProtocolError | None]:
        """Return the records that bytes complete, and the reason if they are not HTTP."""
        head: list[Recorded] = []
        body: list[bytes] = []
        failure = None
        if not self._has_head and self._lenient is None:
            self._head += data  # for `lenient_head`
        self._follow(data)
        try:
            self._parser.receive_data(data)
            while not isinstance(event := self._parser.next_event(), type(h11.NEED_DATA) | type(h11.PAUSED)):
                if isinstance(event, h11.Response):
                    head = [self._head_of(event)]
                    if (b"transfer-encoding", b"chunked") in event.headers:
                        self._unfinished = b""
                        self._follow(self._parser.trailing_data[0])
                elif isinstance(event, h11.Data):
                    body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.is_over = True
                elif isinstance(event, h11.ConnectionClosed):
                    break
                # else: an answer before the answer (1xx), which is relayed and not recorded
        except h11.RemoteProtocolError as error:
            failure = error
        return ([*head, CaptureBody(body)] if body else head), failure

    def _head_of(self, event: h11.Response) -> CaptureHead:
        self._has_head = True
        if self._lenient is not None:
            return CaptureHead(self._lenient.status, self._lenient.reason, self._lenient.headers)
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items())
        return CaptureHead(event.status_code, event.reason.decode("latin-1"), headers)


_MAX_FOLLOWED_BYTES = 64 * 1024
_CHUNK_SIZE = re.compile(rb"(?!0)([0-9a-fA-F]{1,7})\r\n")


def _chunks(data: bytes) -> tuple[list[bytes], int]:
    """Return the contents of the whole chunks at the beginning of `data`, without the last chunk of a body, and their end."""
    found, at, last = list[bytes](), 0, len(data)
    while at < last and (size := _CHUNK_SIZE.match(data, at)) is not None:
        end = size.end() + int(size[1], 16)
        if data[end : end + 2] != b"\r\n":
            break
        found.append(data[size.end() : end])
        at = end + 2
    return found, at


class LenientHead(NamedTuple):
    """The head of an answer, read leniently. `framing` is a head that h11 accepts and that frames the body in the same way."""

    status: int
    reason: str
    headers: Headers
    framing: bytes
    rest: bytes


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: ([^\r\n]*))?")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


def lenient_head(data: bytes) -> LenientHead | None:
    """Return the final head at the beginning of an answer, with any fields; None if its status line or its end is missing."""
    while (end := _HEAD_END.search(data)) is not None:
        first, *lines = re.split(rb"\r?\n", data[: end.start()])
        rest = data[end.end() :]
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            return None
        if status_line[2].startswith(b"1"):  # an answer before the answer
            data = rest
            continue
        pairs = [
            (name.strip().decode("latin-1"), value.strip().decode("latin-1"))
            for name, _, value in (line.partition(b":") for line in lines)
        ]
        headers = tuple((name, value) for name, value in pairs if name)
        framing = [b"HTTP/1.%b %b " % (status_line[1], status_line[2]), *_framing(headers)]
        reason = (status_line[3] or b"").decode("latin-1")
        return LenientHead(int(status_line[2]), reason, headers, b"\r\n".join(framing) + b"\r\n\r\n", rest)
    return None


def _framing(headers: Headers) -> list[bytes]:
    """Return the header lines that frame a body, as h11 accepts them. Chunks have precedence over a length (RFC 9112, 6.3)."""
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value)
    closes = [b"Connection: close"] if any("close" in value.lower() for value in values.get("connection", ())) else []
    if any(value.lower().endswith("chunked") for value in values.get("transfer-encoding", ())):
        return [b"Transfer-Encoding: chunked", *closes]
    length = next((value for value in values.get("content-length", ()) if value.isdecimal() and value.isascii()), None)
    return [*([] if length is None else [f"Content-Length: {length}".encode()]), *closes]
