"""Presets, and how a step's options come together: preset, then the workflow's defaults, then the step, then its task."""

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
    """The preset under a step's options: its own, that of the environment, or the default."""
    if isinstance(step, SmartStep):
        if step.preset is not None:
            return step.preset
        if step.environment_aware and workflow.environment.mode is not None:
            return workflow.environment.mode
    return workflow.defaults.claude_preset


def options_of(step: Step, workflow: Workflow, task: ClaudeOptions | None = None) -> ClaudeOptions:
    """A step's options (or those of one task of it), templates not yet filled in. Whoever says something later goes first;
    `retry_config` is merged key by key. A handler named anew does not inherit another one's options."""
    preset = preset_of(step, workflow)
    merged = PRESETS[preset] if preset is not None else {}
    for layer in (workflow.defaults.claude_options, step.claude_options, task or ClaudeOptions()):
        own = layer.model_dump(exclude_unset=True)
        if "stream_handler" in own and "stream_handler_opts" not in own:
            merged = {key: value for key, value in merged.items() if key != "stream_handler_opts"}
        retries = {**merged.get("retry_config", {}), **(own.get("retry_config") or {})}
        merged = merged | own | ({"retry_config": retries} if retries else {})
    return ClaudeOptions.model_validate(merged)
