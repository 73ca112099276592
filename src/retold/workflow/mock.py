"""The API of a mock run: answers come from a cassette, at the recorded pace or at once, and are appended to the log.

It uses neither the SDK nor the network, and runs no tools. A request without a recorded answer is a miss.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..experiments.branch import ANSWERED
from ..recorder import strict_json
from ..recorder.agent_wire import AgentSession
from ..recorder.errors import MissError
from ..recorder.http.capture import Capture
from ..recorder.http.exchange import Exchange, Place, Request
from ..recorder.log.log import RunWriter
from ..recorder.messages import Session, content_blocks
from ..recorder.secrets.redactor import Redactor
from ..replay.matching.matcher import Matcher
from ..replay.timing.timing import Timeline, Timing, Until, head_ns, play_async, times_of, until_async
from .agent import Reply, reply_of
from .tools import TimedOut


class Playback:
    """The exchanges and sessions that a mock run replays, and their timeline from the beginning of the run. `until` is its clock.

    `unplayed_sessions` are the sessions of steps that are still to be played. `variables` maps the volatile texts in sessions to
    their names.
    """

    def __init__(
        self, exchanges: Iterable[Exchange], sessions: Iterable[AgentSession], source: str, timing: Timing,
        until: Until = until_async,
    ) -> None:  # fmt: skip
        self.until = until
        self.exchanges = tuple(exchanges)
        sessions = tuple(sessions)
        self.unplayed_sessions = [session for session in sessions if session.place is not None]
        places = [session.place for session in self.unplayed_sessions if session.place is not None]
        self.variables = {text: name for place in places for name, text in place.variables.items() if text}
        self.redactor = Redactor()
        self.matcher = Matcher(self.exchanges, source=source, redactor=self.redactor)
        lines = [session.started_ns + line.offset_ns for session in sessions for line in session.lines]
        ends = [session.ended_ns for session in sessions]
        self.timeline = Timeline([0, *(ns for each in self.exchanges for ns in times_of(each)), *lines, *ends], timing)

    def take_session(self, step: str, task: str) -> AgentSession | None:
        """Return the next recorded session that begins in a step, or None if there is none."""
        for session in self.unplayed_sessions:
            if session.place is not None and (session.place.steps[0], session.place.task) == (step, task):
                self.unplayed_sessions.remove(session)
                return session
        return None

    def history(self, step: str, task: str) -> list[dict[str, Any]]:
        """Return the conversation before the recorded step: the messages of its first request, without the last one."""
        first = next((e for e in self.exchanges if e.place.unit == (step, task)), None)
        if first is None:
            return []
        messages: list[dict[str, Any]] = json.loads(first.request.body)["messages"]
        return messages[:-1]

    def tool_results(self) -> dict[str, dict[str, Any]]:
        """Return all recorded tool results by the id of their tool use. They come from later requests, or were recorded
        separately.
        """
        found: dict[str, dict[str, Any]] = {}
        for exchange in self.exchanges:
            for block in (*_tool_results(exchange.request.body), *exchange.tool_results):
                found[str(block.get("tool_use_id"))] = block
        return found


class MockApi:
    """Answers the requests of one step from a recording."""

    def __init__(
        self, recording: Playback, writer: RunWriter, *, step: str, task: str, variables: Mapping[str, str],
        timeout_ms: int | None = None,
    ) -> None:  # fmt: skip
        self._recording = recording
        self._writer = writer
        self._step = step
        self._task = task
        self._variables = dict(variables)
        self._timeout_ms = timeout_ms
        self.unfinished: Reply | None = None

    async def ask(self, body: dict[str, Any], session: Session) -> Reply:
        """Play the recorded answer, preceded by its failed attempts. Raise MissError, or TimedOut if the recorded run timed
        out.
        """
        data = strict_json.dumps(body, separators=(",", ":")).encode()
        unit = (self._step, self._task)
        exchange = self._recording.matcher.take(Request("POST", "/v1/messages", (), data), self._variables, unit)
        return (await self.play(exchange, data, session))[0]

    async def play(self, exchange: Exchange, data: bytes, session: Session) -> tuple[Reply, Exchange]:
        """Play an exchange and the attempts of its call that follow it. Return the last answer and its exchange."""
        while True:
            reply = await self._play(exchange, data, session)
            if exchange.ending == "closed" and self._timeout_ms is not None:
                # The recorded run closed the stream at its time limit, so this one times out too.
                self.unfinished = reply
                raise TimedOut(self._timeout_ms)
            following = self._recording.matcher.next_attempt(exchange)
            if following is None:
                return reply, exchange
            exchange = following

    async def _play(self, exchange: Exchange, body: bytes, session: Session) -> Reply:
        timeline, began_ns, until = self._recording.timeline, self._writer.started_ns, self._recording.until
        await until(began_ns, timeline.at(exchange.started_ns))
        request = Request(exchange.request.method, exchange.request.uri, exchange.request.headers, body)
        asked = exchange.place
        stamped = ANSWERED if asked.stamped == ANSWERED else "replay"
        place = Place(self._step, self._task, asked.call, asked.attempt, stamped, self._variables)
        capture = Capture(
            self._writer, request, place=place, session=session, redactor=self._recording.redactor,
            cost_usd=exchange.cost_usd,
        )  # fmt: skip
        try:
            await until(began_ns, head_ns(exchange, timeline))
            if exchange.response is not None:
                capture.response(exchange.response.status, exchange.response.reason, exchange.response.headers)
                async for data in play_async(exchange, timeline, began_ns, until):
                    capture.data(data)
        except BaseException:
            capture.end("closed")
            raise
        capture.end(exchange.ending, failure=exchange.failure)
        pieces = () if exchange.response is None else exchange.response.pieces
        return reply_of(
            capture,
            started_ns=exchange.started_ns,
            first_ns=pieces[0].offset_ns if pieces else None,
            ended_ns=exchange.ended_ns - exchange.started_ns,
        )


def _tool_results(body: bytes) -> list[dict[str, Any]]:
    if b"tool_result" not in body:
        return []
    messages = json.loads(body).get("messages", [])
    blocks = [block for message in messages for block in content_blocks(message.get("content"))]
    return [block for block in blocks if block.get("type") == "tool_result"]


class RecordedTools:
    """Tool results from a recording."""

    def __init__(self, results: Mapping[str, dict[str, Any]], source: str, timeout_ms: int | None = None) -> None:
        self._results = results
        self._source = source
        self._timeout_ms = timeout_ms

    async def run(self, use: dict[str, Any]) -> dict[str, Any]:
        """Return the recorded result of a tool use. If there is none, raise TimedOut under a time limit, else MissError."""
        result = self._results.get(str(use.get("id")))
        if result is None and self._timeout_ms is not None:
            raise TimedOut(self._timeout_ms)
        if result is None:
            raise MissError(f"{self._source} holds no result of the tool use {use.get('name')} ({use.get('id')}).")
        return result
