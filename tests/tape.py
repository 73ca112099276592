"""Real clients and a recorder for them: how a client consumes an answer, and the log's record of it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anthropic

from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Exchange, Place, Request, header
from retold.recorder.http.patching import intercepted
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog

ASK: Any = {"model": "claude-test", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


class Seen(NamedTuple):
    """A client's view of one answer: its events as JSON, and the exception that ended it."""

    events: list[dict[str, Any]]
    error: str | None


Consume = Callable[..., Seen]
"""consume(url, *, stop_after=None, retries=0, http_client=None, body=ASK) -> Seen"""


def consume_sync(
    url: str, *, stop_after: int | None = None, retries: int = 0, http_client: Any = None, body: Any = ASK
) -> Seen:  # fmt: skip
    """Stream an answer to its end with the sync client, or close it after some events."""
    events: list[dict[str, Any]] = []
    try:
        with (
            anthropic.Anthropic(base_url=url, api_key="test-key", max_retries=retries, http_client=http_client) as client,
            client.messages.create(**body, stream=True) as stream,
        ):
            for event in stream:
                events.append(event.to_dict())
                if len(events) == stop_after:
                    break
    except Exception as error:
        return Seen(events, name_of(error))
    return Seen(events, None)


def consume_async(
    url: str, *, stop_after: int | None = None, retries: int = 0, http_client: Any = None, body: Any = ASK
) -> Seen:  # fmt: skip
    """Stream an answer to its end with the async client, or close it after some events."""
    events: list[dict[str, Any]] = []

    async def consume() -> None:
        async with (
            anthropic.AsyncAnthropic(base_url=url, api_key="test-key", max_retries=retries, http_client=http_client) as client,
            await client.messages.create(**body, stream=True) as stream,
        ):
            async for event in stream:
                events.append(event.to_dict())
                if len(events) == stop_after:
                    break

    try:
        asyncio.run(consume())
    except Exception as error:
        return Seen(events, name_of(error))
    return Seen(events, None)


BOTH: dict[str, Consume] = {"sync": consume_sync, "async": consume_async}


def name_of(error: BaseException) -> str:
    return f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"


class Tape:
    """A run that records the answers of the clients in `on()`, and reads them back."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.writer = log.start(name="tape", mode="live")
        self.captures: list[Capture] = []

    @property
    def run(self) -> str:
        return self.writer.run

    def begin(self, request: Request) -> Capture:
        """Begin the capture of a request. The SDK sends the number of the attempt in a header."""
        attempt = int(header(request.headers, "x-stainless-retry-count") or 0) + 1
        self.captures.append(Capture(self.writer, request, place=Place(attempt=attempt)))
        return self.captures[-1]

    def on(self) -> AbstractContextManager[None]:
        return intercepted(Recorder(self.begin))

    def exchanges(self) -> list[Exchange]:
        return exchanges_of(self.log, self.run)

    def only(self) -> Exchange:
        """Return the only exchange of the run."""
        (exchange,) = self.exchanges()
        return exchange

    def kinds(self) -> list[str]:
        return [event.kind for event in self.log.events(self.run)]

    def texts(self) -> list[str]:
        """Return the texts of the run's assistant messages."""
        messages = (message for message in self.log.messages(self.run) if message.type == "assistant")
        return [str(block["text"]) for message in messages for block in message.blocks if "text" in block]


@contextmanager
def recording(folder: Path) -> Iterator[Tape]:
    """Record a tape in a new log."""
    with EventLog(folder / "tape.db") as log:
        tape = Tape(log)
        with tape.on():
            yield tape
        tape.writer.end()


def sent_events(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a body as a client of the SDK sees them, without pings."""
    lines = (line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: "))
    return [event for event in map(json.loads, lines) if event["type"] != "ping"]
