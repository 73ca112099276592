"""Validate a handler's options and report all problems at once, each with the nearest valid name."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..recorder.errors import HandlerError
from ..recorder.words import nearest, sentence
from .base import Handler, Options

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
