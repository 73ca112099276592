"""The recorded ending of a stream is the ending that its client chose. Recording does not delay the stream."""

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from tests.clients import ASKING, body, client, client_async
from tests.messages_server import MessagesServer, Reply, text

CASSETTE = Path("c.yaml")
HELLO = Reply([text("Hello there")])
HANGING = Reply([text("Hello there")], hang_after=4)

Leave = Callable[[str], int]
"""leave(url) -> the number of events that the client received of a stream that it did not read to its end"""


def opened(url: str) -> tuple[anthropic.Anthropic, Any]:
    asking = client(url, max_retries=0)
    return asking, asking.messages.create(**body(), stream=True)


def early_exit(url: str) -> int:
    asking, stream = opened(url)
    with asking, stream:
        return len([event.type for event, _ in zip(stream, range(2), strict=False)])


def close(url: str) -> int:
    asking, stream = opened(url)
    with asking:
        seen = [next(stream), next(stream)]
        stream.close()
        return len(seen)


def drop(url: str) -> int:
    asking, stream = opened(url)
    with asking:
        seen = [next(stream), next(stream)]
        del stream
        gc.collect()
        return len(seen)


def leave_helper(url: str) -> int:
    with client(url) as asking, asking.messages.stream(**body()) as stream:
        return len([event.type for event, _ in zip(stream, range(2), strict=False)])


def on_a_loop(leave: Callable[[Any], Any]) -> Leave:
    def run(url: str) -> int:
        async def use() -> int:
            async with client_async(url, max_retries=0) as asking:
                seen: int = await leave(await asking.messages.create(**body(), stream=True))
                return seen

        return asyncio.run(use())

    return run


async def _early_exit(stream: Any) -> int:
    async with stream:
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 2:
                break
    return seen


async def _close(stream: Any) -> int:
    seen = [await anext(stream), await anext(stream)]
    await stream.close()
    return len(seen)


async def _drop(stream: Any) -> int:
    seen = [await anext(stream), await anext(stream)]
    del stream
    gc.collect()
    await asyncio.sleep(0)
    return len(seen)


async def _cancel(stream: Any) -> int:
    seen, reached = [], asyncio.Event()

    async def read() -> None:
        async with stream:
            async for event in stream:
                seen.append(event)
                if len(seen) == 2:
                    reached.set()

    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    return len(seen)


async def _timeout(stream: Any) -> int:
    seen = 0
    try:
        async with asyncio.timeout(None) as limit, stream:
            async for _ in stream:
                seen += 1
                if seen == 2:
                    limit.reschedule(asyncio.get_running_loop().time())
    except TimeoutError:
        return seen
    raise AssertionError("nothing timed out")


LEAVING: dict[str, Leave] = {
    "early exit": early_exit,
    "close": close,
    "drop": drop,
    "leave helper": leave_helper,
    "async early exit": on_a_loop(_early_exit),
    "async close": on_a_loop(_close),
    "async drop": on_a_loop(_drop),
    "async cancel": on_a_loop(_cancel),
    "async timeout": on_a_loop(_timeout),
}


@pytest.mark.trap(15)
@pytest.mark.parametrize("how", LEAVING)
def test_a_stream_that_its_client_left_is_recorded_as_closed(how: str) -> None:
    """The client may leave in any way. The received bytes are recorded once, without a failure, because leaving is no error."""
    with MessagesServer([HANGING]) as server:
        with retold.use_cassette(CASSETTE, record_mode="once"):
            seen = LEAVING[how](server.url)
        assert server.wait_idle()
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert exchange.response is not None
    assert (exchange.ending, exchange.failure, server.closed_early) == ("closed", None, 1)
    assert seen >= 2
    assert exchange.response.body == server.bodies[0][: len(exchange.response.body)] != b""


@pytest.mark.parametrize("how", LEAVING)
def test_a_stream_that_its_client_left_can_be_left_again(how: str) -> None:
    """Offline, the same client does the same and gets the same events. The replay waits for the client to close the stream."""
    with MessagesServer([HANGING]) as server, retold.use_cassette(CASSETTE, record_mode="once"):
        seen = LEAVING[how](server.url)
    with retold.use_cassette(CASSETTE) as cassette:
        assert LEAVING[how]("http://127.0.0.1:9") == seen
        assert cassette.all_played


def drop_unread(url: str) -> int:
    asking, stream = opened(url)
    with asking:
        del stream
        gc.collect()
        return 0


async def _drop_unread(stream: Any) -> int:
    del stream
    gc.collect()
    await asyncio.sleep(0)
    return 0


@pytest.mark.trap(15)
@pytest.mark.parametrize(
    "dropped",
    [drop, drop_unread, on_a_loop(_drop), on_a_loop(_drop_unread)],
    ids=["read", "unread", "async read", "async unread"],
)
def test_the_next_recorded_stream_ends_a_dropped_one(dropped: Leave) -> None:
    """The ending is in the log before the block ends, so that readers of the log do not wait."""
    with MessagesServer([HANGING, HELLO]) as server, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        dropped(server.url)
        ASKING["sync"]("later", server.url)
        assert cassette.log is not None
        assert cassette.run is not None
        ended = [event.data["ending"] for event in cassette.log.events(cassette.run, kinds=("exchange.ended",))]
    assert ended == ["closed", "complete"]


@pytest.mark.trap(16)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_closed_right_after_its_last_event_is_complete(kind: str) -> None:
    """The server kept the connection open for a moment, but the message was complete."""

    async def read_async(url: str) -> None:
        async with client_async(url) as asking:
            stream = await asking.messages.create(**body(), stream=True)
            async for event in stream:
                if event.type == "message_stop":
                    break
            await stream.close()

    def read(url: str) -> None:
        asking, stream = opened(url)
        with asking:
            while next(stream).type != "message_stop":
                pass
            stream.close()

    frames = len(HELLO.frames(HELLO.message({}, 1)))
    with MessagesServer([Reply([text("Hello there")], hang_after=frames)]) as server:
        with retold.use_cassette(CASSETTE, record_mode="once"):
            read(server.url) if kind == "sync" else asyncio.run(read_async(server.url))
        assert server.wait_idle()
    (exchange,) = retold.read_cassette(CASSETTE).exchanges
    assert exchange.response is not None
    assert (exchange.ending, exchange.response.body, server.closed_early) == ("complete", server.bodies[0], 1)


@pytest.mark.trap(1)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_first_event_arrives_before_the_second_is_sent(kind: str) -> None:
    """Recording a cassette does not delay events."""

    async def read_async(url: str) -> list[int]:
        async with client_async(url) as asking, await asking.messages.create(**body(), stream=True) as stream:
            return [time.monotonic_ns() async for _ in stream]

    def read(url: str) -> list[int]:
        asking, stream = opened(url)
        with asking, stream:
            return [time.monotonic_ns() for _ in stream]

    with (
        MessagesServer([Reply([text("Hello there")], gap_s=[0.2])]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
    ):
        seen = read(server.url) if kind == "sync" else asyncio.run(read_async(server.url))
    sent = [at for at, _ in server.sent[0]]
    assert sent[0] < seen[0] < sent[1]
