"""Record a session beside its transport: each line is committed before the program or the child gets it."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from ..recorder.agent_wire import END_INPUT, SessionEnding, WireCapture, error_data
from .unread import FieldWatch


class Wire(Protocol):
    """The transport of the Agent SDK (`claude_agent_sdk.Transport`), which retold records or takes the place of."""

    async def connect(self) -> None:
        """Start the child, or open the connection."""

    async def write(self, data: str) -> None:
        """Send a line."""

    def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the received lines."""

    async def end_input(self) -> None:
        """End the child's input."""

    async def close(self) -> None:
        """End the session."""

    def is_ready(self) -> bool:
        """Return whether the session is open."""


ExitCode = Callable[[], int | None]
"""Returns the exit code of a session's child; None while it runs, and if there is no child."""


class RecordedWire:
    """A transport that records its lines. `begin` makes the capture."""

    def __init__(self, real: Wire, begin: Callable[[], WireCapture], exit_code: ExitCode) -> None:
        self._real = real
        self._begin = begin
        self._exit_code = exit_code
        self._capture: WireCapture | None = None
        self._fields = FieldWatch()

    def __repr__(self) -> str:
        return f"<RecordedWire {self._capture!r}>"

    @property
    def capture(self) -> WireCapture:
        """The capture, which begins with the session. Raises LogError."""
        if self._capture is None:
            self._capture = self._begin()
        return self._capture

    async def connect(self) -> None:
        """Begin the recording, then start the child. Raises LogError, and the errors of the transport."""
        _ = self.capture
        try:
            await self._real.connect()
        except BaseException as error:
            self._end("failed" if isinstance(error, Exception) else "closed", error)
            raise

    async def write(self, data: str) -> None:
        """Record a line, then send it."""
        lines = [json.loads(line) for line in data.split("\n") if line]
        for line in lines:
            self.capture.sent(line)
        try:
            await self._real.write(data)
        except Exception:
            for line in lines:
                self.capture.unsent(line)
            raise

    async def end_input(self) -> None:
        """Record the end of the input, then end it."""
        self.capture.sent(END_INPUT)
        await self._real.end_input()

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Record each line, then yield it."""
        try:
            async for line in self._real.read_messages():
                self.capture.received(line)
                self._fields.received(line)
                yield line
        except BaseException as error:
            # A program that stops reading ends the loop with GeneratorExit or the cancellation of its event loop.
            self._end("failed" if isinstance(error, Exception) else "closed", error)
            raise
        self._end("complete", None)

    async def close(self) -> None:
        """End the session; if its child had not ended, it is closed by the program."""
        try:
            await self._real.close()
        finally:
            self._end("closed", None)

    def is_ready(self) -> bool:
        """Return whether the session is open."""
        return self._real.is_ready()

    def _end(self, ending: SessionEnding, error: BaseException | None) -> None:
        if self._capture is not None:
            raised = error_data(error) if error is not None and ending == "failed" else None
            self._capture.end(ending, raised, self._exit_code(), self._fields.unread)
