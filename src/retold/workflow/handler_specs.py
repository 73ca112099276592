"""Find the handlers and their options in a conversation's options, and the problems in them."""

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..handlers import HANDLERS, handler_class, make_handler, option_problems
from ..recorder.errors import HandlerError
from . import schema
from .presets import merged
from .source import YamlPath

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
