"""Answer an HTTP client with a recorded exchange: the recorded bytes at their pace, then the recorded ending.

Status, reason phrase, headers and body come from the recording. The framing of the body is new, because stored lengths are
often wrong and pieces may be joined. If the recorded client closed the exchange itself, the connection stays open for this
client to close it; after the recorded time plus HOLD_S the server breaks it off.
"""

from collections.abc import Callable

from ..recorder import clock
from ..recorder.http.exchange import Exchange, Response
from ..recorder.proxy.http_messages import Asked, Peer, head_bytes
from .accepted import readable, repeated_at_once
from .timing.recorded_order import Order
from .timing.session_order import SessionOrder
from .timing.timing import Timing, head_ns, hold_ns, play_async, timeline_of, wait_until_async

LINGER_S = 0.1
"""How long a cut waits after the last byte. Claude Code loses unread bytes if the connection breaks at once."""

HOLD_S = 30.0
"""How much longer than recorded a client may take to close an exchange that the recorded client closed."""

_FRAMING = frozenset({"transfer-encoding", "content-length", "connection", "keep-alive"})
_RESETS = ("ConnectionResetError", "BrokenPipeError", "ReadError")


async def retell(
    exchange: Exchange, timing: Timing, asked: Asked, client: Peer, order: Order | SessionOrder | None = None,
    kept_open: Callable[[], None] = lambda: None,
) -> bool:  # fmt: skip
    """Answer a request with a recorded exchange, in its place in `order`. Return True if the connection stays open.

    Call `kept_open` if the client does not close an exchange that the recorded client closed. Raise MissError before anything
    is written if the client cannot read the recorded body.
    """
    if order is not None:
        await order.begin(exchange)
    try:
        goes_on = await _retell(exchange, timing, asked, client, order)
        if exchange.ending != "closed" and (exchange.response is None or exchange.ending == "cut"):
            await _break_off(exchange, client)
    finally:
        if order is not None:
            await order.end(exchange)  # before the client closes, because that may depend on other exchanges
    if exchange.ending == "closed":
        left_ns = asked.arrived_ns + hold_ns(exchange, HOLD_S) - clock.monotonic_ns()
        if not await client.wait_gone(max(0, left_ns) / 1e9):
            kept_open()
        await _break_off(exchange, client)
    return goes_on


async def _retell(exchange: Exchange, timing: Timing, asked: Asked, client: Peer, order: Order | SessionOrder | None) -> bool:
    began_ns = asked.arrived_ns  # not the current time: if many ask at once, the last one has waited for the others
    exchange = readable(exchange, asked.headers)
    timeline = timeline_of(exchange, timing)
    response = exchange.response
    if response is None:
        await wait_until_async(began_ns + timeline.at(exchange.ended_ns))
        return False
    if order is not None:
        await order.turn(exchange, exchange.started_ns + response.first_ns)
    await wait_until_async(began_ns + head_ns(exchange, timeline))
    has_body = asked.method != "HEAD" and response.status not in (204, 304)
    headers, chunked = _headers(exchange, response, asked, has_body=has_body, instant=timing.is_instant)
    client.write(head_bytes(response.status, response.reason, headers))
    pieces = play_async(exchange, timeline, began_ns) if order is None else order.play(exchange, timeline, began_ns)
    async for data in pieces:
        if has_body:
            client.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await client.drain()
    if chunked and has_body and exchange.ending not in ("cut", "closed"):
        client.write(b"0\r\n\r\n")
    return asked.keeps_alive and exchange.ending not in ("cut", "closed")


def _headers(
    exchange: Exchange, response: Response, asked: Asked, *, has_body: bool, instant: bool
) -> tuple[list[tuple[str, str]], bool]:
    """Return the recorded headers with framing that fits the body to be sent, and whether the body is chunked."""
    stored = response.header("content-length")
    whole = exchange.ending not in ("cut", "closed")
    length = str(len(response.body)) if whole and has_body else stored
    is_counted = stored is not None and (whole or (stored.isdecimal() and int(stored) > len(response.body)))
    chunked = has_body and not is_counted and asked.http_version == "1.1"
    headers: list[tuple[str, str]] = []
    framing: tuple[str, str | None] | None = None
    if chunked:
        framing = ("transfer-encoding", "chunked")
    elif is_counted:
        framing = ("content-length", length)
    for name, value in response.headers:
        if name.lower() not in _FRAMING:
            headers.append((name, value))
        elif framing is not None and name.lower() == framing[0]:
            headers.append((name, framing[1] or ""))
            framing = None
    if framing is not None:
        headers.append((framing[0], framing[1] or ""))
    if not asked.keeps_alive:
        headers.append(("Connection", "close"))
    return repeated_at_once(response.status, headers) if instant else headers, chunked


async def _break_off(exchange: Exchange, client: Peer) -> None:
    """End as the recording does: without a last chunk, or with a reset. The caller closes the connection."""
    await client.wait_gone(LINGER_S)
    if exchange.failure is not None and exchange.failure.type.rpartition(".")[2] in _RESETS:
        await client.reset()
