"""The engines of steps: which one holds the conversations of a step, and which options and tools each of them has."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..recorder.strict_json import object_or_empty
from ..recorder.words import nearest
from .schema import DEFAULT_ENGINE, ENGINES
from .source import YamlPath
from .templates import has_template
from .tools import DEFINITIONS

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
