"""The command line: one module per command, one-line errors with exit codes, results on stdout and all notes on stderr.

Import only the requested command: typer inspects every parameter of every registered command, which takes longer than most
commands.
"""

import atexit
import contextlib
import copy
import functools
import gc
import importlib
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn, TextIO

import typer

from ..recorder import colour
from ..recorder.errors import RetoldError, RunError
from ..recorder.words import clean, one_line
from . import terminal
from .common import note

COMMANDS = {
    "init": ("init.init", "Write a workflow to start from."),
    "run": ("run.run", "Run a workflow, offline or live."),
    "record": ("record.record", "Run any program and record its requests to the API."),
    "replay": ("replay.replay", "Run any program against a recording, offline."),
    "fork": ("fork.fork", "Run a program again from a point of its recording."),
    "try": ("try_.try_", "Fork a run with several models, side by side."),
    "pin": ("pin.pin", "Write a run as a regression test of pytest."),
    "serve": ("serve.serve", "Answer any client from cassettes."),
    "proxy": ("serve.proxy", "Record the requests of clients, until stopped."),
    "ls": ("ls.ls", "List the runs in the log."),
    "show": ("show.show", "Show the messages of a run."),
    "play": ("play.play", "Watch a recording at its original pace."),
    "tail": ("tail.tail", "Follow a run in progress."),
    "import": ("import_.import_", "Import recordings into the log."),
    "export": ("export.export", "Export a run."),
    "diff": ("diff.diff", "Compare two recordings by meaning."),
    "check": ("check.check", "Check a recording against an expectation."),
    "textconv": ("textconv.textconv", "Print a recording as text for git diff."),
    "view": ("view.view", "Show runs in a browser."),
    "search": ("search.search", "Search messages, prompts and tools of all runs."),
    "stats": ("stats.stats", "Print tokens, cost, errors and times."),
    "query": ("query.query", "Read the log with SQL."),
    "explain": ("explain.explain", "Explain why requests missed the prompt cache."),
    "verify": ("verify.verify", "Check that the log is unchanged."),
    "recover": ("recover.recover", "Repair the log after a crash."),
    "erase": ("erase.erase", "Erase a run, a message or a text permanently."),
    "redact": ("redact.redact", "Replace the matches of a pattern in every run."),
    "prune": ("prune.prune", "Remove old runs."),
    "ship": ("ship.ship", "Ship the log to a shelf for other machines."),
    "pull": ("pull.pull", "Pull the runs of other machines from a shelf."),
    "validate": ("validate.validate", "Check workflow files and list all errors."),
    "schema": ("schema.schema", "Print the JSON Schema of workflow files."),
    "doctor": ("doctor.doctor", "Check the installation and list problems."),
    "help": ("help.help_", "Print the help of a command."),
}
"""The function of each command, and its line in the list of commands, at most 80 columns wide."""

GROUPS = {
    "Record": ("init", "run", "record", "proxy", "import"),
    "Watch": ("ls", "show", "play", "tail", "view", "search"),
    "Test": ("replay", "serve", "pin", "check", "validate", "schema"),
    "Compare": ("diff", "textconv", "fork", "try", "explain", "stats"),
    "Audit": ("query", "verify", "erase", "redact", "prune", "recover", "doctor"),
    "Share": ("export", "ship", "pull"),
    "Help": ("help",),
}
"""The commands by purpose, as the help lists them."""


PAGED = frozenset(
    {
        *("ls", "show", "search", "stats", "query", "explain", "diff", "check", "textconv", "verify", "export"),
        *("validate", "schema", "doctor", "help"),
    }
)
"""The commands with a pager: their whole output exists when they begin to print, so it may be long but never runs on."""


class When(StrEnum):
    """When the output has colours."""

    auto = "auto"
    always = "always"
    never = "never"


class _Late:
    """Takes the place of typer's conversion of one parameter until a value needs it, because that imports pydantic: 0.1 s."""

    def coerce(self, value: Any, *, param: Any, ctx: Any) -> Any:
        """Return the value that the conversion would return."""
        kind = param.type_descriptor.annotation
        if param.multiple or param.nargs != 1:
            if value is None:
                return ()
            if kind == list[str] and isinstance(value, list | tuple) and all(type(each) is str for each in value):
                return list(value)
        elif value is None or (type(value) is kind and (kind in (str, bool) or value == param.default)):
            return value
        elif kind is Path and type(value) is str and _is_plain(value, param.type_descriptor.parameter_info):
            return Path(value)
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _is_plain(path: str, wanted: Any) -> bool:
    """Return whether typer would check nothing of a path but that it can be read if it exists, and whether that is so."""
    checks = (wanted.exists, wanted.writable, wanted.resolve_path, wanted.allow_dash, wanted.path_type, wanted.parser)
    return wanted.file_okay and wanted.dir_okay and not any(checks) and (os.access(path, os.R_OK) or not os.path.lexists(path))


