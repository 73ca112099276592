"""What the validator found, in the words of a workflow: place, what is wrong, the nearest thing that would be right."""

import json
from typing import Any

from pydantic_core import ErrorDetails

from ..handlers import nearest
from . import schema, step_types
from .source import Source, YamlPath

DEAD_OPTIONS = {
    "stream_buffer_size": "a message is shown as soon as it is complete, so there is no buffer to size",
    "stream_flush_interval": "every message is flushed when it is shown, so there is no interval to set",
    "stream_flush_interval_ms": "every message is flushed when it is shown, so there is no interval to set",
}

SHOWN_CHARS = 60
"""Of a wrong value this much is shown."""

_SHOULD_BE = {
    "string_type": "text",
    "string_too_short": "something, not empty",
    "tuple_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (lines of `key: value`)",
    "model_type": "a mapping (lines of `key: value`)",
    "union_tag_invalid": "text or a list",
}


def explain(source: Source, details: ErrorDetails) -> tuple[YamlPath, str]:
    """One error of the models: where, and what."""
    at = yaml_path(source, details["loc"])
    key = next((str(part) for part in reversed(at) if isinstance(part, str)), "workflow")
    given = details["input"]
    match details["type"]:
        case "extra_forbidden" if at and str(at[-1]) in DEAD_OPTIONS:
            return at, f"{key!r} does nothing here: {DEAD_OPTIONS[key]}. Remove it"
        case "extra_forbidden":
            return at, f"unknown key {key!r}{nearest(key, _keys_beside(details['loc']))}"
        case "missing":
            return at, f"{_step(source, at)}the key {str(details['loc'][-1])!r} is missing"
        case "literal_error":
            expected = _words(details["ctx"]["expected"])
            return at, f"{key!r} cannot be {_shown(given)}{nearest(str(given), expected)}"
        case "union_tag_invalid" if "discriminator" in details.get("ctx", {}) and _in_prompt(at):
            tag = str(details["ctx"]["tag"])
            return (*at, "type"), f"unknown prompt part {tag!r}{nearest(tag, _words(details['ctx']['expected_tags']))}"
        case "union_tag_invalid" if "discriminator" in details.get("ctx", {}) and _is_step(at):
            return (*at, "type"), f"unknown step type {_shown(given['type'])}{nearest(str(given['type']), step_types.STEP_TYPES)}"
        case "union_tag_not_found" if _is_step(at):
            return at, f"{_step(source, (*at, 'type'))}the key 'type' is missing"
        case "union_tag_not_found":
            return at, "a prompt part needs a key 'type': static, file, previous_response or session_context"
        case "string_pattern_mismatch":
            return at, f"{key!r} may hold letters, digits, spaces, '.', '-' and '_', and is {_shown(given)}"
        case "too_short":
            return at, f"{key!r} should have at least 1 item, and is {_shown(given)}"
        case "prompt" | "handler":
            return at, f"{key!r} should be {details['msg']}, and is {_shown(given)}"
    wanted = _SHOULD_BE.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return at, f"{key!r} should be {wanted}, and is {_shown(given)}"


def yaml_path(source: Source, loc: tuple[str | int, ...]) -> YamlPath:
    """Pydantic's location without what it adds of its own (names of union members)."""
    path: YamlPath = ()
    for part in loc:
        if (*path, part) in source.positions:
            path = (*path, part)
    return path


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"


def _words(expected: str) -> list[str]:
    return [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]


def _is_step(at: YamlPath) -> bool:
    return len(at) == 3 and at[1] == "steps"


def _in_prompt(at: YamlPath) -> bool:
    return "prompt" in at


def _step(source: Source, at: YamlPath) -> str:
    """`step 'analysis': ` for a place inside a step that has a name."""
    value = source.data
    for depth, part in enumerate(at[:3]):
        value = value[part]
        if depth == 2 and at[1] == "steps" and isinstance(value, dict) and "name" in value:
            return f"step {value['name']!r}: "
    return ""


_MODELS: dict[str | int, type[schema.Model]] = {
    **step_types.STEPS,
    "workflow": step_types.Workflow,
    "claude_options": schema.ClaudeOptions,
    "retry_config": schema.RetryConfig,
    "session_config": step_types.SessionConfig,
    "batch_config": step_types.BatchConfig,
    "extraction_config": step_types.ExtractionConfig,
    "tasks": step_types.Task,
    "parallel_tasks": step_types.ParallelTask,
    "defaults": step_types.Defaults,
    "environment": step_types.Environment,
    "static": schema.StaticPart,
    "file": schema.FilePart,
    "previous_response": schema.PreviousResponsePart,
    "session_context": schema.SessionContextPart,
}


def _keys_beside(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that would be right where an unknown one stands: those of the innermost model on the way."""
    if loc[-2:-1] == ("retry_config",) and "claude_robust" in loc and "claude_options" not in loc:
        return list(step_types.RobustConfig.model_fields)
    model = next((_MODELS[part] for part in reversed(loc[:-1]) if part in _MODELS), step_types.File)
    return list(model.model_fields)
