"""Hold back the events of a session until the client has sent the events that they answer.

A client streams the events of a Managed Agents session and sends its own with other requests meanwhile, such as the result of a
tool. At instant pace the whole stream would come first, and the client would read the answer to a result that it has not sent.
Therefore a piece of such a stream follows all requests to its session that were recorded before it while the stream was open.

If a client departs from the recording, a wait ends after the recorded time plus GRACE_S. Other exchanges never wait.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from ...recorder import clock
from ...recorder.http.exchange import Exchange, TimedPiece
from ...recorder.http.sessions import SessionPath, session_path
from .timing import Timeline, play, play_async, schedule, wait_until, wait_until_async

GRACE_S = 2.0

POLL_NS = 2_000_000
"""The pause between two looks at the requests that came, in nanoseconds. They come from any thread or event loop."""


def session_of(exchange: Exchange) -> SessionPath | None:
    """Return the session of an exchange that reads or sends events, or None for any other exchange."""
    found = session_path(exchange.request.uri)
    return found if found is not None and found.has_events else None


class SessionOrder:
    """The requests of a recording that sent events to sessions, and those that came again. For any thread and event loop."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self._came: set[int] = set()

    @cached_property
    def _sent(self) -> dict[str, list[tuple[int, int]]]:
        """The requests to each session by their times. A long recording is read for the first stream of a session."""
        found: dict[str, list[tuple[int, int]]] = {}
        for exchange in self._exchanges:
            session = session_of(exchange) if exchange.request.method.upper() == "POST" else None
            if session is not None:
                found.setdefault(session.session, []).append((exchange.started_ns, id(exchange.request)))
        return {session: sorted(sent) for session, sent in found.items()}

    def __repr__(self) -> str:
        return f"<SessionOrder {len(self._came)} requests came>"

    def came(self, exchange: Exchange) -> None:
        """Note that the client sent the request of an exchange."""
        if session_of(exchange) is not None:
            self._came.add(id(exchange.request))

    async def begin(self, exchange: Exchange) -> None:
        """Note the request of an exchange, as `Order` does."""
        self.came(exchange)

    async def turn(self, exchange: Exchange, recorded_ns: int) -> None:
        """Wait for nothing: the head of an answer follows its own request alone."""

    async def end(self, exchange: Exchange) -> None:
        """Note nothing: an event of a session follows requests, not answers."""

    def play_sync(self, exchange: Exchange, timeline: Timeline, began_ns: int) -> Iterator[bytes]:
        """Yield the body at its pace, each piece after the requests that were recorded before it."""
        sent = self._sent_during(exchange)
        if not sent:
            yield from play(exchange, timeline, began_ns)
            return
        for part, requests, limit_ns in _parts(exchange, sent, began_ns):
            while not self._came.issuperset(requests) and clock.monotonic_ns() < limit_ns:
                wait_until(clock.monotonic_ns() + POLL_NS)
            for deadline, data in schedule(part, timeline):
                wait_until(began_ns + deadline)
                yield data
        wait_until(began_ns + timeline.at(exchange.ended_ns))

    async def play(self, exchange: Exchange, timeline: Timeline, began_ns: int) -> AsyncIterator[bytes]:
        """`play_sync` in an event loop."""
        sent = self._sent_during(exchange)
        if not sent:
            async for data in play_async(exchange, timeline, began_ns):
                yield data
            return
        for part, requests, limit_ns in _parts(exchange, sent, began_ns):
            while not self._came.issuperset(requests) and clock.monotonic_ns() < limit_ns:
                await wait_until_async(clock.monotonic_ns() + POLL_NS)
            for deadline, data in schedule(part, timeline):
                await wait_until_async(began_ns + deadline)
                yield data
        await wait_until_async(began_ns + timeline.at(exchange.ended_ns))

    def _sent_during(self, exchange: Exchange) -> Sequence[tuple[int, int]]:
        """Return the requests to the session of a stream that were recorded while it was open."""
        session = session_of(exchange)
        sent = [] if session is None else self._sent.get(session.session, [])
        return [(at, key) for at, key in sent if exchange.started_ns < at <= exchange.ended_ns]


def _parts(exchange: Exchange, sent: Sequence[tuple[int, int]], began_ns: int) -> Iterator[tuple[Exchange, set[int], int]]:
    """Yield the parts of an exchange, with the requests that each follows and the end of the wait for them."""
    times = [at - exchange.started_ns for at, _ in sent]
    pieces: list[TimedPiece] = []
    before = 0
    for piece in () if exchange.response is None else exchange.response.pieces:
        number = bisect_right(times, piece.offset_ns)
        if number != before:
            yield _part(exchange, pieces), {key for _, key in sent[:before]}, _limit(times, before, began_ns)
            pieces, before = [], number
        pieces.append(piece)
    yield _part(exchange, pieces), {key for _, key in sent[:before]}, _limit(times, before, began_ns)


def _part(exchange: Exchange, pieces: Sequence[TimedPiece]) -> Exchange:
    if exchange.response is None:
        return exchange
    return replace(exchange, response=replace(exchange.response, pieces=tuple(pieces)))


def _limit(times: Sequence[int], before: int, began_ns: int) -> int:
    return began_ns + (times[before - 1] if before else 0) + int(GRACE_S * 1e9)
