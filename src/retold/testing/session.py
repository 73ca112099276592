"""The interceptor of a block that uses a cassette. It joins loading, deciding, recording, saving and the search for drift."""

import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.sessions import each_session
from ..recorder.cassette.transfer import exchanges_of
from ..recorder.errors import CassetteError
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange, Request
from ..recorder.http.patching import Send, SendAsync
from ..recorder.http.recognition import Outgoing, is_api, to_request, with_content
from ..recorder.http.sdk_errors import for_sdk
from ..recorder.http.tee import Recorder, tee
from ..recorder.secrets.redactor import Redactor
from ..replay.faults import Faults, Telling
from ..replay.matching.profiles import Profile
from ..replay.transport import Replayer
from ..settings import Settings
from .agent_sessions import AgentSessions
from .block_run import BlockRun
from .calls import Calls
from .deciding import Decisions
from .drift import drift_of
from .lead import Lead, blocked
from .loading import LoadedRecording, load
from .record_modes import RecordMode
from .saving import each_once
from .used import UsedCassette

__tracebackhide__ = True
"""pytest shows the line of the test that sent an unrecorded request, not the lines of retold that found it."""


class CassetteSession(UsedCassette):
    """A cassette in use, as the clients, servers and plugins see it.

    `way` returns the lead by which other processes, such as forked children, send their requests to this one.
    """

    def __init__(self, path: Path | None, mode: RecordMode, settings: Settings) -> None:
        source = str(path) if path is not None else settings.name or "the log"
        source = source if settings.branch is None else settings.branch.title
        source = source if settings.test is None else settings.test.cassette
        redactor = Redactor(extra=settings.redact)
        self._loaded = loaded = load(path, mode, settings, source)
        decisions = Decisions(loaded, settings, source=source, redactor=redactor)
        recording = BlockRun(path, loaded.mode, settings, redactor=redactor, check=partial(_check_writable, loaded, source))
        self._agents = AgentSessions(
            loaded, settings, recording, source=source, redactor=redactor, misses=decisions.misses, rules=decisions.rules
        )
        super().__init__(path, source, decisions, recording, self._agents)
        self._settings = settings
        self._closed = False
        self._pid = os.getpid()
        self._replayer = Replayer(decisions.matcher, settings.timing)
        self._recorder = Recorder(self.begin)
        self._verified: list[tuple[Exchange | None, Capture]] = []
        self.way: Callable[[], Lead] = partial(self.lead, "", "")
        if loaded.records_everything:
            recording.prepare()

    @property
    def replayable(self) -> Sequence[Exchange]:
        """The recorded exchanges, with those of further cassettes."""
        return self._decisions.replayable

    @property
    def profile(self) -> Profile:
        """The profile by which requests are matched."""
        return self._decisions.profile

    @property
    def faults(self) -> Faults:
        """The faults of the replay."""
        return self._decisions.faults

    @property
    def calls(self) -> Calls:
        """The recorded calls."""
        return self._recording.calls

    @property
    def only_replays(self) -> bool:
        """Whether nothing can be recorded."""
        return self._loaded.only_replays

    # Requests of clients in this process

    def handle(self, request: Any, send: Send) -> Any:
        """Play, record or pass on a request of a sync client. Raise MissError, BlockedError, LogError."""
        if self._pid != os.getpid():
            return self.way().handle(request, send)
        request.read()
        match self._decide(request):
            case "pass":
                return send(request)
            case Telling() as told:
                return self._logged(self._replayer.answer(request, *told), request, told.exchange)
        return self._recorder.handle(self._changed(request), send)

    async def handle_async(self, request: Any, send: SendAsync) -> Any:
        """Do the same for an async client."""
        if self._pid != os.getpid():
            return await self.way().handle_async(request, send)
        await request.aread()
        match self._decide(request):
            case "pass":
                return await send(request)
            case Telling() as told:
                return self._logged(await self._replayer.answer_async(request, *told), request, told.exchange)
        return await self._recorder.handle_async(self._changed(request), send)

    def agent_wire(self, started: dict[str, Any], real: Any, exit_code: Callable[[], int | None]) -> Any:
        """Return the transport of a session of the Agent SDK, or None to let it pass. Raise MissError, LogError.

        A forked child and vcrpy's cassettes cannot hold a session.
        """
        if self._pid != os.getpid() or self._settings.keep is not None:
            return None
        return self._agents.wire(started, real, exit_code)

    def _decide(self, request: Any) -> Telling | Literal["pass", "record"]:
        asked = Outgoing(request.method, str(request.url), request.headers, request.content)
        if not self.covers(asked):
            if self._settings.block_network:
                raise blocked(asked)
            return "pass"
        return self.decide(to_request(request))

    def _changed(self, request: Any) -> Any:
        body = self.changed(request.content)
        return request if body == request.content else with_content(request, body)

    def _logged(self, response: Any, request: Any, exchange: Exchange) -> Any:
        """Return a replayed response. If the user gave a log, the response is recorded into it as a run of mode mock."""
        if self._settings.log is not None:
            asked = self._decisions.filtered(to_request(request)) or exchange.request
            tee(response, self._recording.replay(exchange, asked))
        return response

    # Requests of other clients: servers, other processes, vcrpy

    def covers(self, asked: Outgoing) -> bool:
        """Return whether a request is one to record or play: of the Anthropic API, or to one of the further hosts."""
        return is_api(asked) or any(fnmatch(asked.host, pattern) for pattern in self._settings.hosts)

    def lead(self, url: str, token: str) -> Lead:
        """Return the lead to this cassette for other processes, by the door at `url`."""
        return Lead(url, token, self.source, self._settings.hosts, self._settings.block_network, self.only_replays)

    def decide(self, request: Request) -> Telling | Literal["pass", "record"]:
        """Return the answer of a request of the API, or the way to treat it. Raise MissError."""
        decided = self._decisions.decide(request)
        if self.forks and isinstance(decided, Telling):
            is_last = not self._decisions.matcher.unplayed_numbers
            self._recording.share(decided.exchange, self._decisions.key(request), is_last=is_last)
        return decided

    @property
    def forks(self) -> bool:
        """Whether this is a fork: it replays up to a point, and records from there on."""
        return self._settings.branch is not None

    def changed(self, body: bytes) -> bytes:
        """Return the body of a live request as a fork sends it; outside of a fork it is unchanged."""
        return body if self._settings.branch is None else self._settings.branch.changes.applied(body)

    def play_if_any(self, request: Request) -> Telling | None:
        """Return the answer of a request, or None if there is none, which is no miss."""
        return self._decisions.play_if_any(request)

    def note_played(self, exchange: Exchange) -> None:
        """Count an exchange as played that vcrpy has given to a client of its own."""
        self._decisions.note_played(exchange)

    def records(self, request: Request) -> bool:
        """Return whether a request may be recorded, by `before_record`."""
        return self._decisions.filtered(request) is not None

    def begin(self, request: Request) -> Capture:
        """Return the capture of a request that is recorded, for which `decide` returned "record". Raise LogError."""
        filtered = self._decisions.filtered(request)
        assert filtered is not None
        capture = self._recording.begin(filtered, self._decisions.key(filtered))
        if self.record_mode == "verify":
            self._verified.append((self._decisions.matcher.take_if_any(filtered), capture))
        return capture

    # The end

    def close(self, *, kept: bool, error: BaseException | None = None) -> None:
        """End the block, as failed if there is an error. If `kept`, save the recording as the cassette. Raise CassetteError.

        In a forked child this does nothing: the parent keeps the recording.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        self._decisions.end()
        self._agents.end()
        self._recording.end(kept=kept, error=error)
        sessions: list[tuple[AgentSession | None, AgentSession]] = []
        try:
            if self.record_mode == "verify" and self.log is not None and self.run is not None:
                sessions = self._agents.verified(each_session(self.log, self.run))
            elif kept and (self.recorded or (self._drops_unplayed and self.play_count)):
                self._save()
        finally:
            self._recording.close()
        self.drift += drift_of(self._verified, sessions, self.source)

    @property
    def _drops_unplayed(self) -> bool:
        """Whether the end of the block removes the recordings that it did not play. A session of pytest does so at its end."""
        return self.record_mode == "refresh" and self._loaded.existed and self._settings.since is None

    def _save(self) -> None:
        log, run, file = self.log, self.run, self._loaded.file
        if self._settings.keep is not None:
            if log is not None and run is not None:
                self._settings.keep(exchanges_of(log, run))
        elif file is not None:
            refreshes = self._drops_unplayed
            file.save(
                None if log is None or run is None else (log, run), keep=self._settings.before_keep,
                drops=each_once(self.unplayed) if refreshes else self._decisions.is_replaced,
                drops_session=each_once(self.unplayed_sessions) if refreshes else self._agents.is_replaced,
                kept=self._settings.rules.kept, refreshes=refreshes,
            )  # fmt: skip
            self.written = self.path


def _check_writable(loaded: LoadedRecording, source: str) -> None:
    """Raise CassetteError if the cassette cannot be written, before a request is paid for."""
    if loaded.file is not None and loaded.mode != "verify" and (why := loaded.file.why_not_writable()) is not None:
        raise for_sdk(CassetteError(f"cannot write the cassette {source}: {why}. Nothing was sent; name another file."))
