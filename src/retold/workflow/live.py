"""The API of a live run: the `anthropic` SDK against the real endpoint, recorded by the tee while it streams.

Only live runs import this module, because the SDK takes over a second to import.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anthropic

from ..recorder.errors import InputError
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Place, Request
from ..recorder.http.patching import intercepted
from ..recorder.http.tee import Recorder, transport_errors
from ..recorder.log.log import RunWriter
from ..recorder.messages import Session
from ..recorder.secrets.redactor import MIN_SECRET_CHARS, Redactor
from .agent import Reply, reply_of
from .pricing import price
from .retry import REPEATED, asked_delay_s, delay_s
from .schema import RetryConfig


class LiveApi:
    """Answers the requests of one conversation through the SDK. Leaving the async context closes the connections.

    It repeats failed requests according to `retries`, including broken streams, which the SDK does not repeat. Calls are
    numbered after `calls`.
    """

    def __init__(
        self, writer: RunWriter, *, step: str, task: str, variables: Mapping[str, str], retries: RetryConfig, cost_tracking: bool,
        notify: Callable[[str], None] = lambda _: None, calls: int = 0,
    ) -> None:  # fmt: skip
        self._client = anthropic.AsyncAnthropic(max_retries=0)
        self._writer = writer
        self._step = step
        self._task = task
        self._variables = dict(variables)
        self._retries = retries
        self._notify = notify
        # A key from a profile is in no environment variable. Name it here, so that the output of tools is scrubbed of it too.
        keys = (self._client.api_key, self._client.auth_token)
        writer.redactor = Redactor(extra=[key for key in keys if key and len(key) >= MIN_SECRET_CHARS])
        self._price = price if cost_tracking else None
        self._calls = calls
        self.unfinished: Reply | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def ask(self, body: dict[str, Any], session: Session, *, call: int | None = None, attempt: int = 1) -> Reply:
        """Send a request and read the answer to its end. The reply holds any failure, as the recording does.

        With `call` this is the attempt of that number of an earlier call.
        """
        self._calls = self._calls + 1 if call is None else call
        for number in range(attempt, self._retries.max_retries + 2):
            capture, reply = await self._attempt(body, session, number)
            wait_s = self._wait_s(capture, reply, number)
            if wait_s is None:
                break
            self._notify(f"attempt {number} of {self._retries.max_retries + 1}: {reply.error}; again in {wait_s:.1f} s")
            await asyncio.sleep(wait_s)
        return reply

    def _wait_s(self, capture: Capture, reply: Reply, attempt: int) -> float | None:
        """Return the pause before the next attempt in seconds, or None if there is none."""
        headers = {name.lower(): value for name, value in capture.headers}
        said = headers.get("x-should-retry")
        repeated = said == "true" or (said != "false" and (reply.failure in REPEATED or capture.status in (408, 409)))
        if reply.error is None or not repeated or attempt > self._retries.max_retries:
            return None
        asked_s = asked_delay_s(headers)
        return delay_s(self._retries, attempt) if asked_s is None else asked_s

    async def _attempt(self, body: dict[str, Any], session: Session, attempt: int) -> tuple[Capture, Reply]:
        captures: list[Capture] = []

        def begin(request: Request) -> Capture:
            place = Place(self._step, self._task, self._calls, attempt, "pull", self._variables)
            captures.append(Capture(self._writer, request, place=place, session=session, price=self._price))
            return captures[-1]

        failure: Exception | None = None
        failures: tuple[type[Exception], ...] = (anthropic.APIError, ValueError, *transport_errors())
        try:
            with intercepted(Recorder(begin)):
                stream = await self._create(body)
                try:
                    async for _ in stream:
                        pass
                finally:  # older SDKs leave a stream open that ends in an error event
                    await stream.close()
        except failures as error:
            failure = error  # ValueError: a frame whose data is not JSON
        except asyncio.CancelledError:
            if captures and captures[-1].ending is not None:
                self.unfinished = self._reply(captures[-1], None)
            raise
        if not captures:
            raise failure or InputError("the SDK sent no request that could be recorded.")
        return captures[-1], self._reply(captures[-1], failure)

    def _reply(self, capture: Capture, failure: Exception | None) -> Reply:
        first_ns = None if capture.first_ns is None else capture.first_ns - capture.started_ns
        reply = reply_of(
            capture, started_ns=capture.started_ns, first_ns=first_ns, ended_ns=capture.ended_ns - capture.started_ns
        )
        if isinstance(failure, ValueError):
            return replace(reply, error=f"the SDK could not read the answer: {failure}", failure="other")
        if reply.ending == "no_response":
            return replace(reply, error=f"{reply.error} (asked {self._client.base_url})")
        return reply

    async def _create(self, body: dict[str, Any]) -> Any:
        """Send the body unchanged. Keys that are no parameters of the SDK's method (temperature, since 2.12) go into
        `extra_body`.
        """
        direct = {key: body[key] for key in ("model", "max_tokens", "messages", "stream")}
        return await self._client.messages.create(**direct, extra_body={k: v for k, v in body.items() if k not in direct})


def check_credentials() -> None:
    """Raise InputError if the SDK has no credentials."""
    client = anthropic.Anthropic()
    try:
        # `credentials` exists since 0.110.
        if client.api_key or client.auth_token or getattr(client, "credentials", None) is not None:
            return
    finally:
        client.close()
    base = os.environ.get("ANTHROPIC_BASE_URL")
    raise InputError(
        f"live mode needs a key{f' for {base}' if base else ''}: set ANTHROPIC_API_KEY, or run without --live "
        "(and without TEST_MODE=live) to replay the recording."
    )
