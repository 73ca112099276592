"""`retold try`: fork one run with several models, several times, side by side, and judge each fork by a command."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from ..comparing.compare import Comparison
from ..comparing.sources import compare
from ..comparing.text import heading
from ..recorder.errors import InputError, RetoldError
from ..recorder.log.log import EventLog
from ..recorder.proxy.http1 import Server
from ..recorder.proxy.upstream import Upstream
from ..servers.child import environment
from ..servers.commands import GRACE_S
from ..sigterm import sigterm_cancels
from ..testing.session import CassetteSession
from .branch import Branch
from .commands import forked, why_not_reached
from .plan import Wanted, plan

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One fork of a try. `number` counts from 1 for each model.

    verdict     `passed`, `failed`, or `left`: the program left the recording before the point
    code        the exit code of the program; below 0, the signal that ended it
    verified    the exit code of the command that judges, None without one
    run         the run of the fork, None if it was not recorded
    tokens      input and output tokens of the live part, None if the API reported none
    cost_usd    the cost of the live part, None if it is unknown
    seconds     the time that the program took
    divergence  the first difference from the parent, None if there is none
    error       the reason for a verdict that no command gave
    """

    model: str
    number: int
    verdict: str
    code: int
    verified: int | None
    run: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    seconds: float
    divergence: str | None
    error: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A try: the parent, the point, the forks that are wanted by model, the program and the command that judges.

    The judging command gets the program's stdout on its stdin, and the variables of `variables_of`. Of a workflow (which needs no
    command) it gets the texts of the steps.
    """

    ref: str
    wanted: dict[str, Wanted]
    command: Sequence[str] = ()
    verify: str | None = None
    times: int = 1
    max_parallel: int = 4

    def plan(self, log: EventLog) -> dict[str, Branch]:
        """Return the branch of each model. Raise InputError if one of them cannot be forked as wanted, and LogError."""
        if self.times < 1 or self.max_parallel < 1:
            raise InputError("a try needs at least one repetition and one fork at once.")
        return {model: plan(log, self.ref, wanted) for model, wanted in self.wanted.items()}


def run_trial(trial: Trial, log: EventLog, to: Upstream, tell: Progress = lambda _: None) -> list[Attempt]:
    """Run the forks of a try, and return them by model and repetition. Raise InputError, LogError before anything runs."""
    branches = trial.plan(log)
    return asyncio.run(_all(trial, branches, log, to, tell))


async def _all(
    trial: Trial, branches: dict[str, Branch], log: EventLog, to: Upstream, tell: Progress
) -> list[Attempt]:  # fmt: skip
    slots = asyncio.Semaphore(trial.max_parallel)
    count = len(branches) * trial.times
    done = 0

    async def one(model: str, branch: Branch, number: int) -> Attempt:
        nonlocal done
        async with slots:
            made = await _Fork(trial, model, branch, number, log, to).run()
        done += 1
        tell(f"{done} of {count}: {model} {number}: {made.verdict}")
        return made

    forks = [(model, branch, number) for model, branch in branches.items() for number in range(1, trial.times + 1)]
    try:
        with sigterm_cancels():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(*fork)) for fork in forks]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None  # callers expect the plain exception, not a group
    return [task.result() for task in tasks]


@dataclass
class _Fork:
    """One fork of a try while it runs."""

    trial: Trial
    model: str
    branch: Branch
    number: int
    log: EventLog
    to: Upstream

    async def run(self) -> Attempt:
        name = f"{self.branch.name} {self.model} {self.number}"
        use, serving = forked(replace(self.branch, name=name), self.log, self.to, self.trial.command)
        server = Server(serving.answerer)
        with tempfile.TemporaryDirectory(prefix="retold-try-") as folder, (Path(folder) / "stdout").open("w+b") as output:
            variables = variables_of(folder, self.model, self.number)
            began = time.monotonic()
            try:
                own = environment({**os.environ, **variables}, server.url, key=False)
                code = await _ended(self.trial.command, own, server, output)
            except BaseException as error:
                use.close(kept=True, error=error)
                raise
            seconds = time.monotonic() - began
            use.close(kept=True, error=None if code == 0 else RetoldError(f"the command ended with {code}"))
            verified = None
            if self.trial.verify is not None and use.run is not None:
                verified = await judged(self.trial.verify, {**os.environ, **variables, "RETOLD_RUN": use.run}, output)
        return self._judge(use, code, verified, seconds, failures=serving.failures)

    def _judge(
        self, use: CassetteSession, code: int, verified: int | None, seconds: float, *, failures: Sequence[RetoldError]
    ) -> Attempt:  # fmt: skip
        for failure in failures:
            raise failure
        missed = why_not_reached(use, self.branch)
        error = next(iter(use.misses), None if missed is None else str(missed))
        passed = error is None and (code if verified is None else verified) == 0
        verdict = "left" if use.misses else ("failed", "passed")[passed]
        tally = use.calls.tally
        known = tally.used and tally.priced == tally.used
        return Attempt(
            self.model, self.number, verdict, code, verified, use.run,
            tally.input_tokens if tally.used else None, tally.output_tokens if tally.used else None,
            round(tally.cost_usd, 10) if known else None, round(seconds, 3),
            None if use.run is None else divergence(self.log, self.branch.origin.parent, use.run), error,
        )  # fmt: skip


def variables_of(folder: str, model: str, number: int) -> dict[str, str]:
    """Return the variables of the program and of the command that judges it: a folder of its own, model and number."""
    return {"RETOLD_TRY_FOLDER": folder, "RETOLD_TRY_MODEL": model, "RETOLD_TRY_NUMBER": str(number)}


def divergence(log: EventLog, parent: str, run: str) -> str | None:
    """Return the first difference of a fork from its parent, or None."""
    found: Comparison = compare(parent, run, log=log)
    return None if found.first is None else heading(found.first)


async def _ended(command: Sequence[str], environ: dict[str, str], server: Server, output: IO[bytes]) -> int:
    """Run the program against its server until it ends, with its stdout in a file; return its exit code."""
    try:
        child = await asyncio.create_subprocess_exec(*command, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=output)
    except OSError as error:
        server.close()
        raise InputError(f"cannot run {command[0]}: {error.strerror or error}.") from error
    try:
        await server.run(child.wait(), grace_s=GRACE_S)
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
    assert child.returncode is not None
    return child.returncode


async def judged(verify: str, environ: dict[str, str], output: IO[bytes]) -> int:
    """Run the command that judges, with the program's stdout on its stdin; return its exit code. It prints to stderr."""
    output.seek(0)
    child = await asyncio.create_subprocess_exec("/bin/sh", "-c", verify, env=environ, stdin=output, stdout=2)
    return await child.wait()
