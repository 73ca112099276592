"""Checkpoints: the run that broke off, and the results of its finished steps.

The log holds all data; the file in `checkpoint_dir` only names the run in progress. It exists from the beginning of a run to
its successful end, so a finished run leaves no file that would make the next run skip a step.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.files import read_regular, read_text, why_not_writable
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo, RunQuery
from .load import Loaded
from .results import StepResult, TaskResult
from .step_types import Step
from .templates import has_template

FINISHED = ("completed", "skipped", "fallback")

_SHOWING = {"description", "async_streaming", "stream_handler", "stream_handler_opts", "verbose"}


@dataclass(frozen=True)
class Finished:
    """A step that an earlier run finished, and that run."""

    result: StepResult
    run: str
    session: dict[str, Any] | None


class Checkpoint:
    """The file that names the run in progress of a workflow, one for each mode.

    `retold` is the cassette that a mock run replays. Results from another cassette are not reused.
    """

    def __init__(self, loaded: Loaded, mode: str, *, retold: Path | None) -> None:
        self.path = Path(loaded.workflow.checkpoint_dir) / f"{loaded.workflow.name}.{mode}.json"
        self._loaded = loaded
        self._cassette = None if retold is None else _digest(retold)

    def check(self) -> None:
        """Raise InputError if the file cannot be written. Called before anything runs."""
        if (problem := why_not_writable(self.path)) is not None:
            raise self._cannot_write(problem)

    def write(self, run: str) -> None:
        """Name the run that begins. Raise InputError if the file cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(self.path.name + ".new")
            beside.write_text(strict_json.dumps({"run": run, "cassette": self._cassette}, ensure_ascii=True) + "\n", "utf-8")
            os.replace(beside, self.path)
        except OSError as error:
            raise self._cannot_write(error.strerror or str(error)) from error

    def _cannot_write(self, problem: str) -> InputError:
        return InputError(f"cannot write the checkpoint {self.path}: {problem}; name another checkpoint_dir.")

    def clear(self, run: str) -> None:
        """Remove the file after a successful run, unless it names another run that began meanwhile."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(read_text(self.path))["run"] == run:
                self.path.unlink()

    def finished(self, log: EventLog) -> list[Finished]:
        """Return the finished steps of the run that broke off, as long as they equal the first steps of the workflow.

        Return an empty list if no run broke off. Raise InputError for a damaged file.
        """
        try:
            said = json.loads(read_text(self.path))
            run, cassette = str(said["run"]), said["cassette"]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"cannot read the checkpoint {self.path}: {error.strerror or error}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"the checkpoint {self.path} is damaged: {error}. Remove it to begin anew.") from error
        info = _run_of(log, run)
        # A completed run leaves nothing to continue, and a running one is not over.
        if info is None or info.status in ("running", "completed") or cassette != self._cassette:
            return []
        found: list[Finished] = []
        events = log.events(run, kinds=("step.ended", "step.skipped", "step.resumed"))
        for event, step in zip(events, self._loaded.workflow.steps, strict=False):
            if event.data.get("fingerprint") != fingerprint(step, self._loaded) or event.data["status"] not in FINISHED:
                break
            found.append(finished_step(event.data, run))
        return found


def _run_of(log: EventLog, run: str) -> RunInfo | None:
    """Return the run of that id, or None if the log is missing or does not contain it."""
    return next(iter(log.runs(RunQuery(run=run))), None) if log.exists() else None


def fingerprint(step: Step, loaded: Loaded) -> str:
    """Return a digest of everything that may change the answer of a step, files included. A changed step runs again."""
    return _short([question(step, loaded), sorted(StepResult.__dataclass_fields__)])


def question(step: Step, loaded: Loaded) -> str:
    """Return a digest of everything in a workflow file, and in files that it names, that may change the requests of a step."""
    workflow, own = loaded.workflow, _asking(step.model_dump(mode="json"))
    files = [(name, _digest(loaded.folder / name)) for name in _files(own)]
    around = [_asking(workflow.defaults.model_dump(mode="json")), workflow.global_vars, workflow.workspace_dir]
    return _short([own, files, *around, workflow.environment.mode, workflow.engine])


def _short(value: Any) -> str:
    return sha256(strict_json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]


def _asking(value: Any) -> Any:
    """Return the value without options that only change how a step is shown, so that changing them costs no second request."""
    if isinstance(value, dict):
        return {key: _asking(item) for key, item in value.items() if key not in _SHOWING}
    return [_asking(item) for item in value] if isinstance(value, list) else value


def _files(value: Any) -> Iterator[str]:
    """Yield the files that the prompts of a step name. A name with a template is not resolved."""
    if isinstance(value, dict):
        named = value.get("path") if value.get("type") == "file" else value.get("file")
        if isinstance(named, str) and not has_template(named):
            yield named
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list):
        items = value
    for item in items:
        yield from _files(item)


def _digest(path: Path) -> str | None:
    try:
        return sha256(read_regular(path)).hexdigest()
    except OSError:
        return None  # the step reports the problem when it runs


def finished_step(ended: dict[str, Any], run: str) -> Finished:
    """Return a finished step of a run from the payload of its last event."""
    data = dict(ended["result"])
    data["tasks"] = [TaskResult(**task) for task in data.pop("tasks")]
    return Finished(StepResult(**data), str(ended.get("from") or run), ended.get("session"))
