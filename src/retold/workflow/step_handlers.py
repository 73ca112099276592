"""The handlers of a step: started before it, fed from the log while it runs, joined after it."""

import asyncio
import contextlib
import functools
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from ..handlers import Handler, HandlerThread, make_handler, typed
from .handler_specs import handler_specs
from .prompt_job import Unit
from .results import StepResult
from .run_context import Running
from .schema import ClaudeOptions

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
