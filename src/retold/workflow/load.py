"""A workflow file, read and checked: every error at once, each with its line, before anything runs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..handlers import handler_class, make_options
from ..recorder.errors import HandlerError, WorkflowError
from . import schema
from .explain import explain
from .source import Source, YamlPath, read_source
from .templates import problem_in, unknown_step


@dataclass(frozen=True)
class Loaded:
    """A workflow that may run, and the file it came from."""

    source: Source
    workflow: schema.Workflow

    @property
    def folder(self) -> Path:
        return self.source.path.parent

    def cassette(self) -> Path:
        """Where its recording is: `workflow.cassette`, or `cassettes/<name>.yaml` in its folder or beside it."""
        if self.workflow.cassette is not None:
            return self.folder / self.workflow.cassette
        beside = [self.folder / "cassettes", Path(os.path.normpath(self.folder.absolute().parent)) / "cassettes"]
        folder = next((folder for folder in beside if folder.is_dir()), beside[0])
        return _short(folder / f"{self.workflow.name}.yaml")


def load_workflow(path: str | os.PathLike[str]) -> Loaded:
    """Read and check a workflow file. Raises WorkflowError naming every error with file, line and column."""
    source = read_source(Path(path))
    if not isinstance(source.data, dict):
        raise WorkflowError(f"{source.place(())}: a workflow file holds a key `workflow` with `name` and `steps`.")
    found: list[tuple[YamlPath, str]] = []
    workflow = None
    try:
        workflow = schema.File.model_validate(source.data).workflow
    except ValidationError as error:
        found = [explain(source, details) for details in error.errors()]
    # What the models cannot see is looked for in whatever part of the file is sound.
    found += _problems(source.data.get("workflow"))
    if found or workflow is None:
        raise WorkflowError(_joined(source, found))
    return Loaded(source, workflow)


def _short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _joined(source: Source, found: list[tuple[YamlPath, str]]) -> str:
    """The errors from top to bottom; each ends in one mark."""
    ordered = sorted(found, key=lambda problem: source.position(problem[0]))
    lines = [f"{source.place(at)}: {what}{'' if what.endswith('?') else '.'}" for at, what in ordered]
    return lines[0] if len(lines) == 1 else f"{len(lines)} errors in the workflow:\n" + "\n".join(lines)


def _problems(data: Any) -> Iterator[tuple[YamlPath, str]]:
    """What the models cannot see: names, references, templates, handlers."""
    data = data if isinstance(data, dict) else {}
    steps = data.get("steps") if isinstance(data.get("steps"), list) else []
    names = [str(step.get("name")) if isinstance(step, dict) else "" for step in steps]
    variables = list(map(str, data["global_vars"])) if isinstance(data.get("global_vars"), dict) else []
    defaults = data.get("defaults") if isinstance(data.get("defaults"), dict) else {}
    default_options = _sound(schema.ClaudeOptions, defaults.get("claude_options"))
    yield from _handler_problems(default_options, ("workflow", "defaults", "claude_options"), None)
    for path, text in _strings(defaults, ("workflow", "defaults")):
        problem = problem_in(text, earlier=names, all_steps=names, global_vars=variables)
        if problem:
            yield path, problem
    for number, step in enumerate(steps):
        at: YamlPath = ("workflow", "steps", number)
        if not isinstance(step, dict):
            continue
        if names[number] in names[:number] and "name" in step:
            yield (*at, "name"), f"two steps have the name {names[number]!r}"
        for part_number, part in enumerate(step["prompt"] if isinstance(step.get("prompt"), list) else []):
            named = part.get("step") if isinstance(part, dict) and part.get("type") == "previous_response" else None
            if named is not None and named not in names[:number]:
                yield (*at, "prompt", part_number, "step"), unknown_step(str(named), names[:number], names)
        options = _sound(schema.ClaudeOptions, step.get("claude_options"))
        yield from _handler_problems(options, (*at, "claude_options"), default_options)
        for path, text in _strings(step, at):
            problem = problem_in(text, earlier=names[:number], all_steps=names, global_vars=variables)
            if problem:
                yield path, problem


def _sound(model: type[schema.ClaudeOptions], values: Any) -> schema.ClaudeOptions:
    """The options that are valid one by one; the others are reported by the models."""
    sound = model()
    for key, value in values.items() if isinstance(values, dict) else ():
        try:
            sound = sound.model_copy(update={key: getattr(model.model_validate({key: value}), key)})
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
    options: schema.ClaudeOptions, at: YamlPath, defaults: schema.ClaudeOptions | None
) -> Iterator[tuple[YamlPath, str]]:
    streaming = options.async_streaming if options.async_streaming is not None else defaults and defaults.async_streaming
    for key in ("stream_handler", "stream_handler_opts"):
        if getattr(options, key) is not None and not streaming and defaults is not None:
            yield (*at, key), f"{key!r} does nothing without streaming; add `async_streaming: true` beside it"
            return
    handler = options.stream_handler if options.stream_handler is not None else defaults and defaults.stream_handler
    for name, values in handler_specs(handler, options.stream_handler_opts):
        try:
            make_options(handler_class(name), values)
        except HandlerError as error:
            inside = next((key for key in values if f"{key!r}" in str(error)), None)
            key = "stream_handler" if inside is None or not options.stream_handler_opts else "stream_handler_opts"
            place = (*at, key, inside) if inside is not None and key == "stream_handler_opts" else (*at, key)
            yield place, str(error).rstrip(".")


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
