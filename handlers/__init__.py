"""Readers of the log that show, store or pass on messages. This package imports `retold.recorder` only."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..recorder.errors import HandlerError
from ..recorder.words import nearest, sentence
from .base import Handler, HandlerThread, Options, Reader, StreamEnd, StreamStart, read_stream
from .buffer import Buffer
from .callback import Callback
from .console import Console
from .debug import Debug
from .file import File
from .simple import Simple

HANDLERS: dict[str, type[Handler]] = {handler.name: handler for handler in (Simple, Console, Debug, File, Buffer, Callback)}
"""All handlers by name."""


_SHOULD_BE = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "text",
    "string_too_short": "something, not empty",
    "list_type": "a list",
    "byte_size": "a number of bytes, or a size such as 10MB",
    "byte_size_unit": "a number of bytes, or a size such as 10MB",
}


def make_options(handler: type[Handler], values: dict[str, Any]) -> Options:
    """Return a handler's options from names and values. Raise HandlerError that lists all problems."""
    try:
        return handler.Options.model_validate(values)
    except ValidationError as error:
        problems = [_problem(handler, details) for details in error.errors()]
        raise problems[0] if len(problems) == 1 else HandlerError(" ".join(map(str, problems))) from error


def option_problems(handler: type[Handler], values: dict[str, Any]) -> list[HandlerError]:
    """Return the problems of the options, each with the name of its option if it has one."""
    try:
        handler.Options.model_validate(values)
    except ValidationError as error:
        return [_problem(handler, details) for details in error.errors()]
    return []


def _problem(handler: type[Handler], details: ErrorDetails) -> HandlerError:
    option = str(details["loc"][0]) if details["loc"] else None
    whose = f"handler {handler.name!r}"
    match details["type"]:
        case "extra_forbidden":
            hint = nearest(str(option), list(handler.Options.model_fields))
            return HandlerError(sentence(f"{whose} has no option {option!r}{hint}"), option)
        case "missing":
            return HandlerError(f"{whose} needs the option {option!r}.", option)
        case "value_error":
            return HandlerError(f"{whose}: {sentence(str(details['ctx']['error']))}", option)
        case "literal_error":
            words = [word.strip("' ") for word in details["ctx"]["expected"].replace(" or ", ",").split(",")]
            given = details["input"]
            hint = nearest(str(given), words)
            return HandlerError(sentence(f"{whose}: option {option!r} cannot be {given!r}{hint}"), option)
    wanted = _SHOULD_BE.get(details["type"]) or details["msg"].removeprefix("Input should be ")
    return HandlerError(f"{whose}: option {option!r} should be {wanted}, and is {details['input']!r}.", option)


def handler_class(name: str) -> type[Handler]:
    """Return the handler class of that name. Raise HandlerError with the nearest name if there is none."""
    if name not in HANDLERS:
        raise HandlerError(sentence(f"unknown handler {name!r}{nearest(name, list(HANDLERS))}"))
    return HANDLERS[name]


def make_handler(name: str, options: dict[str, Any], out: TextIO, folder: Path = Path()) -> Handler:
    """Return a handler that writes to `out` and finds user modules in `folder`.

    Raise HandlerError for an unknown name or option.
    """
    handler = handler_class(name)
    return handler(make_options(handler, options), out, folder)


TYPED = {"partial": True, "show_thinking": True}
"""The options of handlers that type texts as they streamed."""


def typed(specs: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, options) of handlers with the options TYPED that each has. Given options win."""
    return [
        (name, {key: value for key, value in TYPED.items() if key in handler_class(name).Options.model_fields} | options)
        for name, options in specs
    ]


__all__ = [
    "HANDLERS",
    "TYPED",
    "Handler",
    "HandlerThread",
    "Options",
    "Reader",
    "StreamEnd",
    "StreamStart",
    "handler_class",
    "make_handler",
    "make_options",
    "option_problems",
    "read_stream",
    "typed",
]
