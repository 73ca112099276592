"""The handlers of a person who views a run: names and options from the command line, and what a viewer sees without them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from ..handlers import Reader, make_handler, typed
from ..recorder.events import Event
from .common import handler_specs

Specs = list[tuple[str, dict[str, Any]]]

SHOWN = {"show_steps": True, "show_prompts": True, "show_tool_input": True}
"""Options of `simple` for a person who looks at a run: the steps, what the user said, and what the tools were asked."""


def viewed(named: list[str] | None, *, shown: bool, types: bool = False) -> Specs:
    """Return (name, options) of the handlers; simple if none is named. Raise HandlerError for a wrong name or option.

    `shown` gives the default handler the options SHOWN. With `types`, each handler types texts if it can.
    """
    default = SHOWN if shown else {}
    specs: Specs = handler_specs(named) if named else [("simple", dict(default))]
    return typed(specs) if types else specs


def readers(specs: Specs, out: TextIO | None = None) -> list[Reader]:
    """Return a new reader for each handler."""
    return [Reader(make_handler(name, options, out or sys.stdout)) for name, options in specs]


def kinds_of(of: Sequence[Reader]) -> tuple[str, ...]:
    """Return the kinds of events that any of the readers reads."""
    return tuple(sorted({kind for reader in of for kind in reader.handler.kinds}))


def feed(event: Event, readers: Iterable[Reader]) -> None:
    """Give an event to the readers whose handlers read its kind."""
    for reader in readers:
        if event.kind in reader.handler.kinds:
            reader.event(event)


def break_off(readers: Iterable[Reader], why: Callable[[], str]) -> None:
    """End the streams that are open, because no more events come. `why` returns the reason."""
    for reader in readers:
        if reader.is_open:
            reader.broke_off(why())


@contextmanager
def closing(readers: Iterable[Reader]) -> Iterator[None]:
    """Close the handlers after the block."""
    try:
        yield
    finally:
        for reader in readers:
            reader.handler.close()
