"""The SDK's helpers for state on the server: retold records them and replays them offline with the same results.

Each conversation runs sync, async, and with a client that sends through the recording proxy.
"""

import asyncio
import contextlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

import retold
from retold.comparing.reading import read_run
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from tests.clients import MODEL, NOWHERE, client, client_async
from tests.messages_server import MessagesServer, Reply, Request, text
from tests.threads_server import ThreadsServer
from tests.wire import wire

pytestmark = pytest.mark.needs("anthropic>=2.12")

CASSETTE = Path("c.yaml")
Server = Any
"""The scripted API (`ThreadsServer` for most programs), or None in a replay."""

Flow = Callable[[Any, Server], Any]
"""A program: it takes a sync or an async client, and returns results that fit into JSON."""


def run(flow: Flow, asking: Anthropic | AsyncAnthropic, server: Server) -> Any:
    """Return the result of a program. Programs are written for an async client, and `settle` awaits only awaitables."""

    async def with_client() -> Any:
        if isinstance(asking, AsyncAnthropic):
            async with asking:
                return await flow(asking, server)
        with asking:
            return await flow(asking, server)

    return asyncio.run(with_client())


async def settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


@contextlib.asynccontextmanager
async def entered(manager: Any) -> Any:
    """Enter a stream manager of either kind of client as an async one."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def each(items: Any) -> Any:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


WAYS: dict[str, Callable[[str], Any]] = {"sync": client, "async": client_async, "proxy": client}


def recorded(flow: Flow, way: str, server: ThreadsServer | MessagesServer) -> Any:
    """Run a program against the scripted API and record it into a cassette."""
    if way == "proxy":
        with wire(server.url, mode="rewrite", path=CASSETTE) as running:
            return run(flow, client(running.url), server)
    with retold.use_cassette(CASSETTE, record_mode="rewrite"):
        return run(flow, WAYS[way](server.url), server)


def replayed(flow: Flow, way: str) -> Any:
    """Run the program again without an API, and check that it plays every recorded exchange."""
    if way == "proxy":
        with wire(mode="none", path=CASSETTE) as running:
            found = run(flow, client(running.url), None)
            unplayed, misses = running.use.unplayed, running.use.misses
    else:
        with retold.use_cassette(CASSETTE) as cassette:
            found = run(flow, WAYS[way](NOWHERE), None)
            unplayed, misses = cassette.unplayed, cassette.misses
    assert (unplayed, misses) == ([], [])
    return found


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def dumped(message: Any) -> Any:
    return json.loads(message.to_json())


# Threads


async def conversation(asking: Any, server: Server) -> Any:
    """Run a thread of five turns, one of them a stream. It expires once, and a fork of it continues in another way."""
    thread = asking.beta.messages.thread(model=MODEL, max_tokens=64, system="Be short.")
    said = [dumped(await settle(thread.send(user("a"))))]
    async with entered(thread.stream(user("b"))) as stream:
        said.append(dumped(await settle(stream.get_final_message())))
    fork = thread.fork()
    if server is not None:
        server.expire()
    said.append(dumped(await settle(thread.send(user("c")))))
    said += [dumped(await settle(fork.send(user("x")))), dumped(await settle(thread.send(user("d"))))]
    return said


TURNS = ["Turn 1: a.", "Turn 2: a + b.", "Turn 3: a + b + c.", "Turn 3: a + b + x.", "Turn 4: a + b + c + d."]


@pytest.mark.parametrize("way", WAYS)
def test_a_thread_is_recorded_and_replayed(way: str) -> None:
    """The recorded ids are replayed, so each turn names the previous answer. The expired turn is repeated as recorded."""
    with ThreadsServer() as server:
        said = recorded(conversation, way, server)
        assert [message["content"][0]["text"] for message in said] == TURNS
        assert len(server.requests) == 6
    assert replayed(conversation, way) == said
    assert shown() == TURNS


def whole_histories(prompts: str) -> Flow:
    """Run a program without threads, which sends everything in each turn."""

    async def flow(asking: Any, _: Server) -> Any:
        history: list[Any] = []
        for prompt in prompts:
            history.append(user(prompt))
            call = asking.beta.messages.create(model=MODEL, max_tokens=64, system="Be short.", messages=history)
            message = await settle(call)
            history.append({"role": "assistant", "content": message.content})
        return [part["content"][0]["text"] if part["role"] == "assistant" else "" for part in map(plain, history)][1::2]

    return flow


def plain(message: Any) -> Any:
    content = message["content"]
    return message if isinstance(content, str) else {**message, "content": [dumped(block) for block in content]}


def threaded(prompts: str) -> Flow:
    """Run the same conversation as a thread."""

    async def flow(asking: Any, _: Server) -> Any:
        thread = asking.beta.messages.thread(model=MODEL, max_tokens=64, system="Be short.")
        return [dumped(await settle(thread.send(user(prompt))))["content"][0]["text"] for prompt in prompts]

    return flow


@pytest.mark.parametrize("way", WAYS)
def test_a_recording_of_either_form_answers_a_client_of_the_other_form(way: str) -> None:
    """Whole histories answer a thread, and a thread answers whole histories."""
    forms = (threaded("abc"), whole_histories("abc"))
    for one, other in (forms, forms[::-1]):
        with ThreadsServer() as server:
            said = recorded(one, way, server)
        assert said == TURNS[:3]
        assert replayed(other, way) == replayed(one, way) == said


def test_an_edited_history_is_requested_in_full(caplog: pytest.LogCaptureFixture) -> None:
    """The recorded client edited its history, so the thread cannot be joined. The SDK gets an error and sends everything."""

    async def edited(asking: Any, _: Server) -> Any:
        first = await settle(asking.beta.messages.create(model=MODEL, max_tokens=64, messages=[user("a")]))
        history = [user("a"), {"role": "assistant", "content": "(left out)"}, user("b")]
        second = await settle(asking.beta.messages.create(model=MODEL, max_tokens=64, messages=history))
        return [dumped(first), dumped(second)]

    async def as_thread(asking: Any, _: Server) -> Any:
        thread = asking.beta.messages.thread(model=MODEL, max_tokens=64)
        await settle(thread.send(user("a")))
        return await settle(thread.send(user("b")))

    with ThreadsServer() as server:
        recorded(edited, "sync", server)
    with caplog.at_level("INFO", "anthropic"), pytest.raises(retold.MissError) as caught, retold.use_cassette(CASSETTE):
        run(as_thread, client(), None)
    assert "reason=thread_not_found" in caplog.text
    assert 'messages[1].content: recorded "(left out)"' in str(caught.value)


def continued_twice(prompts: tuple[str, str]) -> Flow:
    """Continue one answer twice. The API refuses the second time."""

    async def flow(asking: Any, _: Server) -> Any:
        def ask(prompt: str, thread: Any) -> Any:
            betas = ["message-threads-2026-08-12"]
            return asking.beta.messages.create(model=MODEL, max_tokens=64, messages=[user(prompt)], thread=thread, betas=betas)

        first = await settle(ask("a", {"type": "create"}))
        found = []
        for prompt in prompts:
            try:
                found.append(dumped(await settle(ask(prompt, {"type": "continue", "previous_message_id": first.id}))))
            except anthropic.APIStatusError as error:
                found.append([error.status_code, error.body["error"]["details"]["error_code"]])  # type: ignore[index]
        return found

    return flow


@pytest.mark.parametrize("prompts", [("b", "b"), ("b", "c")])
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_can_be_continued_once(way: str, prompts: tuple[str, str]) -> None:
    """`thread_already_continued` is replayed as recorded, also for the same request."""
    with ThreadsServer() as server:
        found = recorded(continued_twice(prompts), way, server)
    assert found[1] == [400, "thread_already_continued"]
    assert replayed(continued_twice(prompts), way) == found


# Tool runners


def tools_of(asking: Any) -> list[Any]:
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"rainy in {city}"

    async def get_weather_async(city: str) -> str:
        return get_weather(city)

    get_weather_async.__name__, get_weather_async.__doc__ = get_weather.__name__, get_weather.__doc__
    if isinstance(asking, AsyncAnthropic):
        return [anthropic.beta_async_tool(get_weather_async)]
    return [anthropic.beta_tool(get_weather)]


def tool_runner(*, stream: bool = False, **options: Any) -> Flow:
    """Run a conversation with a tool in the SDK's own loop."""

    async def flow(asking: Any, _: Server) -> Any:
        runner = asking.beta.messages.tool_runner(
            model=MODEL, max_tokens=64, tools=tools_of(asking), messages=[user("The weather?")], stream=stream, **options
        )
        return [dumped(await settle(item.get_final_message()) if stream else item) async for item in each(runner)]

    return flow


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", WAYS)
def test_a_tool_runner_is_recorded_and_replayed_in_either_form(way: str, *, stream: bool) -> None:
    """It runs with threads, which is the default, and without. Each recording also answers the runner of the other form."""
    forms = (tool_runner(stream=stream), tool_runner(stream=stream, thread=False))
    for one, other in (forms, forms[::-1]):
        with ThreadsServer() as server:
            found = recorded(one, way, server)
        assert [message["content"][-1].get("text") for message in found] == [None, "It is rainy in Paris."]
        assert replayed(one, way) == replayed(other, way) == found


