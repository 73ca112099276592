"""Real clients for tests of cassettes: one question at a time, sync or async, and a server that answers each with itself."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from anthropic import Anthropic, AsyncAnthropic, DefaultAsyncHttpxClient, DefaultHttpxClient

import retold
from tests.messages_server import MessagesServer, Reply, Request, text

MODEL = "claude-sonnet-5-5"
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there: whoever replays from it has no other answer than the recorded one."""


def body(prompt: str = "hi", **fields: Any) -> dict[str, Any]:
    """The arguments of a call."""
    return {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **fields}


def echo(request: Request) -> Reply:
    """Answers every prompt with itself, the same each time."""
    return Reply([text(f"You said {request.json['messages'][-1]['content']}.")], id="msg_echo")


def serve(*answers: str) -> MessagesServer:
    """A server that gives these answers in turn; without any it echoes."""
    return MessagesServer([Reply([text(answer)]) for answer in answers] or echo)


def client(url: str = NOWHERE, **options: Any) -> Anthropic:
    """A client as users make it, but without reading the machine's certificates: nothing here needs them."""
    return Anthropic(base_url=url, **{"api_key": "test-key", "http_client": DefaultHttpxClient(verify=False), **options})


def client_async(url: str = NOWHERE, **options: Any) -> AsyncAnthropic:
    """The same for an event loop."""
    return AsyncAnthropic(
        base_url=url, **{"api_key": "test-key", "http_client": DefaultAsyncHttpxClient(verify=False), **options}
    )


def say(asking: Anthropic, prompt: str = "hi", **fields: Any) -> str:
    """The streamed answer's text."""
    with asking.messages.stream(**body(prompt, **fields)) as stream:
        return stream.get_final_text()


async def say_async(asking: AsyncAnthropic, prompt: str = "hi", **fields: Any) -> str:
    """The same with an async client."""
    async with asking.messages.stream(**body(prompt, **fields)) as stream:
        return await stream.get_final_text()


Ask = Callable[..., str]
"""ask(prompt="hi", url=NOWHERE, **fields of the call) -> the streamed answer's text"""


def ask(prompt: str = "hi", url: str = NOWHERE, **fields: Any) -> str:
    """Ask with a client of its own."""
    with client(url) as asking:
        return say(asking, prompt, **fields)


def ask_async(prompt: str = "hi", url: str = NOWHERE, **fields: Any) -> str:
    """The same with an async client and a loop of its own."""

    async def run() -> str:
        async with client_async(url) as asking:
            return await say_async(asking, prompt, **fields)

    return asyncio.run(run())


ASKING: dict[str, Ask] = {"sync": ask, "async": ask_async}


def record(path: Path, *prompts: str, **options: Any) -> Path:
    """Record a cassette of these questions, each answered with itself."""
    with serve() as server, retold.use_cassette(path, record_mode="rewrite", **options):
        for prompt in prompts or ("hi",):
            ask(prompt, server.url)
    return path


def prompts_of(path: Path) -> list[str]:
    """The prompts in a cassette, in recorded order."""
    exchanges = retold.read_cassette(path).exchanges
    return [json.loads(exchange.request.body)["messages"][-1]["content"] for exchange in exchanges]


# Several at once


def gathered(prompts: Sequence[str], url: str = NOWHERE) -> list[str]:
    """The answers to questions asked at once, in tasks of one client."""

    async def run() -> list[str]:
        async with client_async(url) as asking:
            return list(await asyncio.gather(*(say_async(asking, prompt) for prompt in prompts)))

    return asyncio.run(run())


def threaded(prompts: Sequence[str], url: str = NOWHERE, **options: Any) -> list[str]:
    """The same in threads."""
    together = threading.Barrier(len(prompts))

    def run(prompt: str) -> str:
        together.wait(20)
        return say(asking, prompt)

    with client(url, **options) as asking, ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(run, prompts))


class Meeting:
    """A place where two threads meet if they can be there at the same time; if not, the first goes on alone."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=0.2)

    def wait(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._barrier.wait()


class MeetingLog(retold.EventLog):
    """A log in which two runs begin at the same moment, if they can."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._meeting = Meeting()

    def start(self, **options: Any) -> Any:
        self._meeting.wait()
        return super().start(**options)
