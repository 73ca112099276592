"""The state that the steps of a run share: the log, the mode, earlier results, and the source of answers."""

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..handlers import Handler, HandlerThread, make_handler, typed
from ..recorder.errors import RunError
from ..recorder.log.log import EventLog, RunWriter
from ..recorder.messages import Session
from . import schema
from .agent import Api, Conversation, Outcome, converse
from .claude_code import ClaudeTurn
from .claude_code_mock import MockClaudeCode
from .forked import ForkedApi, ForkedRun, ForkedTools
from .load import Loaded
from .mock import MockApi, Playback, RecordedTools
from .options import handler_specs
from .prompt_job import Context, Unit, allowed_tools
from .results import RunResult, StepResult
from .schema import ClaudeOptions
from .sessions import SessionState
from .tools import LiveTools, TimedOut, Tools

Hold = Callable[[Unit, Session], Awaitable[Outcome]]
"""Holds one conversation of a unit to its end, and returns its outcome, which includes failures. Raises MissError in replay."""


class ClaudeCode(Protocol):
    """Claude Code, live or from a recording."""

    async def hold(self, turn: ClaudeTurn, timeout_ms: int | None, /) -> None:
        """Give the lines that answer a prompt to its turn. Raises RunError, and MissError in replay."""

    async def close(self) -> None:
        """End the sessions that stayed open for later steps."""


@dataclass
class Running:
    """One run of a workflow. `recording` is the recording that a mock run replays; it is None in a live run.

    `fork` is the recorded side of a fork, which is a live run. `types` is whether handlers type texts as they stream.
    """

    loaded: Loaded
    recording: Playback | None
    cassette: Path
    log: EventLog
    writer: RunWriter
    context: Context
    result: RunResult
    notify: Callable[[str], None]
    sessions: dict[str, SessionState] = field(default_factory=dict)
    fork: ForkedRun | None = None
    types: bool = False
    _claude_code: ClaudeCode | None = None

    @contextlib.asynccontextmanager
    async def holding(self, unit: Unit, timeout_ms: int | None) -> AsyncIterator[Hold]:
        """Yield the function that holds conversations of a unit. Raise RunError if its folder cannot be made."""
        if unit.engine == "claude_code":
            yield lambda unit, session: self._hold_claude_code(
                ClaudeTurn(unit, self.writer, session, self.notify_of(unit.task)), timeout_ms
            )
            return
        async with self._answers(unit, timeout_ms) as (api, tools):
            yield lambda unit, session: self._hold(
                unit.conversation(self.writer, session, self.notify_of(unit.task)), api, tools, timeout_ms
            )

    def failed(self, unit: Unit, session: Session, error: str) -> Outcome:
        """Return the outcome of a conversation that could not begin, and append its messages."""
        notify = self.notify_of(unit.task)
        if unit.engine == "claude_code":
            return ClaudeTurn(unit, self.writer, session, notify).failed(error, "other")
        return unit.conversation(self.writer, session, notify).failed(error, "other")

    async def close(self) -> None:
        """End the sessions with Claude Code that are open."""
        if self._claude_code is not None:
            await self._claude_code.close()

    async def _hold_claude_code(self, turn: ClaudeTurn, timeout_ms: int | None) -> Outcome:
        if self._claude_code is None:
            self._claude_code = self._new_claude_code()
        try:
            await self._claude_code.hold(turn, timeout_ms)
        except TimedOut as error:
            return turn.failed(str(error), "timeout")
        except RunError as error:
            return turn.failed(str(error), "cut")
        return turn.outcome()

    def _new_claude_code(self) -> ClaudeCode:
        if self.recording is not None:
            return MockClaudeCode(self.recording, self.writer, str(self.cassette))
        from .claude_code_live import LiveClaudeCode

        return LiveClaudeCode(self.writer)

    @contextlib.asynccontextmanager
    async def _answers(self, unit: Unit, timeout_ms: int | None) -> AsyncIterator[tuple[Api, Tools]]:
        """Yield the API and the tools for the conversations of a unit. Raise RunError if its folder cannot be made."""
        if self.recording is not None:
            mock = MockApi(
                self.recording, self.writer, step=unit.step, task=unit.task, variables=unit.volatile, timeout_ms=timeout_ms
            )
            yield mock, RecordedTools(self.recording.tool_results(), str(self.cassette), timeout_ms)
            return
        from .live import LiveApi

        try:
            unit.workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the working directory {unit.workdir}: {error.strerror}") from error
        options, fork, place = unit.options, self.fork, (unit.step, unit.task)
        retries = options.retry_config or schema.RetryConfig()
        live = LiveApi(
            self.writer, step=unit.step, task=unit.task, variables=unit.volatile, retries=retries,
            cost_tracking=options.cost_tracking is not False, notify=self.notify_of(unit.task),
            calls=0 if fork is None else fork.last_call(place),
        )  # fmt: skip
        async with live, LiveTools(unit.workdir, allowed_tools(options)) as tools:
            if fork is None:
                yield live, tools
                return
            mock = MockApi(
                fork.playback, self.writer, step=unit.step, task=unit.task, variables=unit.volatile, timeout_ms=timeout_ms
            )
            api = ForkedApi(fork, mock, live, unit=place, variables=unit.volatile, max_retries=retries.max_retries)
            yield api, ForkedTools(fork, tools)

    def notify_of(self, task: str) -> Callable[[str], None]:
        """Return a function that reports progress with the name of the task."""
        return (lambda text: self.notify(f"[{task}] {text}")) if task else self.notify

    async def _hold(self, conversation: Conversation, api: Api, tools: Tools, timeout_ms: int | None) -> Outcome:
        """Hold a conversation to its end and return its outcome, which includes failures. Raise MissError in replay.

        A replay times out where the recording did, at any pace.
        """
        limit_s = None if timeout_ms is None or self.recording is not None else timeout_ms / 1000
        try:
            async with asyncio.timeout(limit_s) as timeout:
                try:
                    return await converse(conversation, api, tools)
                except asyncio.CancelledError as error:
                    if timeout.expired():
                        assert timeout_ms is not None
                        raise TimedOut(timeout_ms) from error
                    raise
        except TimedOut as error:
            return conversation.failed(str(error), "timeout", api.unfinished)
        except RunError as error:
            return conversation.failed(str(error), "other")


