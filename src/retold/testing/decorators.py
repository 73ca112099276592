"""`use_cassette` as a decorator: the decorated object keeps its protocol.

A generator is inside the block only while it runs: between two steps its caller runs, which may be inside another block.
"""

import contextlib
import functools
import inspect
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from ..recorder.errors import InputError
from ..recorder.http.patching import Block


class Using(Protocol):
    """A `use_cassette` for one call."""

    @property
    def block(self) -> Block:
        """The open block."""

    def __enter__(self) -> Any: ...
    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...


Again = Callable[[Path], Using]


def decorated(target: Any, path: Path | None, again: Again) -> Any:
    """Return a function or class that uses the cassette at `path`, or one named after it. Raises InputError."""
    if isinstance(target, type):
        return _decorate_class(target, path, again)
    if not callable(target):
        raise InputError(f"use_cassette cannot decorate {target!r}: give a function or a class of tests.")
    inner = inspect.unwrap(target)
    if path is None:
        if not hasattr(inner, "__code__"):
            raise InputError(f"use_cassette() needs a path here: {target!r} has no name of its own.")
        folder = Path(inspect.getfile(inner)).parent / "cassettes"
        path = folder / f"{target.__qualname__.replace('.<locals>', '')}.yaml"
    using = functools.partial(again, path)
    if inspect.iscoroutinefunction(target):
        return _coroutine(target, using)
    if inspect.isasyncgenfunction(target):
        return _async_generator(target, using)
    if inspect.isgeneratorfunction(target):
        return _generator(target, using)
    return _function(target, using)


def _decorate_class(target: type, path: Path | None, again: Again) -> type:
    """Decorate the class's tests in place, inherited ones too; the class stays the one that test runners collect."""
    names = [name for name in dir(target) if name.startswith("test")]
    methods = {name: inspect.getattr_static(target, name) for name in names}
    methods = {
        name: method for name, method in methods.items() if callable(method) or isinstance(method, staticmethod | classmethod)
    }
    if not methods:
        raise InputError(f"use_cassette cannot decorate {target.__qualname__}: it has no method whose name begins with test.")
    for name, method in methods.items():
        if isinstance(method, staticmethod | classmethod):
            setattr(target, name, type(method)(decorated(method.__func__, path, again)))
        else:
            setattr(target, name, decorated(method, path, again))
    return target


def _coroutine(function: Any, using: Callable[[], Using]) -> Any:
    @functools.wraps(function)
    async def in_cassette(*args: Any, **kwargs: Any) -> Any:
        with using():
            return await function(*args, **kwargs)

    return in_cassette


def _function(function: Any, using: Callable[[], Using]) -> Any:
    @functools.wraps(function)
    def in_cassette(*args: Any, **kwargs: Any) -> Any:
        own = using()
        with contextlib.ExitStack() as stack:
            stack.enter_context(own)
            result = function(*args, **kwargs)
            if not inspect.isawaitable(result):
                return result
            own.block.leave()
            return _awaited(result, own, stack.pop_all())

    return in_cassette


def _awaited(result: Awaitable[Any], using: Using, stack: contextlib.ExitStack) -> Any:
    """Return a coroutine that awaits a result inside the block. The block ends with it, or with an unawaited coroutine."""

    async def inside() -> Any:
        with stack:
            using.block.enter()
            return await result

    coroutine = inside()
    weakref.finalize(coroutine, stack.close)
    return coroutine


def _generator(function: Any, using: Callable[[], Using]) -> Any:
    @functools.wraps(function)
    def in_cassette(*args: Any, **kwargs: Any) -> Any:
        own = using()
        with own, contextlib.closing(function(*args, **kwargs)) as inner:
            step = functools.partial(next, inner)
            while True:
                try:
                    item = step()
                except StopIteration as end:
                    return end.value
                own.block.leave()
                try:
                    step = functools.partial(inner.send, (yield item))
                except GeneratorExit:
                    raise
                except BaseException as error:
                    step = functools.partial(inner.throw, error)
                finally:
                    own.block.enter()

    return in_cassette


def _async_generator(function: Any, using: Callable[[], Using]) -> Any:
    @functools.wraps(function)
    async def in_cassette(*args: Any, **kwargs: Any) -> Any:
        own = using()
        with own:
            async with contextlib.aclosing(function(*args, **kwargs)) as inner:
                step = functools.partial(anext, inner)
                while True:
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        return
                    own.block.leave()
                    try:
                        step = functools.partial(inner.asend, (yield item))
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(inner.athrow, error)
                    finally:
                        own.block.enter()

    return in_cassette
