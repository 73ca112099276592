"""A fork of a workflow run: the recorded answers and tool results up to the point, and the API and the tools from there on.

No tool of the recorded part runs again: its result is in the recording. Times of live answers continue those of the recording.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ..experiments.branch import Branch
from ..recorder import strict_json
from ..recorder.errors import InputError, MissError
from ..recorder.http.exchange import Exchange, Request
from ..recorder.log.log import EventLog
from ..recorder.messages import Session
from ..replay.timing.timing import Timing
from .agent import Reply
from .checkpoint import Finished, finished_step, question
from .load import Loaded
from .mock import MockApi, Playback
from .retry import REPEATED
from .tools import Tools


class Forking(Protocol):
    """A fork that a user asks for, such as `retold.fork(…)`."""

    def branch(self, log: EventLog) -> Branch:
        """Return the branch of the run in a log. Raise InputError, LogError."""


class LiveAnswers(Protocol):
    """The API of the live part (live.py)."""

    unfinished: Reply | None

    async def ask(self, body: dict[str, Any], session: Session, *, call: int | None = None, attempt: int = 1) -> Reply:
        """Return the answer to a request, as a new call or as a further attempt of one."""


class ForkedRun:
    """The recorded side of a forked workflow run. Raises InputError if the workflow was changed before the point."""

    def __init__(self, branch: Branch, loaded: Loaded, timing: Timing) -> None:
        self.branch = branch
        self.playback = Playback(branch.prefix, (), branch.title, timing)
        self.results = dict(branch.tool_results)
        self._shift_us: int | None = None
        _check_unchanged(branch, loaded)

    def __repr__(self) -> str:
        return f"<ForkedRun {self.branch!r}>"

    @property
    def finished(self) -> list[Finished]:
        """The steps that the parent took over from an earlier run."""
        return [finished_step(data, self.branch.origin.parent) for data in self.branch.resumed]

    def waits_for(self, unit: tuple[str, str]) -> bool:
        """Return whether an exchange of a step or task is still to be replayed."""
        return any(exchange.place.unit == unit for exchange in self.playback.matcher.unplayed)

    def history(self, step: str) -> list[dict[str, Any]] | None:
        """Return the conversation before a recorded step, or None if the parent has not reached the step."""
        exchanges = (*self.branch.prefix, *self.branch.rest)
        first = next((exchange for exchange in exchanges if exchange.place.unit == (step, "")), None)
        return None if first is None else list(json.loads(first.request.body)["messages"][:-1])

    def last_call(self, unit: tuple[str, str]) -> int:
        """Return the number of the last replayed call of a step or task."""
        return max((exchange.place.call for exchange in self.branch.prefix if exchange.place.unit == unit), default=0)

    def take(self, data: bytes, variables: Mapping[str, str], unit: tuple[str, str]) -> Exchange:
        """Return the recorded exchange for a request before the point. Raise MissError."""
        request = Request("POST", "/v1/messages", (), data)
        matcher = self.playback.matcher
        forms = list(self.branch.forms_of(request))
        form = next((form for form in forms if matcher.matches(form, variables)), request)
        try:
            return matcher.take(form, variables, unit)
        except MissError as miss:
            played, all_of_them = len(matcher.played), len(self.branch.prefix)
            raise MissError(
                f"{miss}\nThe workflow left the recording at its request {played + 1}, before the point {self.branch.point}: "
                f"{played} of {all_of_them} exchanges before it were played. Nothing was sent."
            ) from miss

    def continued(self, reply: Reply) -> Reply:
        """Return a live answer with times that follow those of the recording."""
        if self._shift_us is None:
            self._shift_us = self.branch.point_ns // 1000 - reply.started_us
        first_us = None if reply.first_us is None else reply.first_us + self._shift_us
        started_us, ended_us = reply.started_us + self._shift_us, reply.ended_us + self._shift_us
        return replace(reply, started_us=started_us, first_us=first_us, ended_us=ended_us)


class ForkedApi:
    """Answers the requests of one conversation: from the recording up to the point, and live from there on."""

    def __init__(
        self, fork: ForkedRun, mock: MockApi, live: LiveAnswers, *, unit: tuple[str, str], variables: Mapping[str, str],
        max_retries: int,
    ) -> None:  # fmt: skip
        self._fork = fork
        self._mock = mock
        self._live = live
        self._unit = unit
        self._variables = variables
        self._max_retries = max_retries

    @property
    def unfinished(self) -> Reply | None:
        """The incomplete answer at the time limit, or None."""
        return self._live.unfinished or self._mock.unfinished

    async def ask(self, body: dict[str, Any], session: Session) -> Reply:
        """Return the answer to a request. If the last recorded attempt failed or is cut, its repetition is live."""
        changed = self._fork.branch.changes.applied_to(body)
        if not self._fork.waits_for(self._unit):
            return self._fork.continued(await self._live.ask(changed, session))
        data = strict_json.dumps(body, separators=(",", ":")).encode()
        exchange = self._fork.take(data, self._variables, self._unit)
        reply, last = await self._mock.play(exchange, data, session)
        repeats = reply.failure in REPEATED and last.place.attempt <= self._max_retries
        if not repeats or self._fork.waits_for(self._unit):
            return reply
        place = last.place
        return self._fork.continued(await self._live.ask(changed, session, call=place.call, attempt=place.attempt + 1))


class ForkedTools:
    """The recorded result of each tool use before the point, each once; later ones run."""

    def __init__(self, fork: ForkedRun, live: Tools) -> None:
        self._results = fork.results
        self._live = live

    async def run(self, use: dict[str, Any]) -> dict[str, Any]:
        """Return the `tool_result` block for a `tool_use` block."""
        recorded = self._results.pop(str(use.get("id")), None)
        return await self._live.run(use) if recorded is None else recorded


def _check_unchanged(branch: Branch, loaded: Loaded) -> None:
    """Refuse a workflow of which a step before the point was changed, because its requests would differ."""
    recorded = branch.started.get("steps")
    if "workflow" not in branch.started:
        raise InputError(f"{branch.title} is no run of a workflow; fork it with: retold fork {branch.origin.parent[:8]} -- CMD…")
    if not isinstance(recorded, dict):  # recorded before runs kept this: a changed request is a miss
        return
    steps = {step.name: step for step in loaded.workflow.steps}
    for name in dict.fromkeys(exchange.place.step for exchange in branch.prefix):
        if name not in steps or question(steps[name], loaded) != recorded.get(name, ""):
            raise InputError(
                f"the step {name!r} of {loaded.source.path} was changed since {branch.title} was recorded, so the "
                f"requests before {branch.point} would differ. Undo the change, or fork before the first turn of the step."
            )
