"""Build a step's prompt from its parts, with templates filled in."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..recorder import strict_json
from ..recorder.errors import RunError, WorkflowError
from ..recorder.files import read_text
from ..recorder.messages import content_blocks
from . import schema
from .extraction import json_in
from .paths import render_path
from .results import StepResult
from .step_types import Step
from .templates import render, volatile_in

if TYPE_CHECKING:
    from .load import Loaded


class Context:
    """The values to which prompts and templates of a run may refer. It grows with each finished step."""

    def __init__(self, loaded: "Loaded", run: str, date: str) -> None:
        workflow = loaded.workflow
        self.folder = loaded.folder
        self._loaded = loaded
        self.variables: dict[str, Any] = {
            "execution_id": run,
            "date": date,
            "workflow": {"name": workflow.name, "description": workflow.description, "version": workflow.version},
            "environment": {"mode": workflow.environment.mode},
            "global_vars": dict(workflow.global_vars),
            "steps": {},
        }
        self.sessions: dict[str, list[dict[str, Any]]] = {}

    def of_step(self, step: Step) -> dict[str, Any]:
        """Return the variables for the templates of a step."""
        return self.variables | {"step": {"name": step.name, "type": step.type}}

    def where(self, step: Step, task: str = "") -> str:
        """Return `file:line:column: step 'name'`, for errors that occur only when a step runs."""
        number = self._loaded.workflow.steps.index(step)
        place = self._loaded.source.place(("workflow", "steps", number))
        return f"{place}: step {step.name!r}{f', task {task!r}' if task else ''}"

    def output_path(self, name: str, step: Step, task: str = "") -> Path:
        """Return the path of `output_to_file`, below `defaults.output_dir`; `~` is the home folder. Raise WorkflowError."""
        variables, where = self.of_step(step), self.where(step, task)
        named = self._loaded.workflow.defaults.output_dir or "."
        folder = Path(render_path(named, variables, where, Path())).expanduser()
        return folder / Path(render_path(name, variables, where, folder)).expanduser()

    def finish(self, done: StepResult) -> None:
        """Add a finished step, so that later steps can refer to it. A skipped step or a failed task has only a status."""
        known: dict[str, Any] = {"status": done.status}
        if done.status != "skipped":
            known |= {"text": done.text, "cost_usd": done.cost_usd, "turns": done.turns}
            known["tasks"] = {
                task.id: {"status": task.status} | ({"text": task.text} if task.error is None else {}) for task in done.tasks
            }
        self.variables["steps"][done.name] = known


def build_prompt(parts: Sequence[schema.Part], variables: Mapping[str, Any], context: Context, where: str) -> str:
    """Return the text of a prompt. Parts are separated by a blank line. Raise WorkflowError."""
    return "\n\n".join(_part(part, context, variables, f"{where}, prompt") for part in parts)


def volatile_in_texts(texts: Iterable[str | None], context: Context) -> dict[str, str]:
    """Return the volatile variables that a request with these templates may contain, with their values in this run."""
    used: set[str] = set().union(*(volatile_in(text) for text in texts if text))
    return {name: str(context.variables[name]) for name in sorted(used)}


def _part(part: schema.Part, context: Context, variables: Mapping[str, Any], where: str) -> str:
    match part:
        case schema.StaticPart():
            return render(part.content, variables, where)
        case schema.FilePart():
            return _file(context.folder / render_path(part.path, variables, where, context.folder), where)
        case schema.PreviousResponsePart():
            earlier = context.variables["steps"][part.step]
            if "text" not in earlier:
                raise WorkflowError(f"{where}: step {part.step!r} was {earlier['status']}; it has no response.")
            text = str(earlier["text"])
            if part.extract is None:
                return text
            return _extract(text, render(part.extract, variables, where), f"{where}, response of {part.step!r}")
        case schema.SessionContextPart():
            session_id = render(part.session_id, variables, where)
            if session_id not in context.sessions:
                known = ", ".join(context.sessions) or "none yet"
                raise WorkflowError(f"{where}: no session {session_id!r} in this run so far; sessions: {known}.")
            return _transcript(context.sessions[session_id], part.include_last_n)


def _file(path: Path, where: str) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise WorkflowError(f"{where}: no file {path}; a relative path counts from the workflow's folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}.") from error


def _extract(text: str, dotted: str, where: str) -> str:
    """Return a field of a JSON answer, bare or in a code fence. Text is returned unchanged, any other value as JSON."""
    try:
        value = json_in(text)
    except RunError as error:
        raise WorkflowError(f"{where}: cannot extract {dotted!r}, the response is not JSON.") from error
    for key in dotted.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            there = f"; there are {', '.join(map(str, value))}" if isinstance(value, dict) and value else ""
            raise WorkflowError(f"{where}: nothing to extract at {dotted!r}: no {key!r}{there}.")
    return value if isinstance(value, str) else strict_json.dumps(value)


def _transcript(messages: list[dict[str, Any]], last: int | None) -> str:
    lines = []
    for message in messages:
        blocks = content_blocks(message["content"])
        text = "\n".join(str(block["text"]) for block in blocks if block.get("type") == "text")
        if text:
            lines.append(f"{'User' if message['role'] == 'user' else 'Assistant'}: {text}")
    return "\n\n".join(lines if last is None else lines[-last:])
