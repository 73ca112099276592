"""Read trajectories in ATIF, versions 1.0 to 1.8. Each step is checked before anything is written; an error names its place.

A step becomes the lines of a talk. Lost are: costs, token ids and log probabilities, the versions of agents, references to files,
and `extra` other than that of our own exports.
"""

import json
import re
from pathlib import Path
from typing import Any

from ..recorder.errors import InputError
from ..recorder.files import read_regular
from ..recorder.http.exchange import wall_ns_of
from ..recorder.messages import Session
from ..recorder.strict_json import object_in, object_or_empty
from .genai import usage_of_tokens
from .talks import Talk

NEWEST = (1, 8)

_NAMES: dict[Any, str] = {dict: "an object", list: "a list", str: "a text"}

_VERSION = re.compile(r"ATIF-v(\d+)\.(\d+)")


def is_ours(document: dict[str, Any]) -> bool:
    """Return whether a JSON object is a trajectory."""
    return str(document.get("schema_version", "")).startswith("ATIF-")


def read(path: Path) -> Talk:
    """Return the messages of a trajectory. Raises InputError with the place of the fault."""
    try:
        document = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON document: {error}.") from error
    found = _VERSION.fullmatch(str(object_or_empty(document).get("schema_version")))
    if found is None:
        raise InputError(f"{path}: schema_version should be ATIF-v1.0 to ATIF-v{NEWEST[0]}.{NEWEST[1]}.")
    if (int(found[1]), int(found[2])) > NEWEST:
        raise InputError(f"{path} has the format {found[0]}; this retold reads up to ATIF-v{NEWEST[0]}.{NEWEST[1]}.")
    reading = _AtifReading(path, Talk(path.stem.removesuffix(".atif"), session=Session(_session_id(document))))
    reading.document(document, "", "")
    if not reading.talk.lines:
        raise InputError(f"{path} holds no steps; there is nothing to import.")
    return reading.talk


def _session_id(document: dict[str, Any]) -> str:
    return f"atif {document.get('session_id') or document.get('trajectory_id') or ''}"


