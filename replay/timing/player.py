"""Play a recorded exchange on a schedule, up to the recorded ending.

`schedule` is pure. `play` and `play_async` are its two rims: they wait and yield.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from ...recorder import clock
from ...recorder.http.exchange import Exchange
from .precise_sleep import sleep_until
from .timing import AT_ONCE, Timeline, Timing

GROUP_BYTES = 64 * 1024
"""Pieces that are due at the same moment are joined, up to this size."""

MAX_HOLD_S = 600.0
"""The longest time that an exchange is kept open for its client to close it."""


def times_of(exchange: Exchange) -> Iterator[int]:
    """Yield the recorded times of an exchange, in nanoseconds since its run began: start, head, every piece, end."""
    yield exchange.started_ns
    if exchange.response is not None:
        yield exchange.started_ns + exchange.response.first_ns
        for piece in exchange.response.pieces:
            yield exchange.started_ns + piece.offset_ns
    yield exchange.ended_ns


def timeline_of(exchange: Exchange, timing: Timing) -> Timeline:
    """Return the timeline of one exchange alone. It begins with the request."""
    if timing.speed is None:
        return AT_ONCE
    return Timeline(times_of(exchange), timing)


def schedule(exchange: Exchange, timeline: Timeline) -> Iterator[tuple[int, bytes]]:
    """Yield (deadline_ns, bytes) of the body, in order. Pieces that are due at the same moment are joined."""
    response = exchange.response
    if timeline.is_instant and response is not None:  # the whole body, without visiting its pieces
        body = response.body
        yield from ((0, body[at : at + GROUP_BYTES]) for at in range(0, len(body), GROUP_BYTES))
        return
    due, group, size = 0, [], 0  # type: int, list[bytes], int
    for piece in () if response is None else response.pieces:
        deadline = timeline.at(exchange.started_ns + piece.offset_ns)
        if group and (deadline != due or size >= GROUP_BYTES):
            yield due, b"".join(group)
            group, size = [], 0
        due = deadline
        group.append(piece.data)
        size += len(piece.data)
    if group:
        yield due, b"".join(group)


def hold_ns(exchange: Exchange, grace_s: float) -> int:
    """Return how long an exchange that the recorded client closed is kept open after its request, in nanoseconds.

    The client needs at most the recorded time, at any timing, because its own timeouts run in real time. `grace_s` is added for
    a slower start, or for a person. MAX_HOLD_S is the limit.
    """
    return min(exchange.ended_ns - exchange.started_ns + int(grace_s * 1e9), int(MAX_HOLD_S * 1e9))


def head_ns(exchange: Exchange, timeline: Timeline) -> int:
    """Return when the head of the response is due, in nanoseconds after the request."""
    first_ns = 0 if exchange.response is None else exchange.response.first_ns
    return timeline.at(exchange.started_ns + first_ns)


def play(exchange: Exchange, timeline: Timeline, began_ns: int) -> Iterator[bytes]:
    """Yield the body at its pace. Deadlines count from `began_ns` of the monotonic clock. The caller produces the ending."""
    for deadline, data in schedule(exchange, timeline):
        if deadline:
            wait_until(began_ns + deadline)
        yield data
    if not timeline.is_instant:
        wait_until(began_ns + timeline.at(exchange.ended_ns))


Until = Callable[[int, int], Awaitable[None]]
"""Waits in an event loop until the time of replay reaches (the monotonic time of its beginning, nanoseconds after it)."""


async def until_async(began_ns: int, after_ns: int) -> None:
    """Wait on the real clock."""
    await wait_until_async(began_ns + after_ns)


async def play_async(
    exchange: Exchange, timeline: Timeline, began_ns: int, until: Until = until_async
) -> AsyncIterator[bytes]:  # fmt: skip
    """`play` in an event loop. `until` is its clock."""
    for deadline, data in schedule(exchange, timeline):
        await until(began_ns, deadline)
        yield data
    await until(began_ns, timeline.at(exchange.ended_ns))


def wait_until(deadline_ns: int) -> None:
    """Sleep until the monotonic clock reaches `deadline_ns`. Return at once if it already has."""
    left_ns = deadline_ns - clock.monotonic_ns()
    if left_ns > 0:
        clock.sleep(left_ns / 1e9)


async def wait_until_async(deadline_ns: int) -> None:
    """`wait_until` in an event loop."""
    if deadline_ns > clock.monotonic_ns():
        await sleep_until(deadline_ns)
