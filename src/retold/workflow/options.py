"""The options of a step: presets, the order in which options apply, the templates and the handlers in them.

The order is preset, then the workflow's defaults, then the step, then its task. The author of the file chooses the paths; a
model's answer can only name a file inside the folder that the author wrote.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..handlers import HANDLERS, handler_class, make_handler, option_problems
from ..recorder.errors import HandlerError, WorkflowError
from . import schema
from .schema import ClaudeOptions
from .source import YamlPath
from .step_types import SmartStep, Step, Workflow
from .templates import reads_steps, render

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


_PATHS = frozenset({"cwd", "file_path"})
_CODE = frozenset({"module", "function", "stream_handler"})


def render_path(text: str, variables: Mapping[str, Any], where: str, base: Path) -> str:
    """Return a path, relative to `base`, with its templates filled in.

    A template that reads the answer of a step is confined to the folder before it (`out/` in `out/{{steps.a.text}}.txt`, else
    `base`): absolute paths, `..` and symbolic links that leave the folder are refused. Raise WorkflowError.
    """
    made = render(text, variables, where)
    if not reads_steps(text):
        return made
    written = text[: min(at for at in (text.find("{{"), text.find("{%")) if at >= 0)]
    folder = written[: written.rfind("/") + 1]
    rest = made.removeprefix(folder)
    names = rest.split("/")
    cage = (base / Path(folder).expanduser()).resolve()
    if (
        not made.startswith(folder)
        or names[0] == ""
        or names[0].startswith("~")
        or ".." in names
        or not rest.isprintable()
        or not (cage / rest).resolve().is_relative_to(cage)
    ):
        raise WorkflowError(f"{where}: the path {made!r}, made of a model's answer, leads out of {cage}; it was not used.")
    return made


def render_options(raw: ClaudeOptions, variables: Mapping[str, Any], where: str, workspace: Path) -> ClaudeOptions:
    """Return a step's options with the templates in all their texts filled in.

    Raise WorkflowError, also if a model's answer would choose a path outside its folder or the code that runs.
    """

    def filled(value: Any, key: str) -> Any:
        match value:
            case str() if key in _PATHS:
                return render_path(value, variables, where, workspace if key == "cwd" else Path())
            case str() if key in _CODE and reads_steps(value):
                raise WorkflowError(f"{where}: {key} {value!r} would let a model's answer choose the code that runs.")
            case str():
                return render(value, variables, where)
            case dict():
                return {name: filled(item, str(name)) for name, item in value.items()}
            case list():
                return [filled(item, key) for item in value]
        return value

    return type(raw).model_validate(filled(raw.model_dump(exclude_unset=True), ""))


_NOWHERE = io.StringIO()
"""The output of handlers that are created only for validation."""

_TEMPLATE = re.compile(r"{{(?:[^}]++|}(?!}))*+}}|{%(?:[^%]++|%(?!}))*+%}")

Spec = tuple[str, dict[str, Any]]


def handler_specs(handler: Any, options: dict[str, Any] | None) -> list[Spec]:
    """Return (name, options) of each handler in `stream_handler` and `stream_handler_opts`. The default is simple."""
    return [spec for spec, _ in _placed_specs(handler, options)]


def handler_problems(
    layers: Sequence[schema.ClaudeOptions], at: YamlPath, folder: Path, *, is_default: bool = False
) -> Iterator[tuple[YamlPath, str]]:
    """Yield the problems of the handlers in the last layer. Earlier layers are reported at their own places."""
    own, together = layers[-1], merged(layers)
    if own.stream_handler is None and own.stream_handler_opts is None:
        return
    if not together.async_streaming and not is_default:
        key = "stream_handler" if own.stream_handler is not None else "stream_handler_opts"
        yield (*at, key), f"{key!r} does nothing without streaming; add `async_streaming: true` beside it"
        return
    inherited = set(together.stream_handler_opts or {}) - set(own.stream_handler_opts or {})
    for (name, values), place in _placed_specs(together.stream_handler, together.stream_handler_opts):
        for error in _problems(name, values, folder):
            option = error.option
            if option is not None and option in (own.stream_handler_opts or {}):
                yield (*at, "stream_handler_opts", option), str(error).rstrip(".")
            elif option not in inherited:
                inside: YamlPath = (*place, option) if option is not None else place
                yield (*at, *(inside if own.stream_handler is not None else ("stream_handler_opts",))), str(error).rstrip(".")


def _placed_specs(handler: Any, options: dict[str, Any] | None) -> list[tuple[Spec, YamlPath]]:
    """Return each handler with the place of its name.

    With several handlers, each uses the options of `stream_handler_opts` that it knows. Options that no handler knows go to
    the first one, which reports them.
    """
    at: YamlPath = ("stream_handler",)
    specs = [((*at, number), spec) for number, spec in enumerate(handler)] if isinstance(handler, list) else [(at, handler)]
    found: list[tuple[Spec, YamlPath]] = []
    for place, spec in specs:
        if isinstance(spec, dict):
            found += [((name, dict(values or {})), (*place, name)) for name, values in spec.items()]
        else:
            found.append((("simple" if spec is None else spec, {}), place))
    several = len(found) > 1
    known = [set(HANDLERS[name].Options.model_fields) if name in HANDLERS else set() for (name, _), _ in found]
    for number, ((_, values), _) in enumerate(found):
        for option, value in (options or {}).items():
            nobodys = number == 0 and not any(option in fields for fields in known)
            if not several or option in known[number] or nobodys:
                values.setdefault(option, value)
    return found


def _problems(name: str, values: dict[str, Any], folder: Path) -> list[HandlerError]:
    try:
        wrong = option_problems(handler_class(name), values)
        if not wrong:
            make_handler(name, _filled(values), _NOWHERE, folder).check()
    except HandlerError as error:
        return [error]
    return wrong


def _filled(value: Any) -> Any:
    """Return options with a letter in place of each template, because templates are filled in only when the step runs."""
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return _TEMPLATE.sub("x", value) if isinstance(value, str) else value
