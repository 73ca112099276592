"""The command line: one module a command, errors in one line with their exit code, results on stdout and the rest on stderr."""

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from ..recorder.errors import RetoldError
from . import (
    diff,
    doctor,
    erase,
    export,
    import_,
    ls,
    play,
    prune,
    record,
    redact,
    replay,
    run,
    schema,
    search,
    serve,
    show,
    stats,
    tail,
    validate,
    verify,
    view,
)

app = typer.Typer(
    name="retold",
    help="Record every Claude message stream once; retell it anywhere.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failed or differs, 2 bad usage or input, 3 replay miss.",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"retold {version('retold')}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", help="Show the version and exit.", callback=_version, is_eager=True),
) -> None:
    """Record every Claude message stream once; retell it anywhere."""


def _piped(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose reader may go before it is done (`| head`): nothing to report, but an exit code that says so."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + signal.SIGPIPE) from None

    return command


for name, function in (
    ("run", run.run),
    ("record", record.record),
    ("replay", replay.replay),
    ("serve", serve.serve),
    ("proxy", serve.proxy),
    ("ls", ls.ls),
    ("show", show.show),
    ("play", play.play),
    ("tail", tail.tail),
    ("import", import_.import_),
    ("export", export.export),
    ("diff", diff.diff),
    ("view", view.view),
    ("search", search.search),
    ("stats", stats.stats),
    ("verify", verify.verify),
    ("erase", erase.erase),
    ("redact", redact.redact),
    ("prune", prune.prune),
    ("validate", validate.validate),
    ("schema", schema.schema),
    ("doctor", doctor.doctor),
):
    app.command(name)(_piped(function))


def main() -> None:
    """The console script `retold`."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except RetoldError as error:
        print(f"retold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BaseException as error:
        if type(error).__name__ == "CancelledError":  # asyncio's, which is not imported for every command
            sys.exit(128 + signal.SIGTERM)
        raise


def _terminated(*_: object) -> None:
    """SIGTERM unwinds like an exception: temporary files go, runs are closed."""
    sys.exit(128 + signal.SIGTERM)
