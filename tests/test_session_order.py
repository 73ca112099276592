"""A replayed stream of a session follows the requests that its client sent while the stream was recorded."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from retold.recorder import clock
from retold.recorder.http.exchange import Exchange
from retold.replay.timing import session_order
from retold.replay.timing.session_order import SessionOrder
from retold.replay.timing.timing import INSTANT, timeline_of
from tests.exchanges import JSON, answer, exchange

ROOT = "https://api.anthropic.com/v1/sessions"
PIECES = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n", b"data: 4\n\n"]
"""The pieces came 1, 2, 3 and 4 ms after their request."""


def reading(session: str = "sesn_1") -> Exchange:
    made = exchange(answer(*PIECES), b"", f"{ROOT}/{session}/events/stream", ended_ns=5_000_000)
    return replace(made, request=replace(made.request, method="GET"))


def sending(at_ns: int, session: str = "sesn_1") -> Exchange:
    made = exchange(answer(b"{}", headers=JSON), b"{}", f"{ROOT}/{session}/events")
    return replace(made, started_ns=at_ns, ended_ns=at_ns + 1)


def played(order: SessionOrder, read: Exchange) -> Iterator[bytes]:
    return order.play_sync(read, timeline_of(read, INSTANT), clock.monotonic_ns())


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a wait at once, as after a client that departs from the recording."""
    monkeypatch.setattr(session_order, "GRACE_S", -1.0)


def test_a_piece_follows_the_requests_before_it() -> None:
    """The pieces before a request come at once. The pieces after it come when the client has sent it."""
    read, first, second = reading(), sending(1_500_000), sending(3_500_000)
    order = SessionOrder([read, first, second])
    pieces = played(order, read)
    assert next(pieces) == PIECES[0]
    order.came(first)
    assert next(pieces) == PIECES[1] + PIECES[2]
    order.came(second)
    assert [*pieces] == [PIECES[3]]


def test_an_async_stream_waits_for_another_task() -> None:
    """The reading task lets the sending task run."""
    read, sent = reading(), sending(500_000)
    order = SessionOrder([read, sent])

    async def run() -> list[bytes]:
        found: list[bytes] = []

        async def follow() -> None:
            async for data in order.play(read, timeline_of(read, INSTANT), clock.monotonic_ns()):
                found.append(data)  # noqa: PERF401 - the stream is read piece by piece

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        assert found == []
        order.came(sent)
        await following
        return found

    assert asyncio.run(run()) == [b"".join(PIECES)]


@pytest.mark.usefixtures("impatient")
def test_a_client_that_departs_gets_the_rest_after_the_grace() -> None:
    """A missing request delays a stream for a while, not forever."""
    read = reading()
    assert [*played(SessionOrder([read, sending(1_500_000)]), read)] == [PIECES[0], b"".join(PIECES[1:])]


def test_only_requests_to_the_same_session_while_it_was_open_count() -> None:
    """Another session, an earlier or later request, and reads delay nothing."""
    read = reading()
    others = [sending(1_500_000, "sesn_2"), sending(9_000_000), reading(), exchange(started_ns=1_500_000)]
    assert [*played(SessionOrder([read, *others]), read)] == [b"".join(PIECES)]
    assert [*played(SessionOrder([read, sending(0)]), read)] == [b"".join(PIECES)]
