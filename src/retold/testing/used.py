"""`UsedCassette`: the counts and exchanges of a block that uses a cassette."""

from collections.abc import Sequence
from pathlib import Path

from ..recorder.agent_wire import AgentSession
from ..recorder.http.exchange import Exchange, Request
from ..recorder.log.log import EventLog
from .agent_sessions import AgentSessions
from .block_run import BlockRun
from .deciding import Decisions
from .record_modes import RecordMode


class UsedCassette:
    """A cassette in use: the requests of the block, its plays, misses and recordings.

    `path` is the file. `source` names the recording in messages. `drift` holds the differences that record mode `verify` found,
    and `written` the path of the cassette that was written; both are set at the end of the block.

        with retold.use_cassette("cassettes/hello.yaml") as cassette:
            ask()
        assert cassette.all_played
    """

    def __init__(
        self, path: Path | None, source: str, decisions: Decisions, recording: BlockRun, agents: AgentSessions
    ) -> None:  # fmt: skip
        self.path = path
        self.source = source
        self.drift: list[str] = []
        self.written: Path | None = None
        self._decisions = decisions
        self._recording = recording
        self._agents = agents

    def __repr__(self) -> str:
        held = len(self.exchanges) + len(self.sessions)
        counts = [f"{self.play_count} of {held} played"] if held or not self.recorded else []
        counts += [f"{self.recorded} recorded"] if self.recorded else []
        return f"<UsedCassette {self.source} {self.record_mode} {', '.join(counts)}>"

    def __len__(self) -> int:
        """The number of exchanges and sessions, with those that the block recorded."""
        return len(self.exchanges) + len(self.sessions) + self.recorded

    def __bool__(self) -> bool:
        return True

    @property
    def record_mode(self) -> RecordMode:
        """The record mode of the block."""
        return self._decisions.loaded.mode

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """The recorded exchanges at the beginning of the block, in order."""
        return self._decisions.loaded.exchanges

    @property
    def sessions(self) -> tuple[AgentSession, ...]:
        """The recorded sessions of the Agent SDK at the beginning of the block, in order."""
        return self._decisions.loaded.sessions

    @property
    def played_sessions(self) -> list[AgentSession]:
        """The played sessions of the Agent SDK, in the order of their first messages."""
        return self._agents.played

    @property
    def unplayed_sessions(self) -> list[AgentSession]:
        """The recorded sessions of the Agent SDK that were not played."""
        return [self.sessions[number] for number in self._agents.unplayed_numbers]

    @property
    def unplayed_session_numbers(self) -> list[int]:
        """Their numbers, counted from 0."""
        return self._agents.unplayed_numbers

    @property
    def requests(self) -> list[Request]:
        """The recorded requests, in order."""
        return [exchange.request for exchange in self.exchanges]

    @property
    def play_count(self) -> int:
        """The number of answers and sessions that were played."""
        return self._decisions.play_count + len(self._agents.played)

    @property
    def played(self) -> list[Exchange]:
        """The played exchanges, in the order of the requests."""
        return self._decisions.matcher.played

    @property
    def unplayed(self) -> list[Exchange]:
        """The recorded exchanges that no request asked for."""
        return self._decisions.matcher.unplayed

    @property
    def unplayed_numbers(self) -> list[int]:
        """Their numbers, counted from 0 in `exchanges` and then in further cassettes."""
        return self._decisions.matcher.unplayed_numbers

    @property
    def all_played(self) -> bool:
        """Whether each recorded exchange and session was played."""
        return not self._decisions.matcher.unplayed_numbers and not self._agents.unplayed_numbers

    @property
    def misses(self) -> list[str]:
        """The messages of the requests that no recorded exchange answers."""
        return self._decisions.misses

    @property
    def recorded(self) -> int:
        """The number of exchanges and sessions that the block recorded."""
        return self._recording.calls.count + self._recording.sessions

    @property
    def run(self) -> str | None:
        """The id of the block's run in the log; None if nothing was appended."""
        return self._recording.run

    @property
    def log(self) -> EventLog | None:
        """The log of that run; None if no log was opened. It is closed at the end of the block unless you opened it."""
        return self._recording.log
