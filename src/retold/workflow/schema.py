"""The models of a workflow file. All are strict: an unknown key is an error."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from .tools import DEFINITIONS

MAX_TOKENS = 8192
MAX_TURNS = 10

MODELS = {"sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5", "haiku": "claude-haiku-5-5"}
"""Aliases and their model ids. Any other name is passed to the API unchanged."""

DEFAULT_MODEL = "sonnet"


Engine = Literal["messages_api", "claude_code"]
"""The program that holds the conversations of a step: retold through the Messages API, or Claude Code."""

ENGINES: tuple[str, ...] = get_args(Engine)
DEFAULT_ENGINE: Engine = "messages_api"


class Model(BaseModel):
    """A strict part of a workflow file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


NOT_BLANK = r"\S"
Name = Annotated[str, Field(pattern=NOT_BLANK)]
PresetName = Literal["development", "production", "analysis", "chat", "test"]


class StaticPart(Model):
    """Literal text."""

    type: Literal["static"]
    content: str


class FilePart(Model):
    """The text of a file. A relative path counts from the workflow's folder."""

    type: Literal["file"]
    path: str


class PreviousResponsePart(Model):
    """The answer of an earlier step, or one field of it if the answer is JSON (`extract: a.b`)."""

    type: Literal["previous_response"]
    step: str
    extract: str | None = None


class SessionContextPart(Model):
    """The conversation of an earlier session of this run, or its last messages."""

    type: Literal["session_context"]
    session_id: str
    include_last_n: Annotated[int, Field(ge=1)] | None = None


Part = Annotated[StaticPart | FilePart | PreviousResponsePart | SessionContextPart, Field(discriminator="type")]


def _kind(value: Any) -> str:
    """Return the branch of a union for a value, so that only that branch reports errors."""
    kinds = {str: "text", list: "list", dict: "mapping"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "")


Prompt = Annotated[
    Annotated[str, Field(pattern=NOT_BLANK), Tag("text")] | Annotated[list[Part], Field(min_length=1), Tag("list")],
    Discriminator(_kind, custom_error_type="prompt", custom_error_message="text, or a list of parts"),
]


HandlerSpec = Annotated[
    Annotated[str, Tag("text")] | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1), Tag("mapping")],
    Discriminator(_kind, custom_error_type="handler", custom_error_message="a handler's name, or {name: options}"),
]
StreamHandler = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[dict[str, dict[str, Any] | None], Field(min_length=1), Tag("mapping")]
    | Annotated[list[HandlerSpec], Field(min_length=1), Tag("list")],
    Discriminator(_kind, custom_error_type="handler", custom_error_message="a handler's name, {name: options}, or a list"),
]
"""A handler by name, `{name: options}`, or a list of such."""


Strategy = Literal["exponential", "linear", "constant"]


class RetryConfig(Model):
    """How often a failed request (refused, overloaded, rate limited, cut) is repeated, and the pauses between.

    `exponential` doubles `base_delay_ms` each time, `linear` adds it. A retry-after of the answer takes precedence.
    """

    max_retries: Annotated[int, Field(ge=0, le=20)] = 2
    backoff_strategy: Strategy = "exponential"
    base_delay_ms: Annotated[int, Field(ge=0)] = 500


Tool = Annotated[
    str,
    Field(pattern=NOT_BLANK),
    WithJsonSchema({"anyOf": [{"enum": list(DEFINITIONS)}, {"type": "string", "pattern": NOT_BLANK}]}),
]
"""A tool. The Messages API has those of DEFINITIONS, and Claude Code has further ones, and rules such as `Bash(git log:*)`."""


class ClaudeOptions(Model):
    """How a conversation is held and shown. None is an option that is not set.

    Claude Code does not have `max_tokens`, `temperature` and `cost_tracking`, and of `retry_config` only `max_retries`.
    """

    model: str | None = None
    fallback_model: str | None = None
    max_turns: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    system_prompt: str | None = None
    append_system_prompt: str | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    allowed_tools: list[Tool] | None = None
    disallowed_tools: list[Tool] | None = None
    permission_mode: Literal["default", "acceptEdits", "bypassPermissions", "plan"] | None = None
    cwd: str | None = None
    session_id: str | None = None
    timeout_ms: Annotated[int, Field(ge=1)] | None = None
    retry_config: RetryConfig | None = None
    output_format: Literal["text", "json", "stream_json"] | None = None
    verbose: bool | None = None
    cost_tracking: bool | None = None
    async_streaming: bool | None = None
    stream_handler: StreamHandler | None = None
    stream_handler_opts: dict[str, Any] | None = None
