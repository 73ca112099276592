"""A step's prompt put together from its parts, with templates filled in."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..recorder.errors import WorkflowError
from . import schema
from .templates import render, volatile_in

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


class Context:
    """What prompts and templates of a run may refer to; grows with each finished step."""

    def __init__(self, workflow: schema.Workflow, folder: Path, run: str, date: str) -> None:
        self.folder = folder
        self.variables: dict[str, Any] = {
            "execution_id": run,
            "date": date,
            "workflow": {"name": workflow.name, "description": workflow.description, "version": workflow.version},
            "global_vars": dict(workflow.global_vars),
            "steps": {},
        }
        self.texts: dict[str, str] = {}
        self.sessions: dict[str, list[dict[str, Any]]] = {}

    def of_step(self, step: schema.Step) -> dict[str, Any]:
        return self.variables | {"step": {"name": step.name, "type": step.type}}

    def finish(self, step: str, text: str, cost_usd: float | None, turns: int) -> None:
        self.texts[step] = text
        self.variables["steps"][step] = {"text": text, "cost_usd": cost_usd, "turns": turns}


def build_prompt(step: schema.Step, context: Context) -> str:
    """The text of a step's prompt; parts are separated by a blank line. Raises WorkflowError."""
    variables = context.of_step(step)
    parts = [schema.StaticPart(type="static", content=step.prompt)] if isinstance(step.prompt, str) else step.prompt
    return "\n\n".join(_part(part, step, context, variables) for part in parts)


def volatile_of(step: schema.Step, options: schema.ClaudeOptions, context: Context) -> dict[str, str]:
    """The volatile variables that the step's request may hold, with their values in this run."""
    texts = [options.system_prompt or "", options.append_system_prompt or ""]
    parts = [step.prompt] if isinstance(step.prompt, str) else step.prompt
    for part in parts:
        match part:
            case str():
                texts.append(part)
            case schema.StaticPart():
                texts.append(part.content)
    used = set().union(*map(volatile_in, texts))
    return {name: str(context.variables[name]) for name in sorted(used)}


def _part(part: schema.Part, step: schema.Step, context: Context, variables: Mapping[str, Any]) -> str:
    where = f"step {step.name!r}, prompt"
    match part:
        case schema.StaticPart():
            return render(part.content, variables, where)
        case schema.FilePart():
            return _file(context.folder / render(part.path, variables, where), where)
        case schema.PreviousResponsePart():
            text = context.texts[part.step]
            return text if part.extract is None else _extract(text, part.extract, f"{where}, response of {part.step!r}")
        case schema.SessionContextPart():
            session_id = render(part.session_id, variables, where)
            if session_id not in context.sessions:
                known = ", ".join(context.sessions) or "none yet"
                raise WorkflowError(f"{where}: no session {session_id!r} in this run so far; sessions: {known}.")
            return _transcript(context.sessions[session_id], part.include_last_n)


def _file(path: Path, where: str) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise WorkflowError(f"{where}: no file {path}; a relative path counts from the workflow's folder.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}.") from error


def _extract(text: str, dotted: str, where: str) -> str:
    """A field of a JSON answer, bare or in a code fence; text stays text, anything else becomes JSON."""
    fence = _FENCE.search(text)
    try:
        value = json.loads(fence[1] if fence else text)
    except ValueError as error:
        raise WorkflowError(f"{where}: cannot extract {dotted!r}, the response is not JSON.") from error
    for key in dotted.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            there = f"; there are {', '.join(map(str, value))}" if isinstance(value, dict) and value else ""
            raise WorkflowError(f"{where}: nothing to extract at {dotted!r}: no {key!r}{there}.")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _transcript(messages: list[dict[str, Any]], last: int | None) -> str:
    lines = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text = "\n".join(str(block["text"]) for block in blocks if block.get("type") == "text")
        if text:
            lines.append(f"{'User' if message['role'] == 'user' else 'Assistant'}: {text}")
    return "\n\n".join(lines if last is None else lines[-last:])
