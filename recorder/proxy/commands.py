"""The commands of the relay's two state machines. A machine returns commands for each event; a rim performs them in order.

`client_side.py` reads requests and `api_side.py` reads answers; neither uses sockets, clocks of the event loop or a log.
`http1.py` performs the commands of the first, `relay.py` those of the second. `tests/test_relay_playbook.py` shows events and
commands side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..events import Ending
from ..http.exchange import Failure, Headers, Request
from .http_messages import Asked, Refusal

# To the client


@dataclass(frozen=True, slots=True)
class SendClient:
    """Write bytes to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndClient:
    """Close the writing half of the client's connection, so that the client reads the answer to its end."""


@dataclass(frozen=True, slots=True)
class CloseClient:
    """Close the client's connection after everything written has been sent."""


@dataclass(frozen=True, slots=True)
class AbortClient:
    """Close the client's connection at once."""


@dataclass(frozen=True, slots=True)
class ResetClient:
    """Send everything written, then reset the client's connection (RST)."""


# To the API


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the API. The next event is `ApiSide.connected` or `ApiSide.broken`."""


@dataclass(frozen=True, slots=True)
class SendApi:
    """Write bytes to the API."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseApi:
    """Close the connection to the API at once, if there is one."""


# To the answerer


@dataclass(frozen=True, slots=True)
class Answer:
    """Start answering a complete request. `ClientSide.answered` follows, whether or not the answer was cancelled."""

    asked: Asked


@dataclass(frozen=True, slots=True)
class CancelAnswer:
    """Cancel the answer under way, because the server stops or the client left."""

    stopped: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """Report a refused request. The answer to the client is a separate command."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is complete. `goes_on`: both connections can carry another request."""

    goes_on: bool


# To the timer: one per client


@dataclass(frozen=True, slots=True)
class Wait:
    """Call `ClientSide.late` after so many seconds, instead of the time set before. None: never."""

    seconds: float | None


# To the recording. Each is performed before the bytes that it records reach the client.


@dataclass(frozen=True, slots=True)
class BeginCapture:
    """Begin the recording of an exchange."""

    request: Request


@dataclass(frozen=True, slots=True)
class CaptureHead:
    """Record the head of an answer."""

    status: int
    reason: str
    headers: Headers


@dataclass(frozen=True, slots=True)
class CaptureBody:
    """Record pieces of a body, without the framing of their transfer."""

    pieces: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class EndCapture:
    """Record how the exchange ended. It is the last command for its recording."""

    ending: Ending
    error: BaseException | None = None
    failure: Failure | None = None


ClientCommand = (
    SendClient | EndClient | CloseClient | AbortClient | CloseApi | Answer | CancelAnswer | Refuse | Wait
)  # fmt: skip
"""A command of `ClientSide`."""

Recorded = CaptureHead | CaptureBody | EndCapture
"""A command of `AnswerParser`."""

ApiCommand = BeginCapture | Recorded | Connect | SendApi | SendClient | CloseClient | ResetClient | Done
"""A command of `ApiSide`."""
