"""The run of a block in the log, which begins with the first exchange."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..experiments.branch import ANSWERED
from ..recorder.agent_wire import WireCapture
from ..recorder.cassette.folding import results_in
from ..recorder.cassette.transfer import append_at_once
from ..recorder.events import Entry, encode
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange, Place, Request, header
from ..recorder.log.log import EventLog, RunWriter, default_path
from ..recorder.messages import Session
from ..recorder.secrets.redactor import Redactor
from ..settings import Settings
from .calls import REPEATED, Calls
from .fallbacks import Fallbacks
from .record_modes import RecordMode

__tracebackhide__ = True


class BlockRun:
    """The run of one block. `run` is its id, None before it begins; `log` is None before it is opened.

    `sessions` counts the recorded sessions of the Agent SDK.

    `check` raises an error if a recording could not be kept; it is called before the first request is sent.
    """

    def __init__(
        self, path: Path | None, mode: RecordMode, settings: Settings, *, redactor: Redactor, check: Callable[[], None]
    ) -> None:
        log = settings.log or settings.recordings or default_path()
        self._named = log if isinstance(log, EventLog) else os.path.abspath(log)
        self._path = path
        self._mode = mode
        self._settings = settings
        self._redactor = redactor
        self._check = check
        self._lock = threading.Lock()
        self._writer: RunWriter | None = None
        self._session = Session()
        self._replays: list[Capture] = []
        self._tool_uses: set[str] = set()
        self._shared: list[Exchange] = []
        self.log: EventLog | None = None
        self.calls = Calls(after=0 if settings.branch is None else settings.branch.last_call)
        self.sessions = 0
        self._fallbacks = Fallbacks()

    def __repr__(self) -> str:
        return f"<BlockRun {self.run or 'not begun'} {self.calls.count} recorded>"

    @property
    def run(self) -> str | None:
        """The id of the run."""
        return None if self._writer is None else self._writer.run

    def prepare(self) -> None:
        """Open the log and load the price table now, not while a client waits for its first event. Raise LogError."""
        self._check()
        self._opened().open()
        self._settings.load_prices()

    def begin(self, request: Request, key: str) -> Capture:
        """Return the capture of a request. `key` is the same for a repeated request. Raise LogError."""
        with self._lock:
            writer = self._begun("live")
            self._write_shared()
            self._note_tool_results(writer, request)
            retry = header(request.headers, "x-stainless-retry-count") or "0"
            call, attempt = self._fallbacks.continued(request) or self.calls.place(key, retry)
            capture = Capture(
                writer, request, place=Place(call=call, attempt=attempt, stamped=self._settings.stamped),
                session=self._session, redactor=self._redactor, price=self._settings.price,
            )  # fmt: skip
            self.calls.add(key, capture)
            self._fallbacks.note(request, capture)
        return capture

    def replay(self, exchange: Exchange, request: Request) -> Capture:
        """Return the capture of a replayed exchange, in a run of mode mock. Raise LogError."""
        with self._lock:
            capture = Capture(
                self._begun("mock"), request,
                place=Place(call=exchange.place.call, attempt=exchange.place.attempt, stamped="replay"),
                session=self._session, redactor=self._redactor, cost_usd=exchange.cost_usd,
            )  # fmt: skip
            self._replays = [*(each for each in self._replays if each.ending is None), capture]
        return capture

    def share(self, exchange: Exchange, key: str, *, is_last: bool) -> None:
        """Keep a played exchange of a fork's prefix for its run, which begins with the last one or the first live one.

        A fork that leaves its recording before the point therefore writes nothing. Raise LogError.
        """
        with self._lock:
            place = exchange.place
            if exchange.ending in REPEATED:
                self.calls.note_failed(key, place.call, place.attempt)
            stamped = place.stamped if place.stamped == ANSWERED else "replay"
            self._shared.append(replace(exchange, place=replace(place, stamped=stamped)))
            if is_last or self._writer is not None:
                self._begun("live")
                self._write_shared()

    def _write_shared(self) -> None:
        assert self._writer is not None
        shared, self._shared = self._shared, []
        for exchange in shared:
            append_at_once(self._writer, exchange, self._session, self._tool_uses)

    def begin_session(self, started: dict[str, Any], mode: Literal["live", "mock"]) -> WireCapture:
        """Return the capture of a session of the Agent SDK, recorded or replayed. Raise LogError."""
        with self._lock:
            capture = WireCapture(self._begun(mode), started)
            self.sessions += mode == "live"
        return capture

    def end(self, *, kept: bool, error: BaseException | None) -> None:
        """End the run: as completed if it is kept and there is no error. Streams that a client still reads end as closed."""
        if self._writer is None:
            return
        for capture in [*self._replays, *self.calls.open]:
            capture.end("closed")
        if kept and error is None:
            self._writer.end("completed")
        else:
            reason = self._redactor.text(f"{type(error).__name__}: {error}")
            self._writer.end("failed" if isinstance(error, Exception) else "cancelled", error=reason)

    def close(self) -> None:
        """Close the log, unless the user opened it."""
        if self.log is not None and self.log is not self._named:
            self.log.close()

    def _opened(self) -> EventLog:
        if self.log is None:
            self.log = self._named if isinstance(self._named, EventLog) else EventLog(self._named)
        return self.log

    def _begun(self, mode: Literal["live", "mock"]) -> RunWriter:
        if self._writer is None:
            if mode == "live":
                self._check()
                self._settings.load_prices()
            cassette = None if self._path is None else str(self._path)
            data = {"cassette": cassette, "record_mode": self._mode, **self._settings.rules.kept.as_dict(), **self._settings.data}
            if self._settings.branch is not None:
                data |= self._settings.branch.data
            name = self._settings.name or ("recording" if self._path is None else self._path.stem)
            self._writer = self._opened().start(name=name, mode=mode, data=data, redactor=self._redactor)
        return self._writer

    def _note_tool_results(self, writer: RunWriter, request: Request) -> None:
        """Append the tool results in a request as messages of the run. A result answers a tool use of an earlier exchange."""
        for capture in self.calls.settle():
            self._tool_uses |= {str(block.get("id")) for block in capture.fold.content if block.get("type") == "tool_use"}
        for result in results_in(request, self._tool_uses):
            writer.append(Entry("message", encode(self._session.tool_result(result))))
