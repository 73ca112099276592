"""Errors of unrecorded requests: misses, missing and damaged cassettes, and requests after the end of a block."""

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from retold.recorder.http.exchange import Request
from tests.clients import ASKING, NOWHERE, Ask, answer_text_async, ask, body, client, client_async, record, serve

CASSETTE = Path("c.yaml")


@pytest.fixture(name="ask", params=ASKING)
def _ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


async def create_async(**fields: Any) -> Any:
    async with client_async(max_retries=2) as asking:
        return await asking.messages.create(**body("new", **fields))


def create(**fields: Any) -> Any:
    with client(max_retries=2) as asking:
        return asking.messages.create(**body("new", **fields))


HOW: dict[str, Callable[[], Any]] = {
    "sync": create,
    "sync stream": lambda: create(stream=True),
    "async": lambda: asyncio.run(create_async()),
    "async stream": lambda: asyncio.run(create_async(stream=True)),
}


@pytest.mark.trap(35)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("is_there", [True, False], ids=["another cassette", "no cassette"])
def test_a_miss_reaches_the_caller_at_once_and_is_not_retried(how: str, is_there: bool, slept: list[float]) -> None:
    """The SDK neither retries nor waits. The error is one of retold and one of the SDK."""
    if is_there:
        record(CASSETTE)
    with retold.use_cassette(CASSETTE) as cassette:
        for _ in range(3):
            with pytest.raises(retold.MissError) as miss:
                HOW[how]()
    assert slept == []
    assert len(cassette.misses) == 3
    assert isinstance(miss.value, anthropic.AnthropicError)
    assert miss.value.exit_code == 3
    assert str(miss.value) == cassette.misses[-1]


@pytest.mark.trap(27)
def test_a_miss_names_the_nearest_recording_the_difference_and_the_way_out(ask: Ask) -> None:
    """The nearest recording is the one with the fewest differences."""
    record(CASSETTE, "hi", "How are you?")
    with retold.use_cassette(CASSETTE), pytest.raises(retold.MissError) as miss:
        ask("How old are you?", system="Be brief.")
    assert str(miss.value) == (
        "no recorded exchange answers call 1, POST /v1/messages, in c.yaml.\n"
        "Nearest is recorded exchange 1; it differs in:\n"
        '  messages[0].content: recorded "hi", now "How old are you?"\n'
        '  system: not recorded, now "Be brief."\n'
        'Record the missing requests with record_mode="new_episodes" (pytest: --retold-mode=new_episodes, elsewhere: '
        "RETOLD_RECORD_MODE=new_episodes)."
    )


def test_the_miss_of_a_repeated_request_counts_its_recordings(ask: Ask) -> None:
    """This is the third request for two recordings."""
    record(CASSETTE, "hi", "hi")
    with retold.use_cassette(CASSETTE):
        ask("hi")
        ask("hi")
        with pytest.raises(retold.MissError) as miss:
            ask("hi")
    assert str(miss.value).splitlines()[0] == (
        "no recorded exchange answers call 3, POST /v1/messages, in c.yaml: the same request was recorded twice and has been "
        "played twice already."
    )


def test_a_miss_of_a_predicate_names_the_predicate(ask: Ask) -> None:
    """The played exchange belongs to another request, so the miss is not a repetition. No named rule differs."""

    def same_body(asked: Request, recorded: Request) -> bool:
        return asked.body == recorded.body

    record(CASSETTE, "a", "b")
    with retold.use_cassette(CASSETTE, match_on=[same_body]):
        ask("a")
        with pytest.raises(retold.MissError) as miss:
            ask("z")
    assert str(miss.value).splitlines()[0] == (
        "no recorded exchange answers call 2, POST /v1/messages, in c.yaml: it was recorded, but "
        "same_body in match_on rejects it."
    )


def test_the_error_of_a_missing_cassette_names_the_way_to_record_it(ask: Ask) -> None:
    """The test compares the whole message."""
    with retold.use_cassette("cassettes/new.yaml"), pytest.raises(retold.MissError) as miss:
        ask("hi")
    assert str(miss.value) == (
        "no cassette at cassettes/new.yaml.\n"
        'Record it with record_mode="once" (pytest: --retold-mode=once, elsewhere: RETOLD_RECORD_MODE=once).'
    )


@pytest.mark.trap(44)
def test_an_empty_cassette_has_no_exchanges(ask: Ask) -> None:
    """Its error differs from that of a missing cassette."""
    CASSETTE.write_text("version: 1\ninteractions: []\n")
    with retold.use_cassette(CASSETTE), pytest.raises(retold.MissError, match=r"in c\.yaml: it holds no exchanges\.\n"):
        ask("hi")


def test_a_swallowed_miss_is_still_counted() -> None:
    """An application that catches every error of the SDK cannot hide it."""
    record(CASSETTE)
    with retold.use_cassette(CASSETTE) as cassette:
        for _ in range(2):
            try:
                ask("other")
            except anthropic.AnthropicError:
                continue
    assert [text.splitlines()[0] for text in cassette.misses] == [
        "no recorded exchange answers call 1, POST /v1/messages, in c.yaml."
    ] * 2


DAMAGED = {
    "not YAML": ("version: 1\ninteractions: [\n", r"c\.yaml:3: the cassette is damaged"),
    "no interactions": ("hello\n", r"c\.yaml is not a cassette"),
    "an entry": ("version: 1\ninteractions:\n- request: {}\n  response: {}\n", r"c\.yaml:3: interaction 1 is damaged"),
    "newer": ("version: 1\nretold: {format: 99}\ninteractions: []\n", "written by a newer retold"),
}


