"""`use_cassette`: record or replay every Anthropic client used inside it, sync or async, whatever its base URL.

Requests are taken at the transport, in the current context only (contextvars; tasks, threads and executors inherit). What is
recorded goes into the log first, as a run named after the cassette; the cassette is written from that run when the block
ended well, so a failed test never replaces a good cassette.
"""

import contextlib
import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from .canary import check_sdk
from .modes import ENVIRONMENT, RecordMode, in_ci, resolve
from .recorder.capture import Capture, Place
from .recorder.cassette import read_cassette, write_cassette
from .recorder.errors import BlockedError, CassetteError, CassetteMissing, InputError, MissError
from .recorder.exchange import Exchange, Request, header
from .recorder.log import EventLog, RunWriter
from .recorder.messages import Session
from .recorder.redact import Redactor
from .recorder.tee import Recorder, Send, SendAsync, intercepted, tee, to_request
from .recorder.transfer import exchanges_of
from .replay.compare import drift_between
from .replay.matcher import Matcher
from .replay.rules import DEFAULT_IGNORE, Predicate, Rules
from .replay.timing import Timing, parse_duration_ns
from .replay.transport import Replayer, for_sdk

OnExpired = Literal["warn", "fail", "rerecord"]
BeforeRecord = Callable[[Request], Request | None]
_AGE_DAYS = re.compile(r"(\d+)\s*(d|w)")


class ExpiredWarning(UserWarning):
    """A cassette is older than its `max_age`."""


class DriftWarning(UserWarning):
    """In mode verify: the API no longer answers as it was recorded."""


