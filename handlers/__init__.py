"""Readers of the log that show, store or pass on messages. This package imports `retold.recorder` only."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from ..recorder.errors import HandlerError
from ..recorder.words import nearest, sentence
from .base import Handler, HandlerThread, Options, Reader, StreamEnd, StreamStart, read_stream
from .buffer import Buffer
from .callback import Callback
from .console import Console
from .debug import Debug
from .file import File
from .options import make_options, option_problems
from .simple import Simple

HANDLERS: dict[str, type[Handler]] = {handler.name: handler for handler in (Simple, Console, Debug, File, Buffer, Callback)}
"""All handlers by name."""


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
