"""Claude Code in a live run: sessions of the Agent SDK, recorded line by line.

Only live runs with such a step import this module, because they alone need the SDK.
"""

import asyncio
import contextlib
import logging
from typing import Any

import claude_agent_sdk as sdk

from ..agent_sdk.patching import install
from ..agent_sdk.recording import ExitCode, RecordedWire, Wire
from ..recorder.agent_wire import SessionEnding, WireCapture, kind_of
from ..recorder.errors import InputError, LogError, RunError
from ..recorder.events import Ending
from ..recorder.http.patching import Send, SendAsync, intercepted
from ..recorder.log.log import RunWriter
from .claude_code import ClaudeTurn, agent_options
from .claude_code_mock import death_of
from .prompt_job import Unit
from .tools import TimedOut

# Without a handler Python prints the SDK's log on stderr, and the error of the step says the same.
logging.getLogger("claude_agent_sdk").addHandler(logging.NullHandler())

MAX_STDERR_LINES = 20
"""The number of lines of Claude Code's standard error that are kept, the newest ones."""


def check_installed() -> None:
    """Raise InputError if Claude Code is not installed, or if the SDK does not have the options of a step."""
    from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

    try:
        options = sdk.ClaudeAgentOptions(tools=[], setting_sources=[], strict_mcp_config=True, session_id=None, stderr=None)
        SubprocessCLITransport("", options)._find_cli()
    except TypeError as error:
        raise InputError("engine: claude_code needs a newer Agent SDK: pip install --upgrade 'retold[agent]'.") from error
    except sdk.CLINotFoundError as error:
        raise InputError(
            "engine: claude_code needs Claude Code for a live run: pip install 'retold[agent]', or install the command `claude`."
        ) from error


class _TurnCapture(WireCapture):
    """Records a session. Its messages go to the turn that they answer, after they are committed.

    `broken` is the error of the log, which the SDK reports as an error of Claude Code.
    """

    def __init__(self, writer: RunWriter, started: dict[str, Any], *, step: str, task: str) -> None:
        super().__init__(writer, started, step=step, task=task)
        self.turn: ClaudeTurn | None = None
        self.stderr: list[str] = []
        self.broken: LogError | None = None
        self.error: dict[str, Any] | None = None

    @property
    def at_us(self) -> int:
        """The time of the newest line, as a cassette holds it."""
        return round(self.started_ns / 1000) + round((self.last_ns - self.started_ns) / 1000)

    def sent(self, line: dict[str, Any]) -> None:
        super().sent(line)
        if line.get("type") == "user" and self.turn is not None:
            self.turn.asked(self.at_us)

    def received(self, line: dict[str, Any]) -> None:
        try:
            super().received(line)
        except LogError as error:
            self.broken = error
            raise
        if self.turn is not None and kind_of(line) == "message":
            self.turn.take(line, self.at_us)

    def end(
        self, ending: SessionEnding | Ending, error: dict[str, Any] | None = None, exit_code: int | None = None,
        unread: list[str] | None = None,
    ) -> None:  # fmt: skip
        if error is not None and self.error is None:
            self.error = error | ({"stderr": "\n".join(self.stderr)} if self.stderr else {})
        super().end(ending, None if error is None else self.error, exit_code, unread)


class _TurnWire(RecordedWire):
    """A recorded session that a time limit or Ctrl-C ends at once. Claude Code would go on for seconds."""

    def __init__(self, talk: "_Talk", real: Any, started: dict[str, Any], exit_code: ExitCode) -> None:
        super().__init__(real, lambda: talk.begin(started), exit_code)
        self._talk = talk
        self._terminate = real.terminate

    async def close(self) -> None:
        if self._talk.turn is not None and self._talk.turn.result is None:
            self._terminate()
        await super().close()


