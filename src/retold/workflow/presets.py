"""Presets, and the order in which options apply: preset, then the workflow's defaults, then the step, then its task."""

from collections.abc import Iterable
from typing import Any

from .schema import ClaudeOptions
from .step_types import SmartStep, Step, Workflow

PRESETS: dict[str, dict[str, Any]] = {
    "development": {
        "model": "sonnet",
        "max_turns": 20,
        "allowed_tools": ["Write", "Edit", "Read", "Bash", "Glob", "Grep"],
        "retry_config": {"max_retries": 3, "backoff_strategy": "exponential"},
        "timeout_ms": 300_000,
        "system_prompt": "You are a software developer: make the change, run it, and say what you did and what is left.",
    },
    "production": {
        "model": "opus",
        "fallback_model": "sonnet",
        "max_turns": 10,
        "allowed_tools": ["Read"],
        "retry_config": {"max_retries": 2, "backoff_strategy": "linear"},
        "timeout_ms": 120_000,
        "system_prompt": "You work unattended: do exactly what is asked, change nothing, and say what you are unsure of.",
    },
    "analysis": {
        "model": "opus",
        "max_turns": 5,
        "allowed_tools": ["Read", "Glob", "Grep"],
        "retry_config": {"max_retries": 2, "backoff_strategy": "exponential"},
        "timeout_ms": 180_000,
        "system_prompt": "You are an analyst: read before you judge, and give every finding with the place it comes from.",
    },
    "chat": {
        "max_turns": 15,
        "allowed_tools": [],
        "retry_config": {"max_retries": 1, "backoff_strategy": "linear"},
        "timeout_ms": 60_000,
        "system_prompt": "You are a helpful partner in conversation: answer briefly and ask when something is unclear.",
    },
    "test": {
        "max_turns": 3,
        "allowed_tools": ["Read"],
        "retry_config": {"max_retries": 1, "backoff_strategy": "linear"},
        "timeout_ms": 30_000,
        "system_prompt": "You are part of an automated test: answer in as few words as the question allows.",
    },
}
"""The options of each preset; whatever the user says of the same key goes before it."""


def preset_of(step: Step, workflow: Workflow) -> str | None:
    """Return the preset of a step: its own, that of the environment, or the default."""
    if isinstance(step, SmartStep):
        if step.preset is not None:
            return step.preset
        if step.environment_aware and workflow.environment.mode is not None:
            return workflow.environment.mode
    return workflow.defaults.claude_preset


def options_of(step: Step, workflow: Workflow, task: ClaudeOptions | None = None) -> ClaudeOptions:
    """Return the options of a step, or of one of its tasks, before templates are filled in: preset, defaults, step, task."""
    preset = preset_of(step, workflow)
    under = ClaudeOptions.model_validate(PRESETS[preset] if preset is not None else {})
    return merged([under, workflow.defaults.claude_options, step.claude_options, task or ClaudeOptions()])


def merged(layers: Iterable[ClaudeOptions]) -> ClaudeOptions:
    """Merge layers of options. Later layers take precedence.

    `retry_config` and `stream_handler_opts` are merged key by key, but a layer that names a handler does not inherit the
    options of another one.
    """
    together: dict[str, Any] = {}
    for layer in layers:
        own = layer.model_dump(exclude_unset=True)
        if own.get("stream_handler") not in (None, together.get("stream_handler") or "simple"):
            together.pop("stream_handler_opts", None)
        for key in ("retry_config", "stream_handler_opts"):
            if own.get(key) is not None and together.get(key) is not None:
                own[key] = together[key] | own[key]
        together |= own
    return ClaudeOptions.model_validate(together)