class _AtifReading:
    """Reads one file. `task` is the id of an embedded trajectory, empty for the main one."""

    def __init__(self, path: Path, talk: Talk) -> None:
        self._path = path
        self.talk = talk
        self._at_ns = 0

    def document(self, document: dict[str, Any], where: str, task: str) -> None:
        """Add the steps of a trajectory and of those in it."""
        agent = self._typed(document.get("agent"), dict, f"{where}agent")
        steps = self._typed(document.get("steps"), list, f"{where}steps")
        for number, step in enumerate(steps):
            place = f"{where}steps[{number}]"
            self._step(self._typed(step, dict, place), place, task, agent.get("model_name"))
        embedded = document.get("subagent_trajectories")
        for number, inner in enumerate(self._typed(embedded or [], list, f"{where}subagent_trajectories")):
            place = f"{where}subagent_trajectories[{number}]"
            inner = self._typed(inner, dict, place)
            self._at_ns = 0
            self.document(inner, f"{place}.", self._typed(inner.get("trajectory_id"), str, f"{place}.trajectory_id"))

    def _step(self, step: dict[str, Any], where: str, task: str, model: Any) -> None:
        source = step.get("source")
        if source not in ("user", "system", "agent"):
            self._fail(f"{where}.source", "should be user, system or agent")
        if (stamp := step.get("timestamp")) is not None:
            at_ns = wall_ns_of(self._typed(stamp, str, f"{where}.timestamp"))
            if at_ns is None and wall_ns_of(f"{stamp}Z") is None:
                self._fail(f"{where}.timestamp", "should be an ISO 8601 time")
            self._at_ns = max(self._at_ns, at_ns or wall_ns_of(f"{stamp}Z") or 0)
        extra, copied = object_or_empty(step.get("extra")), step.get("is_copied_context") is True
        said = self._content(step.get("message"), f"{where}.message")
        results = object_or_empty(step.get("observation")).get("results")
        if source == "system" and any("subagent_trajectory_ref" in object_or_empty(each) for each in results or ()):
            said = []  # the name of a subagent
        said += [block for block in extra.get("blocks") or () if isinstance(block, dict)]
        step_name, _, own_task = task.rpartition("/")
        unit = (str(extra.get("step") or step_name), own_task)
        match source:
            case "agent":
                self._agent(step, where, unit, said, model, copied=copied)
            case "system" if said:
                self.talk.system(self._at_ns, unit, said, copied=copied)
            case "user":
                self.talk.user(self._at_ns, unit, said, copied=copied)
        self._results(step, where, unit, copied=copied)

    def _agent(
        self, step: dict[str, Any], where: str, unit: tuple[str, str], said: list[dict[str, Any]], model: Any, *, copied: bool
    ) -> None:  # fmt: skip
        extra = object_or_empty(step.get("extra"))
        thought = step.get("reasoning_content")
        blocks = [{"type": "thinking", "thinking": self._typed(thought, str, f"{where}.reasoning_content")}] if thought else []
        blocks += said
        for number, call in enumerate(self._typed(step.get("tool_calls") or [], list, f"{where}.tool_calls")):
            place = f"{where}.tool_calls[{number}]"
            call = self._typed(call, dict, place)
            use = {"type": "tool_use", "id": self._typed(call.get("tool_call_id"), str, f"{place}.tool_call_id")}
            use["name"] = self._typed(call.get("function_name"), str, f"{place}.function_name")
            use["input"] = self._typed(call.get("arguments"), dict, f"{place}.arguments")
            blocks.append(use)
        metrics = self._typed(step.get("metrics") or {}, dict, f"{where}.metrics")
        number = step.get("step_id", self.talk.count)
        message = {
            "id": extra.get("message_id") or f"{self.talk.session.id} {unit[1]} step {number}",
            "model": step.get("model_name") or model,
            "stop_reason": extra.get("stop_reason"),
            "usage": _usage(metrics) or None,
        }
        if blocks or message["usage"]:  # else a failed call
            self.talk.answer(self._at_ns, unit, message, blocks, copied=copied)

    def _results(self, step: dict[str, Any], where: str, unit: tuple[str, str], *, copied: bool) -> None:
        observed = self._typed(step.get("observation") or {}, dict, f"{where}.observation")
        for number, result in enumerate(self._typed(observed.get("results") or [], list, f"{where}.observation.results")):
            place = f"{where}.observation.results[{number}]"
            result = self._typed(result, dict, place)
            content, call = result.get("content"), result.get("source_call_id")
            blocks = [] if content is None else self._content(content, f"{place}.content")
            extra = object_or_empty(result.get("extra"))
            if isinstance(call, str):
                block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call}
                block["content"] = extra.get("content", content if isinstance(content, str) else blocks)
                block |= {"is_error": True} if extra.get("is_error") is True else {}
                self.talk.user(self._at_ns, unit, [block], copied=copied)
            elif blocks:  # of an action without a call, or of the system
                self.talk.user(self._at_ns, unit, blocks, copied=copied)

    def _content(self, content: Any, where: str) -> list[dict[str, Any]]:
        """Return a text, or the texts and references in a list of parts, as content blocks."""
        if isinstance(content, str):
            return [{"type": "text", "text": content}] if content else []
        blocks = []
        for number, part in enumerate(self._typed(content, list, where)):
            part = self._typed(part, dict, f"{where}[{number}]")
            if part.get("type") == "text":
                blocks.append({"type": "text", "text": self._typed(part.get("text"), str, f"{where}[{number}].text")})
            else:
                blocks.append(dict(part))
        return blocks

    def _typed(self, value: Any, kind: type[Any], where: str) -> Any:
        if not isinstance(value, kind):
            self._fail(where, "is missing" if value is None else f"should be {_NAMES[kind]}")
        return value

    def _fail(self, where: str, why: str) -> None:
        raise InputError(f"{self._path}: {where} {why}; nothing was imported.")


def _usage(metrics: dict[str, Any]) -> dict[str, int]:
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "cached_tokens": "cache_read.input_tokens"}
    tokens = {own: metrics[name] for name, own in names.items() if name in metrics}
    wrote = object_or_empty(metrics.get("extra")).get("cache_creation_input_tokens")
    return usage_of_tokens(tokens | ({} if wrote is None else {"cache_write.input_tokens": wrote}))


def beginning(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data` if it may be a trajectory, and else an empty one. Other documents are not parsed."""
    return object_in(data) if b'"schema_version"' in data and b"ATIF-v" in data else {}