def test_a_runner_without_permission_for_threads_continues_without() -> None:
    """`thread_unsupported_request` is replayed. The runner then sends everything, as in the recording."""
    with ThreadsServer(unsupported=True) as server:
        found = recorded(tool_runner(), "sync", server)
        assert [request.json.get("thread") for request in server.requests] == [{"type": "create"}, None, None]
    assert replayed(tool_runner(), "sync") == found


# Sessions


async def session(asking: Any, _: Server) -> Any:
    """Send two prompts to an agent. The first stream breaks, so the program lists the events and streams again."""
    events = asking.beta.sessions.events
    created = await settle(asking.beta.sessions.create(agent="agent_01", environment_id="env_01"))
    got: list[Any] = [dumped(created)]
    async with entered(await settle(events.stream(created.id, event_deltas=["agent.message"]))) as stream:
        got.append(dumped(await settle(events.send(created.id, events=[message("Hi")]))))
        try:
            async for event in each(stream):
                got.append(dumped(event))  # noqa: PERF401 - the events before the error count
        except httpx2.TransportError as error:
            got.append({"type": type(error).__name__})
    async with entered(await settle(events.stream(created.id, event_deltas=["agent.message"]))) as stream:
        got += [dumped(event) async for event in each(events.list(created.id))]
        got.append(dumped(await settle(events.send(created.id, events=[message("Bye")]))))
        async for event in each(stream):
            got.append(dumped(event))
            if event.type == "session.status_idle":
                break
    return got