class use_cassette:
    """Record into, or replay from, the cassette at `path` inside a `with` block or a decorated function, sync or async.

    record_mode   none, once, new_episodes, all, rewrite, verify (modes.py); `CI=true` means none
    timing        instant, original, 2x …; idle_limit caps pauses (`"2s"`)
    match_on      names of rules or predicates (replay/rules.py); ignore: paths of JSON bodies that do not count
    hosts         further hosts to record, as patterns; the Anthropic API is recorded whatever its base URL
    block_network refuse requests to other hosts instead of passing them through
    before_record (request) -> request as it is recorded and matched, or None to pass it through unrecorded
    redact        further secret values to remove
    allow_playback_repeats  play a recording again when a request comes more often than it was recorded
    also          further cassettes to replay from; recordings go to `path`
    max_age       `"90d"` or a timedelta; on_expired: warn, fail, or rerecord
    log           the log for recordings and replays; without it replays leave no trace and recordings go to the one at
                  `recordings`, or the default one, as a run called `name`

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
        also: Sequence[Path] = (),
        everywhere: bool = False,
        mode_override: str | None = None,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._mode = resolve(record_mode, override=mode_override)
        self._timing = Timing.parse(timing, idle_limit) if isinstance(timing, str) else timing
        self._rules = Rules(**({} if match_on is None else {"match_on": tuple(match_on)}), ignore=tuple(ignore))
        self._hosts = tuple(hosts)
        self._block_network = block_network
        self._before_record = before_record
        self._redact = tuple(redact)
        self._max_age = _age(max_age)
        self._on_expired: OnExpired = on_expired
        self._log = log
        self._recordings = recordings
        self._name = name
        self._repeats = allow_playback_repeats
        self._also = tuple(also)
        self._everywhere = everywhere
        self._used: UsedCassette | None = None
        self._stack = contextlib.ExitStack()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator: each call uses the cassette anew. Without a path it is named after the function."""
        if self._path is None:
            folder = Path(inspect.getfile(function)).parent / "cassettes"
            self._path = folder / f"{function.__qualname__.replace('.<locals>', '')}.yaml"

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_cassette_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return in_cassette_async

        @functools.wraps(function)
        def in_cassette(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return in_cassette

    def _again(self) -> "use_cassette":
        again = object.__new__(use_cassette)
        again.__dict__ |= self.__dict__ | {"_used": None, "_stack": contextlib.ExitStack()}
        return again

    def __enter__(self) -> "UsedCassette":
        if self._path is None:
            raise InputError("use_cassette() needs a path; only as a decorator it can be named after the function.")
        check_sdk()
        self._used = UsedCassette(self, self._path, self._mode)
        self._stack.enter_context(intercepted(self._used, everywhere=self._everywhere))
        return self._used

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._used is not None
        try:
            self._stack.close()
        finally:
            self._used.close(kept=error is None, error=error)

    async def __aenter__(self) -> "UsedCassette":
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.__exit__(kind, error, trace)


class UsedCassette:
    """A cassette in use: what was asked, what was played, what was recorded. Decides what becomes of each request."""

    def __init__(self, config: use_cassette, path: Path, mode: RecordMode) -> None:
        self.path = path
        self.record_mode: RecordMode = mode
        self.play_count = 0
        self.misses: list[str] = []
        self.drift: list[str] = []
        self.run: str | None = None
        self._config = config
        self._redactor = Redactor(extra=config._redact)
        self._closed = False
        self._existed, recorded = self._load()
        self.exchanges: tuple[Exchange, ...] = recorded
        self._matcher = Matcher(
            [*recorded, *(exchange for other in config._also for exchange in read_cassette(other).exchanges)],
            source=str(path),
            redactor=self._redactor,
            rules=config._rules,
            repeats=config._repeats,
        )
        self._replayer = Replayer(self._matcher, config._timing)
        self._recorder = Recorder(self._begin)
        self._log: EventLog | None = None
        self._writer: RunWriter | None = None
        self._calls: list[tuple[str, int, int]] = []
        self._verified: list[tuple[Exchange | None, Capture]] = []

    def __repr__(self) -> str:
        return f"<UsedCassette {self.path} {self.record_mode} {self.play_count} of {len(self.exchanges)} played>"

    @property
    def requests(self) -> list[Request]:
        """The recorded requests, in order."""
        return [exchange.request for exchange in self.exchanges]

    @property
    def all_played(self) -> bool:
        """Whether every recorded exchange was played."""
        return not self._matcher.unplayed

    @property
    def unplayed(self) -> list[Exchange]:
        """The recorded exchanges that nobody asked for."""
        return self._matcher.unplayed

    @property
    def played(self) -> list[Exchange]:
        """The recorded exchanges that were played, in the order they were asked for."""
        return self._matcher.played

    @property
    def recorded(self) -> int:
        """How many exchanges were recorded."""
        return len(self._calls)

    @property
    def log(self) -> EventLog | None:
        """The log that the recording went to, where there was one."""
        return self._log

    # What becomes of a request

    def handle(self, request: Any, send: Send) -> Any:
        request.read()
        match self._decide(request):
            case "pass":
                return send(request)
            case Exchange() as exchange:
                return self._shown(self._replayer.answer(request, exchange), request, exchange)
        return self._recorder.handle(request, send)

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        await request.aread()
        match self._decide(request):
            case "pass":
                return await send(request)
            case Exchange() as exchange:
                return self._shown(await self._replayer.answer_async(request, exchange), request, exchange)
        return await self._recorder.handle_async(request, send)

    def _decide(self, request: Any) -> Exchange | Literal["pass", "record"]:
        """Play, record, or pass through. Raises MissError, BlockedError."""
        if not self._is_ours(request):
            if self._config._block_network:
                raise _blocked(request)
            return "pass"
        asked = self._filtered(to_request(request))
        if asked is None:
            return "pass"
        if self._closed:
            raise for_sdk(
                MissError(f"{self.path} is no longer in use: {request.method} {request.url} came after its block ended.")
            )
        if self.record_mode in ("all", "rewrite", "verify") or (self.record_mode == "once" and not self._existed):
            return "record"
        if self.record_mode == "new_episodes" and not self._matcher.matches(asked):
            return "record"
        return self._take(asked)

    def _take(self, asked: Request) -> Exchange:
        try:
            exchange = self._matcher.take(asked)
        except MissError as miss:
            text = f"{miss}\n{self._hint()}" if self._existed else f"no cassette at {self.path}.\n{self._hint()}"
            self.misses.append(text)
            raise for_sdk(MissError(text)) from None
        self.play_count += 1
        return exchange

    def _hint(self) -> str:
        """How to record, for whoever reads a miss."""
        ci = " CI=true allows no recording unless one of the two overrides says so." if in_ci() else ""
        mode, what = ("new_episodes", "what is missing") if self._existed else ("once", "it")
        return f'Record {what} with record_mode="{mode}" (pytest: --retold-mode={mode}, elsewhere: {ENVIRONMENT}={mode}).{ci}'

    def _is_ours(self, request: Any) -> bool:
        """The Anthropic API, told by its host or by the version header that every client of it sends; or a further host."""
        host = urlsplit(str(request.url)).hostname or ""
        ours = host.endswith("anthropic.com") or "anthropic-version" in request.headers
        return ours or any(fnmatch(host, pattern) for pattern in self._config._hosts)

    def _filtered(self, request: Request) -> Request | None:
        return request if self._config._before_record is None else self._config._before_record(request)

    # Recording

    def _begin(self, request: Request) -> Capture:
        filtered = self._filtered(request)
        assert filtered is not None  # decided before
        place = self._place(filtered)
        capture = Capture(self._run_writer("live"), filtered, place=place, session=self._session, redactor=self._redactor)
        if self.record_mode == "verify":
            recorded = self._matcher.take(filtered) if self._matcher.matches(filtered) else None
            self._verified.append((recorded, capture))
        return capture

    def _place(self, request: Request) -> Place:
        """Which call, and which attempt of it: the SDK counts its retries in a header."""
        key = self._matcher.key(request)
        retry = header(request.headers, "x-stainless-retry-count") or "0"
        call, attempt = len({call for _, call, _ in self._calls}) + 1, 1
        if retry.isdigit() and int(retry) > 0:
            before = next(((c, a) for k, c, a in reversed(self._calls) if k == key), None)
            call, attempt = (before[0], before[1] + 1) if before is not None else (call, 1)
        self._calls.append((key, call, attempt))
        return Place(call=call, attempt=attempt)

    def _run_writer(self, mode: Literal["live", "mock"]) -> RunWriter:
        if self._writer is None:
            log = self._config._log or self._config._recordings
            self._log = log if isinstance(log, EventLog) else EventLog(log)
            data = {"cassette": str(self.path), "record_mode": self.record_mode}
            self._writer = self._log.start(name=self._config._name or self.path.stem, mode=mode, data=data)
            self._session = Session()
            self.run = self._writer.run
        return self._writer

    def _shown(self, response: Any, request: Any, exchange: Exchange) -> Any:
        """A replayed response; where a log was given it passes through the same tee, as a run of mode mock."""
        if self._config._log is not None:
            writer = self._run_writer("mock")
            place = Place(call=exchange.call, attempt=exchange.attempt, stamped="replay")
            capture = Capture(
                writer, to_request(request), place=place, session=self._session, redactor=self._redactor,
                cost_usd=exchange.cost_usd,
            )  # fmt: skip
            tee(response, capture)
        return response

    # Loading and saving

    def _load(self) -> tuple[bool, tuple[Exchange, ...]]:
        try:
            exchanges = read_cassette(self.path).exchanges
        except CassetteMissing:
            return False, ()
        self._check_age(exchanges)
        if self.record_mode == "rewrite":
            return True, ()
        return True, exchanges

    def _check_age(self, exchanges: Sequence[Exchange]) -> None:
        """Loading never makes a recording younger: its age counts from when it was recorded."""
        limit = self._config._max_age
        stamps = [exchange.recorded_at for exchange in exchanges if exchange.recorded_at]
        if limit is None or not stamps:
            return
        age = datetime.now(UTC) - datetime.fromisoformat(min(stamps))
        if age <= limit:
            return
        what = f"{self.path} was recorded {age.days} days ago, longer than its max_age of {limit.days} days"
        if self._config._on_expired == "fail":
            raise CassetteError(f'{what}. Record it again with record_mode="rewrite".')
        if self._config._on_expired == "rerecord" and not in_ci():
            self.record_mode = "rewrite"
        else:
            warnings.warn(f'{what}; record it again with record_mode="rewrite"', ExpiredWarning, stacklevel=5)

    def close(self, *, kept: bool, error: BaseException | None = None) -> None:
        """End the use; what was recorded becomes the cassette if it is to be kept."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None and self._log is not None:
            if kept:
                self._writer.end("completed")
            else:
                what = f"{type(error).__name__}: {error}"
                self._writer.end("failed" if isinstance(error, Exception) else "cancelled", error=self._redactor.text(what))
            if kept and self._calls and self.record_mode != "verify":
                write_cassette(self.path, self._to_keep(exchanges_of(self._log, self._writer.run)))
            if self._log is not self._config._log:
                self._log.close()
        if self.record_mode == "verify":
            self._report_drift()

    def _to_keep(self, new: list[Exchange]) -> list[Exchange]:
        """The new cassette. New calls are numbered after the kept ones, so that retries stay with their call."""
        kept = list(self.exchanges)
        if self.record_mode == "all":
            asked = {self._matcher.key(exchange.request) for exchange in new}
            kept = [exchange for exchange in kept if self._matcher.key(exchange.request) not in asked]
        last = max((exchange.call for exchange in kept), default=0)
        return kept + [replace(exchange, call=exchange.call + last) for exchange in new]

    def _report_drift(self) -> None:
        for recorded, capture in self._verified:
            self.drift += drift_between(recorded, capture)
        if self.drift:
            text = f"{self.path}: the API answers otherwise than recorded:\n" + "\n".join(f"  {line}" for line in self.drift)
            warnings.warn(text, DriftWarning, stacklevel=4)


def _blocked(request: Any) -> Exception:
    error = BlockedError(
        f"{request.method} {request.url.copy_with(query=None)} was refused: block_network is set and no recording covers it."
    )
    sdk = sys.modules.get("anthropic")
    if sdk is None:
        return error
    both = type("BlockedError", (BlockedError, sdk.AnthropicError), {"__module__": "retold"})
    blocked: Exception = both(str(error))
    return blocked


def _age(value: str | timedelta | None) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    match = _AGE_DAYS.fullmatch(value.strip())
    if match is not None:
        return timedelta(days=int(match[1]) * (7 if match[2] == "w" else 1))
    return timedelta(microseconds=parse_duration_ns(value) / 1000)
