"""`use_cassette`: record or replay every Anthropic client used inside it, sync or async, whatever its base URL.

Requests are taken where a client hands them to its transport, in the current context (contextvars; tasks, threads and
executors inherit). While a cassette only replays, requests of other contexts are not sent either. The recording goes into the
log first, as a run named after the cassette. The cassette is written from that run if the block ended well, so a failed test
never replaces a good cassette.
"""

import contextlib
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from ..recorder.errors import InputError
from ..recorder.http.exchange import Exchange
from ..recorder.http.guard import everything, guarded, model_apis
from ..recorder.http.patching import Block, Led
from ..recorder.http.recognition import Outgoing
from ..recorder.log.log import EventLog
from ..replay.matching.rules import DEFAULT_IGNORE, Predicate, Rules
from ..replay.timing.timing import Timing, parse_duration_ns
from ..settings import BeforeRecord, OnExpired, Settings
from ..workflow.pricing import price
from .canary import check_clients
from .children import pointed_at
from .decorators import decorated
from .door import Door
from .placeholder_key import stand_in
from .record_modes import ENVIRONMENT, resolve
from .session import FaultWarning, UsedCassette

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_AGE_DAYS = re.compile(r"(\d+)\s*(d|w)")


class use_cassette:
    """Record into, or replay from, the cassette at `path` inside a `with` block or a decorated function, sync or async.

    record_mode   none, once, new_episodes, all, rewrite, verify (modes.py); `CI=true` means none
    timing        instant, original, 2x …; idle_limit caps pauses (`"2s"`)
    match_on      names of rules or predicates (replay/matching/rules.py); ignore: paths of JSON bodies that do not count
    hosts         further hosts to record, as patterns; the Anthropic API is recorded whatever its base URL
    block_network refuse requests to other hosts instead of passing them through
    before_record (request) -> request as it is recorded and matched, or None to pass it through unrecorded
    before_keep   (exchange) -> exchange as it is written to the cassette, or None to leave it out
    redact        further secret values to remove
    allow_playback_repeats  play a recording again when a request comes more often than it was recorded
    faults        failures to happen, as `"cut@frame=5"` (replay/faults.py)
    also          further cassettes to replay from; recordings go to `path`
    max_age       `"90d"` or a timedelta; on_expired: warn, fail, or rerecord
    log           the log for recordings and replays; without it replays leave no trace and recordings go to the one at
                  `recordings`, or the default one, as a run called `name`

    Where nothing can be recorded and the environment has no key, a stand-in is there during the block: the SDK's clients
    send nothing without one.

    Raises CassetteError for a damaged cassette, InputError for wrong arguments; requests inside raise MissError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        record_mode: str | None = None,
        timing: Timing | str = "instant",
        idle_limit: str | None = None,
        match_on: Sequence[str | Predicate] | None = None,
        ignore: Sequence[str] = DEFAULT_IGNORE,
        hosts: Iterable[str] = (),
        block_network: bool = False,
        before_record: BeforeRecord | None = None,
        redact: Iterable[str] = (),
        max_age: str | timedelta | None = None,
        on_expired: OnExpired = "warn",
        log: EventLog | str | os.PathLike[str] | None = None,
        recordings: str | os.PathLike[str] | None = None,
        name: str | None = None,
        allow_playback_repeats: bool = False,
        faults: Sequence[str] = (),
        also: Sequence[Path] = (),
        before_keep: Callable[[Exchange], Exchange | None] | None = None,
        everywhere: bool = False,
        mode_override: str | None = None,
        since: str | None = None,
    ) -> None:
        if on_expired not in ("warn", "fail", "rerecord"):
            raise InputError(f"unknown on_expired {on_expired!r}: give warn, fail or rerecord.")
        self._path = None if path is None else Path(path)
        self._mode = resolve(record_mode, override=mode_override)
        self._settings = Settings(
            timing=Timing.parse(timing, idle_limit) if isinstance(timing, str) else timing,
            rules=Rules(ignore=_several(ignore)) if match_on is None else Rules(_several(match_on), _several(ignore)),
            hosts=_several(hosts),
            block_network=block_network,
            before_record=before_record,
            redact=_several(redact),
            repeats=allow_playback_repeats,
            also=tuple(also),
            max_age=_age(max_age),
            on_expired=on_expired,
            log=log,
            recordings=recordings,
            name=name,
            before_keep=before_keep,
            faults=_several(faults),
            price=price,
            since=since,
            is_overridden=bool(mode_override or os.environ.get(ENVIRONMENT)),
        )
        self._everywhere = everywhere
        self._used: UsedCassette | None = None
        self._block: Block | None = None
        self._stack = contextlib.ExitStack()

    @overload
    def __call__(self, function: type[T]) -> type[T]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...
    def __call__(self, function: Any) -> Any:
        """Decorate a function or a test class: each call uses the cassette anew. Without a path it is named after the function.

        A coroutine function, a generator, an async generator and a function that returns an awaitable keep their protocol, and
        use the cassette while they run. In a class, each method whose name begins with `test` is decorated. Raises InputError.
        """
        return decorated(function, self._path, self._again)

    def set_up(self, **settings: Any) -> "use_cassette":
        """Return itself, with settings that are not the user's to set (settings.py): plugins use it."""
        self._settings = replace(self._settings, **settings)
        return self

    def _again(self, path: Path) -> "use_cassette":
        """The same use of a cassette once more: a use is for one block."""
        again = object.__new__(use_cassette)
        again.__dict__ |= self.__dict__ | {"_path": path, "_used": None, "_stack": contextlib.ExitStack()}
        return again

    @property
    def block(self) -> Block:
        """The block that is open, for decorators that leave and enter its context in between."""
        assert self._block is not None
        return self._block

    def __enter__(self) -> UsedCassette:
        if self._path is None:
            raise InputError("use_cassette() needs a path; only as a decorator it can be named after the function.")
        if self._used is not None:
            raise InputError(f"this use_cassette({str(self._path)!r}) is in use already; make another one.")
        check_clients()
        self._used = UsedCassette(self._path, self._mode, self._settings)
        self._stack.enter_context(self._in_front(self._used))
        return self._used

    @contextlib.contextmanager
    def _in_front(self, used: UsedCassette) -> Iterator[None]:
        """The cassette decides about the requests of this context, of children, and of what nothing else decides about."""
        door = Door(used)

        def lead(asked: Outgoing) -> Led | None:
            return used.way().lead(asked) if used.covers(asked) or self._settings.block_network else None

        self._block = block = Block(
            used, only_replays=used.only_replays, everywhere=self._everywhere, covers=used.covers,
            lead=lead if self._settings.leads else None,
        )  # fmt: skip
        used.way = lambda: door.lead
        with contextlib.ExitStack() as stack:
            stack.enter_context(pointed_at(door, used))
            if self._settings.block_network:
                stack.enter_context(guarded(everything(used.source)))
            if used.only_replays:
                stack.enter_context(guarded(model_apis(used.source)))
                stack.enter_context(stand_in())
            block.open()
            block.enter()
            try:
                yield
            finally:
                block.close()
                block.leave()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._used is not None
        used, self._used = self._used, None
        try:
            self._stack.close()
        finally:
            used.close(kept=error is None, error=error)
        if error is None and used.faults.unused:
            warnings.warn(f"fault {' and '.join(used.faults.unused)} never happened", FaultWarning, stacklevel=2)

    async def __aenter__(self) -> UsedCassette:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


def _several(values: Any) -> tuple[Any, ...]:
    """A single string is one value, not its letters."""
    return (values,) if isinstance(values, str) else tuple(values)


def _age(value: str | timedelta | None) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    match = _AGE_DAYS.fullmatch(value.strip())
    if match is not None:
        return timedelta(days=int(match[1]) * (7 if match[2] == "w" else 1))
    return timedelta(microseconds=parse_duration_ns(value) / 1000)