@pytest.mark.trap(45)
@pytest.mark.parametrize("mode", ["none", "once", "new_episodes", "refresh", "all", "rewrite", "verify"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_cassette_is_an_error_and_is_never_overwritten(damage: str, mode: str) -> None:
    """This is true in every mode, before any request is sent."""
    content, message = DAMAGED[damage]
    CASSETTE.write_text(content)
    with (
        serve() as server,
        pytest.raises(retold.CassetteError, match=message),
        retold.use_cassette(CASSETTE, record_mode=mode),
    ):
        ask("hi", server.url)
    assert (CASSETTE.read_text(), server.calls) == (content, 0)


# Requests after the end of a block


TOO_LATE = r"a\.yaml is no longer in use: POST http://127\.0\.0\.1:\d+/v1/messages came after its block ended\."


def leak_thread(go: threading.Event, work: Callable[[], Any]) -> Callable[[], BaseException | None]:
    """Start a waiting thread. Return a function that lets it work and returns its error."""
    caught: list[BaseException | None] = []

    def run() -> None:
        go.wait(20)
        try:
            work()
            caught.append(None)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def finish() -> BaseException | None:
        go.set()
        thread.join()
        return caught[0]

    return finish


def leak_pool(go: threading.Event, work: Callable[[], Any]) -> Callable[[], BaseException | None]:
    """Do the same in a pool."""
    pool = ThreadPoolExecutor(1)

    def run() -> None:
        go.wait(20)
        work()

    future = pool.submit(run)

    def finish() -> BaseException | None:
        go.set()
        with pool:
            return future.exception()

    return finish


@pytest.mark.trap(39)
@pytest.mark.parametrize("mode", ["none", "all"])
def test_work_that_outlives_its_block_never_reaches_the_next_cassette(mode: str, ask: Ask) -> None:
    """It neither reads nor writes the next cassette, nor reaches the network. Its miss names its own cassette."""
    record(Path("a.yaml"))
    record(Path("b.yaml"))
    before = [Path(name).read_bytes() for name in ("a.yaml", "b.yaml")]
    with serve() as server:
        with retold.use_cassette("a.yaml", record_mode=mode):
            finish = leak_pool(threading.Event(), lambda: ask("hi", server.url))
        with retold.use_cassette("b.yaml", record_mode=mode) as cassette:
            error = finish()
        assert server.calls == 0
    assert isinstance(error, retold.MissError)
    assert re.fullmatch(TOO_LATE, str(error))
    assert (cassette.play_count, cassette.recorded, cassette.misses) == (0, 0, [])
    assert [Path(name).read_bytes() for name in ("a.yaml", "b.yaml")] == before


@pytest.mark.trap(39)
def test_a_thread_that_outlives_its_block_uses_the_next_one(ask: Ask) -> None:
    """Applications keep worker threads for the work of any block. A thread's first cassette is closed and never answers."""
    record(Path("a.yaml"))
    record(Path("b.yaml"))
    with serve() as server:
        with retold.use_cassette("a.yaml") as closed:
            finish = leak_thread(threading.Event(), lambda: ask("hi", server.url))
        with retold.use_cassette("b.yaml") as cassette:
            assert finish() is None
        assert (closed.play_count, cassette.play_count, server.calls) == (0, 1, 0)


def test_a_thread_that_outlives_every_block_does_not_go_live(ask: Ask) -> None:
    """Without an open block, the thread's own cassette refuses the request by name."""
    record(Path("a.yaml"))
    with serve() as server:
        with retold.use_cassette("a.yaml"):
            finish = leak_thread(threading.Event(), lambda: ask("hi", server.url))
        error = finish()
        assert server.calls == 0
    assert isinstance(error, retold.MissError)
    assert re.fullmatch(TOO_LATE, str(error))


def test_a_task_that_outlives_its_block_never_reaches_the_next_cassette() -> None:
    """It keeps the context of its creation."""
    record(Path("a.yaml"))
    record(Path("b.yaml"))

    async def leak() -> tuple[BaseException | None, int]:
        go = asyncio.Event()

        async def late(asking: anthropic.AsyncAnthropic) -> str:
            await go.wait()
            return await answer_text_async(asking)

        async with client_async() as asking:
            with retold.use_cassette("a.yaml"):
                task = asyncio.create_task(late(asking))
                await asyncio.sleep(0)
            with retold.use_cassette("b.yaml") as cassette:
                go.set()
                (error,) = await asyncio.gather(task, return_exceptions=True)
        return error if isinstance(error, BaseException) else None, cassette.play_count

    error, played = asyncio.run(leak())
    assert isinstance(error, retold.MissError)
    assert re.fullmatch(TOO_LATE, str(error))
    assert played == 0


def test_a_client_can_be_used_in_several_blocks() -> None:
    """A client belongs to no cassette. Each request uses the block in which it is made."""
    record(Path("a.yaml"), "a")
    record(Path("b.yaml"), "b")
    with client(NOWHERE) as asking:
        for name in ("a", "b"):
            with retold.use_cassette(f"{name}.yaml") as cassette:
                asking.messages.create(**body(name), stream=True).close()
                assert cassette.all_played
