"""Overlapping exchanges are replayed in their recorded order, at any pace, and never wait for longer than the limit."""

import asyncio
from collections.abc import Sequence

import pytest

from retold.recorder.http.exchange import Exchange, TimedPiece
from retold.replay.timing import recorded_order as order_module
from retold.replay.timing.recorded_order import Order, order_of
from retold.replay.timing.timing import INSTANT, timeline_of
from tests.exchanges import answer, exchange

MS = 1_000_000


def recorded(name: str, began_ms: int, *pieces_ms: int, ended_ms: int) -> Exchange:
    """Return an exchange. Its frames contain its name and their times, in ms of the run."""
    frames = tuple(TimedPiece((at - began_ms) * MS, f"{name}{at}".encode(), True) for at in pieces_ms)
    told = exchange(answer(b"data: 1\n\n"), name.encode(), started_ns=began_ms * MS, ended_ns=ended_ms * MS)
    assert told.response is not None
    object.__setattr__(told.response, "pieces", frames)
    return told


# Two agents run. The end of the second one arrives after the conversation (c) has got the result of the first.
MAIN = recorded("m", 0, 5, ended_ms=10)
FIRST = recorded("a", 20, 30, 40, ended_ms=50)
SECOND = recorded("b", 21, 35, 90, ended_ms=100)
HEARD = recorded("c", 60, 70, ended_ms=80)
ALL = (MAIN, FIRST, SECOND, HEARD)


def pieces_sent(asked: Sequence[Exchange], later: dict[str, Exchange] | None = None) -> list[str]:
    """Return the pieces in the order they are sent. These requests come at once, and others after a given piece."""
    seen: list[str] = []
    order = order_of(ALL)
    assert order is not None

    async def one(telling: Exchange, tasks: asyncio.TaskGroup) -> None:
        await order.begin(telling)
        async for piece in order.play(telling, timeline_of(telling, INSTANT), 0):
            seen.append(piece.decode())
            if (following := (later or {}).get(piece.decode())) is not None:
                tasks.create_task(one(following, tasks))
        await order.end(telling)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for telling in asked:
                tasks.create_task(one(telling, tasks))

    asyncio.run(run())
    return seen


def test_streams_that_overlapped_keep_their_order() -> None:
    """The conversation asks again after the first agent's end. The end of the second agent waits for the answer."""
    for asked in ((SECOND, FIRST), (FIRST, SECOND)):
        seen = pieces_sent(asked, {"a40": HEARD})
        assert [piece for piece in seen if piece != "b35"] == ["a30", "a40", "c70", "b90"]


def test_sequential_exchanges_have_no_order() -> None:
    """A client that asks in another order, or for a part, never waits."""
    assert order_of([MAIN, FIRST]) is None
    assert order_of([]) is None
    assert isinstance(order_of(ALL), Order)


def test_events_before_the_beginning_of_an_exchange_are_not_waited_for() -> None:
    """No client asked for `m` here."""
    assert pieces_sent([HEARD]) == ["c70"]


def test_a_missing_request_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that departs from the recording gets the rest, and its next request reports the difference."""
    monkeypatch.setattr(order_module, "GRACE_S", 0.01)
    assert pieces_sent([FIRST, SECOND])[-1] == "b90"
