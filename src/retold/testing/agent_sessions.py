"""The sessions of the Agent SDK in a block: which one is played, which one is recorded, and which one is a miss."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..recorder.agent_wire import AgentSession
from ..recorder.cassette.sessions import moved
from ..recorder.errors import MissError
from ..recorder.http.sdk_errors import for_sdk
from ..recorder.secrets.redactor import Redactor
from ..replay.matching.rules import Rules
from ..settings import Settings
from .block_run import BlockRun
from .loading import LoadedRecording

if TYPE_CHECKING:
    from ..agent_sdk.recording import ExitCode, Wire

__tracebackhide__ = True


class AgentSessions:
    """The sessions of one block. `misses` gets the messages of misses."""

    def __init__(
        self, loaded: LoadedRecording, settings: Settings, recording: BlockRun, *, source: str, redactor: Redactor,
        misses: list[str], rules: Rules,
    ) -> None:  # fmt: skip
        self.loaded = loaded
        self.played: list[AgentSession] = []
        self._settings = settings
        self._recording = recording
        self._source = source
        self._redactor = redactor
        self._misses = misses
        self._rules = rules
        self._left = list(enumerate(loaded.sessions))
        self._lock = threading.Lock()
        self._has_ended = False

    def __repr__(self) -> str:
        return f"<AgentSessions {len(self.played)} of {len(self.loaded.sessions)} played>"

    @property
    def unplayed_numbers(self) -> list[int]:
        """The numbers of the recorded sessions that were not played, counted from 0."""
        return [number for number, _ in self._left]

    def is_replaced(self, old: AgentSession, new: Sequence[AgentSession]) -> bool:
        """Return whether the new sessions replace one that the file held before: with mode `all` one with the same prompts."""
        if self.loaded.mode == "all":
            return any(session.prompts == old.prompts for session in new)
        return self.loaded.mode == "rewrite"

    def verified(self, new: Iterable[AgentSession]) -> list[tuple[AgentSession | None, AgentSession]]:
        """Return the sessions that a block has recorded in record mode `verify`, each with the recorded one that it repeats.

        A repetition has the same messages of the user. Of several the one with the same options counts, or the first one.
        """
        from ..agent_sdk.script import argv_differences

        found: list[tuple[AgentSession | None, AgentSession]] = []
        for session in new:
            here = ((number, moved(old, session.cwd, session.home)) for number, old in self._left)
            same = [(number, old) for number, old in here if old.prompts == session.prompts]
            same.sort(key=lambda each: len(argv_differences(each[1], session.argv, session.sdk, self._rules)))
            found.append((same[0][1] if same else None, session))
            self._left = [each for each in self._left if not same or each[0] != same[0][0]]
        return found

    def end(self) -> None:
        """End the block."""
        self._has_ended = True

    def wire(self, started: dict[str, Any], real: "Wire", exit_code: "ExitCode") -> "Wire | None":
        """Return the transport of a session that begins: its recorder or its player. None: it passes. Raise MissError.

        A cassette may hold the HTTP exchanges of Claude Code and no sessions: then Claude Code runs, and its requests are played.
        """
        from ..agent_sdk.recording import RecordedWire

        if self._has_ended:
            raise self._miss("is no longer in use: the session began after its block ended.")

        def record() -> "Wire":
            return RecordedWire(real, lambda: self._recording.begin_session(started, "live"), exit_code)

        loaded = self.loaded
        if loaded.records_everything:
            return record()
        if not loaded.sessions and self._rules.profile == "claude-code":
            return None
        may_record = loaded.records_misses
        candidates, why = self._candidates(started)
        if not candidates:
            if may_record:
                return record()
            raise self._miss(why)
        return self._player(candidates, started, record if may_record else None)

    def _candidates(self, started: dict[str, Any]) -> tuple[list[tuple[int, AgentSession]], str]:
        """Return the sessions with the options of this one, in the folders of this one, or the reason why there is none."""
        from ..agent_sdk.script import argv_differences

        if not self.loaded.sessions:
            return [], "holds no session of the Agent SDK."
        pool = self._left
        if self._settings.repeats:
            pool = [*pool, *(each for each in enumerate(self.loaded.sessions) if each not in pool)]
        if not pool:
            return [], f"holds {len(self.loaded.sessions)} sessions of the Agent SDK, and all of them are played."
        found, nearest = [], list[str]()
        for number, session in pool:
            here = moved(session, started["cwd"], started["home"])
            different = argv_differences(here, started["argv"], started["sdk"], self._rules)
            if not different:
                found.append((number, here))
            elif not nearest or len(different) < len(nearest):
                nearest = different
        shown = "".join(f"\n  {line}" for line in nearest[:3])
        return found, f"holds no session with these options; the nearest one differs:{shown}"

    def _player(
        self, candidates: list[tuple[int, AgentSession]], started: dict[str, Any], instead: "Callable[[], Wire] | None"
    ) -> "Wire":  # fmt: skip
        from ..agent_sdk.errors import again
        from ..agent_sdk.playback import PlayedWire

        numbers = {id(session): number for number, session in candidates}

        def claim(session: AgentSession) -> bool:
            with self._lock:
                found = next((each for each in self._left if each[0] == numbers[id(session)]), None)
                if found is not None:
                    self._left.remove(found)
                elif not self._settings.repeats:
                    return False
                self.played.append(self.loaded.sessions[numbers[id(session)]])
                return True

        def miss(text: str, kind: type[MissError]) -> BaseException:
            return self._miss(f"holds another session than this one. {text[:1].upper()}{text[1:]}", kind)

        capture = None if self._settings.log is None else self._recording.begin_session(started, "mock")
        return PlayedWire(
            [session for _, session in candidates], self._settings.timing, claim=claim, miss=miss, again=again, capture=capture,
            instead=instead, rules=self._rules,
        )  # fmt: skip

    def _miss(self, why: str, kind: type[MissError] = MissError) -> BaseException:
        text = f"{self._source} {why}\n{self._settings.how_to_record(existed=self.loaded.existed)}"
        if not self.loaded.existed:
            text = f"no cassette at {self._source}.\n{self._settings.how_to_record(existed=False)}"
        text = self._redactor.text(text)
        self._misses.append(text)
        return for_sdk(kind(text))
