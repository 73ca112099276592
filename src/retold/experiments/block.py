"""`retold.fork`: fork a recorded run in a block of your own program, or for a run of a workflow."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..recorder.errors import RunError
from ..recorder.log.log import EventLog
from ..replay.matching.rules import DEFAULT_RULES
from ..replay.timing.timing import Timing
from ..settings import Settings
from ..testing.decorators import decorated
from ..testing.use import Use
from ..testing.used import UsedCassette
from ..workflow.pricing import price
from .answer import Message, message_of
from .branch import Branch
from .changes import Changes
from .plan import Wanted, plan


class fork(Use):
    """Fork a recorded run inside a `with` block or a decorated function, or as the argument `fork` of `run_workflow`.

    Requests before the point get their recorded answers, byte for byte. From the point on, requests are sent to the API and
    recorded, into a new run that names its parent.

        with retold.fork("last", at="2", model="claude-opus-5-5") as forked:
            talk()
        print(forked.run)

    run       the parent: an id, a unique prefix of one, a name, `last` or `last~N`
    at        the point: a turn (`2`), a step and a turn (`greet.2`), or an event (`seq:153`), which may be inside an answer
    model     the model of all live requests
    set       values in live requests by path, such as `{"thinking.type": "disabled"}`; None removes a key
    answer    an answer of yours to the request at the point: a text, or a message of the Messages API
    failed    fork a parent that failed, was cancelled or was interrupted, too
    unpriced  accept a model that the price table does not have
    name      the name of the new run, by default `PARENT@POINT`
    timing    the pace of the recorded part: instant, original, 2x …
    hosts     further hosts to record, as patterns
    redact    further secret values to remove
    log       the log of both runs, or its path

    Raises InputError if the run cannot be forked there. Inside the block, a request that the recording does not hold before the
    point raises MissError, and nothing is written. Raises RunError at the end of a block that did not reach the point.
    """

    def __init__(
        self,
        run: str,
        *,
        at: str | int,
        model: str | None = None,
        set: Mapping[str, Any] | None = None,
        answer: str | Message | None = None,
        failed: bool = False,
        unpriced: bool = False,
        name: str | None = None,
        timing: Timing | str = "instant",
        hosts: Iterable[str] = (),
        redact: Iterable[str] = (),
        log: EventLog | str | os.PathLike[str] | None = None,
    ) -> None:
        changes = Changes.of(model, set or {})
        message = None if answer is None else message_of(answer)
        self._run = run
        self._wanted = Wanted(str(at), changes, message, failed, unpriced)
        settings = Settings(
            timing=Timing.parse(timing) if isinstance(timing, str) else timing, rules=DEFAULT_RULES, detect=True, price=price,
            name=name, hosts=(hosts,) if isinstance(hosts, str) else tuple(hosts), recordings=log,
            redact=(redact,) if isinstance(redact, str) else tuple(redact),
        )  # fmt: skip
        super().__init__(None, "new_episodes", settings)

    def __call__(self, function: Any) -> Any:
        """Decorate a function or a test class: each call forks the run anew. Raises InputError."""
        return decorated(function, Path(self._run), lambda _: self._again())

    def branch(self, log: EventLog) -> Branch:
        """Return the branch of the run in a log. Raises InputError, LogError."""
        branch = plan(log, self._run, self._wanted)
        return branch if self.settings.name is None else replace(branch, name=self.settings.name)

    def _again(self) -> "fork":
        made = fork(self._run, at=self._wanted.at)
        made._wanted, made.settings = self._wanted, self.settings
        return made

    def __enter__(self) -> UsedCassette:
        named = self.settings.recordings
        with contextlib.ExitStack() as stack:
            log = named if isinstance(named, EventLog) else stack.enter_context(EventLog(named))
            branch = self.branch(log)
        self.settings = replace(
            self.settings, branch=branch, recorded=branch.prefix, name=branch.name,
            rules=DEFAULT_RULES.with_kept(branch.kept),
        )  # fmt: skip
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        session = self.session
        super().__exit__(kind, error, trace)
        if error is None and session.run is None:
            branch = self.settings.branch
            assert branch is not None
            raise RunError(
                f"the block did not reach the point {branch.point} of {branch.title}: {session.play_count} of "
                f"{len(branch.prefix)} exchanges before it were asked for. Nothing was recorded."
            )
