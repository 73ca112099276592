"""Plan the test of a run: refuse everything that cannot be pinned, clean the recording, and choose the form of the test."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...recorder.cassette.folding import Recorded, in_order
from ...recorder.cassette.sessions import each_session
from ...recorder.cassette.transfer import exchanges_of, kept_in
from ...recorder.errors import InputError, WorkflowError
from ...recorder.files import why_not_writable
from ...recorder.http.exchange import Exchange
from ...recorder.log.log import EventLog
from ...recorder.log.runs import RunInfo
from ...workflow.checkpoint import question
from ...workflow.load import load_workflow
from ..changes import Changes
from ..plan import erased_in
from .cleaning import cleaned
from .draft import Draft, function_name, shown
from .of_command import command_parts, folder_of
from .of_requests import is_sendable, requests_parts
from .of_sessions import sessions_parts
from .of_workflow import workflow_parts
from .parts import file_text, merged

Kind = Literal["workflow", "command", "requests", "sessions"]


@dataclass(frozen=True)
class PinOptions:
    """The options of a pin.

    output  a folder, or a file `test_….py`
    redact  patterns of texts to take out
    keep    patterns of data about people that may stay
    force   replace existing files
    """

    output: Path = Path("tests")
    redact: Sequence[re.Pattern[str]] = ()
    keep: Sequence[re.Pattern[str]] = ()
    force: bool = False


@dataclass(frozen=True)
class Planned:
    """A test that can be written.

    left_out  the number of exchanges that are no part of it
    taken     the number of different texts that patterns took out
    secrets   the number of texts with a secret that the recording still had
    """

    draft: Draft
    kind: Kind
    source: str
    left_out: int
    taken: int
    secrets: int


def plan_pin(log: EventLog, ref: str, options: PinOptions) -> Planned:
    """Return the test of the run that `ref` names. Write nothing. Raise InputError if the run cannot be pinned, and LogError."""
    run = log.find(ref)
    title = f"run {run.run[:8]} ({run.name})"
    with log.reading() as held:
        started = next(held.events(run.run)).data
        _check_run(log, run, started, title)
        whole = list(in_order(exchanges_of(held, run.run), each_session(held, run.run)))
        kept = kept_in(held, run.run)
    kind = _kind(started, whole)
    if kind == "workflow":
        workflow = _workflow(log, run, started, title)
    recorded = whole if kind in ("workflow", "command") else [each for each in whole if _is_replayable(each)]
    if not recorded:
        raise InputError(f"{title} has no requests to the Messages API; there is nothing to replay.")
    test, cassette, name = _places(run, options, is_marked=kind in ("requests", "sessions"))
    command = [str(word) for word in started.get("command") or ()]
    clean = cleaned(recorded, options.redact, options.keep, [(word, "the command") for word in command])
    draft = Draft(run, clean.recorded, kept, test, name, cassette)
    match kind:
        case "workflow":
            parts = workflow_parts(draft, workflow)
        case "command":
            parts = command_parts(draft, command, folder_of(recorded))
        case "requests" if draft.sessions:
            parts = merged(requests_parts(draft), sessions_parts(draft))
        case "requests":
            parts = requests_parts(draft)
        case "sessions":
            parts = sessions_parts(draft)
    return Planned(draft, kind, file_text(draft, parts), len(whole) - len(recorded), clean.taken, clean.secrets)


def _check_run(log: EventLog, run: RunInfo, started: Mapping[str, Any], title: str) -> None:
    if run.mode == "audit":
        raise InputError(f"{title} records a change of the log itself; it has nothing to pin.")
    if run.status == "running":
        raise InputError(f"{title} is still being recorded; pin it when it has ended.")
    if "erased_by" in started:
        raise InputError(f"{title} was erased; nothing of it can be replayed.")
    for event in erased_in(log, run.run):
        raise InputError(f"{title} cannot be pinned: event {event.seq} ({event.kind}) was erased, so it cannot be replayed.")
    if not log.store.read(run.run, kinds=("exchange.started", "session.started"), limit=1):
        has_messages = log.store.read(run.run, kinds=("message",), limit=1)
        why = "messages only, and no requests" if has_messages else "no requests"
        ended = f" ({run.status}: {run.error})" if run.error else ""
        raise InputError(f"{title} holds {why}; there is nothing to replay{ended}.")
    if started.get("record_mode") == "new_episodes" and started.get("command") and "fork" not in started:
        raise InputError(
            f"{title} recorded only the requests that {started.get('cassette')} did not hold. Record all of them with: "
            "retold record --mode rewrite"
        )
    for event in log.events(run.run, kinds=("step.resumed",)):
        raise InputError(
            f"{title} took over the step {event.step!r} from an earlier run, so it holds a part of the workflow only. "
            "Run the workflow again, and pin that run."
        )


def _kind(started: dict[str, Any], recorded: Sequence[Recorded]) -> Kind:
    """Return the form of the test. The changed requests of a fork are not those that its program or workflow sends."""
    if not Changes.recorded(started):
        if isinstance(started.get("workflow"), str):
            return "workflow"
        if started.get("command") and any(isinstance(each, Exchange) for each in recorded):
            return "command"
    return "requests" if any(isinstance(each, Exchange) for each in recorded) else "sessions"


def _is_replayable(recorded: Recorded) -> bool:
    return not isinstance(recorded, Exchange) or is_sendable(recorded)


def _workflow(log: EventLog, run: RunInfo, started: Mapping[str, Any], title: str) -> Path:
    """Return the workflow file of a run. Raise InputError if it is gone, or if a step has changed since."""
    named = Path(started["workflow"])
    folders = [Path.cwd(), log.path.absolute().parent.parent]
    path = next((folder / named for folder in folders if (folder / named).is_file()), None)
    if path is None:
        raise InputError(f"{title} cannot be pinned: its workflow {named} is gone. Run retold pin in the folder of the run.")
    try:
        loaded = load_workflow(shown(path))
    except WorkflowError as error:
        raise InputError(f"{title} cannot be pinned: its workflow is not valid any more. {error}") from error
    recorded = started.get("steps")
    ran = [event.step for event in log.events(run.run, kinds=("step.started", "step.skipped"))]
    known = recorded if isinstance(recorded, dict) else dict.fromkeys(ran)
    now = {step.name: question(step, loaded) for step in loaded.workflow.steps}
    changed = [name for name, digest in known.items() if name not in now or digest not in (None, now[name])]
    changed += [name for name in now if isinstance(recorded, dict) and name not in known]
    if changed:
        raise InputError(
            f"{title} cannot be pinned: the step {changed[0]!r} of {named} has changed since, so its requests are others. "
            f"Record the present workflow with: retold run {named} --live"
        )
    return path


def _places(run: RunInfo, options: PinOptions, *, is_marked: bool) -> tuple[Path, Path, str]:
    """Return the paths of the test and of its cassette, and the name of the function.

    The pytest plugin finds the cassette of a marked test by the names of its file and its function.
    """
    output, name = options.output, function_name(run)
    if output.suffix == ".py":
        if not (output.name.startswith("test_") or output.stem.endswith("_test")):
            raise InputError(f"{output}: pytest finds tests in files test_*.py; name it test_{output.name}.")
        test = output
        name = output.stem if output.stem.isidentifier() and output.stem.startswith("test_") else name
    else:
        test = output / f"{name}.py"
    test = test.absolute()
    folder = test.parent / "cassettes"
    cassette = folder / test.stem / f"{name}.yaml" if is_marked else folder / f"{test.stem.removeprefix('test_')}.yaml"
    for path in (test, cassette):
        if path.exists() and not options.force:
            raise InputError(f"{shown(path)} exists already; name another file with -o, or replace it with --force.")
        if (why := why_not_writable(path)) is not None:
            raise InputError(f"cannot write {shown(path)}: {why}.")
    return test, cassette, name
