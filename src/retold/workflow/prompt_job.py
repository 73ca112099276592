"""A unit of work: one conversation of a step or of a task, with templates filled in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..recorder.log.run_writer import RunWriter
from ..recorder.messages import Session
from . import schema
from .agent import Conversation
from .paths import render_options
from .presets import options_of
from .prompt import Context, build_prompt, volatile_in_texts
from .step_types import BatchStep, ParallelStep, SessionStep, Step, Workflow
from .templates import render
from .tools import CHANGING, DEFINITIONS


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
