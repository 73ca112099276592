"""`retold try` of a run of a workflow: the workflow goes on from the point with each model, one fork after another.

Steps run tools in the workspace of the workflow, so two forks at once would meet there.
"""

import asyncio
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..recorder.errors import InputError, MissError
from ..recorder.log.log import EventLog
from ..workflow.results import RunResult
from ..workflow.runner import run_workflow
from .branch import ANSWERED, Branch
from .tries import Attempt, Progress, Trial, divergence, judged, variables_of


def run_workflow_trial(trial: Trial, log: EventLog, tell: Progress = lambda _: None) -> list[Attempt]:
    """Run the forks of a try, and return them by model and repetition. Raise InputError, LogError before anything runs.

    A program that is no workflow cannot be run again without its command.
    """
    branches = trial.plan(log)
    paths = {model: _workflow_of(branch) for model, branch in branches.items()}
    made: list[Attempt] = []
    count = len(branches) * trial.times
    for model, branch in branches.items():
        for number in range(1, trial.times + 1):
            made.append(_run(trial, model, branch, number, paths[model], log))
            tell(f"{len(made)} of {count}: {model} {number}: {made[-1].verdict}")
    return made


def _workflow_of(branch: Branch) -> Path:
    """Return the file of the workflow that the parent ran. Raise InputError if it is gone, or the parent ran none."""
    named = branch.started.get("workflow")
    if not isinstance(named, str):
        raise InputError(f"{branch.title} is no run of a workflow; name the program to run: retold try RUN --models … -- CMD.")
    if not Path(named).is_file():
        raise InputError(f"{branch.title} ran the workflow {named}, which is not there. Run `retold try` where it was recorded.")
    return Path(named)


@dataclass(frozen=True)
class _Named:
    """A fork that was planned already, as `run_workflow` accepts it."""

    planned: Branch

    def branch(self, _: EventLog) -> Branch:
        """Return the planned branch."""
        return self.planned


def _run(trial: Trial, model: str, branch: Branch, number: int, path: Path, log: EventLog) -> Attempt:
    """Run one fork and judge it."""
    name = f"{branch.name} {model} {number}"
    result, left = None, None
    began = time.monotonic()
    try:
        result = run_workflow(path, handlers=[], log=log, show=False, fork=_Named(replace(branch, name=name)))
    except MissError as miss:
        left = str(miss)
    seconds = time.monotonic() - began
    verified = None if result is None or trial.verify is None else _verified(trial, model, number, result)
    error = left if result is None else result.error
    passed = error is None and (verified or 0) == 0
    run = None if result is None else result.run
    tokens, cost = (None, None) if run is None else _spent(log, run)
    return Attempt(
        model, number, "left" if left is not None else ("failed", "passed")[passed], int(error is not None), verified, run,
        None if tokens is None else tokens[0], None if tokens is None else tokens[1], cost, round(seconds, 3),
        None if run is None else divergence(log, branch.origin.parent, run), error,
    )  # fmt: skip


def _verified(trial: Trial, model: str, number: int, result: RunResult) -> int:
    """Run the command that judges, with the texts of the steps on its stdin; return its exit code."""
    assert trial.verify is not None
    with tempfile.TemporaryDirectory(prefix="retold-try-") as folder, (Path(folder) / "stdout").open("w+b") as output:
        output.write("".join(f"{step.text}\n" for step in result.steps).encode())
        own = {**os.environ, **variables_of(folder, model, number), "RETOLD_RUN": result.run}
        return asyncio.run(judged(trial.verify, own, output))


def _spent(log: EventLog, run: str) -> tuple[tuple[int, int] | None, float | None]:
    """Return the tokens (in, out) and the cost of the live part; None for what is unknown."""
    live: set[int] = set()
    used: list[dict[str, int]] = []
    costs: list[float | None] = []
    for event in log.events(run, kinds=("exchange.started", "exchange.ended")):
        data = event.data
        if event.kind == "exchange.started":
            live |= {event.seq} if data.get("stamped") not in ("replay", ANSWERED) else set()
        elif event.exchange in live and (usage := data.get("usage")):
            used.append(usage)
            costs.append(data.get("cost_usd"))
    if not used:
        return None, None
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    asked = sum(usage.get(name) or 0 for usage in used for name in names)
    said = sum(usage.get("output_tokens") or 0 for usage in used)
    known = [cost for cost in costs if cost is not None]
    return (asked, said), round(sum(known), 10) if len(known) == len(costs) else None