class _Lately:
    """A command whose parameters are converted late, if this version of typer converts by pydantic."""

    def get_params(self, ctx: Any) -> Any:
        """Return all parameters, with that of the help."""
        params = super().get_params(ctx)  # type: ignore[misc] # of a command
        for param in params:
            if hasattr(param, "get_runtime_param") and getattr(param, "_runtime_param", param) is None:
                param._runtime_param = _Late()
        return params


class _Command(_Lately, typer.core.TyperCommand):
    pass


class _Group(_Lately, typer.core.TyperGroup):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Let every command take the options of all output, too: `retold ls --color never`. Only the group's help lists them."""
        super().__init__(*args, **kwargs)
        for option in (each for each in self.params if each.name in ("color", "no_pager")):
            own: Any = copy.copy(option)
            own.hidden, own.expose_value = True, False
            for command in self.commands.values():
                command.params.append(own)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by purpose, with their lines in one column."""
        del ctx
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[:2] == ["cassette", "prune"]:
            ctx.fail("Only a session of your tests shows which recordings they play. To remove the others: pytest --retold-prune")
        if args[0] not in self.commands and os.path.isfile(args[0]):
            ctx.fail(f"No such command {args[0]!r}. To run a workflow: retold run {args[0]}")
        ctx.meta["retold.separated"] = args[-2:-1] == ["--"]  # the parser of the command drops it
        return super().resolve_command(ctx, args)


def make_app(asked: str | None = None) -> typer.Typer:
    """Return the command line with every command. If one is asked for, the others are registered by name only."""
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
    for name, (where, summary) in COMMANDS.items():
        app.command(name, cls=_Command, short_help=summary)(_command(name, where) if asked in (None, name) else _unasked)
    return app


def _command(name: str, where: str) -> Callable[..., None]:
    module, _, function = where.partition(".")
    return _piped(getattr(importlib.import_module(f".{module}", __name__), function), is_paged=name in PAGED)


def _unasked() -> None:
    """Take the place of a command that is not imported."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"retold {version('retold')}")
        raise typer.Exit


def _colour(when: When | None) -> None:
    if when is not None:
        colour.choose(when.value)


def _pager(unwanted: bool) -> None:
    if unwanted:
        terminal.want(False)


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    color: Annotated[
        When | None,
        typer.Option(
            "--color", help="Colours in the output; may follow the command, too.", show_default="auto", callback=_colour
        ),
    ] = None,
    no_pager: Annotated[
        bool, typer.Option("--no-pager", help="Print long output without a pager; may follow, too.", callback=_pager)
    ] = False,
) -> None:
    """Record every Claude message stream once; retell it anywhere."""


def _piped(function: Callable[..., None], *, is_paged: bool) -> Callable[..., None]:
    """Wrap a command: if its reader closes the pipe early (`| head`), exit with 141 and print nothing."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            with terminal.paged() if is_paged else contextlib.nullcontext():
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
    """Return whether text cannot be written: a full disk, a closed terminal. Unflushed text is still in the buffer."""
    try:
        out.flush()
    except OSError:
        return True
    return False


def main() -> None:
    """Run the console script `retold`."""
    atexit.register(gc.freeze)  # otherwise the interpreter looks for cycles in all modules at its end: a fifth of a short run
    signal.signal(signal.SIGTERM, _terminated)
    warnings.showwarning = _warned
    sys.excepthook = _crashed
    threading.excepthook = lambda crash: _crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)
    if sys.stdout is None:  # closed by the caller: `>&-`
        note("retold: cannot write to stdout: it is closed.")
        sys.exit(RunError.exit_code)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does: some terminals lack some characters
    colour.choose("auto")
    terminal.want(True)
    try:
        gc.disable()  # importing makes no garbage, and a fifth of its time would go to looking for some
        app = make_app(_asked(sys.argv[1:]))
        gc.enable()
        app()
    except RetoldError as error:
        note(f"retold: {one_line(str(error)) if isinstance(error, RunError) else error}")  # an API's text may have several lines
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _leave(128 + signal.SIGINT)
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:  # typer converts a KeyboardInterrupt to this
            _leave(128 + signal.SIGINT)
        raise
    except BaseException as error:
        if type(error).__name__ == "CancelledError":  # compare by name: not every command imports asyncio
            _leave(128 + signal.SIGTERM)
        raise


def _asked(arguments: list[str]) -> str | None:
    """Return the command in the arguments, or "". Return None during shell completion, which may need any command."""
    if "_RETOLD_COMPLETE" in os.environ:
        return None
    found = iter(arguments)
    for argument in found:
        if not argument.startswith("-"):
            return argument
        if argument == "--color":
            next(found, None)
    return ""


def _leave(code: int) -> NoReturn:
    """Exit even if a handler blocks on an output without a reader: the interpreter would wait until it releases stdout."""
    if any(thread.name.startswith("retold-") for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print a warning like any other note, without its place in the code."""
    del category, filename, lineno
    note(f"retold: {message}")


def _crashed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Print a traceback, cleaned for a terminal because its last line may quote a model."""
    print(clean("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _terminated(*_: object) -> None:
    """Unwind on SIGTERM like on an exception, so that temporary files are removed and runs are closed."""
    sys.exit(128 + signal.SIGTERM)
