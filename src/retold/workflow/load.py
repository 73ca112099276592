"""Read and check a workflow file. All errors are reported at once, each with its line, before anything runs.

The models find most of them. `problems_of` finds the others: names, references, templates, handlers, tasks without a prompt, and
options and tools that the engine of a step does not have.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..recorder.errors import Problem, WorkflowError
from ..recorder.secrets.redactor import Redactor
from ..recorder.strict_json import object_or_empty
from ..recorder.words import nearest, sentence
from . import schema, step_types
from .explain import explain_all
from .options import handler_problems
from .schema import DEFAULT_ENGINE, ENGINES
from .source import Source, YamlPath, read_source
from .templates import Known, has_template, problem_in, problem_in_condition, unknown_step
from .tools import DEFINITIONS

Placed = tuple[YamlPath, str]


@dataclass(frozen=True)
class Loaded:
    """A valid workflow and its file."""

    source: Source
    workflow: step_types.Workflow

    @property
    def folder(self) -> Path:
        """The folder of the file. Relative paths in the file count from there."""
        return self.source.path.parent

    def cassette(self) -> Path:
        """Return the path of the recording: `workflow.cassette`, or `cassettes/<name>.yaml` in the folder or beside it."""
        if self.workflow.cassette is not None:
            return self.folder / self.workflow.cassette
        beside = [self.folder / "cassettes", Path(os.path.normpath(self.folder.absolute().parent)) / "cassettes"]
        folder = next((folder for folder in beside if folder.is_dir()), beside[0])
        return _short(folder / f"{Redactor().text(self.workflow.name)}.yaml")


def load_workflow(path: str | os.PathLike[str]) -> Loaded:
    """Read and check a workflow file. Raise WorkflowError with the file, line and column of all errors."""
    source = read_source(Path(path))
    found: list[tuple[YamlPath, str]] = []
    if isinstance(source.data, list):
        said = "this is a list of steps; a workflow file has them below `workflow:` with a `name` and `steps:`"
        found.append(((), said))
        if not all(isinstance(step, dict) for step in source.data):
            raise _error(source, found)
        source = _as_steps(source)
    if not isinstance(source.data, dict):
        raise _error(source, [((), "a workflow file holds a key `workflow` with `name` and `steps`")])
    if "interactions" in source.data and "workflow" not in source.data:
        raise _error(source, [((), "this is a cassette, which `retold play` shows; a workflow file holds a key `workflow`")])
    workflow = None
    try:
        workflow = step_types.WorkflowFile.model_validate(source.data).workflow
    except ValidationError as error:
        found += explain_all(source, error.errors())
    # Check references, templates and handlers in all parts of the file that the models accept.
    found += problems_of(source.data.get("workflow"), source.path.parent)
    if found or workflow is None:
        raise _error(source, found)
    return Loaded(source, workflow)


def _as_steps(source: Source) -> Source:
    """Return a top-level list of steps under the right key, so that errors in the steps are reported as well."""
    top, inside = source.positions[()], ("workflow", "steps")
    positions = {(*inside, *at): place for at, place in source.positions.items()}
    return Source(source.path, {"workflow": {"name": "steps", "steps": source.data}}, {(): top, inside[:1]: top, **positions})


def _short(path: Path) -> Path:
    """Return the path relative to the working directory if it is below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _error(source: Source, found: Iterable[tuple[YamlPath, str]]) -> WorkflowError:
    """Return the errors from top to bottom, each as one sentence."""
    problems = sorted((Problem(*source.position(at), sentence(what)) for at, what in found), key=lambda problem: problem[:2])
    lines = [f"{source.path}:{problem.line}:{problem.column}: {problem.message}" for problem in problems]
    said = lines[0] if len(lines) == 1 else f"{len(lines)} errors in the workflow:\n" + "\n".join(lines)
    return WorkflowError(said, problems)


AS_IT_STANDS = ("name", "id", "type", "description")
"""Keys whose text is not a template. The first two are names, which must not change."""


@dataclass(frozen=True)
class _Names:
    """Steps by name with the ids of their tasks, in order; the global variables; and the sessions of the steps."""

    steps: Sequence[str]
    tasks: Mapping[str, Sequence[str]]
    variables: Sequence[str]
    sessions: Sequence[str]

    def problem(self, text: str, earlier: Sequence[str], *, condition: bool = False) -> str | None:
        find = problem_in_condition if condition else problem_in
        return find(text, Known(self.tasks, earlier, self.variables))