def message(prompt: str) -> Any:
    return {"type": "user.message", "content": [{"type": "text", "text": prompt}]}


@pytest.mark.parametrize("way", WAYS)
def test_a_session_is_recorded_and_replayed(way: str) -> None:
    """The broken stream, the list and the second stream are repeated as recorded. Each message is shown once."""
    with ThreadsServer(cuts=(5,)) as server:
        got = recorded(session, way, server)
    kinds = [event["type"] for event in got if "type" in event]
    assert [kinds.count(kind) for kind in ("event_delta", "RemoteProtocolError", "agent.message")] == [3, 1, 2]
    assert replayed(session, way) == got
    assert shown() == ["Hi", "You s", "You said Hi.", "Bye", "You said Bye."]


async def session_tools(asking: Any, _: Server) -> Any:
    """Run the SDK's own loop over a session. It streams and lists the events at once, and sends the results of the tools."""
    events = asking.beta.sessions.events
    created = await asking.beta.sessions.create(agent="agent_01", environment_id="env_01")
    await events.send(created.id, events=[message("The weather?")])
    runner = events.tool_runner(created.id, tools=tools_of(asking), max_idle=0.05)
    calls = [(call.name, call.is_error, call.posted) async for call in runner]
    return [calls, [dumped(event) async for event in events.list(created.id)]]


@pytest.mark.parametrize("timing", ["instant", "original"])
def test_a_tool_runner_of_a_session_is_recorded_and_replayed(timing: str) -> None:
    """The client ends the stream when the session is idle."""
    with ThreadsServer() as server, retold.use_cassette(CASSETTE, record_mode="rewrite"):
        found = run(session_tools, client_async(server.url), server)
    assert found[0] == [("get_weather", False, True)]
    with retold.use_cassette(CASSETTE, timing=timing):
        assert run(session_tools, client_async(), None) == found
    assert shown() == ["The weather?", "It is rainy in Paris."]