HandlerSpecs = Sequence[tuple[str, dict[str, Any]]]


class Showing:
    """The handlers of one step. `instead` replaces the handlers that the workflow names; an empty list shows nothing.

    Without an `out`, only handlers that write elsewhere run.
    """

    def __init__(self, running: Running, step: str, instead: HandlerSpecs | None, out: TextIO | None, *, after: int) -> None:
        self._running = running
        self._step = step
        self._instead = instead
        self._out = out
        self._after = after
        self._threads: list[tuple[HandlerThread, asyncio.Event]] = []
        self._unseen: set[str] = set()

    def start(self, options: ClaudeOptions, units: Sequence[Unit]) -> None:
        """Start the handlers of the step. A task that names its own handlers is shown only by them."""
        self._unseen = {unit.task for unit in units}
        if self._instead is not None:
            self._start(self._instead, None)
            return
        alone = [unit for unit in units if unit.shows_itself]
        for unit in alone:
            self._start(_specs(unit.options), unit)
        others = frozenset(unit.task for unit in units if not unit.shows_itself)
        if others:
            self._start(_specs(options), None, tasks=others if alone else None)

    async def join(self, done: StepResult) -> None:
        """Wait for the handlers. Their results go into the result of the step, their failures into that of the run.

        The user can cancel the wait for a slow handler (Ctrl-C); the run is recorded all the same.
        """
        for thread, over in self._threads:
            await over.wait()
            if isinstance(thread.error, BrokenPipeError):
                continue  # the reader of our output has gone; the exit code of the CLI reports it
            done.handler_results.append(thread.result())
            if thread.error is not None:
                what = f"handler {thread.handler.name!r} failed in step {self._step!r}: "
                self._running.result.handler_errors.append(f"{what}{type(thread.error).__name__}: {thread.error}")
        done.streamed = not self._unseen

    def _start(self, specs: HandlerSpecs, unit: Unit | None, tasks: frozenset[str] | None = None) -> None:
        folder = self._running.loaded.folder
        specs = typed(specs) if self._running.types else specs
        made: list[Handler] = [make_handler(name, values, self._out or sys.stdout, folder) for name, values in specs]
        made = [handler for handler in made if handler.silent or self._out is not None]
        if any(not handler.silent for handler in made):
            if unit is not None:
                self._unseen -= {unit.task}
            else:
                self._unseen -= self._unseen if tasks is None else tasks
        loop = asyncio.get_running_loop()
        label = self._running.writer.redactor.label  # the log holds redacted names
        tasks = tasks if unit is None else frozenset({unit.task})
        for handler in made:
            over = asyncio.Event()
            thread = HandlerThread(
                self._running.log, self._running.writer.run, label(self._step), handler, after=self._after,
                tasks=None if tasks is None else frozenset(map(label, tasks)), unit="step" if unit is None else "task",
                over=functools.partial(_tell, loop, over),
            )  # fmt: skip
            self._threads.append((thread, over))


def _tell(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    """Set the event from another thread. The loop may be closed, if the run ended without waiting."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(over.set)


def _specs(options: ClaudeOptions) -> HandlerSpecs:
    return handler_specs(options.stream_handler, options.stream_handler_opts) if options.async_streaming else []
