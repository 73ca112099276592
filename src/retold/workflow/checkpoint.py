"""Checkpoints: which run broke off, and what its finished steps said.

The log holds everything; the file in `checkpoint_dir` only names the run that is under way. It is there from the beginning
of a run to its good end, so that a finished run leaves nothing behind that would make the next one skip a step.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..recorder import strict_json
from ..recorder.errors import InputError
from ..recorder.events import Event
from ..recorder.files import read_regular, read_text
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.writable import why_not_writable
from .load import Loaded
from .results import StepResult, TaskResult
from .step_types import Step
from .templates import has_template

FINISHED = ("completed", "skipped", "fallback")

_SHOWING = {"description", "async_streaming", "stream_handler", "stream_handler_opts", "verbose"}


@dataclass(frozen=True)
class Finished:
    """A step that an earlier run finished, and the run that did."""

    result: StepResult
    run: str
    session: dict[str, Any] | None


class Checkpoint:
    """The file that names the run of a workflow which is under way, one for each mode.

    `retold` is the cassette that a mock run retells: from another one nothing is taken over.
    """

    def __init__(self, loaded: Loaded, mode: str, *, retold: Path | None) -> None:
        self.path = Path(loaded.workflow.checkpoint_dir) / f"{loaded.workflow.name}.{mode}.json"
        self._loaded = loaded
        self._cassette = None if retold is None else _digest(retold)

    def check(self) -> None:
        """Raise InputError where the file cannot be written, before anything is run."""
        if (problem := why_not_writable(self.path)) is not None:
            raise self._cannot_write(problem)

    def write(self, run: str) -> None:
        """Name the run that begins. Raises InputError where the file cannot be written."""
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
        """The run ended well. The file stays where another run has begun meanwhile: it names that one."""
        with contextlib.suppress(OSError, ValueError):
            if json.loads(read_text(self.path))["run"] == run:
                self.path.unlink()

    def finished(self, log: EventLog) -> list[Finished]:
        """The steps that the run which broke off had finished, as far as they are still the workflow's first ones.

        Empty where nothing broke off. Raises InputError for a damaged file.
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
        if info is None or info.status in ("running", "completed") or cassette != self._cassette:
            return []
        found: list[Finished] = []
        events = log.events(run, kinds=("step.ended", "step.skipped", "step.resumed"))
        for event, step in zip(events, self._loaded.workflow.steps, strict=False):
            if event.data.get("fingerprint") != fingerprint(step, self._loaded) or event.data["status"] not in FINISHED:
                break
            found.append(_finished(event, run))
        return found


def _run_of(log: EventLog, run: str) -> RunInfo | None:
    """The run of that id; None where the log is gone, or another one."""
    if not log.path.exists():
        return None
    with closing(log.reader()) as connection:
        return next(iter(log.listing(connection).select("run = ?", [run])), None)


def fingerprint(step: Step, loaded: Loaded) -> str:
    """What a step is, with everything that may change what it says, files included; a changed step is run again."""
    workflow, own = loaded.workflow, _asking(step.model_dump(mode="json"))
    files = [(name, _digest(loaded.folder / name)) for name in _files(own)]
    around = [_asking(workflow.defaults.model_dump(mode="json")), workflow.global_vars, workflow.workspace_dir]
    said = [own, files, *around, workflow.environment.mode, sorted(StepResult.__dataclass_fields__)]
    return sha256(strict_json.dumps(said, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:16]


def _asking(value: Any) -> Any:
    """Without what only says how a step is shown: whoever looks closer after a crash does not want to pay again."""
    if isinstance(value, dict):
        return {key: _asking(item) for key, item in value.items() if key not in _SHOWING}
    return [_asking(item) for item in value] if isinstance(value, list) else value


def _files(value: Any) -> Iterator[str]:
    """The files that the prompts of a step name; of one whose name is a template the name has to do."""
    if isinstance(value, dict):
        named = value.get("path") if value.get("type") == "file" else value.get("file")
        if isinstance(named, str) and not has_template(named):
            yield named
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _files(item)


def _digest(path: Path) -> str | None:
    try:
        return sha256(read_regular(path)).hexdigest()
    except OSError:
        return None  # the step itself says what is wrong with it


def _finished(event: Event, run: str) -> Finished:
    data = dict(event.data["result"])
    data["tasks"] = [TaskResult(**task) for task in data.pop("tasks")]
    return Finished(StepResult(**data), str(event.data.get("from") or run), event.data.get("session"))
