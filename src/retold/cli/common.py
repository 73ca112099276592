"""Options and helpers that several commands share."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..recorder import strict_json
from ..recorder.colour import in_colour
from ..recorder.words import clean, clean_json

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog

Db = Annotated[
    Path | None,
    typer.Option("--db", metavar="FILE", help="The log to use.", envvar="RETOLD_DB", show_default=".retold/log.db"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Handlers = Annotated[
    list[str] | None,
    typer.Option(
        "--handler",
        metavar="NAME[:OPTION=VALUE,…]",
        help="The handler of the messages: simple, console, debug, file, buffer or callback; may be repeated. "
        "Options follow a colon: console:partial=true, file:file_path=run.log,format=jsonl.",
    ),
]
TimingOption = Annotated[
    str, typer.Option("--timing", metavar="T", help="instant, original, or a factor such as 2x (twice as fast).")
]
SpeedOption = Annotated[
    str | None, typer.Option("--speed", "-s", metavar="FACTOR", help="2 is twice as fast; the same as --timing 2x.")
]
IdleLimit = Annotated[
    str | None, typer.Option("--idle-limit", "-i", metavar="DURATION", help="Shorten longer pauses to this, e.g. 2s.")
]
UpstreamOption = Annotated[
    str | None,
    typer.Option(
        "--upstream",
        metavar="URL",
        help="The API that gets the requests. Without it, ANTHROPIC_BASE_URL, or CLAUDE_CODE_USE_BEDROCK or _VERTEX, chooses it.",
        show_default="https://api.anthropic.com",
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option("--profile", metavar="P", help="The rules of matching: api, claude-code, or auto (chosen by the recording)."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="PATH",
        help="A part of request bodies that does not count in matching: a.b, a[*].b, a[0] or **.b. The recording keeps it; may "
        "be repeated.",
    ),
]
MaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        metavar="REGEX",
        help="What this matches in the texts of request bodies does not count in matching. The recording keeps it; may be "
        "repeated.",
    ),
]
FaultOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="F",
        help="Simulate a failure: overloaded@call=2, rate_limit@call=1,retry_after=2, cut@frame=5, error_event@frame=3, "
        "stall=30s@frame=4, slow=0.25x; may be repeated.",
    ),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="ORIGIN",
        help="Answer a web page of this origin, e.g. http://localhost:5173; refuse other pages. May be repeated.",
    ),
]
ShipOption = Annotated[
    str | None,
    typer.Option("--ship", metavar="URL", help="Also ship the log to this shelf; see retold ship.", envvar="RETOLD_SHIP"),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="NAME", help="The name of this log on the shelf.", envvar="RETOLD_SOURCE", show_default="the host's"
    ),
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option("--credentials", metavar="FILE", help="The credential for NATS.", envvar="RETOLD_NATS_CREDENTIALS"),
]
CaOption = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust, for tls://.", envvar="RETOLD_NATS_CA")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="An id, a unique prefix of one, a name, last, or last~N.")]


@contextmanager
def shipped(log: "EventLog", to: str | None) -> Iterator[None]:
    """Ship a log during the block if there is a shelf, with notes about troubles and about events that are left."""
    if not to:
        yield
        return
    from ..fleet.background import shipping

    with shipping(log, to, tell=lambda line: note(f"retold: {line}")):
        yield


def say(text: str = "") -> None:
    """Print text on stdout, cleaned for a terminal."""
    print(clean(text), flush=True)


def heading(text: str, sgr: str = "1") -> None:
    """Print a line on stdout, cleaned, in bold or in another style if there are colours."""
    print(f"\x1b[{sgr}m{clean(text)}\x1b[0m" if colours() else clean(text), flush=True)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout, indented."""
    print(clean_json(strict_json.dumps(value, indent=2)))


def print_json_lines(values: Iterable[Any]) -> None:
    """Print one JSON value per line and flush each."""
    for value in values:
        sys.stdout.write(clean_json(strict_json.dumps(value)) + "\n")
        sys.stdout.flush()


def print_json_list(values: Iterable[Any]) -> None:
    """Print a JSON list on stdout, one value per line, without holding it."""
    before = "[\n"
    for value in values:
        sys.stdout.write(before + clean_json(strict_json.dumps(value)))
        before = ",\n"
    sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")


def colours() -> bool:
    """Return whether stdout gets colours."""
    return in_colour(sys.stdout)


def note(text: str) -> None:
    """Print a note, cleaned for a terminal, on stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def handler_specs(named: list[str] | None, folder: Path = Path()) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, options) of each `--handler`. `folder` holds the modules of callbacks.

    Raise HandlerError for an unknown handler or option, or a value that does not work.
    """
    from ..handlers import make_handler
    from ..recorder.errors import HandlerError
    from ..workflow.source import scalar

    specs: list[tuple[str, dict[str, Any]]] = []
    for text in named or ():
        name, _, given = text.partition(":")
        options: dict[str, Any] = {}
        for pair in filter(None, re.split(r",(?![^\[]*\])", given)):  # do not split at the commas of a list
            option, equals, value = pair.partition("=")
            if not equals:
                raise HandlerError(f"--handler {text}: {pair!r} is no OPTION=VALUE, as in file:file_path=run.log.")
            options[option.strip()] = scalar(value)
        make_handler(name, options, sys.stdout, folder).check()
        specs.append((name, options))
    return specs


def form_of(*, json: bool, csv: bool) -> Literal["text", "json", "csv"]:
    """Return the form of the output that options ask for. Raise InputError for two forms."""
    from ..recorder.errors import InputError

    if json and csv:
        raise InputError("--csv and --json exclude each other; choose one form.")
    if json:
        return "json"
    return "csv" if csv else "text"


def timing_of(timing: str | None, speed: str | None, default: str) -> str:
    """Return the timing that --timing or --speed asks for. Raise InputError for both."""
    from ..recorder.errors import InputError

    if timing is not None and speed is not None:
        raise InputError("--timing and --speed set the same thing; leave one of them out.")
    return timing or (default if speed is None else f"{speed.removesuffix('x')}x")


def one_of(option: str, value: str | None, values: Sequence[str]) -> None:
    """Raise InputError if the value of an option is none of its values."""
    from ..recorder.errors import InputError

    if value is not None and value not in values:
        raise InputError(f"{option} {value!r}: one of {', '.join(values)}.")


def test_mode() -> Literal["mock", "live"]:
    """Return the mode in `TEST_MODE`, mock if it is not set. Raise InputError for any other value."""
    from ..recorder.errors import InputError

    mode = os.environ.get("TEST_MODE") or "mock"
    if mode == "live":
        return "live"
    if mode == "mock":
        return "mock"
    raise InputError(f"unknown TEST_MODE {mode!r}: set it to mock (the default, offline) or live, or unset it.")