def test_a_tool_runner_of_a_session_is_replayed_by_a_server() -> None:
    """The server, too, delays the events until the client has sent the result that they answer."""
    with ThreadsServer() as server, wire(server.url, mode="rewrite", path=CASSETTE) as running:
        found = run(session_tools, client_async(running.url), server)
    with wire(mode="none", path=CASSETTE) as running:
        assert run(session_tools, client_async(running.url), None) == found


def shown() -> list[str]:
    """Return the texts of the messages in the cassette, in order."""
    with retold.EventLog("shown.db") as log:
        run = import_exchanges(log, retold.read_cassette(CASSETTE).exchanges, name="shown", source="test")
        return [block["text"] for message in log.messages(run) for block in message.blocks if block["type"] == "text"]


# Calls within a call


def asking_two_models(*, stream: bool) -> Flow:
    """Run the SDK's refusal fallback: a second model answers inside one call."""

    async def flow(asking: Any, _: Server) -> Any:
        from anthropic.lib.middleware import BetaFallbackState, BetaRefusalFallbackMiddleware

        falling = asking.with_options(middleware=[BetaRefusalFallbackMiddleware([{"model": "claude-second"}])])
        call = {"model": "claude-first", "max_tokens": 64, "messages": [user("May I?")]}
        with BetaFallbackState():
            if not stream:
                return dumped(await settle(falling.beta.messages.create(**call)))
            async with entered(falling.beta.messages.stream(**call)) as answer:
                return dumped(await settle(answer.get_final_message()))

    return flow


def refusing(request: Request) -> Reply:
    if request.json["model"] == "claude-first":
        # In one chunk: the SDK closes the stream at the refusal, and with several, the last event may come before or after that.
        return Reply([], stop_reason="refusal", split=100_000)
    return Reply([text("You may.")])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", WAYS)
def test_a_fallback_is_a_second_attempt_of_one_call(way: str, *, stream: bool) -> None:
    """Both exchanges belong to one call, which is one turn in a comparison."""
    with MessagesServer(refusing) as server:
        found = recorded(asking_two_models(stream=stream), way, server)
    assert [block["type"] for block in found["content"]] == ["fallback", "text"]
    places = [exchange.place for exchange in retold.read_cassette(CASSETTE).exchanges]
    assert [(place.call, place.attempt) for place in places] == [(1, 1), (1, 2)]
    assert replayed(asking_two_models(stream=stream), way) == found


def test_repeating_the_question_is_another_call() -> None:
    """Without a shared state the SDK asks the first model again. That is a new call with a second attempt."""

    async def twice(asking: Any, server: Server) -> Any:
        return [await asking_two_models(stream=False)(asking, server) for _ in range(2)]

    with MessagesServer(refusing) as server:
        found = recorded(twice, "sync", server)
    places = [exchange.place for exchange in retold.read_cassette(CASSETTE).exchanges]
    assert [(place.call, place.attempt) for place in places] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert replayed(twice, "sync") == found


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_fallback_below_the_recording_middleware_is_one_call(way: str) -> None:
    """`retold.recording` inside the fallback gets both requests."""
    from anthropic.lib.middleware import BetaRefusalFallbackMiddleware

    async def flow(asking: Any, _: Server) -> Any:
        with retold.recording(log) as recording:
            falling = asking.with_options(middleware=[BetaRefusalFallbackMiddleware([{"model": "claude-second"}]), recording])
            await settle(falling.beta.messages.create(model="claude-first", max_tokens=64, messages=[user("May I?")]))
            return recording.run

    with retold.EventLog("log.db") as log, MessagesServer(refusing) as server:
        made = run(flow, WAYS[way](server.url), server)
        places = [exchange.place for exchange in exchanges_of(log, made)]
    assert [(place.call, place.attempt) for place in places] == [(1, 1), (1, 2)]


def test_a_fallback_is_one_turn_of_its_conversation() -> None:
    """The options of the second model are an item of the same turn, so a comparison of two recordings finds no difference."""
    sides = []
    for name in ("a.db", "b.db"):
        with MessagesServer(refusing) as server:
            recorded(asking_two_models(stream=True), "sync", server)
        with retold.EventLog(name) as log:
            exchanges = retold.read_cassette(CASSETTE).exchanges
            sides.append(read_run(log, import_exchanges(log, exchanges, name="asked", source="test")))
    assert retold.compare(*sides).same
    (conversation,) = sides[0].streams
    assert {item.turn for item in conversation.items} == {1}
