"""The command line: one module a command, errors in one line with their exit code, results on stdout and the rest on stderr."""

import os
import signal
import sys

import typer

from ..recorder.errors import RetoldError
from . import export, import_, ls, play, run, show, tail

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


app.command("run")(run.run)
app.command("ls")(ls.ls)
app.command("show")(show.show)
app.command("play")(play.play)
app.command("tail")(tail.tail)
app.command("import")(import_.import_)
app.command("export")(export.export)


def main() -> None:
    """The console script `retold`."""
    try:
        app()
    except RetoldError as error:
        print(f"retold: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing to report, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
