"""A cassette in use: decides what becomes of each request, and turns what was recorded into the new cassette."""

import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from ..comparing.drift import drift_between
from ..recorder.cassette.format import read_cassette
from ..recorder.cassette.transfer import exchanges_of, results_in
from ..recorder.errors import CassetteError, MissError
from ..recorder.events import Entry, encode
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange, Place, Request, header
from ..recorder.http.patching import Send, SendAsync
from ..recorder.http.recognition import Outgoing, is_api
from ..recorder.http.sdk_errors import for_sdk
from ..recorder.http.tee import Recorder, tee, to_request
from ..recorder.log.log import EventLog, default_path
from ..recorder.log.run_writer import RunWriter
from ..recorder.messages import Session
from ..recorder.secrets.redactor import Redactor
from ..replay.faults import Faults, Telling, whole
from ..replay.matching.matcher import Matcher
from ..replay.matching.profiles import Profile, profile_of
from ..replay.transport import Replayer
from ..settings import Settings
from .calls import Calls
from .lead import Lead, blocked
from .record_modes import RecordMode, how_to_record, in_ci
from .saving import CassetteFile, why_expired

__tracebackhide__ = True
"""pytest shows where the test asked for what was not recorded, not how we found that out."""


class ExpiredWarning(UserWarning):
    """A cassette is older than its `max_age`."""


class FaultWarning(UserWarning):
    """A fault that was asked for never happened: no such call came, or no stream had so many frames."""


class DriftWarning(UserWarning):
    """In mode verify: the API no longer answers as it was recorded."""


