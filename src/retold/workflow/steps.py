"""Run each type of step: one conversation, several at once, or one that is repeated until it succeeds."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import RunError
from ..recorder.messages import Session
from . import schema
from .agent import Outcome
from .extraction import extract
from .prompt_job import Unit
from .results import StepResult, TaskResult, add_up, fill
from .retry import delay_s
from .run_context import Running
from .sessions import SessionState, last_session
from .step_types import BatchStep, ExtractStep, ParallelStep, RobustConfig, RobustStep, SessionStep, Step


async def perform(running: Running, step: Step, units: Sequence[Unit], done: StepResult) -> None:
    """Run a step and write its result into `done`. Raise MissError in replay, and RunError for a failure that no conversation
    holds.
    """
    match step:
        case BatchStep():
            config = step.batch_config
            await _tasks(running, units, done, at_once=config.max_parallel, timeout_ms=config.timeout_per_task)
            _settle_tasks(done, consolidate=config.consolidate_results, allow_failures=config.allow_failures)
        case ParallelStep():
            await _tasks(running, units, done, at_once=step.max_parallel or len(units), timeout_ms=None)
            _settle_tasks(done, consolidate=True, allow_failures=step.allow_failures)
        case RobustStep():
            await _robust(running, units[0], step.retry_config, done)
        case SessionStep():
            await _session(running, step, units[0], done)
        case _:
            outcome = await _converse(running, units[0], Session(units[0].options.session_id))
            _keep(running, units[0], outcome, done)
    if isinstance(step, ExtractStep) and done.status == "completed":
        done.text = extract(done.text, step.extraction_config, done)


async def _converse(running: Running, unit: Unit, session: Session, timeout_ms: int | None = None) -> Outcome:
    """Hold one conversation of a unit and return its outcome."""
    try:
        async with running.holding(unit, _shorter(unit.options.timeout_ms, timeout_ms)) as hold:
            return await hold(unit, session)
    except RunError as error:
        return running.failed(unit, session, str(error))


def _keep(running: Running, unit: Unit, outcome: Outcome, done: StepResult | TaskResult) -> None:
    fill(done, outcome, cost_tracking=unit.options.cost_tracking is not False)
    running.context.sessions[done.session_id] = outcome.messages


# Sessions


async def _session(running: Running, step: SessionStep, unit: Unit, done: StepResult) -> None:
    config, name = step.session_config, unit.session_name
    state = running.sessions.get(name) or _continued(running, step, unit)
    left = None if config.max_turns is None else config.max_turns - state.turns
    # max_turns counts over all steps, and runs, of the session.
    if left is not None and left < 1:
        raise RunError(f"session {name!r} has used the {config.max_turns} turns of its max_turns")
    outcome = await _converse(running, replace(unit, history=state.messages, turns_left=left), state.session)
    _keep(running, unit, outcome, done)
    # A failed step leaves the session unchanged, so that the next one continues from its last good state.
    if outcome.error is None:
        state.messages, state.turns = outcome.messages, state.turns + outcome.turns
        running.sessions[name] = state
        running.context.sessions[name] = state.messages


def _continued(running: Running, step: SessionStep, unit: Unit) -> SessionState:
    """Return the session as an earlier run left it. A mock run uses the history in its recording, not the current log."""
    config = step.session_config
    if running.recording is not None:
        return SessionState(Session(), running.recording.history(step.name, ""), engine=unit.engine)
    if running.fork is not None and (history := running.fork.history(step.name)) is not None:
        return SessionState(Session(), history, engine=unit.engine)
    found = None
    if config.persist and config.continue_on_restart:
        found = last_session(running.log, running.loaded.workflow.name, unit.session_name, unit.engine)
    return found or SessionState(Session(), [], engine=unit.engine)


# Tasks


async def _tasks(running: Running, units: Sequence[Unit], done: StepResult, *, at_once: int, timeout_ms: int | None) -> None:
    """Run each unit as a task, at most `at_once` at a time, started in order."""
    done.tasks = [TaskResult(unit.task) for unit in units]
    slots = asyncio.Semaphore(at_once)
    outcomes: list[Outcome] = []

    async def task(unit: Unit, result: TaskResult) -> None:
        async with slots:
            running.writer.note("task.started", {"id": unit.task}, step=unit.step, task=unit.task)
            session = Session(unit.options.session_id)
            try:
                outcome = await _converse(running, unit, session, timeout_ms)
                outcomes.append(outcome)
                _keep(running, unit, outcome, result)
                result.messages = session.made
                if unit.output_to is not None and outcome.error is None:
                    write_output(running, unit, unit.output_to, result, outcome.result)
            finally:
                said = {"id": unit.task, "status": result.status, "error": result.error}
                running.writer.note("task.ended", said, step=unit.step, task=unit.task)

    await _all(task(unit, result) for unit, result in zip(units, done.tasks, strict=True))
    add_up(done, outcomes, cost_tracking=all(unit.options.cost_tracking is not False for unit in units))


async def _all(tasks: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the tasks together. The first exception cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in tasks:
                group.create_task(each)
    except BaseExceptionGroup as several:
        # Callers expect the plain exception, not a group.
        raise several.exceptions[0] from None


def _settle_tasks(done: StepResult, *, consolidate: bool, allow_failures: bool) -> None:
    failed = [task for task in done.tasks if task.error is not None]
    done.status = "completed" if allow_failures or not failed else "failed"
    if done.status == "failed":
        several = f"{len(failed)} of {len(done.tasks)} tasks failed"
        done.error = f"{several}: " + "; ".join(f"{task.id}: {task.error}" for task in failed)
    held = [task for task in done.tasks if task.error is None]
    if consolidate:
        done.text = "\n\n".join(f"## {task.id}\n\n{task.text}" for task in held)
    else:
        done.text = strict_json.dumps({task.id: task.text for task in held}, indent=2)


# Again and again


async def _robust(running: Running, unit: Unit, config: RobustConfig, done: StepResult) -> None:
    """Repeat until an attempt succeeds, each in its own session in the log. If none does, apply the fallback."""
    outcomes: list[Outcome] = []
    if unit.options.retry_config is None:  # retries of requests would multiply with those of the step
        unit = replace(unit, options=unit.options.model_copy(update={"retry_config": schema.RetryConfig(max_retries=0)}))
    async with running.holding(unit, unit.options.timeout_ms) as hold:
        while True:
            session = Session()
            outcome = await hold(unit, session)
            outcomes.append(outcome)
            done.attempts = len(outcomes)
            again = outcome.failure in config.retry_conditions or "any" in config.retry_conditions
            if outcome.error is None or not again or len(outcomes) > config.max_retries:
                break
            await _pause(running, unit, session, config, outcome, len(outcomes))
        if outcome.error is not None and config.fallback_action == "simplified_prompt":
            options = unit.options.model_copy(update={"allowed_tools": [], "max_turns": 1})
            outcomes.append(await hold(replace(unit, options=options), Session()))
    _settle_attempts(running, unit, config, outcomes, done)


async def _pause(running: Running, unit: Unit, session: Session, config: RobustConfig, outcome: Outcome, attempt: int) -> None:
    """Announce another attempt and wait. A replay does not wait, because the recorded times contain the pauses."""
    wait_s = delay_s(config, attempt)
    said = {"attempt": attempt, "max_retries": config.max_retries, "retry_delay_ms": round(wait_s * 1000), "error": outcome.error}
    running.writer.note("message", session.system("step_retry", said), step=unit.step, task=unit.task)
    if not unit.options.async_streaming:  # otherwise its handler shows it
        running.notify(f"attempt {attempt} of {config.max_retries + 1} failed: {outcome.error}; again in {wait_s:.1f} s")
    if running.recording is None:
        await asyncio.sleep(wait_s)


def _settle_attempts(running: Running, unit: Unit, config: RobustConfig, outcomes: list[Outcome], done: StepResult) -> None:
    last = outcomes[-1]
    _keep(running, unit, last, done)
    add_up(done, outcomes, cost_tracking=unit.options.cost_tracking is not False)
    failed = last if last.error is not None else None
    if len(outcomes) > done.attempts:  # the last outcome is that of the simplified prompt
        failed = outcomes[-2]
        done.status, done.fallback = ("fallback" if last.error is None else "failed"), config.fallback_action
    elif failed is not None and config.fallback_action == "graceful_degradation":
        done.status, done.fallback = "fallback", config.fallback_action
        # Keep the longest text that any attempt produced.
        done.text = max((outcome.text for outcome in outcomes), key=len)
    if failed is not None and done.status == "fallback":
        done.error = failed.error


# Files


def write_output(running: Running, unit: Unit, path: Path, done: StepResult | TaskResult, result: Any) -> None:
    """Write `output_to_file` of a step or of one task. A file that cannot be written fails the step or task."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            match unit.options.output_format:
                case "json":
                    file.write(strict_json.dumps(result, indent=2) + "\n")
                case "stream_json":
                    label = running.writer.redactor.label
                    for message in running.log.messages(running.writer.run, step=label(unit.step)):
                        if message.task == label(unit.task) or isinstance(done, StepResult):
                            file.write(strict_json.dumps(message.data) + "\n")
                case _:
                    file.write(done.text)
    except OSError as error:
        done.status, done.error = "failed", f"cannot write output_to_file {path}: {error.strerror}"


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)
