"""The command line: one module a command, errors in one line with their exit code, results on stdout and the rest on stderr.

Only the command that was asked for is imported: typer looks at every parameter of every command it knows, which takes longer
than most commands.
"""

import functools
import importlib
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TextIO

import typer

from ..recorder.errors import RetoldError, RunError
from ..recorder.screen import clean, one_line
from .common import note

COMMANDS = {
    "run": ("run.run", "Run a workflow, offline or live."),
    "record": ("record.record", "Run any program and record what it asks the API."),
    "replay": ("replay.replay", "Run any program against a recording, offline."),
    "serve": ("serve.serve", "Answer any client from cassettes."),
    "proxy": ("serve.proxy", "Record what clients ask the API, until stopped."),
    "ls": ("ls.ls", "List the runs in the log."),
    "show": ("show.show", "Show the messages of a run."),
    "play": ("play.play", "Watch a recording at its own pace."),
    "tail": ("tail.tail", "Follow a run while it goes on."),
    "import": ("import_.import_", "Import recordings into the log."),
    "export": ("export.export", "Export a run."),
    "diff": ("diff.diff", "Compare two recordings by meaning."),
    "view": ("view.view", "Look at runs in a browser."),
    "search": ("search.search", "Search messages, prompts and tools of all runs."),
    "stats": ("stats.stats", "Account for tokens, cost, errors and times."),
    "verify": ("verify.verify", "Check that the log was not changed."),
    "recover": ("recover.recover", "Mend what a crash left behind."),
    "erase": ("erase.erase", "Erase a run, a message or a text for good."),
    "redact": ("redact.redact", "Replace what a pattern finds in every run."),
    "prune": ("prune.prune", "Remove runs that are old."),
    "validate": ("validate.validate", "Check workflow files, every error at once."),
    "schema": ("schema.schema", "Print the JSON Schema of workflow files."),
    "doctor": ("doctor.doctor", "Say what is installed and what is in the way."),
}
"""Each command by its name: its function, and what the list of commands says of it in one line of 80 columns."""


class _Group(typer.core.TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and os.path.isfile(args[0]):
            ctx.fail(f"No such command {args[0]!r}. To run a workflow: retold run {args[0]}")
        return super().resolve_command(ctx, args)


def make_app(asked: str | None = None) -> typer.Typer:
    """The command line with every command, or with all but the one that was asked for known by name only."""
    app = typer.Typer(
        name="retold",
        cls=_Group,
        help="Record every Claude message stream once; retell it anywhere.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 ok, 1 failed or differs, 2 bad usage or input, 3 replay miss.",
    )
    app.callback()(_main)
    for name, (where, says) in COMMANDS.items():
        app.command(name, short_help=says)(_command(where) if asked in (None, name) else _unasked)
    return app


def _command(where: str) -> Callable[..., None]:
    module, _, function = where.partition(".")
    return _piped(getattr(importlib.import_module(f".{module}", __name__), function))


def _unasked() -> None:
    """Stands for a command that was not asked for."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"retold {version('retold')}")
        raise typer.Exit


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
        except OSError as error:
            if not _is_lost(sys.stdout):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise RunError(f"cannot write to stdout: {error.strerror or error}.") from error

    return command


def _is_lost(out: TextIO) -> bool:
    """Whether text cannot be written: a full disk, a closed terminal. What could not be flushed is still in the buffer."""
    try:
        out.flush()
    except OSError:
        return True
    return False


def main() -> None:
    """The console script `retold`."""
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _warned
    sys.excepthook = _crashed
    threading.excepthook = lambda crash: _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)
    if sys.stdout is None:  # closed by the caller: `>&-`
        note("retold: cannot write to stdout: it is closed.")
        sys.exit(RunError.exit_code)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: not every terminal knows every character
    try:
        make_app(_asked(sys.argv[1:]))()
    except RetoldError as error:
        note(f"retold: {one_line(str(error)) if isinstance(error, RunError) else error}")  # an API's words are one line
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:  # typer made it of a KeyboardInterrupt
            _leave(128 + signal.SIGINT)
        raise
    except BaseException as error:
        if type(error).__name__ == "CancelledError":  # asyncio's, which is not imported for every command
            _leave(128 + signal.SIGTERM)
        raise


def _asked(arguments: list[str]) -> str | None:
    """The command in the arguments, or no command's name; None where a shell completes and may ask for any."""
    if "_RETOLD_COMPLETE" in os.environ:
        return None
    return next((argument for argument in arguments if not argument.startswith("-")), "")


def _leave(code: int) -> NoReturn:
    """Exit although a handler may hang, in an output that nobody reads: the interpreter would wait for it to let go of stdout."""
    if any(thread.name.startswith("retold-") for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """A warning as any other remark to the person; where in our code it arose is none of theirs."""
    del category, filename, lineno
    note(f"retold: {message}")


def _crashed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback, clean for a terminal: its last line may quote a model."""
    print(clean("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _terminated(*_: object) -> None:
    """SIGTERM unwinds like an exception: temporary files go, runs are closed."""
    sys.exit(128 + signal.SIGTERM)
