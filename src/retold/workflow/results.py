"""The results of a run, as data. Times are milliseconds of the recorded run; costs are US dollars, and an unknown cost is
None.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..recorder.words import plural
from .agent import Outcome, sum_usage

REPR_CHARS = 60
"""Characters of an answer in the repr of a result."""


@dataclass
class TaskResult:
    """The result of one task of a step. `status` is completed, failed or cancelled. `error` is None unless the task failed."""

    id: str
    status: str = "cancelled"
    text: str = ""
    error: str | None = None
    turns: int = 0
    messages: int = 0
    stop_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    duration_ms: int = 0
    time_to_first_message_ms: int | None = None
    session_id: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return f"<TaskResult {self.id} {_outcome(self)}>"


@dataclass
class StepResult:
    """The result of a step.

    `status` is completed, failed, cancelled, skipped or fallback (the step failed, and `fallback` names the action taken
    instead). `streamed` is True if handlers showed all of it. `handler_results` and `tasks` are the results of its handlers
    and tasks.
    """

    name: str
    type: str
    status: str = "cancelled"
    text: str = ""
    error: str | None = None
    turns: int = 0
    messages: int = 0
    stop_reason: str | None = None
    usage: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    duration_ms: int = 0
    time_to_first_message_ms: int | None = None
    session_id: str = field(default="", compare=False)
    attempts: int = 1
    fallback: str | None = None
    streamed: bool = False
    resumed: bool = False
    tasks: list[TaskResult] = field(default_factory=list)
    handler_results: list[dict[str, Any]] = field(default_factory=list, compare=False)

    def __repr__(self) -> str:
        return f"<StepResult {self.name} {_outcome(self)}>"

    @property
    def goes_on(self) -> bool:
        """Whether the next step may run."""
        return self.status in ("completed", "skipped", "fallback")


@dataclass
class RunResult:
    """The result of a run. `notes` are remarks for a person: unplayed recordings, fallbacks, failed tasks."""

    run: str
    name: str
    mode: str
    status: str
    steps: list[StepResult]
    log: str
    cassette: str | None
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    handler_errors: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        error = "" if self.error is None else f", {self.error!r}"
        return f"<RunResult {self.run[:8]} {self.name} {self.mode} {self.status}: {plural(len(self.steps), 'step')}{error}>"

    @property
    def ok(self) -> bool:
        """Whether all steps and handlers succeeded."""
        return self.status == "completed" and not self.handler_errors

    def step(self, name: str) -> StepResult:
        """Return the result of the step of that name. Raise KeyError if there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, as `retold run --json` prints it."""
        return asdict(self)


def _outcome(done: TaskResult | StepResult) -> str:
    """Return the status of a step or task, and the beginning of its text or error."""
    text = done.text if done.error is None else done.error
    return f"{done.status} {text if len(text) <= REPR_CHARS else text[:REPR_CHARS] + '…'!r}"


def fill(done: TaskResult | StepResult, outcome: Outcome, *, cost_tracking: bool) -> None:
    """Copy the outcome of a conversation into a result."""
    done.status = "completed" if outcome.error is None else "failed"
    done.error = outcome.error
    done.text = outcome.text
    done.turns = outcome.turns
    done.stop_reason = outcome.stop_reason
    done.usage = outcome.usage
    done.cost_usd = outcome.cost_usd if cost_tracking else None
    done.duration_ms = outcome.result.get("duration_ms", 0)
    done.time_to_first_message_ms = outcome.result.get("ttft_ms")
    done.session_id = outcome.result.get("session_id", "")


def add_up(done: StepResult, outcomes: Iterable[Outcome], *, cost_tracking: bool) -> None:
    """Add the costs of several conversations, and the time from the first beginning to the last end."""
    held = [outcome for outcome in outcomes if outcome.turns]
    costs = [outcome.cost_usd for outcome in held if outcome.usage]  # a refused request costs nothing
    done.turns = sum(outcome.turns for outcome in held)
    done.usage = sum_usage([outcome.usage for outcome in held])
    done.cost_usd = None
    if cost_tracking and costs and None not in costs:
        done.cost_usd = round(
            sum(cost for cost in costs if cost is not None), 10
        )  # tasks end in any order, and float sums depend on it
    if held:
        began_us = min(outcome.started_us for outcome in held)
        done.duration_ms = round((max(outcome.ended_us for outcome in held) - began_us) / 1000)
        firsts = [o.started_us - began_us + o.result["ttft_ms"] * 1000 for o in held if o.result.get("ttft_ms") is not None]
        done.time_to_first_message_ms = round(min(firsts) / 1000) if firsts else None
