"""callback: pass each message to a function of yours, named by module and function.

    stream_handler: callback
    stream_handler_opts: {module: my_app.stream_handler, function: process_message, types: [assistant]}

The function takes one argument, a `retold.Message`. An `async def` runs to its end before the next message.
"""

import asyncio
import importlib
import importlib.machinery
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..recorder.errors import HandlerError
from ..recorder.messages import Message
from ..recorder.words import nearest, sentence
from .base import Handler, Options


class CallbackOptions(Options):
    """The function, the message types it receives (all if none is named), and the reaction to an exception."""

    module: str
    function: str
    types: list[str] | None = None
    on_error: Literal["report", "stop"] = "report"


class CallbackFailed(Exception):
    """The user's function raised an exception, which is the cause of this one."""


class Callback(Handler):
    """Calls the function once for each message.

    With `on_error: report` exceptions are counted and reported at the end; with `stop` the first one ends the calls. In both
    cases the run continues and its exit code shows the failure.
    """

    name = "callback"
    Options = CallbackOptions
    options: CallbackOptions
    silent = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._function: Callable[[Message], Any] | None = None
        self._runner: asyncio.Runner | None = None
        self._called = 0
        self._failed = 0
        self._first: BaseException | None = None

    def check(self) -> None:
        self._function = load_function(self.options.module, self.options.function, self.folder)

    def message(self, message: Message) -> bool:
        if self.options.types is not None and message.type not in self.options.types:
            return False
        self._called += 1
        try:
            self._call(message)
        except (Exception, SystemExit) as error:
            self._failed += 1
            self._first = self._first or error
            if self.options.on_error == "stop":
                raise CallbackFailed(self._report("stopped after")) from error
        return True

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
        if self._first is not None and self.options.on_error == "report":
            raise CallbackFailed(self._report(f"{self._failed} times, first" if self._failed > 1 else "once:")) from self._first

    def result(self) -> dict[str, Any]:
        """Return `{called, failed}`: the number of calls, and of calls that raised."""
        return {"called": self._called, "failed": self._failed}

    def _call(self, message: Message) -> None:
        if self._function is None:
            self.check()
        assert self._function is not None
        folder = os.getcwd()
        try:
            value = self._function(message)
            if inspect.iscoroutine(value):
                self._runner = self._runner or asyncio.Runner()
                self._runner.run(value)
        finally:
            if os.getcwd() != folder:  # the run resolves relative paths of the whole process
                os.chdir(folder)
                raise OSError("it changed the working directory of the process, which was changed back")

    def _report(self, how: str) -> str:
        return f"{self.options.module}.{self.options.function} raised {how} {type(self._first).__name__}: {self._first}"


def load_function(module: str, function: str, folder: Path) -> Callable[[Message], Any]:
    """Return a function by its dotted module, from `folder` or the environment. Raise HandlerError."""
    try:
        loaded = _load_module(module, folder)
    except (Exception, SystemExit) as error:
        raise HandlerError(_not_loaded(module, folder, error), "module") from error
    found = getattr(loaded, function, None)
    if found is None:
        functions = [name for name, value in vars(loaded).items() if callable(value) and not name.startswith("_")]
        hint = nearest(function, functions) if functions else "; it holds no function"
        raise HandlerError(sentence(f"handler 'callback': module {module!r} has no function {function!r}{hint}"), "function")
    if not callable(found):
        what = f"{function!r} in module {module!r} is not callable; it is {found!r}"
        raise HandlerError(f"handler 'callback': {what}.", "function")
    return found  # type: ignore[no-any-return]  # the return value of a user's function is ignored


def _not_loaded(module: str, folder: Path, error: BaseException) -> str:
    missing = isinstance(error, ModuleNotFoundError) and error.name is not None and (module + ".").startswith(error.name + ".")
    if missing:
        return (
            f"handler 'callback': no module {module!r}; put {module.replace('.', '/')}.py into "
            f"{folder.absolute()}, or install it."
        )
    if not all(part.isidentifier() for part in module.split(".")):
        return f"handler 'callback': {module!r} is not a dotted module name, such as my_app.stream_handler."
    return f"handler 'callback': module {module!r} does not import: {type(error).__name__}: {error}."


def _load_module(module: str, folder: Path) -> ModuleType:
    """Import a module, preferring one in `folder`.

    If an installed module of the same name is already imported, it stays in `sys.modules` for the rest of the program.
    """
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(module)
    top = module.partition(".")[0]
    inside = str(folder.absolute())
    spec = importlib.machinery.PathFinder.find_spec(top, [inside])
    if spec is None:
        return importlib.import_module(module)
    # Hide modules of the same name from elsewhere during the import, and restore them afterwards.
    # Search a copy of the list: steps that run in parallel import other modules meanwhile.
    others = {
        name: loaded
        for name, loaded in sys.modules.copy().items()
        if (name == top or name.startswith(f"{top}.")) and not str(getattr(loaded, "__file__", "")).startswith(inside)
    }
    for name in others:
        del sys.modules[name]
    sys.path.insert(0, inside)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(inside)
        sys.modules.update(others)
