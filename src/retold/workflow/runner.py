"""Run a workflow, live or mock. Steps write events, handlers read them from the log, and a good live run becomes a cassette."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypedDict, Unpack

from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.folding import Recorded
from ..recorder.cassette.format import read_cassette, write_cassette
from ..recorder.cassette.named import is_elsewhere, read_named
from ..recorder.cassette.sessions import each_session
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.errors import CassetteError, CassetteMissing, InputError, MissError, RunError
from ..recorder.files import why_not_writable
from ..recorder.http.exchange import Exchange
from ..recorder.log.log import EventLog
from ..recorder.words import plural
from ..replay.matching.matcher import note_unplayed
from ..replay.timing.timing import INSTANT, Timing, Until, until_async
from ..sigterm import sigterm_cancels
from .checkpoint import Checkpoint, Finished, fingerprint, question
from .forked import ForkedRun, Forking
from .load import Loaded, load_workflow
from .mock import Playback
from .options import options_of, render_options
from .prompt_job import Context, units_of
from .results import RunResult, StepResult
from .run_context import HandlerSpecs, Running, Showing
from .sessions import said_in, session_in
from .step_types import Step
from .steps import perform, write_output
from .templates import holds

Mode = Literal["mock", "live"]


class RunOptions(TypedDict, total=False):
    """The keyword arguments of `run_workflow` and `arun_workflow`."""

    mode: Mode
    timing: Timing | str
    idle_limit: str | None
    handlers: HandlerSpecs | None
    cassette: str | os.PathLike[str] | None
    log: EventLog | None
    out: TextIO | None
    show: bool
    notify: Callable[[str], None] | None
    fork: Forking | None


def run_workflow(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "mock",
    timing: Timing | str = INSTANT,
    idle_limit: str | None = None,
    handlers: HandlerSpecs | None = None,
    cassette: str | os.PathLike[str] | None = None,
    log: EventLog | None = None,
    out: TextIO | None = None,
    show: bool = True,
    notify: Callable[[str], None] | None = None,
    fork: Forking | None = None,
) -> RunResult:
    """Run a workflow file and return its result. A failed step is part of the result, not an exception.

    `mode="mock"` replays the cassette offline; `mode="live"` calls the API and records. `handlers` replaces the handlers of
    the file ((name, options) pairs; an empty list shows nothing). Handlers write to `out` (default stdout); with `show=False`
    only those run that write elsewhere (file, buffer, callback). `notify` is called with lines of progress.

    With `fork=retold.fork(RUN, at="STEP.TURN")` the run continues a recorded one: everything before the point is replayed, tools
    included, and the rest is live. Its cassette is written only if you name one.

    Raise WorkflowError, CassetteError, LogError or InputError before anything runs, and MissError. Raise InputError inside a
    running event loop: await `arun_workflow` there.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise InputError("run_workflow cannot run inside an event loop (a notebook, an async test): await arun_workflow(…).")
    return asyncio.run(
        arun_workflow(
            path, mode=mode, timing=timing, idle_limit=idle_limit, handlers=handlers, cassette=cassette, log=log, out=out,
            show=show, notify=notify, fork=fork,
        )
    )  # fmt: skip


async def arun_workflow(path: str | os.PathLike[str], **options: Unpack[RunOptions]) -> RunResult:
    """Run a workflow as `run_workflow` does, with the same arguments and errors, in the running event loop."""
    return await arun_watched(path, **options)


async def arun_watched(
    path: str | os.PathLike[str], until: Until | None = None, *, types: bool = False, **options: Unpack[RunOptions]
) -> RunResult:  # fmt: skip
    """Run a workflow for a person who watches. `until` is the clock of a mock run; it counts in recorded time, whatever the
    timing. With `types`, handlers type texts as they stream, if they can.
    """
    loaded = load_workflow(path)
    timing = options.get("timing", INSTANT)
    cassette, log, notify = options.get("cassette"), options.get("log"), options.get("notify")
    own_log = EventLog() if log is None else None
    fork = options.get("fork")
    runner = Runner(
        loaded,
        "live" if fork is not None else options.get("mode", "mock"),
        Timing.parse(timing, options.get("idle_limit")) if isinstance(timing, str) else timing,
        options.get("handlers"),
        Path(cassette) if cassette is not None else loaded.cassette(),
        log or own_log or EventLog(),
        (options.get("out") or sys.stdout) if options.get("show", True) else None,
        notify or (lambda _: None),
        fork=fork,
    )
    runner.keeps_cassette = fork is None or cassette is not None
    runner.until, runner.types = until, types
    try:
        runner.prepare()
        return await runner.run()
    finally:
        if own_log is not None:
            own_log.close()