class UsedCassette:
    """A cassette in use: what was asked, what was played, what was recorded. Decides what becomes of each request."""

    def __init__(self, path: Path | None, mode: RecordMode, settings: Settings) -> None:
        self.path = path
        self.source = str(path) if path is not None else settings.name or "the log"
        self.record_mode: RecordMode = mode
        self.play_count = 0
        self.misses: list[str] = []
        self.drift: list[str] = []
        self.run: str | None = None
        self.written: Path | None = None
        self._settings = settings
        log = settings.log or settings.recordings or default_path()
        self._log_named = log if isinstance(log, EventLog) else os.path.abspath(log)
        self._redactor = Redactor(extra=settings.redact)
        self._closed = False
        self._pid = os.getpid()
        self.way: Callable[[], Lead] = partial(self.lead, "", "")
        self._file: CassetteFile | None = None
        self._existed, recorded = self._load()
        self.exchanges: tuple[Exchange, ...] = recorded
        self.profile: Profile = settings.rules.profile
        if settings.detect:
            self.profile = profile_of(recorded)
        self.replayable = [*recorded, *(exchange for other in settings.also for exchange in read_cassette(other).exchanges)]
        """The recorded exchanges, those of further cassettes included."""
        self._matcher = Matcher(
            self.replayable,
            source=self.source,
            redactor=self._redactor,
            rules=replace(settings.rules, profile=self.profile),
            repeats=settings.repeats,
        )
        self.faults = Faults(settings.faults)
        self._struck: list[Exchange] = []
        self._replayer = Replayer(self._matcher, settings.timing)
        self._recorder = Recorder(self.begin)
        self._log: EventLog | None = None
        self._writer: RunWriter | None = None
        self.calls = Calls()
        self._tool_uses: set[str] = set()
        self._lock = threading.Lock()
        self._open: list[Capture] = []
        self._verified: list[tuple[Exchange | None, Capture]] = []
        if self._records_everything:  # now, and not while the first event is waited for
            self._check_writable()
            self._opened().open()
            self._settings.load_prices()

    def __repr__(self) -> str:
        return f"<UsedCassette {self.source} {self.record_mode} {self.play_count} of {len(self.exchanges)} played>"

    def __len__(self) -> int:
        """How many exchanges it holds, those just recorded included."""
        return len(self.exchanges) + self.recorded

    def __bool__(self) -> bool:
        return True

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
        return self.calls.count

    @property
    def only_replays(self) -> bool:
        """Whether nothing can be recorded."""
        return self.record_mode == "none" or (self.record_mode == "once" and self._existed)

    @property
    def log(self) -> EventLog | None:
        """The log that the recording went to, where there was one."""
        return self._log

    @property
    def _records_everything(self) -> bool:
        return self.record_mode in ("all", "rewrite", "verify") or (self.record_mode == "once" and not self._existed)

    # What becomes of a request

    def handle(self, request: Any, send: Send) -> Any:
        """Play, record or pass on a request of a sync client. Raises MissError, BlockedError, LogError."""
        if self._pid != os.getpid():
            return self.way().handle(request, send)
        request.read()
        match self._decide(request):
            case "pass":
                return send(request)
            case Telling() as told:
                return self._shown(self._replayer.answer(request, *told), request, told.exchange)
        return self._recorder.handle(request, send)

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        """The same for an async client."""
        if self._pid != os.getpid():
            return await self.way().handle_async(request, send)
        await request.aread()
        match self._decide(request):
            case "pass":
                return await send(request)
            case Telling() as told:
                return self._shown(await self._replayer.answer_async(request, *told), request, told.exchange)
        return await self._recorder.handle_async(request, send)

    def _decide(self, request: Any) -> Telling | Literal["pass", "record"]:
        """Play, record, or pass through. Raises MissError, BlockedError."""
        asked = Outgoing(request.method, str(request.url), request.headers, request.content)
        if not self.covers(asked):
            if self._settings.block_network:
                raise blocked(asked)
            return "pass"
        return self.decide(to_request(request))

    def covers(self, asked: Outgoing) -> bool:
        """Whether a request is one to record or play: of the Anthropic API, or to one of the further hosts."""
        return is_api(asked) or any(fnmatch(asked.host, pattern) for pattern in self._settings.hosts)

    def lead(self, url: str, token: str) -> Lead:
        """The way to this cassette for other processes, by the door at `url`."""
        return Lead(url, token, self.source, self._settings.hosts, self._settings.block_network, self.only_replays)

    def decide(self, request: Request) -> Telling | Literal["pass", "record"]:
        """What becomes of a request of the API: what answers it, or what to do with it. Raises MissError."""
        self._redactor.learn(request)
        asked = self._filtered(request)
        if asked is None:
            return "pass"
        if self._closed:
            uri = self._redactor.url(request.uri)
            raise for_sdk(MissError(f"{self.source} is no longer in use: {request.method} {uri} came after its block ended."))
        if self._records_everything:
            return "record"
        if self.record_mode != "new_episodes":
            return self._take(asked)
        exchange = self._matcher.take_if_any(asked)
        return "record" if exchange is None else self._told(exchange)

    def play_if_any(self, request: Request) -> Telling | None:
        """What answers a request whose absence is no miss."""
        exchange = self._matcher.take_if_any(request)
        return None if exchange is None else self._told(exchange)

    def _take(self, asked: Request) -> Telling:
        try:
            return self._told(self._matcher.take(asked))
        except MissError as miss:
            if (struck := self._matcher.alike(asked, self._struck)) is not None:
                self.play_count += 1
                return Telling(whole(struck), self._settings.timing)
            hint = self._settings.hint or how_to_record(existed=self._existed)
            text = f"{miss}\n{hint}" if self._existed else f"no cassette at {self.source}.\n{hint}"
            self.misses.append(text)
            raise for_sdk(MissError(text)) from None

    def _told(self, exchange: Exchange) -> Telling:
        """An exchange with the faults of its call; one whose answer they destroyed can be asked for again."""
        self.play_count += 1
        telling, destroyed = self.faults.on(exchange, self._settings.timing)
        if destroyed:
            self._matcher.put_back(exchange)
            self._struck.append(exchange)
        return telling

    def note_played(self, exchange: Exchange) -> None:
        """Count an exchange as played that vcrpy has given to a client of its own."""
        self._matcher.mark_played(exchange)
        self.play_count += 1

    def records(self, request: Request) -> bool:
        """Return whether a request may be recorded, by `before_record`."""
        return self._filtered(request) is not None

    def _filtered(self, request: Request) -> Request | None:
        return request if self._settings.before_record is None else self._settings.before_record(request)

    # Recording

    def begin(self, request: Request) -> Capture:
        """The capture of a request that is to be recorded. Raises LogError."""
        filtered = self._filtered(request)
        assert filtered is not None  # decided before
        key = sha256(self._matcher.key(filtered).encode("utf-8", "surrogatepass")).hexdigest()
        with self._lock:
            writer = self._run_writer("live")
            self._note_tool_results(writer, filtered)
            capture = Capture(
                writer, filtered, place=self._place(filtered, key), session=self._session, redactor=self._redactor,
                price=self._settings.price,
            )  # fmt: skip
            self.calls.add(key, capture)
            if self.record_mode == "verify":
                self._verified.append((self._matcher.take_if_any(filtered), capture))
        return capture

    def _keep_open(self, capture: Capture) -> None:
        """Remember a capture that `close` may have to end; those that ended are let go."""
        self._open = [*(other for other in self._open if other.ending is None), capture]

    def _note_tool_results(self, writer: RunWriter, request: Request) -> None:
        """What a program answers its model's tools with is a message of the run; it comes with the program's next request."""
        for capture in self.calls.settle():
            self._tool_uses |= {str(block.get("id")) for block in capture.fold.content if block.get("type") == "tool_use"}
        for result in results_in(request.body, self._tool_uses):
            writer.append(Entry("message", encode(self._session.tool_result(result))))

    def _place(self, request: Request, key: str) -> Place:
        call, attempt = self.calls.place(key, header(request.headers, "x-stainless-retry-count") or "0")
        return Place(call=call, attempt=attempt, stamped=self._settings.stamped)

    def _opened(self) -> EventLog:
        if self._log is None:
            log = self._log_named
            self._log = log if isinstance(log, EventLog) else EventLog(log)
        return self._log

    def _run_writer(self, mode: Literal["live", "mock"]) -> RunWriter:
        if self._writer is None:
            if mode == "live":
                self._check_writable()
                self._settings.load_prices()  # before the request is sent, and not in its stream
            cassette = None if self.path is None else str(self.path)
            data = {"cassette": cassette, "record_mode": self.record_mode, **self._settings.data}
            name = self._settings.name or ("recording" if self.path is None else self.path.stem)
            self._writer = self._opened().start(name=name, mode=mode, data=data, redactor=self._redactor)
            self._session = Session()
            self.run = self._writer.run
        return self._writer

    def _shown(self, response: Any, request: Any, exchange: Exchange) -> Any:
        """A replayed response; where a log was given it passes through the same tee, as a run of mode mock."""
        if self._settings.log is not None:
            with self._lock:
                writer = self._run_writer("mock")
            place = Place(call=exchange.place.call, attempt=exchange.place.attempt, stamped="replay")
            asked = self._filtered(to_request(request)) or exchange.request
            capture = Capture(
                writer, asked, place=place, session=self._session, redactor=self._redactor,
                cost_usd=exchange.cost_usd,
            )  # fmt: skip
            tee(response, capture)
            with self._lock:
                self._keep_open(capture)
        return response

    # Loading and saving

    def _load(self) -> tuple[bool, tuple[Exchange, ...]]:
        if self._settings.recorded is not None:
            return True, tuple(self._settings.recorded)
        if self.path is None or self._settings.keep is not None:
            return False, ()
        self._file = CassetteFile(self.path, since=self._settings.since)
        self._check_age(self._file.loaded)
        return self._file.existed, () if self.record_mode == "rewrite" else self._file.loaded

    def _check_writable(self) -> None:
        """Raise CassetteError before anything is paid for if the cassette cannot be written."""
        if self._file is not None and self.record_mode != "verify" and (why := self._file.why_not_writable()) is not None:
            raise for_sdk(CassetteError(f"cannot write the cassette {self.source}: {why}. Nothing was sent; name another file."))

    def _check_age(self, exchanges: Sequence[Exchange]) -> None:
        what = why_expired(exchanges, self._settings.max_age, self.source)
        if what is None:
            return
        if self._settings.on_expired == "fail":
            raise CassetteError(f'{what}. Record it again with record_mode="rewrite".')
        may_record = self.record_mode != "verify" and not self._settings.is_overridden and not in_ci()
        if self._settings.on_expired == "rerecord" and may_record:
            self.record_mode = "rewrite"
        else:
            warnings.warn(f'{what}; record it again with record_mode="rewrite"', ExpiredWarning, stacklevel=5)

    def close(self, *, kept: bool, error: BaseException | None = None) -> None:
        """End the use, as failed where there is an error; what was recorded becomes the cassette if it is to be kept.

        A forked child leaves the recording to the process that began it.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        if self._writer is not None and self._log is not None:
            for capture in [*self._open, *self.calls.open]:
                capture.end("closed")  # whoever goes on reading a stream after the block is no longer recorded
            if kept and error is None:
                self._writer.end("completed")
            else:
                what = f"{type(error).__name__}: {error}"
                self._writer.end("failed" if isinstance(error, Exception) else "cancelled", error=self._redactor.text(what))
        try:
            if kept and self.calls.count and self.run is not None and self.record_mode != "verify":
                self._save(self.run)
        finally:
            if self._log is not None and self._log is not self._log_named:
                self._log.close()
        if self.record_mode == "verify":
            self._report_drift()

    def _save(self, run: str) -> None:
        if self._settings.keep is not None:
            self._settings.keep(exchanges_of(self._opened(), run))
        elif self._file is not None:
            self._file.save(self._opened(), run, keep=self._settings.before_keep, drops=self._is_replaced)
            self.written = self.path

    def _is_replaced(self, old: Exchange, new: Sequence[Exchange]) -> bool:
        """Whether an exchange that the file held before gives way to the new ones."""
        if self.record_mode == "all":
            return any(self._matcher.same(exchange.request, old.request) for exchange in new)
        return self.record_mode == "rewrite"

    def _report_drift(self) -> None:
        for recorded, capture in self._verified:
            self.drift += drift_between(recorded, capture)
        if self.drift:
            text = f"{self.source}: the API answers otherwise than recorded:\n" + "\n".join(f"  {line}" for line in self.drift)
            warnings.warn(text, DriftWarning, stacklevel=4)
