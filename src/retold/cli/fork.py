"""retold fork: run a program again from a point of a recording."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import (
    AllowOrigin,
    Db,
    IdleLimit,
    ProfileOption,
    RunArgument,
    ShipOption,
    TimingOption,
    UpstreamOption,
    note,
    shipped,
)

if TYPE_CHECKING:
    from ..experiments.plan import Wanted

AtOption = Annotated[
    str,
    typer.Option(
        "--at",
        metavar="POINT",
        help="Where the live part begins: before turn N (2), before turn N of a step (greet.2), or after an event (seq:153).",
    ),
]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="M", help="The model of all live requests.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="A value in all live requests, e.g. temperature=0.2, thinking.type=disabled; null removes it. May be repeated.",
    ),
]
AnswerOption = Annotated[
    Path | None,
    typer.Option("--answer", metavar="FILE", help="Your answer to the request at the point: a text, or a message as JSON."),
]
FailedOption = Annotated[bool, typer.Option("--failed", help="Fork a run that failed, was cancelled or was interrupted, too.")]
UnpricedOption = Annotated[bool, typer.Option("--unpriced", help="Accept a model that the price table does not have.")]


def wanted(
    at: str, model: str | None, assignments: list[str] | None, answer: Path | None, *, failed: bool, unpriced: bool
) -> "Wanted":  # fmt: skip
    """Return the fork that options ask for. Raise InputError."""
    from ..experiments.answer import read_answer
    from ..experiments.changes import Changes
    from ..experiments.plan import Wanted

    message = None if answer is None else read_answer(answer)
    return Wanted(at, Changes.parse(model, assignments or ()), message, failed, unpriced)


def fork(
    run: RunArgument,
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments, after --.")],
    at: AtOption,
    model: ModelOption = None,
    assignments: SetOption = None,
    answer: AnswerOption = None,
    failed: FailedOption = False,
    unpriced: UnpricedOption = False,
    name: Annotated[str | None, typer.Option(help="Name of the new run.", show_default="PARENT@POINT")] = None,
    upstream: UpstreamOption = None,
    timing: TimingOption = "instant",
    idle_limit: IdleLimit = None,
    profile: ProfileOption = "auto",
    allow_origin: AllowOrigin = None,
    ship: ShipOption = None,
    db: Db = None,
) -> None:
    """Run a program again from a point of its recording: the part before the point is replayed, the rest is live.

    The live part is recorded into a new run, which names its parent; `retold ls` shows the tree and `retold diff` begins at the
    fork. If the program leaves the recording before the point, the exit code is 3 and nothing is written.

    Example: retold fork last --at 2 --model claude-opus-5-5 -- python hello.py
    """
    from ..experiments.commands import forked, why_not_reached
    from ..experiments.plan import plan
    from ..recorder.http.platforms import api_of
    from ..recorder.log.log import EventLog
    from ..recorder.proxy.upstream import Upstream
    from ..replay.timing.timing import Timing
    from ..servers.commands import close, failure_of, note_doors, raise_for, run_command
    from ..servers.gate import Gate, origins_of

    to, gate = Upstream.parse(upstream or api_of(os.environ)), Gate(origins=origins_of(allow_origin or ()))
    asked = wanted(at, model, assignments, answer, failed=failed, unpriced=unpriced)
    with EventLog(db) as log, shipped(log, ship):
        branch = plan(log, run, asked)
        pace = Timing.parse(timing, idle_limit)
        use, serving = forked(branch, log, to, command, name=name, profile=profile, timing=pace, gate=gate)
        with run_command(command, serving) as child:
            close(use, failure_of(child), note)
            note_doors(serving, note)
    raise_for(serving)
    child.end_alike()
    if (missed := why_not_reached(use, branch)) is not None:
        note(f"retold: {missed}")
    raise typer.Exit(child.code or int(missed is not None or serving.turned_away))