class _Talk:
    """A session with Claude Code, recorded as it goes."""

    def __init__(self, writer: RunWriter, unit: Unit) -> None:
        self.options = agent_options(unit)
        self.workdir = unit.workdir
        self.max_turns = unit.max_turns
        self._writer = writer
        self._unit = unit
        self._client: Any = None
        self._capture: _TurnCapture | None = None
        self.turn: ClaudeTurn | None = None
        self._stderr: list[str] = []

    def suits(self, unit: Unit) -> bool:
        """Return whether the options of a unit are those of this session."""
        return (self.options, self.workdir, self.max_turns) == (agent_options(unit), unit.workdir, unit.max_turns)

    async def ask(self, turn: ClaudeTurn, *, keeps: bool) -> None:
        """Send a prompt and take the answer. `keeps` leaves the session open for others. Raises the errors of the SDK."""
        self.turn = turn
        if self._capture is not None:
            self._capture.step, self._capture.turn = turn.unit.step, turn
        try:
            if keeps:
                await self._continue(turn)
            else:
                answer = sdk.query(prompt=turn.unit.prompt, options=self._sdk_options(None))
                with intercepted(self):
                    async with contextlib.aclosing(answer) as messages:  # type: ignore[type-var] # a generator of the SDK
                        async for _ in messages:
                            pass
        finally:
            if self._capture is not None and self._capture.broken is not None:
                raise self._capture.broken

    async def _continue(self, turn: ClaudeTurn) -> None:
        if self._client is None:
            self._client = sdk.ClaudeSDKClient(self._sdk_options(turn.session.id if turn.session.made else None))
            with intercepted(self):
                await self._client.connect()
        await self._client.query(turn.unit.prompt)
        async for _ in self._client.receive_response():
            pass

    async def close(self) -> None:
        """End the session, and Claude Code with it."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.disconnect()

    @property
    def death(self) -> str:
        """The reason why Claude Code gave no result."""
        return death_of(None if self._capture is None else self._capture.error)

    def _sdk_options(self, resume: str | None) -> Any:
        return sdk.ClaudeAgentOptions(
            **self.options, max_turns=self.max_turns, cwd=self.workdir, resume=resume, stderr=self._heard
        )

    def _heard(self, line: str) -> None:
        self._stderr.append(line.rstrip())
        del self._stderr[:-MAX_STDERR_LINES]

    # The interceptor

    def agent_wire(self, started: dict[str, Any], real: Wire, exit_code: ExitCode) -> Wire:
        """Return the recorder of the session that the SDK begins."""
        return _TurnWire(self, real, started, exit_code)

    def begin(self, started: dict[str, Any]) -> WireCapture:
        """Return the capture of a session."""
        unit = self._unit
        facts = started | {"options": self.options, "variables": unit.volatile}
        self._capture = _TurnCapture(self._writer, facts, step=unit.step, task=unit.task)
        self._capture.turn, self._capture.stderr = self.turn, self._stderr
        return self._capture

    def handle(self, request: Any, send: Send) -> Any:
        """Send a request of the SDK itself."""
        return send(request)

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        """Send a request of the SDK itself."""
        return await send(request)


class LiveClaudeCode:
    """Holds the conversations of a live run. A named session stays open for the steps that continue it."""

    def __init__(self, writer: RunWriter) -> None:
        install()
        self._writer = writer
        self._kept: dict[str, _Talk] = {}

    def __repr__(self) -> str:
        return f"<LiveClaudeCode {len(self._kept)} open sessions>"

    async def hold(self, turn: ClaudeTurn, timeout_ms: int | None) -> None:
        """Hold one conversation of a unit, or the next part of its session. Raise TimedOut, RunError and LogError."""
        unit = turn.unit
        try:
            unit.workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the working directory {unit.workdir}: {error.strerror}") from error
        talk = await self._talk(unit)
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000) as timeout:
                await talk.ask(turn, keeps=bool(unit.session_name))
        except BaseException as error:
            await self._drop(unit, talk)
            if isinstance(error, TimeoutError) and timeout.expired() and timeout_ms is not None:
                raise TimedOut(timeout_ms) from error
            if turn.result is None and _is_of_sdk(error):
                raise RunError(talk.death) from error
            if not _is_of_sdk(error):
                raise
        if turn.result is None:
            raise RunError(talk.death)

    async def _talk(self, unit: Unit) -> _Talk:
        """Return the open session of a unit. With other options it begins again, and continues by its id."""
        talk = self._kept.get(unit.session_name)
        if talk is not None and not talk.suits(unit):
            await self._drop(unit, talk)
            talk = None
        if talk is None:
            talk = _Talk(self._writer, unit)
            if unit.session_name:
                self._kept[unit.session_name] = talk
        return talk

    async def _drop(self, unit: Unit, talk: _Talk) -> None:
        self._kept.pop(unit.session_name, None)
        await talk.close()

    async def close(self) -> None:
        """End the open sessions."""
        while self._kept:
            await self._kept.popitem()[1].close()


def _is_of_sdk(error: BaseException) -> bool:
    """Return whether the SDK raises an error for a failure of Claude Code. It has no class for some of them."""
    return isinstance(error, sdk.ClaudeSDKError) or type(error) is Exception
