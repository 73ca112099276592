"""The table of steps at the end of a workflow on a terminal."""

import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..recorder.strict_json import object_or_empty
from ..recorder.words import seconds
from .table import UNKNOWN, dollars, print_table

if TYPE_CHECKING:
    from ..recorder.log.log import EventLog
    from ..workflow.results import RunResult, StepResult

HEADER = ("step", "model", "turns", "in", "out", "cost", "time", "status")
STATUS = HEADER.index("status")
COLOURS = {"failed": "31", "cancelled": "31", "fallback": "33", "skipped": "2"}


def print_steps(result: "RunResult", log: "EventLog") -> None:
    """Print what each step cost on stderr, with a total of several steps. Times are those of the recorded run."""
    rows = [_row(step, _models(log, result.run, step.name)) for step in result.steps]
    total = [_total(result.steps)] if len(rows) > 1 else []

    def colour(row: int, column: int) -> str:
        return COLOURS.get(result.steps[row - 1].status, "") if column == STATUS and 0 < row <= len(result.steps) else ""

    with contextlib.redirect_stdout(sys.stderr):
        print_table([HEADER, *rows, *total], right=range(2, STATUS), whole=(STATUS,), colour=colour, has_total=bool(total))


def _row(step: "StepResult", models: Iterable[str]) -> tuple[str, ...]:
    if step.status == "skipped":
        return (step.name, *[""] * (STATUS - 1), step.status)
    named = ", ".join(dict.fromkeys(models)) or ("" if step.resumed else UNKNOWN)
    cost = dollars(step.cost_usd)
    status = f"{step.status}, resumed" if step.resumed else step.status
    return (step.name, named, str(step.turns), *_tokens([step]), cost, seconds(step.duration_ms * 1_000_000), status)


def _total(steps: list["StepResult"]) -> tuple[str, ...]:
    ran = [step for step in steps if step.status != "skipped"]
    known = [step.cost_usd for step in ran if step.cost_usd is not None]
    cost = sum(known) if len(known) == len(ran) else None
    turns, spent = sum(step.turns for step in ran), sum(step.duration_ms for step in ran)
    return ("total", "", str(turns), *_tokens(ran), dollars(cost), seconds(spent * 1_000_000), "")


def _tokens(steps: list["StepResult"]) -> tuple[str, str]:
    """Return the tokens of input, those of the cache included, and of output."""
    usages = [step.usage for step in steps]
    given = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return (
        f"{sum(usage.get(key, 0) for usage in usages for key in given):,}",
        f"{sum(usage.get('output_tokens', 0) for usage in usages):,}",
    )


def _models(log: "EventLog", run: str, step: str) -> Iterable[str]:
    """Yield the models that answered in a step."""
    for message in log.messages(run, step=step):
        if message.type == "assistant" and (model := object_or_empty(message.data.get("message")).get("model")):
            yield str(model)
