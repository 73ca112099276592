"""The seven step types and the file around them. Every model is strict, as in `schema`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from .schema import ClaudeOptions, Model, Name, PresetName, Prompt, RetryConfig
from .yaml12 import SpelledFloat, SpelledInt


class BaseStep(Model):
    """What every step may say. `condition` is an expression, such as `steps.check.text != ""`; a step whose condition does
    not hold is skipped."""

    name: Name
    description: str | None = None
    condition: str | None = None
    claude_options: ClaudeOptions = ClaudeOptions()
    output_to_file: str | None = None


class ClaudeStep(BaseStep):
    """One conversation of up to `max_turns` turns."""

    type: Literal["claude"]
    prompt: Prompt


class SmartStep(BaseStep):
    """A conversation with the options of a preset under its own. Where it names none, the one called like `environment.mode`
    is taken, unless `environment_aware` is false."""

    type: Literal["claude_smart"]
    preset: PresetName | None = None
    environment_aware: bool = True
    prompt: Prompt


class SessionConfig(Model):
    """A named conversation. `persist` lets later runs continue it, unless they say `continue_on_restart: false`;
    `max_turns` is how many turns it may have in all."""

    session_name: Name
    persist: bool = False
    continue_on_restart: bool = True
    max_turns: Annotated[int, Field(ge=1)] | None = None


class SessionStep(BaseStep):
    """A conversation that goes on where the last step of the same session ended."""

    type: Literal["claude_session"]
    session_config: SessionConfig
    prompt: Prompt


class Task(Model):
    """One task of a batch: a prompt, the text of a file, or both. `id` is `task-N` where none is given."""

    id: Name | None = None
    prompt: Prompt | None = None
    file: str | None = None


class BatchConfig(Model):
    """At most `max_parallel` tasks at once; `timeout_per_task` is in milliseconds. The step's text is what the tasks said
    under a heading each, or with `consolidate_results: false` JSON by task id."""

    max_parallel: Annotated[int, Field(ge=1)] = 3
    timeout_per_task: Annotated[int, Field(ge=1)] | None = None
    consolidate_results: bool = True
    allow_failures: bool = False


class BatchStep(BaseStep):
    """Tasks that share their options; a `prompt` of the step stands before that of each task."""

    type: Literal["claude_batch"]
    batch_config: BatchConfig = BatchConfig()
    prompt: Prompt | None = None
    tasks: Annotated[list[Task], Field(min_length=1)]


Processing = Literal["code_blocks", "links", "lists", "plain_text"]


class ExtractionConfig(Model):
    """What is made of the answer: `post_processing` in order, then the format. `summary` keeps whole sentences of up to
    `max_summary_length` characters; `include_metadata` adds model, tokens, cost and times."""

    format: Literal["text", "json", "structured", "summary", "markdown"] = "text"
    post_processing: list[Processing] = Field(default_factory=list)
    max_summary_length: Annotated[int, Field(ge=1)] = 500
    include_metadata: bool = False


class ExtractStep(BaseStep):
    """A conversation whose answer is put into a form."""

    type: Literal["claude_extract"]
    extraction_config: ExtractionConfig = ExtractionConfig()
    prompt: Prompt


Condition = Literal["rate_limit", "overloaded", "server_error", "connection", "cut", "timeout", "max_turns", "any"]


def _any() -> list[Condition]:
    return ["any"]


class RobustConfig(RetryConfig):
    """How often the whole step is tried again, after which failures, and what is done when none of it helped. Its single
    requests are repeated besides only where `claude_options.retry_config` says so.

    `graceful_degradation` goes on with what text there is; `simplified_prompt` asks once more without tools, in one turn.
    """

    max_retries: Annotated[int, Field(ge=0, le=20)] = 3
    base_delay_ms: Annotated[int, Field(ge=0)] = 1000
    retry_conditions: Annotated[list[Condition], Field(min_length=1)] = Field(default_factory=_any)
    fallback_action: Literal["fail", "graceful_degradation", "simplified_prompt"] = "fail"


class RobustStep(BaseStep):
    """A conversation that is tried again as a whole when it fails. A fallback is marked as one, never as success."""

    type: Literal["claude_robust"]
    retry_config: RobustConfig = RobustConfig()
    prompt: Prompt


class ParallelTask(Model):
    """One of several conversations at once; its options go over the step's."""

    id: Name
    prompt: Prompt
    claude_options: ClaudeOptions = ClaudeOptions()
    output_to_file: str | None = None


class ParallelStep(BaseStep):
    """Several conversations at once; the step fails if one of them does, unless `allow_failures`."""

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
    """Where a workflow runs."""

    mode: Literal["development", "production", "test"] | None = None


class Defaults(Model):
    """What holds for every step that does not say otherwise; files that steps write are below `output_dir`."""

    output_dir: str | None = None
    claude_preset: PresetName | None = None
    claude_options: ClaudeOptions = ClaudeOptions()


def _spelled(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Keep a number that prints as the file spells it; pydantic would make a plain one of it."""
    return value if isinstance(value, SpelledInt | SpelledFloat) else check(value)


class Workflow(Model):
    """A workflow: its steps, and what they share. With `checkpoint_enabled` a run that broke off is taken up by the next
    one, which does not repeat the steps that were finished."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]*$")]
    description: str | None = None
    version: Annotated[str | float | int | None, WrapValidator(_spelled)] = None
    workspace_dir: str | None = None
    checkpoint_enabled: bool = False
    checkpoint_dir: str = ".retold/checkpoints"
    cassette: str | None = None
    environment: Environment = Environment()
    defaults: Defaults = Defaults()
    global_vars: dict[str, Annotated[str | int | float | bool, WrapValidator(_spelled)]] = Field(default_factory=dict)
    steps: Annotated[list[Step], Field(min_length=1)]


class File(Model):
    """A workflow file: everything stands under the key `workflow`."""

    workflow: Workflow