def problems_of(data: Any, folder: Path) -> Iterator[Placed]:
    """Yield all problems under `workflow`, in the parts that the models accept.

    Handlers are created but not run: the module of a callback is imported, and the path of a file handler is checked.
    """
    data = object_or_empty(data)
    steps = _list(data.get("steps"))
    defaults = object_or_empty(data.get("defaults"))
    default_options = _sound(defaults.get("claude_options"))
    own = [object_or_empty(step) for step in steps]
    names = _Names(
        [str(step.get("name", "")) for step in own],
        {str(step.get("name", "")): _task_ids(step) for step in own},
        list(map(str, object_or_empty(data.get("global_vars")))),
        [_session(step, default_options) for step in own],
    )
    at: YamlPath = ("workflow", "defaults", "claude_options")
    yield from handler_problems([default_options], at, folder, is_default=True)
    for path, text in _strings(defaults, ("workflow", "defaults")):
        if problem := names.problem(text, names.steps):
            yield path, problem
    for path, text in _strings({k: v for k, v in data.items() if k not in ("steps", "defaults", "description")}, ("workflow",)):
        if has_template(text):
            yield path, f"{path[-1]!r} is used literally; templates work in steps and in defaults"
    yield from engine_problems(data, steps)
    writes = _may_write(defaults)
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            yield from _step_problems(step, number, names, default_options, folder)
            yield from [] if writes else _missing_files(step, ("workflow", "steps", number), folder)
            writes = writes or _may_write(step)


def _may_write(said: dict[str, Any]) -> bool:
    """Return True if a step, or one with these defaults, may create files that a later step reads: by its output or by tools."""
    keys = {part for path, _ in _strings(said, ()) for part in path}
    return (
        not keys.isdisjoint({"output_to_file", "allowed_tools", "preset", "claude_preset"}) or said.get("type") == "claude_smart"
    )


def _missing_files(step: dict[str, Any], at: YamlPath, folder: Path) -> Iterator[Placed]:
    """Yield the files of prompts and tasks that do not exist and that no earlier step could create."""
    for path, text in _strings(step, at):
        is_part = path[-1] == "path" and "prompt" in path
        is_task = path[-1] == "file" and path[-3:-2] == ("tasks",)
        if (is_part or is_task) and not has_template(text) and not (folder / text).exists():
            yield path, f"no file {folder / text}; a relative path counts from the workflow's folder"


def _task_ids(step: dict[str, Any]) -> list[str]:
    tasks = _list(step.get("tasks")) + _list(step.get("parallel_tasks"))
    return [str(object_or_empty(task).get("id") or f"task-{number}") for number, task in enumerate(tasks, 1)]


def _session(step: dict[str, Any], defaults: schema.ClaudeOptions) -> str:
    """Return the name under which `session_context` finds the conversation of a step, or an empty text."""
    config, options = object_or_empty(step.get("session_config")), object_or_empty(step.get("claude_options"))
    named = config.get("session_name") or options.get("session_id")
    return str(named or defaults.session_id or "")


def _step_problems(
    step: dict[str, Any], number: int, names: _Names, defaults: schema.ClaudeOptions, folder: Path
) -> Iterator[Placed]:
    at: YamlPath = ("workflow", "steps", number)
    earlier = names.steps[:number]
    if names.steps[number] in earlier and "name" in step:
        yield (*at, "name"), f"two steps have the name {names.steps[number]!r}"
    options = _sound(step.get("claude_options"))
    yield from _prompt_problems(step.get("prompt"), (*at, "prompt"), number, names)
    yield from handler_problems([defaults, options], (*at, "claude_options"), folder)
    for key in ("tasks", "parallel_tasks"):
        yield from _task_problems(step, key, (*at, key), number, names, [defaults, options], folder)
    condition = step.get("condition")
    if isinstance(condition, str) and (problem := names.problem(condition, earlier, condition=True)):
        yield (*at, "condition"), problem
    for path, text in _strings({key: value for key, value in step.items() if key != "condition"}, at):
        inside = [part for part in path if isinstance(part, str)]
        if inside[-1] in AS_IT_STANDS and "stream_handler_opts" not in inside:
            if has_template(text) and inside[-1] != "description":
                yield path, f"{inside[-1]!r} is used literally; it cannot hold a template"
        elif problem := names.problem(text, earlier):
            yield path, problem


def _prompt_problems(prompt: Any, at: YamlPath, number: int, names: _Names) -> Iterator[Placed]:
    for place, part in enumerate(map(object_or_empty, _list(prompt))):
        earlier, sessions = names.steps[:number], names.sessions[:number]
        match part.get("type"):
            case "previous_response" if (step := part.get("step")) is not None and step not in earlier:
                yield (*at, place, "step"), unknown_step(str(step), earlier, names.steps)
            case "session_context" if isinstance(session := part.get("session_id"), str) and session not in sessions:
                if not any(map(has_template, (session, *sessions))):
                    known = list(filter(None, sessions))
                    hint = nearest(session, known) if known else ": no step before this one has a session"
                    yield (*at, place, "session_id"), f"unknown session {session!r}{hint}"


