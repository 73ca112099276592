"""What the models of a workflow file cannot see: names, references, templates, handlers, tasks with nothing to do."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..handlers import make_handler
from ..recorder.errors import HandlerError
from . import schema
from .source import YamlPath
from .templates import as_template, has_template, problem_in, unknown_step

Problem = tuple[YamlPath, str]

_NOWHERE = io.StringIO()
"""Handlers that are made to be looked at write nothing."""

_TEMPLATE = re.compile(r"{{.*?}}|{%.*?%}", re.DOTALL)


@dataclass(frozen=True)
class _Names:
    """What templates may refer to."""

    steps: Sequence[str]
    variables: Sequence[str]

    def problem(self, text: str, earlier: Sequence[str]) -> str | None:
        return problem_in(text, earlier=earlier, all_steps=self.steps, global_vars=self.variables)


def problems_of(data: Any, folder: Path) -> Iterator[Problem]:
    """Everything wrong with what stands under `workflow`, as far as it is sound enough to be looked at.

    Handlers are made, not run: a callback's module is imported, a file handler's path looked at.
    """
    data = data if isinstance(data, dict) else {}
    steps = _list(data.get("steps"))
    names = _Names(
        [str(step.get("name")) if isinstance(step, dict) else "" for step in steps],
        list(map(str, _dict(data.get("global_vars")))),
    )
    defaults = _dict(data.get("defaults"))
    default_options = _sound(defaults.get("claude_options"))
    at: YamlPath = ("workflow", "defaults", "claude_options")
    yield from _handler_problems([default_options], at, folder, is_default=True)
    for path, text in _strings(defaults, ("workflow", "defaults")):
        if problem := names.problem(text, names.steps):
            yield path, problem
    for number, step in enumerate(steps):
        if isinstance(step, dict):
            yield from _step_problems(step, number, names, default_options, folder)


def _step_problems(
    step: dict[str, Any], number: int, names: _Names, defaults: schema.ClaudeOptions, folder: Path
) -> Iterator[Problem]:
    at: YamlPath = ("workflow", "steps", number)
    earlier = names.steps[:number]
    if names.steps[number] in earlier and "name" in step:
        yield (*at, "name"), f"two steps have the name {names.steps[number]!r}"
    options = _sound(step.get("claude_options"))
    yield from _prompt_problems(step.get("prompt"), (*at, "prompt"), earlier, names)
    yield from _handler_problems([defaults, options], (*at, "claude_options"), folder)
    for key in ("tasks", "parallel_tasks"):
        yield from _task_problems(step, key, (*at, key), earlier, names, [defaults, options], folder)
    condition = step.get("condition")
    if isinstance(condition, str) and not has_template(condition) and (problem := names.problem(as_template(condition), earlier)):
        yield (*at, "condition"), problem
    for path, text in _strings(step, at):
        if problem := names.problem(text, earlier):
            yield path, problem


def _prompt_problems(prompt: Any, at: YamlPath, earlier: Sequence[str], names: _Names) -> Iterator[Problem]:
    for number, part in enumerate(_list(prompt)):
        named = part.get("step") if isinstance(part, dict) and part.get("type") == "previous_response" else None
        if named is not None and named not in earlier:
            yield (*at, number, "step"), unknown_step(str(named), earlier, names.steps)


def _task_problems(
    step: dict[str, Any], key: str, at: YamlPath, earlier: Sequence[str], names: _Names, options: list[schema.ClaudeOptions],
    folder: Path,
) -> Iterator[Problem]:  # fmt: skip
    seen: set[str] = set()
    for number, task in enumerate(_list(step.get(key))):
        if not isinstance(task, dict):
            continue
        name = str(task.get("id") or f"task-{number + 1}")
        if name in seen:
            yield (*at, number, "id") if "id" in task else (*at, number), f"two tasks have the id {name!r}"
        seen.add(name)
        if key == "tasks" and not any(value is not None for value in (step.get("prompt"), task.get("prompt"), task.get("file"))):
            yield (*at, number), f"task {name!r} has nothing to ask; give it a 'prompt' or a 'file', or the step a 'prompt'"
        yield from _prompt_problems(task.get("prompt"), (*at, number, "prompt"), earlier, names)
        own = _sound(task.get("claude_options"))
        yield from _handler_problems([*options, own], (*at, number, "claude_options"), folder)


def _sound(values: Any) -> schema.ClaudeOptions:
    """The options that are valid one by one; the others are reported by the models."""
    sound = schema.ClaudeOptions()
    for key, value in _dict(values).items():
        try:
            sound = sound.model_copy(update={key: getattr(schema.ClaudeOptions.model_validate({key: value}), key)})
        except (ValidationError, AttributeError):
            continue
    return sound


def _strings(value: Any, at: YamlPath) -> Iterator[tuple[YamlPath, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(item, (*at, number))


def _handler_problems(
    layers: Sequence[schema.ClaudeOptions], at: YamlPath, folder: Path, *, is_default: bool = False
) -> Iterator[Problem]:
    """Problems of the handlers that the last of the layers names; earlier layers are reported where they stand."""
    own = layers[-1]
    streaming = next((layer.async_streaming for layer in reversed(layers) if layer.async_streaming is not None), None)
    for key in ("stream_handler", "stream_handler_opts"):
        if getattr(own, key) is not None and not streaming and not is_default:
            yield (*at, key), f"{key!r} does nothing without streaming; add `async_streaming: true` beside it"
            return
    handler = next((layer.stream_handler for layer in reversed(layers) if layer.stream_handler is not None), None)
    options = own.stream_handler_opts
    if own.stream_handler is None and options is None:
        return
    for name, values in handler_specs(handler, options):
        try:
            make_handler(name, _filled(values), _NOWHERE, folder).check()
        except HandlerError as error:
            yield _place(at, values, options, str(error)), str(error).rstrip(".")


def _place(at: YamlPath, values: dict[str, Any], options: dict[str, Any] | None, problem: str) -> YamlPath:
    inside = next((key for key in values if f"{key!r}" in problem or f" {key} " in problem), None)
    if inside is not None and inside in (options or {}):
        return (*at, "stream_handler_opts", inside)
    return (*at, "stream_handler") if inside is not None or not options else (*at, "stream_handler_opts")


def _filled(value: Any) -> Any:
    """Options with a letter for each template, which is filled in only when the step runs."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return _TEMPLATE.sub("x", value) if isinstance(value, str) else value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def handler_specs(handler: Any, options: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    """(name, options) of each handler that `stream_handler` and `stream_handler_opts` ask for; simple when none is named."""
    specs = handler if isinstance(handler, list) else [handler if handler is not None else "simple"]
    found: list[tuple[str, dict[str, Any]]] = []
    for spec in specs:
        if isinstance(spec, str):
            found.append((spec, dict(options or {})))
        else:
            found += [(name, {**(options or {}), **(values or {})}) for name, values in spec.items()]
    return found
