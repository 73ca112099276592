"""A unit of work: one conversation of a step or of a task, with its prompt built from its parts and templates filled in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..recorder import strict_json
from ..recorder.errors import RunError, WorkflowError
from ..recorder.files import read_text
from ..recorder.log.log import RunWriter
from ..recorder.messages import Session, content_blocks
from . import schema
from .agent import Conversation
from .extraction import json_in
from .options import options_of, render_options, render_path
from .results import StepResult
from .step_types import BatchStep, ParallelStep, SessionStep, Step, Workflow
from .templates import render, volatile_in
from .tools import CHANGING, DEFINITIONS

if TYPE_CHECKING:
    from .load import Loaded


class Context:
    """The values to which prompts and templates of a run may refer. It grows with each finished step."""

    def __init__(self, loaded: "Loaded", run: str, date: str) -> None:
        workflow = loaded.workflow
        self.folder = loaded.folder
        self._loaded = loaded
        self.variables: dict[str, Any] = {
            "execution_id": run,
            "date": date,
            "workflow": {"name": workflow.name, "description": workflow.description, "version": workflow.version},
            "environment": {"mode": workflow.environment.mode},
            "global_vars": dict(workflow.global_vars),
            "steps": {},
        }
        self.sessions: dict[str, list[dict[str, Any]]] = {}

    def of_step(self, step: Step) -> dict[str, Any]:
        """Return the variables for the templates of a step."""
        return self.variables | {"step": {"name": step.name, "type": step.type}}

    def where(self, step: Step, task: str = "") -> str:
        """Return `file:line:column: step 'name'`, for errors that occur only when a step runs."""
        number = self._loaded.workflow.steps.index(step)
        place = self._loaded.source.place(("workflow", "steps", number))
        return f"{place}: step {step.name!r}{f', task {task!r}' if task else ''}"

    def output_path(self, name: str, step: Step, task: str = "") -> Path:
        """Return the path of `output_to_file`, below `defaults.output_dir`; `~` is the home folder. Raise WorkflowError."""
        variables, where = self.of_step(step), self.where(step, task)
        named = self._loaded.workflow.defaults.output_dir or "."
        folder = Path(render_path(named, variables, where, Path())).expanduser()
        return folder / Path(render_path(name, variables, where, folder)).expanduser()

    def finish(self, done: StepResult) -> None:
        """Add a finished step, so that later steps can refer to it. A skipped step or a failed task has only a status."""
        known: dict[str, Any] = {"status": done.status}
        if done.status != "skipped":
            known |= {"text": done.text, "cost_usd": done.cost_usd, "turns": done.turns}
            known["tasks"] = {
                task.id: {"status": task.status} | ({"text": task.text} if task.error is None else {}) for task in done.tasks
            }
        self.variables["steps"][done.name] = known


@dataclass(frozen=True)
class Unit:
    """The request of one conversation, with its options and tools. `history` is the conversation to continue. `task` is empty
    for a step without tasks.
    """

    step: str
    task: str
    prompt: str
    options: schema.ClaudeOptions
    volatile: dict[str, str]
    workdir: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    output_to: Path | None = None
    session_name: str = ""
    shows_itself: bool = False
    """Whether it names its own handler, which then shows it alone."""
    engine: schema.Engine = schema.DEFAULT_ENGINE
    turns_left: int | None = None
    """The turns that the `max_turns` of its session leaves."""

    @property
    def max_turns(self) -> int:
        """The highest number of turns."""
        own = self.options.max_turns or schema.MAX_TURNS
        return own if self.turns_left is None else min(own, self.turns_left)

    def body(self) -> dict[str, Any]:
        """Return the body of the first request."""
        options = self.options
        system = "\n\n".join(filter(None, (options.system_prompt, options.append_system_prompt)))
        body: dict[str, Any] = {
            "model": model_id(options.model or schema.DEFAULT_MODEL),
            "max_tokens": options.max_tokens or schema.MAX_TOKENS,
            "messages": [*self.history, {"role": "user", "content": self.prompt}],
            "stream": True,
        }
        if system:
            body["system"] = system
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if tools := allowed_tools(options):
            body["tools"] = [DEFINITIONS[name] for name in tools]
        return body

    def conversation(self, writer: RunWriter, session: Session, notify: Callable[[str], None]) -> Conversation:
        """Return the conversation, with its first message appended to the log."""
        options = self.options
        conversation = Conversation(
            body=self.body(),
            max_turns=self.max_turns,
            writer=writer,
            session=session,
            step=self.step,
            task=self.task,
            fallback_model=None if options.fallback_model is None else model_id(options.fallback_model),
            cost_tracking=options.cost_tracking is not False,
            notify=notify if options.verbose else lambda _: None,
        )
        tools, mode = allowed_tools(options), options.permission_mode or "default"
        model = conversation.body["model"]
        conversation.say(session.init(model=model, tools=tools, cwd=str(self.workdir), permission_mode=mode))
        return conversation


def units_of(step: Step, workflow: Workflow, context: Context) -> list[Unit]:
    """Return the conversations of a step. Raise WorkflowError for a bad template or a missing file."""
    if isinstance(step, BatchStep):
        return [
            _unit(step, workflow, context, task.id or f"task-{number}", [step.prompt, task.prompt], file=task.file)
            for number, task in enumerate(step.tasks, 1)
        ]
    if isinstance(step, ParallelStep):
        return [
            _unit(step, workflow, context, task.id, [task.prompt], own=task.claude_options, output=task.output_to_file)
            for task in step.parallel_tasks
        ]
    return [_unit(step, workflow, context, "", [step.prompt])]


def _unit(
    step: Step, workflow: Workflow, context: Context, task: str, prompts: list[schema.Prompt | None], *,
    file: str | None = None, own: schema.ClaudeOptions | None = None, output: str | None = None,
) -> Unit:  # fmt: skip
    raw = options_of(step, workflow, own)
    variables, where = context.of_step(step), context.where(step, task)
    workspace = Path(workflow.workspace_dir or ".")
    options = render_options(raw, variables, where, workspace)
    said = [prompt for prompt in prompts if prompt is not None]
    parts: list[schema.Part] = [part for prompt in said for part in _parts(prompt)]
    if file is not None:
        parts.append(schema.FilePart(type="file", path=file))
    texts = [raw.system_prompt, raw.append_system_prompt, *_texts(parts), *_of_session(step, workflow)]
    return Unit(
        step=step.name,
        task=task,
        prompt=build_prompt(parts, variables, context, where),
        options=options,
        volatile=volatile_in_texts(texts, context),
        workdir=(workspace / (options.cwd or ".")).resolve(),
        output_to=None if output is None else context.output_path(output, step, task),
        session_name=render(step.session_config.session_name, variables, where) if isinstance(step, SessionStep) else "",
        shows_itself=own is not None
        and not {"async_streaming", "stream_handler", "stream_handler_opts"}.isdisjoint(own.model_fields_set),
        engine=step.engine or workflow.engine,
    )


def _of_session(step: Step, workflow: Workflow) -> list[str]:
    """Return the prompts of all steps of sessions if the step is one of them: what one asks, the later ones repeat."""
    steps = [other for other in workflow.steps if isinstance(other, SessionStep)] if isinstance(step, SessionStep) else []
    return [text for other in steps for text in _texts(_parts(other.prompt))]


def _parts(prompt: schema.Prompt) -> list[schema.Part]:
    return [schema.StaticPart(type="static", content=prompt)] if isinstance(prompt, str) else prompt


def _texts(parts: list[schema.Part]) -> list[str]:
    return [part.content for part in parts if isinstance(part, schema.StaticPart)]


def model_id(name: str) -> str:
    """Return the model id of an alias, or any other name unchanged."""
    return schema.MODELS.get(name, name)


def allowed_tools(options: schema.ClaudeOptions) -> list[str]:
    """Return the tools of a unit, in the order of the definitions: the allowed ones, without those disallowed or changing in
    plan mode.
    """
    without = set(options.disallowed_tools or ()) | (CHANGING if options.permission_mode == "plan" else set())
    return [name for name in DEFINITIONS if name in (options.allowed_tools or ()) and name not in without]


def build_prompt(parts: Sequence[schema.Part], variables: Mapping[str, Any], context: Context, where: str) -> str:
    """Return the text of a prompt. Parts are separated by a blank line. Raise WorkflowError."""
    return "\n\n".join(_part(part, context, variables, f"{where}, prompt") for part in parts)


def volatile_in_texts(texts: Iterable[str | None], context: Context) -> dict[str, str]:
    """Return the volatile variables that a request with these templates may contain, with their values in this run."""
    used: set[str] = set().union(*(volatile_in(text) for text in texts if text))
    return {name: str(context.variables[name]) for name in sorted(used)}


def _part(part: schema.Part, context: Context, variables: Mapping[str, Any], where: str) -> str:
    match part:
        case schema.StaticPart():
            return render(part.content, variables, where)
        case schema.FilePart():
            return _file(context.folder / render_path(part.path, variables, where, context.folder), where)
        case schema.PreviousResponsePart():
            earlier = context.variables["steps"][part.step]
            if "text" not in earlier:
                raise WorkflowError(f"{where}: step {part.step!r} was {earlier['status']}; it has no response.")
            text = str(earlier["text"])
            if part.extract is None:
                return text
            return _extract(text, render(part.extract, variables, where), f"{where}, response of {part.step!r}")
        case schema.SessionContextPart():
            session_id = render(part.session_id, variables, where)
            if session_id not in context.sessions:
                known = ", ".join(context.sessions) or "none yet"
                raise WorkflowError(f"{where}: no session {session_id!r} in this run so far; sessions: {known}.")
            return _transcript(context.sessions[session_id], part.include_last_n)


def _file(path: Path, where: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise WorkflowError(f"{where}: no file {path}; a relative path counts from the workflow's folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}.") from error


def _extract(text: str, dotted: str, where: str) -> str:
    """Return a field of a JSON answer, bare or in a code fence. Text is returned unchanged, any other value as JSON."""
    try:
        value = json_in(text)
    except RunError as error:
        raise WorkflowError(f"{where}: cannot extract {dotted!r}, the response is not JSON.") from error
    for key in dotted.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            there = f"; there are {', '.join(map(str, value))}" if isinstance(value, dict) and value else ""
            raise WorkflowError(f"{where}: nothing to extract at {dotted!r}: no {key!r}{there}.")
    return value if isinstance(value, str) else strict_json.dumps(value)


def _transcript(messages: list[dict[str, Any]], last: int | None) -> str:
    lines = []
    for message in messages:
        blocks = content_blocks(message["content"])
        text = "\n".join(str(block["text"]) for block in blocks if block.get("type") == "text")
        if text:
            lines.append(f"{'User' if message['role'] == 'user' else 'Assistant'}: {text}")
    return "\n\n".join(lines if last is None else lines[-last:])