def _task_problems(
    step: dict[str, Any], key: str, at: YamlPath, before: int, names: _Names, options: list[schema.ClaudeOptions],
    folder: Path,
) -> Iterator[Placed]:  # fmt: skip
    seen: set[str] = set()
    for number, task in enumerate(_list(step.get(key))):
        if not isinstance(task, dict):
            continue
        name = str(task.get("id") or f"task-{number + 1}")
        if name in seen:
            yield (*at, number, "id") if "id" in task else (*at, number), f"two tasks have the id {name!r}"
        seen.add(name)
        asked = any(value is not None for value in (step.get("prompt"), task.get("prompt"), task.get("file")))
        if key == "tasks" and not asked and task.keys() <= {"id"}:
            yield (*at, number), f"task {name!r} has nothing to ask; give it a 'prompt' or a 'file', or the step a 'prompt'"
        yield from _prompt_problems(task.get("prompt"), (*at, number, "prompt"), before, names)
        own = _sound(task.get("claude_options"))
        yield from handler_problems([*options, own], (*at, number, "claude_options"), folder)


def _sound(values: Any) -> schema.ClaudeOptions:
    """Return the options that are valid one by one. The models report the others."""
    sound = schema.ClaudeOptions()
    for key, value in object_or_empty(values).items():
        try:
            sound = sound.model_copy(update={key: getattr(schema.ClaudeOptions.model_validate({key: value}), key)})
        except (ValidationError, AttributeError):
            continue
    return sound


def _strings(value: Any, at: YamlPath) -> Iterator[tuple[YamlPath, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(item, (*at, number))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


NOT_OF_CLAUDE_CODE = {
    "max_tokens": "Claude Code sets the length of an answer",
    "temperature": "Claude Code sets it",
    "cost_tracking": "Claude Code computes the costs in the messages",
}
"""Options without a meaning on Claude Code, with the reason."""

_NOT_OF_RETRIES = {"backoff_strategy": "Claude Code sets its pauses", "base_delay_ms": "Claude Code sets its pauses"}
"""Keys of `claude_options.retry_config` without a meaning on Claude Code."""


def engine_problems(workflow: Mapping[str, Any], steps: Sequence[Any]) -> Iterator[tuple[YamlPath, str]]:
    """Yield the options and tools that the engine of their step does not have, and sessions on both engines."""
    default = workflow.get("engine") if workflow.get("engine") in ENGINES else DEFAULT_ENGINE
    engines: dict[str, list[str]] = {engine: [] for engine in ENGINES}
    sessions: dict[str, tuple[str, str]] = {}
    for number, step in enumerate(map(object_or_empty, steps)):
        engine, name, at = step.get("engine") or default, str(step.get("name", "")), ("workflow", "steps", number)
        if engine not in ENGINES:
            continue
        engines[engine].append(name)
        yield from _problems(step.get("claude_options"), (*at, "claude_options"), engine)
        tasks = step.get("parallel_tasks")
        for place, task in enumerate(tasks if isinstance(tasks, list) else []):
            options = object_or_empty(task).get("claude_options")
            yield from _problems(options, (*at, "parallel_tasks", place, "claude_options"), engine)
        session = object_or_empty(step.get("session_config")).get("session_name")
        if isinstance(session, str):
            first, other = sessions.setdefault(session, (name, engine))
            if other != engine:
                said = f"session {session!r} cannot continue on {engine}: step {first!r} holds it on {other}"
                yield (*at, "session_config", "session_name"), said
    options = object_or_empty(workflow.get("defaults")).get("claude_options")
    for engine, names in engines.items():
        if names:
            yield from _problems(options, ("workflow", "defaults", "claude_options"), engine, step=names[0])


def _problems(options: Any, at: YamlPath, engine: str, *, step: str = "") -> Iterator[tuple[YamlPath, str]]:
    """Yield the problems of the options of one place. `step` is the first step of the engine if they are defaults."""
    options = object_or_empty(options)
    if engine == "claude_code":
        retries = object_or_empty(options.get("retry_config"))
        where = f"in step {step!r}, which runs on claude_code" if step else "on claude_code"
        for path, key, why in (
            *(((key,), key, why) for key, why in NOT_OF_CLAUDE_CODE.items() if options.get(key) is not None),
            *((("retry_config", key), key, why) for key, why in _NOT_OF_RETRIES.items() if key in retries),
        ):
            yield (*at, *path), f"{key!r} has no meaning {where}: {why}"
        session_id = options.get("session_id")
        if isinstance(session_id, str) and not has_template(session_id) and not _is_uuid(session_id):
            yield (*at, "session_id"), f"'session_id' should be a UUID for claude_code, and is {session_id!r}"
        return
    for key in ("allowed_tools", "disallowed_tools"):
        tools = options.get(key)
        for number, tool in enumerate(tools if isinstance(tools, list) else []):
            if isinstance(tool, str) and tool not in DEFINITIONS:
                yield (*at, key, number), f"{key!r} cannot be {tool!r}{nearest(tool, list(DEFINITIONS))}"


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
