"""The API of a live run: the `anthropic` SDK against the real endpoint, recorded by the tee as it streams.

Imported by live runs only: the SDK takes over a second to import.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import anthropic
import httpx2

from ..recorder.capture import Capture, Place
from ..recorder.errors import InputError
from ..recorder.exchange import Request
from ..recorder.messages import Session
from ..recorder.redact import MIN_SECRET_CHARS, Redactor
from ..recorder.tee import Recorder, intercepted
from ..recorder.writer import RunWriter
from .agent import Reply, reply_of
from .pricing import price

WAYS_OUT = {
    401: "check ANTHROPIC_API_KEY",
    403: "check what the key may do",
    404: "check the model's name",
    429: "try again later, or raise retry_config.max_retries",
    529: "try again later, raise retry_config.max_retries, or name a fallback_model",
}
"""What a person can do about an answer of the API."""


class LiveApi:
    """Answers the requests of one step through the SDK. An async context manager: leaving it closes the connections."""

    def __init__(
        self, writer: RunWriter, session: Session, *, step: str, variables: Mapping[str, str], max_retries: int,
        cost_tracking: bool,
    ) -> None:  # fmt: skip
        self._client = anthropic.AsyncAnthropic(max_retries=max_retries)
        self._writer = writer
        self._session = session
        self._step = step
        self._variables = dict(variables)
        # A key that came from a profile stands in no environment variable; what tools print is scrubbed of it too.
        keys = (self._client.api_key, self._client.auth_token)
        writer.redactor = Redactor(extra=[key for key in keys if key and len(key) >= MIN_SECRET_CHARS])
        self._price = price if cost_tracking else None
        self._recorder = Recorder(self._begin)
        self._captures: list[Capture] = []
        self._calls = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()

    async def ask(self, body: dict[str, Any]) -> Reply:
        """Send and read to the end. What goes wrong is in the reply, as it is in the recording."""
        self._calls += 1
        self._captures = []
        failure: Exception | None = None
        try:
            with intercepted(self._recorder):
                async for _ in await self._create(body):
                    pass
        except (anthropic.APIError, httpx2.TransportError, ValueError) as error:
            failure = error  # ValueError: a frame whose data is not JSON
        if not self._captures:
            raise failure or InputError("the SDK sent no request that could be recorded.")
        capture = self._captures[-1]
        first_ns = None if capture.first_ns is None else capture.first_ns - capture.started_ns
        reply = reply_of(
            capture, started_ns=capture.started_ns, first_ns=first_ns, ended_ns=capture.ended_ns - capture.started_ns
        )
        if isinstance(failure, ValueError):
            return replace(reply, error=f"the SDK could not read the answer: {failure}")
        hint = f"asked {self._client.base_url}" if reply.ending == "no_response" else WAYS_OUT.get(reply.status or 0)
        return replace(reply, error=f"{reply.error} ({hint})") if reply.error and hint else reply

    async def _create(self, body: dict[str, Any]) -> Any:
        """Send the body as it is: what the SDK's method has no parameter for (temperature, since 2.12) goes beside them."""
        direct = {key: body[key] for key in ("model", "max_tokens", "messages", "stream")}
        return await self._client.messages.create(**direct, extra_body={k: v for k, v in body.items() if k not in direct})

    def _begin(self, request: Request) -> Capture:
        place = Place(self._step, "", self._calls, len(self._captures) + 1, "pull", self._variables)
        capture = Capture(
            self._writer, request, place=place, session=self._session, price=self._price
        )  # fmt: skip
        self._captures.append(capture)
        return capture


def check_credentials() -> None:
    """Raise InputError where the SDK will find nothing to authenticate with."""
    client = anthropic.Anthropic()
    try:
        if client.api_key or client.auth_token or client.credentials is not None:
            return
    finally:
        client.close()
    base = os.environ.get("ANTHROPIC_BASE_URL")
    raise InputError(
        f"live mode needs a key{f' for {base}' if base else ''}: set ANTHROPIC_API_KEY, or run without --live "
        "(and without TEST_MODE=live) to replay the recording."
    )
