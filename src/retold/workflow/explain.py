"""Turn validation errors into messages in the terms of a workflow: the place, the problem, and the nearest valid value."""

import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from ..recorder.words import nearest
from . import schema, step_types
from .source import Source, YamlPath

DEAD_OPTIONS = {
    "stream_buffer_size": "a message is shown as soon as it is complete, so there is no buffer to size",
    "stream_flush_interval": "every message is flushed when it is shown, so there is no interval to set",
    "stream_flush_interval_ms": "every message is flushed when it is shown, so there is no interval to set",
}

SHOWN_CHARS = 60
"""The number of characters shown of a wrong value."""

_SHOULD_BE = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (lines of `key: value`)",
    "model_type": "a mapping (lines of `key: value`)",
    "model_attributes_type": "a mapping (lines of `key: value`)",
}


def explain_all(source: Source, errors: Iterable[ErrorDetails]) -> list[tuple[YamlPath, str]]:
    """Return the place and the message of each error. A value that fits no type of a union is one error."""
    found: list[tuple[YamlPath, str]] = []
    wanted: dict[YamlPath, list[ErrorDetails]] = {}
    for details in errors:
        at = yaml_path(source, details["loc"])
        if details["type"] in _SHOULD_BE:
            wanted.setdefault(at, []).append(details)
        else:
            found.append(explain(source, details))
    for at, several in wanted.items():
        words = list(dict.fromkeys(_SHOULD_BE[details["type"]] for details in several))
        said = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
        found.append((at, f"{_what(at)} should be {said}, and is {_shown(several[0]['input'])}"))
    return found


def explain(source: Source, details: ErrorDetails) -> tuple[YamlPath, str]:
    """Return the place and the message of one error."""
    at = yaml_path(source, details["loc"])
    key = next((str(part) for part in reversed(at) if isinstance(part, str)), "workflow")
    given = details["input"]
    match details["type"]:
        case "extra_forbidden" if at and str(at[-1]) in DEAD_OPTIONS:
            return at, f"{key!r} does nothing here: {DEAD_OPTIONS[key]}. Remove it"
        case "extra_forbidden":
            return at, f"unknown key {key!r}{_where_it_belongs(key, details['loc'])}"
        case "invalid_key":
            return at, f"a key should be text, and is {_shown(given)}"
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
        case "string_pattern_mismatch" if details["ctx"]["pattern"] == schema.NOT_BLANK:
            return at, f"{key!r} should be something, not empty"
        case "string_pattern_mismatch":
            return at, f"{key!r} may hold letters, digits, spaces, '.', '-' and '_', and is {_shown(given)}"
        case "too_short":
            return at, f"{key!r} should have at least 1 item, and is {_shown(given)}"
        case "prompt" | "handler":
            return at, f"{key!r} should be {details['msg']}, and is {_shown(given)}"
    return at, f"{key!r} should be {details['msg'].removeprefix('Input should be ')}, and is {_shown(given)}"


def yaml_path(source: Source, loc: tuple[str | int, ...]) -> YamlPath:
    """Return pydantic's location without the names of union members that pydantic adds."""
    path: YamlPath = ()
    for part in loc:
        if (*path, part) in source.positions:
            path = (*path, part)
    return path


def _what(at: YamlPath) -> str:
    """Return the kind of value at a path: the value of a key, or one item of a list."""
    key = next((part for part in reversed(at) if isinstance(part, str)), "workflow")
    items = {"steps": "a step", "tasks": "a task", "parallel_tasks": "a task", "prompt": "a prompt part"}
    return items.get(key, f"an item of {key!r}") if at and isinstance(at[-1], int) else repr(key)


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
    """Return `step 'analysis': ` for a place inside a named step."""
    value = source.data
    for depth, part in enumerate(at[:3]):
        value = value[part]
        if depth == 2 and at[1] == "steps" and isinstance(value, dict) and "name" in value:
            return f"step {value['name']!r}: "
    return ""


_INNER = ("claude_options", "session_config", "batch_config", "extraction_config", "retry_config")
"""Keys of a step whose value is a mapping of options."""

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


def _where_it_belongs(key: str, loc: tuple[str | int, ...]) -> str:
    """Return `; did you mean 'prompt'?`, or the key of the same step under which an unknown key is valid."""
    model = _model_at(loc)
    if model is step_types.WorkflowFile and key in step_types.Workflow.model_fields:
        return "; it belongs under 'workflow'"
    if model is step_types.WorkflowFile and any(key in step.model_fields for step in step_types.STEPS.values()):
        return "; it is a key of a step, one of those below `workflow:` and its `steps:`"
    for name in _INNER:
        if name in model.model_fields and key in _model_at((*loc[:-1], name, key)).model_fields:
            return f"; it belongs under {name!r}"
    others = [type for type, step in step_types.STEPS.items() if key in step.model_fields]
    if others and model in step_types.STEPS.values():
        return f"; it is a key of {' and '.join(map(str, others))}"
    return nearest(key, list(model.model_fields))


def _model_at(loc: tuple[str | int, ...]) -> type[schema.Model]:
    """Return the innermost model on the way to a key."""
    if loc[-2:-1] == ("retry_config",) and "claude_robust" in loc and "claude_options" not in loc:
        return step_types.RobustConfig
    return next((_MODELS[part] for part in reversed(loc[:-1]) if part in _MODELS), step_types.WorkflowFile)
