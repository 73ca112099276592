"""Keep the recorded order of overlapping exchanges while they are replayed, at any pace.

Claude Code runs agents beside its main conversation, and its next request depends on which of them have finished. Therefore a
piece of one stream is sent only after the events that were recorded before it while that stream was open: requests that came
and answers that ended. A client's requests depend on nothing else, so its next request equals the recorded one.

Sequential exchanges never wait. If a client departs from the recording, a wait ends after the recorded time plus GRACE_S; the
client's next request then misses and reports the difference.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Iterable
from typing import Literal

from ...recorder import clock
from ...recorder.http.exchange import Exchange
from .timing import Timeline, wait_until_async

GRACE_S = 2.0

SETTLE_NS = 100_000_000
"""The longest pause between an event and the next one on another connection, in nanoseconds.

The pause is as long as the recorded one, up to this limit. Without it, two sockets become ready at once and a client reads them
in any order.
"""

Happening = tuple[Literal["began", "ended"], int]


class Order:
    """The recorded events (requests and endings) and the times at which they happened again. For one event loop."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        found: list[tuple[int, Happening]] = []
        for exchange in exchanges:
            found.append((exchange.started_ns, ("began", _key(exchange))))
            found.append((exchange.ended_ns, ("ended", _key(exchange))))
        found.sort()
        self._times = [at for at, _ in found]
        self._events = [event for _, event in found]
        self._happened: dict[Happening, int] = {}
        self._missed: set[Happening] = set()
        self._changed = asyncio.Condition()

    def __repr__(self) -> str:
        return f"<Order {len(self._happened)} of {len(self._events)} happened>"

    async def begin(self, exchange: Exchange) -> None:
        """Note that the client asked for the exchange."""
        # A put-back exchange begins a second time.
        self._happened.pop(("ended", _key(exchange)), None)
        await self._note(("began", _key(exchange)))

    async def end(self, exchange: Exchange) -> None:
        """Note that the answer of the exchange is over, with any ending."""
        await self._note(("ended", _key(exchange)))

    async def turn(self, exchange: Exchange, recorded_ns: int) -> None:
        """Wait for all events recorded before `recorded_ns` and after the beginning of `exchange`."""
        start, stop = bisect_right(self._times, exchange.started_ns), bisect_left(self._times, recorded_ns)
        before = [number for number in range(start, stop) if self._events[number][1] != _key(exchange)]
        if not before:
            return
        events = [self._events[number] for number in before]
        limit_s = (recorded_ns - exchange.started_ns) / 1e9 + GRACE_S
        try:
            async with asyncio.timeout(limit_s), self._changed:
                while any(event not in self._happened and event not in self._missed for event in events):
                    await self._changed.wait()
        except TimeoutError:
            # Wait for a missing event only once: the client left the recorded course.
            self._missed.update(event for event in events if event not in self._happened)
        if (last_ns := self._happened.get(events[-1])) is not None:
            await wait_until_async(last_ns + min(recorded_ns - self._times[before[-1]], SETTLE_NS))

    async def play(self, exchange: Exchange, timeline: Timeline, began_ns: int) -> AsyncIterator[bytes]:
        """Yield the body at its pace, each piece in its recorded order."""
        for piece in () if exchange.response is None else exchange.response.pieces:
            recorded_ns = exchange.started_ns + piece.offset_ns
            await self.turn(exchange, recorded_ns)
            await wait_until_async(began_ns + timeline.at(recorded_ns))
            yield piece.data
        await self.turn(exchange, exchange.ended_ns)
        await wait_until_async(began_ns + timeline.at(exchange.ended_ns))

    async def _note(self, event: Happening) -> None:
        self._happened[event] = clock.monotonic_ns()
        self._missed.discard(event)
        async with self._changed:
            self._changed.notify_all()


def _key(exchange: Exchange) -> int:
    """Return a number that an exchange and the copies that faults make of it share."""
    return id(exchange.request)


def order_of(exchanges: Iterable[Exchange]) -> Order | None:
    """Return the order of a recording with overlapping exchanges, or None if no exchanges overlap."""
    recorded = sorted(exchanges, key=lambda exchange: exchange.started_ns)
    until = -1
    for exchange in recorded:
        if exchange.started_ns < until:
            return Order(recorded)
        until = max(until, exchange.ended_ns)
    return None