class Runner:
    """One run of one workflow."""

    def __init__(
        self, loaded: Loaded, mode: Mode, timing: Timing, handlers: HandlerSpecs | None, cassette: Path, log: EventLog,
        out: TextIO | None, notify: Callable[[str], None], *, fork: Forking | None = None,
    ) -> None:  # fmt: skip
        self.loaded = loaded
        self.workflow = loaded.workflow
        self.mode: Mode = mode
        self.timing = timing
        self.handlers = handlers
        self.cassette = cassette
        self._cassette_at = cassette.absolute()  # the application may change the working directory during the run
        self.log = log
        self.out = out
        self.notify = notify
        self.recording: Playback | None = None
        self.until: Until | None = None
        self.types = False
        self.keeps_cassette = True
        self._forking = fork
        self.fork: ForkedRun | None = None
        retold = cassette if mode == "mock" else None
        resumes = self.workflow.checkpoint_enabled and fork is None
        self.checkpoint = Checkpoint(self.loaded, mode, retold=retold) if resumes else None

    def prepare(self) -> None:
        """Do everything that can fail, before anything runs or is written."""
        if self.checkpoint is not None:
            self.checkpoint.check()
        if self.mode == "mock":
            self.recording = self._read_recording()
            return
        if self._forking is not None:
            self.fork = ForkedRun(self._forking.branch(self.log), self.loaded, self.timing)
        self._check_engines()
        if not self.keeps_cassette:
            return
        with contextlib.suppress(CassetteMissing):
            read_cassette(self.cassette)  # report a damaged cassette now, before the run costs money
        if (problem := why_not_writable(self.cassette)) is not None:
            raise CassetteError(f"cannot write the cassette {self.cassette}: {problem}.")

    def _check_engines(self) -> None:
        """Raise InputError if an engine of the workflow cannot be used for a live run."""
        engines = {step.engine or self.workflow.engine for step in self.workflow.steps}
        if "claude_code" in engines:
            try:
                from .claude_code_live import check_installed
            except ImportError as error:
                raise InputError(
                    "engine: claude_code needs the Agent SDK for a live run: pip install 'retold[agent]'."
                ) from error
            check_installed()
        if "messages_api" in engines:
            from .live import check_credentials

            check_credentials()

    def _read_recording(self) -> Playback:
        try:
            found = read_named(self.cassette)
        except CassetteMissing as error:
            if is_elsewhere(str(self.cassette)):
                raise
            raise CassetteMissing(f"no recording at {self.cassette}. Record it with: {self._record_command()}") from error
        timing = self.timing if self.until is None else replace(self.timing, speed=1.0)
        return Playback(found.exchanges, found.sessions, str(self.cassette), timing, self.until or until_async)

    def _record_command(self) -> str:
        own = self.cassette == self.loaded.cassette()
        return f"retold run {self.loaded.source.path} --live{'' if own else f' --cassette {self.cassette}'}"

    async def run(self) -> RunResult:
        """Run the steps in order. The first failed step ends the run."""
        workflow = self.workflow
        finished = self.checkpoint.finished(self.log) if self.checkpoint is not None else []
        finished = finished if self.fork is None else self.fork.finished
        name, data = self._beginning()
        with self.log.start(name=name, mode=self.mode, data=data) as writer, sigterm_cancels():
            if self.checkpoint is not None:
                self.checkpoint.write(writer.run)
            result = RunResult(writer.run, workflow.name, self.mode, "running", [], str(self.log.path), self._named_cassette)
            context = Context(self.loaded, writer.run, datetime.now().astimezone().date().isoformat())
            running = Running(
                self.loaded,
                self.recording,
                self.cassette,
                self.log,
                writer,
                context,
                result,
                self.notify,
                fork=self.fork,
                types=self.types,
            )
            for earlier in finished:
                self._resume(running, earlier)
            try:
                await self._steps(running, workflow.steps[len(finished) :])
            finally:
                await running.close()
            result.status = "completed" if result.error is None else "failed"
            writer.end("completed" if result.error is None else "failed", error=result.error)
        self._finish(result, finished)
        return result

    async def _steps(self, running: Running, steps: Sequence[Step]) -> None:
        """Run steps until one fails."""
        result = running.result
        for step in steps:
            self.notify(f"step {len(result.steps) + 1}/{len(self.workflow.steps)} {step.name}")
            done = await self._step(running, step)
            result.steps.append(done)
            if not done.goes_on:
                result.error = f"step {step.name!r} failed: {done.error}"
                return

    @property
    def _named_cassette(self) -> str | None:
        return str(self.cassette) if self.keeps_cassette else None

    def _beginning(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the run and the data of its first event."""
        workflow = self.workflow
        data = {"workflow": str(self.loaded.source.path), "environment": workflow.environment.mode, "timing": str(self.timing)}
        # A fork of the run compares the steps, and so does a pin of it.
        own = data | {"steps": {step.name: question(step, self.loaded) for step in workflow.steps}}
        return (workflow.name, own) if self.fork is None else (self.fork.branch.name, own | self.fork.branch.data)

    def _resume(self, running: Running, earlier: Finished) -> None:
        """Reuse a step that the broken-off run had finished."""
        done = replace(earlier.result, resumed=True)
        step = next(step for step in self.workflow.steps if step.name == done.name)
        said = self._said_of(done, step, earlier.session) | {"from": earlier.run}
        running.writer.note("step.resumed", said, step=done.name)
        running.result.steps.append(done)
        running.context.finish(done)
        if done.status != "completed" or done.tasks:
            return
        running.context.sessions[done.session_id] = said_in(self.log, earlier.run, done.name) or []
        # A session step also restores its session, which later steps continue.
        if earlier.session is not None:
            name = earlier.session["name"]
            if (state := session_in(self.log, earlier.run, name)) is not None:
                running.sessions[name] = state
                running.context.sessions[name] = state.messages

    def _finish(self, result: RunResult, finished: list[Finished]) -> None:
        """Write the cassette of a successful live run. A failed run leaves the old cassette unchanged."""
        good = result.status == "completed"
        if self.checkpoint is not None and good:
            self.checkpoint.clear(result.run)
        if finished:
            result.notes.append(
                f"took over {plural(len(finished), 'finished step')} from run {finished[-1].run[:8]}, which broke off"
            )
        for step in result.steps:
            failed = [task.id for task in step.tasks if task.error is not None]
            if step.status == "skipped":
                result.notes.append(f"step {step.name!r} was skipped: {self._condition(step.name)} does not hold")
            elif step.status == "fallback":
                result.notes.append(f"step {step.name!r} fell back ({step.fallback}) after: {step.error}")
            elif failed and step.goes_on:
                result.notes.append(f"step {step.name!r} went on although tasks failed: {', '.join(failed)}")
        if self.fork is not None and (left := self.fork.playback.matcher.unplayed):
            result.notes.append(f"{note_unplayed(left)}: the run did not ask for all of {self.fork.branch.title}")
        if not self.keeps_cassette:
            return
        if self.mode == "live" and good:
            recorded = self._recorded(result.run, finished)
            sessions = [each for each in recorded if isinstance(each, AgentSession)]
            write_cassette(self._cassette_at, [each for each in recorded if isinstance(each, Exchange)], sessions)
        elif self.mode == "live" and self._cassette_at.exists():
            result.notes.append(f"the cassette {self.cassette} was left as it was")
        if self.recording is not None and good:
            resumed = {earlier.result.name for earlier in finished}
            unplayed = [exchange for exchange in self.recording.matcher.unplayed if exchange.place.step not in resumed]
            if unplayed:
                result.notes.append(note_unplayed(unplayed) + f" in {self.cassette}")
            sessions = [each for each in self.recording.unplayed_sessions if each.place and each.place.steps[0] not in resumed]
            if sessions:
                result.notes.append(f"{plural(len(sessions), 'recorded session')} not played in {self.cassette}")

    def _condition(self, name: str) -> str | None:
        return next(step.condition for step in self.workflow.steps if step.name == name)

    def _recorded(self, run: str, finished: list[Finished]) -> list[Recorded]:
        """Return the exchanges and sessions of a run. Those of finished steps that it reused from earlier runs come first."""
        found: list[Recorded] = []
        for earlier in dict.fromkeys(each.run for each in finished):
            steps = {each.result.name for each in finished if each.run == earlier}
            exchanges = [each for each in exchanges_of(self.log, earlier) if each.place.step in steps]
            found += _later([*exchanges, *each_session(self.log, earlier, steps=steps)], found)
        return found + _later([*exchanges_of(self.log, run), *each_session(self.log, run)], found)

    async def _step(self, running: Running, step: Step) -> StepResult:
        """Run one step between its events. Handlers are started before it and joined after it."""
        context, writer = running.context, running.writer
        variables, where = context.of_step(step), context.where(step)
        done = StepResult(step.name, step.type)
        if step.condition is not None and not holds(step.condition, variables, where):
            done.status = "skipped"
            writer.note("step.skipped", self._said_of(done, step, None) | {"condition": step.condition}, step=step.name)
            context.finish(done)
            return done
        units = units_of(step, self.workflow, context)
        output = None if step.output_to_file is None else context.output_path(step.output_to_file, step)
        before = writer.counts["message"]
        started = writer.note("step.started", {"name": step.name, "type": step.type}, step=step.name)
        showing = Showing(running, step.name, self.handlers, self.out, after=started.seq - 1)
        try:
            showing.start(units[0].options if len(units) == 1 else self._options(step, variables, where), units)
            await perform(running, step, units, done)
            if output is not None and done.goes_on:
                result = [asdict(task) for task in done.tasks] if done.tasks else self._result_message(running, step)
                write_output(running, units[0], output, done, result)
            context.finish(done)
        except RunError as failure:
            done.status, done.error = "failed", str(failure)
        except MissError as miss:
            done.status, done.error = "failed", str(miss)
            way_out = "" if self.fork is not None else f"\nRecord it again with: {self._record_command()}"
            raise MissError(f"step {step.name!r}: {miss}{way_out}") from miss
        finally:
            done.messages = writer.counts["message"] - before
            name = units[0].session_name
            session = running.sessions[name].as_dict(name) if name in running.sessions else None
            writer.note("step.ended", self._said_of(done, step, session), step=step.name)
            await showing.join(done)
        return done

    def _said_of(self, done: StepResult, step: Step, session: dict[str, Any] | None) -> dict[str, Any]:
        """Return the data of the end of a step: its result, and for a checkpoint the fingerprint of the step."""
        own = {"name": done.name, "status": done.status, "error": done.error, "fallback": done.fallback}
        if self.checkpoint is not None:  # it digests the step's files, and only the next run with checkpoints reads it
            own["fingerprint"] = fingerprint(step, self.loaded)
        return own | {"session": session, "result": asdict(done)}

    def _options(self, step: Step, variables: dict[str, Any], where: str) -> Any:
        raw = options_of(step, self.workflow)
        return render_options(raw, variables, where, Path(self.workflow.workspace_dir or "."))

    def _result_message(self, running: Running, step: Step) -> dict[str, Any]:
        """Return the last result message of a step, that of its last attempt."""
        # The log holds redacted names.
        label = running.writer.redactor.label(step.name)
        results = [m.data for m in running.log.messages(running.writer.run, step=label) if m.type == "result"]
        return results[-1]


def _later(recorded: list[Recorded], before: list[Recorded]) -> list[Recorded]:
    """Return exchanges and sessions of another run with their times shifted behind those of the runs before."""
    shift_ns = max((each.ended_ns for each in before), default=0)
    return [replace(each, started_ns=each.started_ns + shift_ns, ended_ns=each.ended_ns + shift_ns) for each in recorded]
