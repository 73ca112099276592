"""The common parts of `retold fork` and `retold try`: a fork of a run as a server for a command."""

from collections.abc import Sequence
from typing import Any

from ..recorder.errors import RunError
from ..recorder.log.log import EventLog
from ..recorder.proxy.upstream import Upstream
from ..recorder.words import plural
from ..replay.timing.timing import INSTANT, Timing
from ..servers.commands import put_to_use
from ..servers.gate import Gate
from ..servers.serving import Serving
from ..testing.session import CassetteSession
from .branch import ANSWERED, Branch


def forked(
    branch: Branch, log: EventLog, to: Upstream, command: Sequence[str], *, name: str | None = None, profile: str = "auto",
    timing: Timing = INSTANT, gate: Gate | None = None, **data: Any,
) -> tuple[CassetteSession, Serving]:  # fmt: skip
    """Return the session of a fork and its server for one command. Raise InputError, LogError."""
    title = name or branch.name
    use = put_to_use(
        None, "new_episodes", log=log, name=title, upstream=to, profile=profile, kept=branch.kept, timing=timing,
        recorded=branch.prefix, branch=branch, data={"command": list(command), **data},
    )  # fmt: skip
    return use, Serving({title: use}, to, gate or Gate())


def why_not_reached(use: CassetteSession, branch: Branch) -> RunError | None:
    """Return the error of a program that ended before it sent a request after the point, or None."""
    is_answered = any(exchange.place.stamped == ANSWERED for exchange in branch.prefix)
    if use.recorded or (use.run is not None and is_answered):
        return None
    if use.run is not None:
        return RunError(f"the program sent no request after the point {branch.point} of {branch.title}.")
    return RunError(
        f"the program did not reach the point {branch.point} of {branch.title}: it asked for {use.play_count} of "
        f"{plural(len(branch.prefix), 'exchange')} before it. Nothing was recorded."
    )
