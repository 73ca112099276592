"""Runs a workflow, live or mock: steps become events, handlers read them from the log, a good live run becomes a cassette."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from ..handlers import Handler, HandlerThread, make_handler
from ..recorder.cassette import read_cassette, write_cassette
from ..recorder.errors import CassetteMissing, MissError, RetoldError, RunError
from ..recorder.log import EventLog
from ..recorder.messages import Session
from ..recorder.transfer import exchanges_of
from ..recorder.writer import RunWriter
from ..replay.matcher import note_unplayed
from ..replay.timing import INSTANT, Timing
from . import schema
from .agent import Api, Conversation, Outcome, converse
from .load import Loaded, handler_specs, load_workflow
from .mock import MockApi, Recording
from .prompt import Context, build_prompt, volatile_of
from .templates import render
from .tools import CHANGING, DEFINITIONS, LiveTools, RecordedTools, Tools

Mode = Literal["mock", "live"]
HandlerSpecs = Sequence[tuple[str, dict[str, Any]]]


@dataclass
class StepResult:
    """What came of a step. Times are milliseconds; `error` is None for a step that completed."""

    name: str
    type: str
    status: str
    text: str = ""
    error: str | None = None
    turns: int = 0
    messages: int = 0
    stop_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    duration_ms: int = 0
    time_to_first_message_ms: int | None = None
    streamed: bool = False


@dataclass
class RunResult:
    """What came of a run, as data. `notes` are remarks for a person: unplayed recordings, handlers that failed."""

    run: str
    name: str
    mode: str
    status: str
    steps: list[StepResult]
    log: str
    cassette: str | None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    handler_errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.status == "completed" and not self.handler_errors

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    notify: Callable[[str], None] | None = None,
) -> RunResult:
    """Run a workflow file and return what came of it; a step that failed is in the result, not an exception.

    `mode="mock"` retells the cassette offline; `mode="live"` calls the API and records. `handlers` replaces those named in the
    file ((name, options) pairs; an empty list shows nothing). Handlers write to `out` (stdout), `notify` is told of progress.
    Raises WorkflowError, CassetteError, LogError, InputError for what is wrong before anything runs, and MissError.
    """
    loaded = load_workflow(path)
    timing = Timing.parse(timing, idle_limit) if isinstance(timing, str) else timing
    own_log = log is None
    log = EventLog() if log is None else log
    runner = Runner(
        loaded, mode, timing, handlers, Path(cassette) if cassette is not None else loaded.cassette(), log, out or sys.stdout,
        notify or (lambda _: None),
    )  # fmt: skip
    try:
        runner.prepare()
        return asyncio.run(runner.run())
    finally:
        if own_log:
            log.close()


class Runner:
    """One run of one workflow."""

    def __init__(
        self, loaded: Loaded, mode: Mode, timing: Timing, handlers: HandlerSpecs | None, cassette: Path, log: EventLog,
        out: TextIO, notify: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.loaded = loaded
        self.workflow = loaded.workflow
        self.mode: Mode = mode
        self.timing = timing
        self.handlers = handlers
        self.cassette = cassette
        self.log = log
        self.out = out
        self.notify = notify
        self.recording: Recording | None = None

    def prepare(self) -> None:
        """Everything that can fail before anything is run or written."""
        if self.mode == "mock":
            self.recording = self._read_recording()
            return
        from .live import check_credentials

        check_credentials()
        with contextlib.suppress(CassetteMissing):
            read_cassette(self.cassette)  # a damaged one is an error now, not a loss later

    def _read_recording(self) -> Recording:
        try:
            found = read_cassette(self.cassette)
        except CassetteMissing as error:
            raise CassetteMissing(f"no recording at {self.cassette}. Record it with: {self._record_command()}") from error
        return Recording(found.exchanges, str(self.cassette), self.timing)

    def _record_command(self) -> str:
        own = self.cassette == self.loaded.cassette()
        return f"retold run {self.loaded.source.path} --live{'' if own else f' --cassette {self.cassette}'}"

    async def run(self) -> RunResult:
        """Run the steps in order; the first that fails ends the run."""
        workflow = self.workflow
        data = {"workflow": str(self.loaded.source.path), "environment": workflow.environment.mode, "timing": str(self.timing)}
        with self.log.start(name=workflow.name, mode=self.mode, data=data) as writer, _sigterm_cancels():
            result = RunResult(writer.run, workflow.name, self.mode, "running", [], str(self.log.path), str(self.cassette))
            context = Context(workflow, self.loaded.folder, writer.run, datetime.now().astimezone().date().isoformat())
            for step in workflow.steps:
                self.notify(f"step {len(result.steps) + 1}/{len(workflow.steps)} {step.name}")
                result.steps.append(await self._step(step, writer, context, result))
                if result.steps[-1].status != "completed":
                    result.error = f"step {step.name!r} failed: {result.steps[-1].error}"
                    break
            result.status = "completed" if result.error is None else "failed"
            writer.end("completed" if result.error is None else "failed", error=result.error)
        self._finish(result)
        return result

    def _finish(self, result: RunResult) -> None:
        """A live run that ended well becomes the cassette; one that did not leaves the old cassette alone."""
        if self.mode == "live" and result.status == "completed":
            write_cassette(self.cassette, exchanges_of(self.log, result.run))
        elif self.mode == "live" and self.cassette.exists():
            result.notes.append(f"the cassette {self.cassette} was left as it was")
        if self.recording is not None and self.recording.matcher.unplayed and result.status == "completed":
            result.notes.append(note_unplayed(self.recording.matcher.unplayed) + f" in {self.cassette}")

    async def _step(self, step: schema.Step, writer: RunWriter, context: Context, result: RunResult) -> StepResult:
        options = _merged(self.workflow.defaults.claude_options, step.claude_options)
        variables = context.of_step(step)
        where = f"step {step.name!r}"
        options = schema.ClaudeOptions.model_validate(_rendered(options.model_dump(exclude_unset=True), variables, where))
        prompt = build_prompt(step, context)
        workdir = (Path(self.workflow.workspace_dir or ".") / (options.cwd or ".")).resolve()
        started = writer.note("step.started", {"name": step.name, "type": step.type}, step=step.name)
        threads = self._start_handlers(writer, step, options, after=started.seq - 1)
        session = Session(options.session_id)
        conversation = _conversation(step, options, prompt, writer, session, self.notify)
        tools = _allowed(options)
        mode = options.permission_mode or "default"
        conversation.say(session.init(model=conversation.body["model"], tools=tools, cwd=str(workdir), permission_mode=mode))
        done = StepResult(step.name, step.type, "cancelled", streamed=bool(threads))
        try:
            outcome = await self._converse(conversation, step, options, workdir, context)
            _fill(done, options, outcome)
            context.finish(step.name, outcome.text, outcome.cost_usd, outcome.turns)
            context.sessions[session.id] = outcome.messages
            if step.output_to_file is not None and outcome.error is None:
                self._write_output(render(step.output_to_file, variables, where), options, outcome, done, writer.run)
        except (RetoldError, TimeoutError) as failure:
            done.status, done.error = "failed", str(failure)
            if isinstance(failure, RunError):
                conversation.say(
                    session.result({"subtype": "error_during_execution", "is_error": True, "errors": [str(failure)]})
                )
            if isinstance(failure, MissError):
                raise MissError(f"step {step.name!r}: {failure}\nRecord it again with: {self._record_command()}") from failure
            if not isinstance(failure, RunError):
                raise
        finally:
            writer.note("step.ended", {"name": step.name, "status": done.status, "error": done.error}, step=step.name)
            self._join_handlers(threads, result)
        done.messages = sum(1 for _ in self.log.messages(writer.run, step=step.name))
        return done

    async def _converse(
        self, conversation: Conversation, step: schema.Step, options: schema.ClaudeOptions, workdir: Path, context: Context
    ) -> Outcome:
        volatile = volatile_of(step, _merged(self.workflow.defaults.claude_options, step.claude_options), context)
        if self.recording is not None:
            mock = MockApi(self.recording, conversation.writer, conversation.session, step=step.name, variables=volatile)
            return await converse(conversation, mock, RecordedTools(self.recording.tool_results(), str(self.cassette)))
        async with asyncio.timeout(None if options.timeout_ms is None else options.timeout_ms / 1000) as timeout:
            try:
                async with self._live(conversation, step, options, workdir, volatile) as (api, tools):
                    return await converse(conversation, api, tools)
            except asyncio.CancelledError as error:
                if timeout.expired():
                    raise RunError(f"timed out after {options.timeout_ms} ms") from error
                raise

    @contextlib.asynccontextmanager
    async def _live(
        self, conversation: Conversation, step: schema.Step, options: schema.ClaudeOptions, workdir: Path,
        volatile: dict[str, str],
    ) -> AsyncIterator[tuple[Api, Tools]]:  # fmt: skip
        from .live import LiveApi

        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the working directory {workdir}: {error.strerror}") from error
        retries = options.retry_config or schema.RetryConfig()
        api = LiveApi(
            conversation.writer, conversation.session, step=step.name, variables=volatile, max_retries=retries.max_retries,
            cost_tracking=options.cost_tracking is not False,
        )  # fmt: skip
        async with api, LiveTools(workdir, _allowed(options)) as tools:
            yield api, tools

    def _start_handlers(
        self, writer: RunWriter, step: schema.Step, options: schema.ClaudeOptions, *, after: int
    ) -> list[HandlerThread]:
        specs = self.handlers
        if specs is None:
            specs = handler_specs(options.stream_handler, options.stream_handler_opts) if options.async_streaming else []
        made: list[Handler] = [make_handler(name, values, self.out) for name, values in specs]
        return [HandlerThread(self.log, writer.run, step.name, handler, after=after) for handler in made]

    def _join_handlers(self, threads: list[HandlerThread], result: RunResult) -> None:
        for thread in threads:
            thread.join()
            if isinstance(thread.error, BrokenPipeError):
                continue  # whoever read our output has gone; the CLI says so in its exit code
            if thread.error is not None:
                what = f"handler {thread.handler.name!r} failed: {type(thread.error).__name__}: {thread.error}"
                result.handler_errors.append(what)

    def _write_output(
        self, name: str, options: schema.ClaudeOptions, outcome: Outcome, step: StepResult, run: str
    ) -> None:  # fmt: skip
        path = Path(self.workflow.defaults.output_dir or ".") / name
        match options.output_format:
            case "json":
                text = json.dumps(outcome.result, ensure_ascii=False, indent=2) + "\n"
            case "stream_json":
                messages = self.log.messages(run, step=step.name)
                text = "".join(json.dumps(message.data, ensure_ascii=False) + "\n" for message in messages)
            case _:
                text = outcome.text
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            step.status, step.error = "failed", f"cannot write output_to_file {path}: {error.strerror}"


def _fill(done: StepResult, options: schema.ClaudeOptions, outcome: Outcome) -> None:
    done.status = "completed" if outcome.error is None else "failed"
    done.error = outcome.error
    done.text = outcome.text
    done.turns = outcome.turns
    done.stop_reason = outcome.stop_reason
    done.usage = outcome.usage
    done.cost_usd = outcome.cost_usd if options.cost_tracking is not False else None
    done.duration_ms = outcome.result.get("duration_ms", 0)
    done.time_to_first_message_ms = outcome.result.get("ttft_ms")


def _conversation(
    step: schema.Step, options: schema.ClaudeOptions, prompt: str, writer: RunWriter, session: Session,
    notify: Callable[[str], None],
) -> Conversation:  # fmt: skip
    def model(name: str) -> str:
        return schema.MODELS.get(name, name)

    system = "\n\n".join(filter(None, (options.system_prompt, options.append_system_prompt)))
    body: dict[str, Any] = {
        "model": model(options.model or schema.DEFAULT_MODEL),
        "max_tokens": options.max_tokens or schema.MAX_TOKENS,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    if system:
        body["system"] = system
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if tools := _allowed(options):
        body["tools"] = [DEFINITIONS[name] for name in tools]
    return Conversation(
        body=body,
        max_turns=options.max_turns or schema.MAX_TURNS,
        writer=writer,
        session=session,
        step=step.name,
        fallback_model=None if options.fallback_model is None else model(options.fallback_model),
        cost_tracking=options.cost_tracking is not False,
        notify=notify if options.verbose else lambda _: None,
    )


def _allowed(options: schema.ClaudeOptions) -> list[str]:
    """The tools of a step, in the order of the definitions: those allowed, less those disallowed or changing in plan mode."""
    without = set(options.disallowed_tools or ()) | (CHANGING if options.permission_mode == "plan" else set())
    return [name for name in DEFINITIONS if name in (options.allowed_tools or ()) and name not in without]


def _merged(defaults: schema.ClaudeOptions, own: schema.ClaudeOptions) -> schema.ClaudeOptions:
    """The step's options over the workflow's defaults; the step's own handler does not inherit another one's options."""
    merged = defaults.model_dump(exclude_unset=True) | own.model_dump(exclude_unset=True)
    if own.stream_handler is not None and own.stream_handler_opts is None:
        merged.pop("stream_handler_opts", None)
    return schema.ClaudeOptions.model_validate(merged)


def _rendered(value: Any, variables: dict[str, Any], where: str) -> Any:
    if isinstance(value, str):
        return render(value, variables, where)
    if isinstance(value, dict):
        return {key: _rendered(item, variables, where) for key, item in value.items()}
    return [_rendered(item, variables, where) for item in value] if isinstance(value, list) else value


@contextlib.contextmanager
def _sigterm_cancels() -> Any:
    """A run that is told to stop ends as a cancelled run, not as one whose writer died."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (ValueError, RuntimeError):  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
