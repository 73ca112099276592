"""The use of a cassette during a block: a context manager and a decorator. Plugins make one from settings.

Requests are taken where a client hands them to its transport, in the current context (contextvars; tasks, threads and
executors inherit). While a cassette only replays, requests of other contexts are not sent either.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from ..agent_sdk.patching import install as patch_agent_sdk
from ..recorder.errors import InputError
from ..recorder.http.guard import everything, guarded, model_apis
from ..recorder.http.patching import Block, Led
from ..recorder.http.recognition import Outgoing
from ..settings import Settings
from .canary import check_clients
from .children import pointed_at
from .decorators import decorated
from .door import Door
from .placeholder_key import stand_in
from .record_modes import RecordMode
from .session import CassetteSession
from .used import UsedCassette

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class FaultWarning(UserWarning):
    """A fault never happened: there was no such call, or no stream had that many frames."""


class Use:
    """A use of the cassette at `path` for one block. With `everywhere` it also covers contexts that did not inherit it."""

    def __init__(self, path: Path | None, mode: RecordMode, settings: Settings, *, everywhere: bool = False) -> None:
        self._path = path
        self._mode = mode
        self._everywhere = everywhere
        self.settings = settings
        self._session: CassetteSession | None = None
        self._block: Block | None = None
        self._stack = contextlib.ExitStack()

    @overload
    def __call__(self, function: type[T]) -> type[T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Any) -> Any:
        """Decorate a function or a test class: each call uses the cassette anew. Without a path it is named after the function.

        A coroutine function, a generator, an async generator and a function that returns an awaitable keep their protocol, and
        use the cassette while they run. In a class, each method with a name that begins with `test` is decorated. Raise
        InputError.
        """
        return decorated(function, self._path, lambda path: Use(path, self._mode, self.settings, everywhere=self._everywhere))

    @property
    def block(self) -> Block:
        """The open block, for decorators that leave and enter its context in between."""
        assert self._block is not None
        return self._block

    @property
    def session(self) -> CassetteSession:
        """The session of the open block."""
        assert self._session is not None
        return self._session

    def __enter__(self) -> UsedCassette:
        if self._path is None and self.settings.recorded is None:
            raise InputError("use_cassette() needs a path; only as a decorator it can be named after the function.")
        if self._session is not None:
            raise InputError(f"this use_cassette({str(self._path)!r}) is in use already; make another one.")
        check_clients()
        self._session = CassetteSession(self._path, self._mode, self.settings)
        self._stack.enter_context(self._in_front(self._session))
        return self._session

    @contextlib.contextmanager
    def _in_front(self, session: CassetteSession) -> Iterator[None]:
        """Let the session decide about the requests of this context, of children, and of contexts without a cassette."""
        door = Door(session)

        def lead(asked: Outgoing) -> Led | None:
            return session.way().lead(asked) if session.covers(asked) or self.settings.block_network else None

        self._block = block = Block(
            session, only_replays=session.only_replays, everywhere=self._everywhere, covers=session.covers,
            lead=lead if self.settings.leads else None,
        )  # fmt: skip
        session.way = lambda: door.lead
        with contextlib.ExitStack() as stack:
            stack.enter_context(pointed_at(door, session))
            if self.settings.block_network:
                stack.enter_context(guarded(everything(session.source)))
            if session.only_replays:
                stack.enter_context(guarded(model_apis(session.source)))
                stack.enter_context(stand_in())
            block.open()
            patch_agent_sdk()
            block.enter()
            try:
                yield
            finally:
                block.close()
                block.leave()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        session, self._session = self.session, None
        try:
            self._stack.close()
        finally:
            session.close(kept=error is None, error=error)
        if error is None and session.faults.unused:
            warnings.warn(f"fault {' and '.join(session.faults.unused)} never happened", FaultWarning, stacklevel=2)

    async def __aenter__(self) -> UsedCassette:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)
