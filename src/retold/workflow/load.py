"""A workflow file, read and checked: every error at once, each with its line, before anything runs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..handlers import handler_class, make_options, nearest
from ..recorder.errors import HandlerError, WorkflowError
from . import schema
from .source import Source, YamlPath, read_source
from .templates import problem_in, unknown_step

DEAD_OPTIONS = {
    "stream_buffer_size": "a message is shown as soon as it is complete, so there is no buffer to size",
    "stream_flush_interval": "every message is flushed when it is shown, so there is no interval to set",
    "stream_flush_interval_ms": "every message is flushed when it is shown, so there is no interval to set",
}


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
    data = source.data
    if not isinstance(data, dict):
        raise WorkflowError(f"{source.place(())}: a workflow file holds a key `workflow` with `name` and `steps`.")
    try:
        workflow = schema.File.model_validate(data).workflow
    except ValidationError as error:
        found = [_explain(source, details) for details in error.errors()]
        raise WorkflowError(_joined(found)) from error
    problems = [f"{source.place(at)}: {what}." for at, what in _problems(workflow)]
    if problems:
        raise WorkflowError(_joined(problems))
    return Loaded(source, workflow)


def _short(path: Path) -> Path:
    """Relative to the working directory where it lies below it."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _joined(errors: list[str]) -> str:
    return errors[0] if len(errors) == 1 else f"{len(errors)} errors in the workflow:\n" + "\n".join(errors)


def _explain(source: Source, details: ErrorDetails) -> str:
    """One pydantic error as a person needs it: place, what is wrong, the nearest thing that would be right."""
    at = _yaml_path(source, details["loc"])
    key = str(details["loc"][-1])
    place = source.place(at)
    match details["type"]:
        case "extra_forbidden":
            if key in DEAD_OPTIONS:
                return f"{place}: {key!r} does nothing here: {DEAD_OPTIONS[key]}. Remove it."
            return f"{place}: unknown key {key!r}{nearest(key, _keys_beside(details['loc']))}."
        case "missing":
            return f"{place}: {_named(source, at)}the key {key!r} is missing."
        case "literal_error":
            expected = [word.strip("' ") for word in details["ctx"]["expected"].replace(" or ", ",").split(",")]
            if key == "type":
                return f"{place}: unknown step type {details['input']!r}{nearest(str(details['input']), expected)}."
            return f"{place}: {key!r} cannot be {details['input']!r}{nearest(str(details['input']), expected)}."
        case "union_tag_invalid":
            tags = [word.strip("' ") for word in details["ctx"]["expected_tags"].split(",")]
            return f"{place}: unknown prompt part {details['ctx']['tag']!r}{nearest(str(details['ctx']['tag']), tags)}."
        case "union_tag_not_found":
            return f"{place}: a prompt part needs a key 'type': static, file, previous_response or session_context."
        case "string_pattern_mismatch":
            return f"{place}: {key!r} may hold letters, digits, spaces, '.', '-' and '_', and is {details['input']!r}."
    message = details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{place}: {key!r} should be {message}, and is {details['input']!r}."


def _yaml_path(source: Source, loc: tuple[str | int, ...]) -> YamlPath:
    """Pydantic's location without what it adds of its own (names of union members)."""
    path: YamlPath = ()
    for part in loc:
        if (*path, part) in source.positions:
            path = (*path, part)
    return path


def _named(source: Source, at: YamlPath) -> str:
    """`step 'analysis': ` for a place inside a step that has a name."""
    value = source.data
    for depth, part in enumerate(at):
        value = value[part]
        if depth == 2 and at[1] == "steps" and isinstance(value, dict) and "name" in value:
            return f"step {value['name']!r}: "
    return ""


def _keys_beside(loc: tuple[str | int, ...]) -> list[str]:
    """The keys that would be right where an unknown one stands, read off the models."""
    model: Any = schema.File
    for part in loc[:-1]:
        model = _inner(model, part)
        if model is None:
            return []
    return list(model.model_fields) if hasattr(model, "model_fields") else []


def _inner(model: Any, part: str | int) -> Any:
    named = {
        "workflow": schema.Workflow,
        "steps": schema.ClaudeStep,
        "claude_options": schema.ClaudeOptions,
        "retry_config": schema.RetryConfig,
        "defaults": schema.Defaults,
        "environment": schema.Environment,
        "static": schema.StaticPart,
        "file": schema.FilePart,
        "previous_response": schema.PreviousResponsePart,
        "session_context": schema.SessionContextPart,
    }
    return model if isinstance(part, int) else named.get(part, model)


def _problems(workflow: schema.Workflow) -> Iterator[tuple[YamlPath, str]]:
    """What the models cannot see: names, references, templates, handlers."""
    names = [step.name for step in workflow.steps]
    for number, step in enumerate(workflow.steps):
        at: YamlPath = ("workflow", "steps", number)
        if step.name in names[:number]:
            yield (*at, "name"), f"two steps have the name {step.name!r}"
        if isinstance(step.prompt, list):
            for part_number, part in enumerate(step.prompt):
                if isinstance(part, schema.PreviousResponsePart) and part.step not in names[:number]:
                    yield (*at, "prompt", part_number, "step"), unknown_step(part.step, names[:number], names)
        yield from _handler_problems(step.claude_options, (*at, "claude_options"), workflow.defaults.claude_options)
        for path, text in _strings(step.model_dump(exclude_unset=True), at):
            problem = problem_in(text, earlier=names[:number], all_steps=names, global_vars=list(workflow.global_vars))
            if problem:
                yield path, problem
    yield from _handler_problems(workflow.defaults.claude_options, ("workflow", "defaults", "claude_options"), None)


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
