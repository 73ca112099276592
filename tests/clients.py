"""Real clients for tests of cassettes, sync and async, that ask one question at a time, and a server that echoes it."""

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
"""An address without a server: a replay from it can return only recorded answers."""


def body(prompt: str = "hi", **fields: Any) -> dict[str, Any]:
    """Return the arguments of a call."""
    return {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **fields}


def echo(request: Request) -> Reply:
    """Return a reply that echoes the prompt, identical for identical prompts."""
    return Reply([text(f"You said {request.json['messages'][-1]['content']}.")], id="msg_echo")


def serve(*answers: str) -> MessagesServer:
    """Return a server that gives these answers in turn. Without answers it echoes."""
    return MessagesServer([Reply([text(answer)]) for answer in answers] or echo)


def client(url: str = NOWHERE, **options: Any) -> Anthropic:
    """Return a client as users create it, but without the certificates of the machine, because the tests use no TLS."""
    return Anthropic(base_url=url, **{"api_key": "test-key", "http_client": DefaultHttpxClient(verify=False), **options})


def client_async(url: str = NOWHERE, **options: Any) -> AsyncAnthropic:
    """Return the async counterpart of `client`."""
    return AsyncAnthropic(
        base_url=url, **{"api_key": "test-key", "http_client": DefaultAsyncHttpxClient(verify=False), **options}
    )


def answer_text(asking: Anthropic, prompt: str = "hi", **fields: Any) -> str:
    """Return the text of a streamed answer."""
    with asking.messages.stream(**body(prompt, **fields)) as stream:
        return stream.get_final_text()


async def answer_text_async(asking: AsyncAnthropic, prompt: str = "hi", **fields: Any) -> str:
    """Return the text of a streamed answer, with an async client."""
    async with asking.messages.stream(**body(prompt, **fields)) as stream:
        return await stream.get_final_text()


Ask = Callable[..., str]
"""ask(prompt="hi", url=NOWHERE, **fields of the call) -> the text of the streamed answer"""


def ask(prompt: str = "hi", url: str = NOWHERE, **fields: Any) -> str:
    """Ask with a new client."""
    with client(url) as asking:
        return answer_text(asking, prompt, **fields)


def ask_async(prompt: str = "hi", url: str = NOWHERE, **fields: Any) -> str:
    """Ask with a new async client in a new event loop."""

    async def run() -> str:
        async with client_async(url) as asking:
            return await answer_text_async(asking, prompt, **fields)

    return asyncio.run(run())


ASKING: dict[str, Ask] = {"sync": ask, "async": ask_async}


def record(path: Path, *prompts: str, **options: Any) -> Path:
    """Record a cassette of these questions, each answered with its own text."""
    with serve() as server, retold.use_cassette(path, record_mode="rewrite", **options):
        for prompt in prompts or ("hi",):
            ask(prompt, server.url)
    return path


def prompts_of(path: Path) -> list[str]:
    """Return the prompts of a cassette, in recorded order."""
    exchanges = retold.read_cassette(path).exchanges
    return [json.loads(exchange.request.body)["messages"][-1]["content"] for exchange in exchanges]


# Concurrent questions


def gathered(prompts: Sequence[str], url: str = NOWHERE) -> list[str]:
    """Return the answers to questions asked at once, in tasks of one client."""

    async def run() -> list[str]:
        async with client_async(url) as asking:
            return list(await asyncio.gather(*(answer_text_async(asking, prompt) for prompt in prompts)))

    return asyncio.run(run())


def threaded(prompts: Sequence[str], url: str = NOWHERE, **options: Any) -> list[str]:
    """Return the answers to questions asked at once, in threads of one client."""
    together = threading.Barrier(len(prompts))

    def run(prompt: str) -> str:
        together.wait(20)
        return answer_text(asking, prompt)

    with client(url, **options) as asking, ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(run, prompts))


class Meeting:
    """A meeting point of two threads. If the second does not arrive in time, the first continues alone."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2, timeout=0.2)

    def wait(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._barrier.wait()


class MeetingLog(retold.EventLog):
    """A log in which two runs begin at the same moment, if the code allows it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._meeting = Meeting()

    def start(self, **options: Any) -> Any:
        self._meeting.wait()
        return super().start(**options)
