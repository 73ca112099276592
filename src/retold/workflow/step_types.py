"""The seven step types and the file around them. All models are strict, as in `schema`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from .schema import DEFAULT_ENGINE, ClaudeOptions, Engine, Model, Name, PresetName, Prompt, RetryConfig
from .source import SpelledFloat, SpelledInt


class BaseStep(Model):
    """The keys of every step.

    `engine` holds the conversations of the step; the default is that of the workflow.

    `condition` is an expression, such as `steps.check.text != ""`. A step is skipped if its condition is false.
    """

    name: Name
    engine: Engine | None = None
    description: str | None = None
    condition: str | None = None
    claude_options: ClaudeOptions = ClaudeOptions()
    output_to_file: str | None = None


class ClaudeStep(BaseStep):
    """One conversation of up to `max_turns` turns."""

    type: Literal["claude"]
    prompt: Prompt


class SmartStep(BaseStep):
    """A conversation with a preset under its own options.

    Without a `preset`, the preset with the name of `environment.mode` applies, unless `environment_aware` is false.
    """

    type: Literal["claude_smart"]
    preset: PresetName | None = None
    environment_aware: bool = True
    prompt: Prompt


class SessionConfig(Model):
    """A named conversation.

    `persist` lets later runs continue it, unless they set `continue_on_restart: false`. `max_turns` limits the turns of the
    whole session.
    """

    session_name: Name
    persist: bool = False
    continue_on_restart: bool = True
    max_turns: Annotated[int, Field(ge=1)] | None = None


class SessionStep(BaseStep):
    """A conversation that continues after the last step of the same session."""

    type: Literal["claude_session"]
    session_config: SessionConfig
    prompt: Prompt


class Task(Model):
    """One task of a batch: a prompt, the text of a file, or both. The default of `id` is `task-N`."""

    id: Name | None = None
    prompt: Prompt | None = None
    file: str | None = None


class BatchConfig(Model):
    """At most `max_parallel` tasks at once, each for at most `timeout_per_task` milliseconds.

    The step's text is the answers of the tasks, each under a heading, or with `consolidate_results: false` JSON by task id.
    """

    max_parallel: Annotated[int, Field(ge=1)] = 3
    timeout_per_task: Annotated[int, Field(ge=1)] | None = None
    consolidate_results: bool = True
    allow_failures: bool = False


class BatchStep(BaseStep):
    """Tasks that share their options. A `prompt` of the step precedes that of each task."""

    type: Literal["claude_batch"]
    batch_config: BatchConfig = BatchConfig()
    prompt: Prompt | None = None
    tasks: Annotated[list[Task], Field(min_length=1)]


Processing = Literal["code_blocks", "links", "lists", "plain_text"]


class ExtractionConfig(Model):
    """How the answer is converted: `post_processing` in order, then the format.

    `summary` keeps whole sentences of up to `max_summary_length` characters. `include_metadata` adds model, tokens, cost and
    times.
    """

    format: Literal["text", "json", "structured", "summary", "markdown"] = "text"
    post_processing: list[Processing] = Field(default_factory=list)
    max_summary_length: Annotated[int, Field(ge=1)] = 500
    include_metadata: bool = False


class ExtractStep(BaseStep):
    """A conversation with an answer that is converted to a given form."""

    type: Literal["claude_extract"]
    extraction_config: ExtractionConfig = ExtractionConfig()
    prompt: Prompt


Condition = Literal["rate_limit", "overloaded", "server_error", "connection", "cut", "timeout", "max_turns", "any"]


def _any() -> list[Condition]:
    return ["any"]


class RobustConfig(RetryConfig):
    """How often the whole step is repeated, after which failures, and the action if all attempts fail.

    Single requests are repeated only if `claude_options.retry_config` is set. `graceful_degradation` continues with the longest
    text of any attempt. `simplified_prompt` asks once more without tools, in one turn.
    """

    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    base_delay_ms: Annotated[int, Field(ge=0)] = 1000
    retry_conditions: Annotated[list[Condition], Field(min_length=1)] = Field(default_factory=_any)
    fallback_action: Literal["fail", "graceful_degradation", "simplified_prompt"] = "fail"


class RobustStep(BaseStep):
    """A conversation that is repeated as a whole if it fails. A fallback is marked as one, never as success."""

    type: Literal["claude_robust"]
    retry_config: RobustConfig = RobustConfig()
    prompt: Prompt


class ParallelTask(Model):
    """One of several concurrent conversations. Its options take precedence over the step's."""

    id: Name
    prompt: Prompt
    claude_options: ClaudeOptions = ClaudeOptions()
    output_to_file: str | None = None


class ParallelStep(BaseStep):
    """Several concurrent conversations. The step fails if one of them fails, unless `allow_failures` is set."""

    type: Literal["parallel_claude"]
    parallel_tasks: Annotated[list[ParallelTask], Field(min_length=1)]
    max_parallel: Annotated[int, Field(ge=1)] | None = None
    allow_failures: bool = False


Step = Annotated[
    ClaudeStep | SmartStep | SessionStep | BatchStep | ExtractStep | RobustStep | ParallelStep, Field(discriminator="type")
]
STEPS: dict[str | int, type[Model]] = {
    "claude": ClaudeStep,
    "claude_smart": SmartStep,
    "claude_session": SessionStep,
    "claude_batch": BatchStep,
    "claude_extract": ExtractStep,
    "claude_robust": RobustStep,
    "parallel_claude": ParallelStep,
}
"""Every step type by its name."""

STEP_TYPES: Sequence[str] = tuple(map(str, STEPS))


class Environment(Model):
    """The environment in which a workflow runs."""

    mode: Literal["development", "production", "test"] | None = None


class Defaults(Model):
    """Defaults for all steps. Files that steps write are below `output_dir`."""

    output_dir: str | None = None
    claude_preset: PresetName | None = None
    claude_options: ClaudeOptions = ClaudeOptions()


def _spelled(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Keep a number that prints as the file spells it, because pydantic would convert it to a plain number."""
    return value if isinstance(value, SpelledInt | SpelledFloat) else check(value)


class Workflow(Model):
    """A workflow: its steps, and their common settings.

    `engine` holds the conversations of the steps that name none.

    With `checkpoint_enabled`, the next run continues a run that broke off, without repeating its finished steps.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]*$")]
    description: str | None = None
    version: Annotated[str | float | int | None, WrapValidator(_spelled)] = None
    engine: Engine = DEFAULT_ENGINE
    workspace_dir: str | None = None
    checkpoint_enabled: bool = False
    checkpoint_dir: str = ".retold/checkpoints"
    cassette: str | None = None
    environment: Environment = Environment()
    defaults: Defaults = Defaults()
    global_vars: dict[str, Annotated[str | int | float | bool, WrapValidator(_spelled)]] = Field(default_factory=dict)
    steps: Annotated[list[Step], Field(min_length=1)]


class WorkflowFile(Model):
    """A workflow file. All of it is under the key `workflow`."""

    workflow: Workflow
