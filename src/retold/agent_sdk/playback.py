"""Play a recorded session in place of a transport: no child, no network.

Lines that the program writes are compared with the recorded ones. A line that follows a recorded write waits until the program
has written it; other lines are due at their recorded times, counted from the last such write. Callbacks, hooks and tools of
the program's own MCP servers really run, because their questions are received lines, and their answers are written ones.

Sessions that run in parallel begin alike: the first message of the user decides which recorded session is played. Until then
the lines of the first possible one are played.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel

from ..recorder import clock
from ..recorder.agent_wire import END_INPUT, AgentSession, WireCapture
from ..recorder.errors import MissError, RecordingEnded
from ..recorder.strict_json import object_in
from ..replay.matching.rules import DEFAULT_RULES, Rules
from ..replay.timing.precise_sleep import sleep_until
from ..replay.timing.timing import Timeline, Timing
from .recording import Wire
from .script import Script, is_question, meaning

PATIENCE_NS = 5_000_000_000
"""The longest wait, within a turn, for a line that the recorded program wrote. Between turns a session waits for any time."""

__tracebackhide__ = True
"""pytest shows the lines of the test and of the SDK."""

Claim = Callable[[AgentSession], bool]
"""Take a recorded session; False if another session of this run has taken it."""


class PlayedWire:
    """A recorded session in place of a transport. `candidates` are the possible sessions, in recorded order, at least one.

    `claim` takes one of them, `miss` returns an error for the text of a miss, `again` makes a kept error of the SDK, and
    `capture` records the replay. `instead` returns a transport for a session that is not recorded, if it may be recorded now.
    `rules` name the parts of the program's lines that do not count.
    """

    def __init__(
        self, candidates: Sequence[AgentSession], timing: Timing, *, claim: Claim,
        miss: Callable[[str, type[MissError]], BaseException], again: Callable[[dict[str, Any]], Exception],
        capture: WireCapture | None = None, instead: Callable[[], Wire] | None = None, rules: Rules = DEFAULT_RULES,
    ) -> None:  # fmt: skip
        self._scripts = [Script(session, rules) for session in candidates]
        self._rules = rules
        self._timing = timing
        self._claim = claim
        self._make_miss = miss
        self._again = again
        self._capture = capture
        self._instead = instead
        self._live: Wire | None = None
        self._is_claimed = False
        self._said: list[tuple[dict[str, Any], str]] = []
        self._questions: dict[str, int] = {}
        self._at = 0
        self._is_ready = self._is_closed = self._is_over = False
        self._miss: BaseException | None = None
        self._changed = anyio.Event()
        self._use(self._scripts[0])

    def __repr__(self) -> str:
        return f"<PlayedWire at line {self._at + 1} of {self._script!r}>"

    def _use(self, script: Script) -> None:
        self._script = script
        session = script.session
        self._timeline = Timeline(
            [0, *(line.offset_ns for line in script.lines), session.ended_ns - session.started_ns], self._timing
        )
        self._anchor_ns, self._base_ns = clock.monotonic_ns(), 0

    # The program's side

    async def connect(self) -> None:
        """Begin. Raises the recorded error if the recorded session could not begin."""
        session = self._script.session
        if not session.lines and session.ending == "failed" and session.error is not None:
            self._take()
            self._end()
            raise self._again(session.error)
        self._is_ready = True
        self._anchor_ns = clock.monotonic_ns()

    def is_ready(self) -> bool:
        """Return whether the session is open."""
        return self._is_ready if self._live is None else self._live.is_ready()

    async def write(self, data: str) -> None:
        """Compare a line with the recorded ones. Raises MissError."""
        if self._live is not None:
            await self._live.write(data)
            return
        if not self._is_ready:
            raise self._again({"type": "CLIConnectionError", "message": "ProcessTransport is not ready for writing"})
        if self._is_over and (code := self._script.session.exit_code) is not None:
            text = f"Cannot write to terminated process (exit code: {code})"
            raise self._again({"type": "CLIConnectionError", "message": text})
        for line in filter(None, data.split("\n")):
            await self._hear(object_in(line), line)

    async def end_input(self) -> None:
        """Note the end of the input."""
        if self._live is not None:
            await self._live.end_input()
        else:
            await self._hear(END_INPUT, "")

    async def close(self) -> None:
        """End the session. A program may close a session earlier than the recorded program."""
        if self._live is not None:
            await self._live.close()
        self._is_ready, self._is_closed = False, True
        if self._live is None and self._miss is None:
            self._take()
        self._end()
        self._change()

    async def _hear(self, line: dict[str, Any], text: str) -> None:
        said = self._rules.counting(meaning(line, self._questions))
        first = line.get("type") == "user" and not self._is_claimed
        left = [script for script in self._scripts if script.hear(said, line.get("request_id"))]
        fitting = [script for script in left if script is self._script or self._continues(script)]
        for script in fitting:
            if first and not self._claim(script.session):
                continue
            self._is_claimed = self._is_claimed or first
            if script is not self._script:
                self._at = self._place_in(script)
                self._use(script)
            self._scripts = [script] if self._is_claimed else fitting
            break
        else:
            await self._not_recorded(line, said, text, taken=bool(fitting))
            return
        self._said.append((line, text))
        if self._capture is not None:
            self._capture.sent(line)
        self._change()

    async def _not_recorded(self, line: dict[str, Any], said: dict[str, Any], text: str, *, taken: bool) -> None:
        if self._instead is not None and not self._is_claimed and self._live is None:
            live = self._instead()
            await live.connect()
            for earlier, written in self._said:
                if earlier.get("type") == "control_request":
                    await live.write(written + "\n")
            self._live = live
            self._change()
            await (live.write(text + "\n") if text else live.end_input())
            return
        why = "every recorded session with this message of the user is played already"
        if not taken:
            why = min(script.why_not(said) for script in self._scripts)[1]
        self._miss = self._make_miss(why, MissError)
        self._change()
        # The SDK gives an error of an answer to nobody; the reader raises the miss then.
        if line.get("type") != "control_response":
            raise self._miss

    def _continues(self, script: Script) -> bool:
        """Return whether the lines that were delivered are also the first ones of another session, apart from ids."""
        return [_outline(line.data) for line in script.lines if not line.is_sent][: self._delivered] == [
            _outline(line.data) for line in self._script.lines[: self._at] if not line.is_sent
        ]

    @property
    def _delivered(self) -> int:
        return sum(not line.is_sent for line in self._script.lines[: self._at])

    def _place_in(self, script: Script) -> int:
        """Return the place in another session after as many received lines as were delivered."""
        count = self._delivered
        for at, line in enumerate(script.lines):
            if count == 0:
                return at
            count -= not line.is_sent
        return len(script.lines)

    def _take(self) -> None:
        """Take the session that is played, if no message of the user has decided it."""
        if not self._is_claimed:
            self._is_claimed = True
            for script in self._scripts:
                if self._claim(script.session):
                    return

    # The child's side

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the recorded lines, each when it is due. Raises MissError, and the recorded error."""
        while not self._is_closed:
            if self._live is not None:
                async for line in self._live.read_messages():
                    yield line
                return
            if self._miss is not None:
                raise self._miss
            script, at = self._script, self._at
            if at == len(script.lines):
                if await self._is_finished(script.session):
                    return
            elif script.lines[at].is_sent:
                await self._pass(script, at)
            elif await self._is_due(script.lines[at].offset_ns) and self._script is script:
                self._at = at + 1
                line = script.delivered(at)
                if is_question(line):
                    self._questions[str(line.get("request_id"))] = len(self._questions)
                if self._capture is not None:
                    self._capture.received(line)
                yield line

    async def _pass(self, script: Script, at: int) -> None:
        """Pass a line that the program writes, if it has written it; else wait. Later times count from that line."""
        if script.is_heard(at):
            offset_ns = script.lines[at].offset_ns
            self._anchor_ns, self._base_ns = max(clock.monotonic_ns(), self._due_ns(self._base_ns)), offset_ns
            self._at = at + 1
        elif not await self._wait(None if self._may_idle(at) else clock.monotonic_ns() + PATIENCE_NS):
            self._miss = self._make_miss(f"{script.name_of(at)}: recorded, and this program does not send it", MissError)

    def _may_idle(self, at: int) -> bool:
        """Return whether a program may wait before the line: between turns, or while it works on an answer."""
        lines = self._script.lines
        if at < len(lines) and lines[at].data.get("type") == "control_response":
            return True
        turns = [line for line in lines[:at] if line.data.get("type") == ("user" if line.is_sent else "result")]
        return not turns or not turns[-1].is_sent

    async def _is_finished(self, session: AgentSession) -> bool:
        """Wait for the end, and return whether it came. Raises the recorded error."""
        if session.ending == "closed":
            lines = self._script.lines
            is_idle = self._may_idle(len(lines))
            if not await self._wait(None if is_idle else clock.monotonic_ns() + PATIENCE_NS):
                text = "the recorded program closed the session here, and this one reads on. Record it again."
                self._miss = self._make_miss(text, RecordingEnded)
            return False
        if not await self._is_due(session.ended_ns - session.started_ns):
            return False
        self._is_over = True
        self._end()
        if session.ending == "failed" and session.error is not None:
            raise self._again(session.error)
        return True

    def _due_ns(self, offset_ns: int) -> int:
        return self._anchor_ns + self._timeline.at(offset_ns) - self._timeline.at(self._base_ns)

    async def _is_due(self, offset_ns: int) -> bool:
        """Wait until a recorded time is due. Return False if something changed meanwhile."""
        if self._timing.is_instant or self._due_ns(offset_ns) <= clock.monotonic_ns():
            await anyio.lowlevel.checkpoint()
            return self._miss is None and not self._is_closed
        return not await self._wait(self._due_ns(offset_ns))

    async def _wait(self, until_ns: int | None) -> bool:
        """Wait for a change, at most until a time. Return whether there was one."""
        changed = self._changed
        if until_ns is None:
            await changed.wait()
            return True
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await changed.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            await sleep_until(until_ns)
            tasks.cancel_scope.cancel()
        return changed.is_set()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _end(self) -> None:
        if self._capture is not None:
            session = self._script.session
            if self._is_over or not self._is_closed:
                self._capture.end(session.ending, session.error, session.exit_code)
            else:
                self._capture.end("closed")


def _outline(line: dict[str, Any]) -> tuple[object, ...]:
    request = line.get("request")
    return line.get("type"), line.get("subtype"), request.get("subtype") if isinstance(request, dict) else None
