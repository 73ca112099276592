"""ATIF, the Agent Trajectory Interchange Format of Harbor, version 1.8: a run as one JSON document.

The format: https://www.harborframework.com/docs/agents/trajectory-format.

1. A step of the document is a prompt, a system prompt, or one answer with its tool calls and their results.
2. A task of a workflow and a subagent are documents of their own in `subagent_trajectories`. A system step of the main document
   refers to each.
3. Messages before the first prompt of a run, which the run did not record itself, are steps with `is_copied_context`.
4. A failed attempt whose call succeeded later is left out. A call that failed is a step without text; `extra` has the error.
5. An image is a reference to a file in ATIF. The document has no files, so images in a message are `extra.blocks`.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO

from ..recorder.errors import InputError
from ..recorder.events import encode
from ..recorder.http.call_errors import call_error
from ..recorder.log.log import EventLog
from ..recorder.log.runs import RunInfo
from ..recorder.messages import content_blocks, result_text
from ..recorder.strict_json import object_or_empty
from .genai import tokens_of
from .turns import Prompt, Said, Scope, Tool, Unit, turns

VERSION = "ATIF-v1.8"

Step = dict[str, Any]


def write(log: EventLog, runs: Sequence[RunInfo], out: BinaryIO) -> int:
    """Write the trajectory of one run, and return the number of its steps. Raises LogError."""
    (run,) = runs
    made = trajectory(log, run)
    if not made["steps"]:
        raise InputError(f"run {run.run} ({run.name}) has no messages to export.")
    out.write(encode(made) + b"\n")
    return sum(len(each["steps"]) for each in (made, *made.get("subagent_trajectories", ())))


def trajectory(log: EventLog, run: RunInfo) -> dict[str, Any]:
    """Return a run as an ATIF document. Raises LogError."""
    documents: dict[str, _Document] = {"": _Document()}
    parts: list[Scope] = []
    for turn in turns(log, run.run):
        match turn:
            case Scope():
                parts.append(turn)
            case Prompt():
                _of(documents, turn.unit, turn.at_ns).prompt(turn)
            case Said():
                _of(documents, turn.unit, turn.started_ns).answer(turn)
            case Tool():
                _of(documents, turn.answer.unit, turn.started_ns).result(turn)
    main, *others = [document.as_dict(run, task) for task, document in documents.items()]
    main["extra"] = _facts(run, parts)
    if others:
        main["subagent_trajectories"] = others
    return main


def _of(documents: "dict[str, _Document]", unit: Unit, at_ns: int) -> "_Document":
    """Return the document of a unit. A new one is mentioned in the main document."""
    step, task = unit
    key = f"{step}/{task}".strip("/") if task else ""
    if key not in documents:
        documents[key] = _Document()
        reference = {"subagent_trajectory_ref": [{"trajectory_id": key}]}
        documents[""].add({"source": "system", "message": key, "observation": {"results": [reference]}}, step, at_ns)
    return documents[key]


class _Document:
    """One trajectory while its turns are read."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, Step]] = []
        self._answers: dict[int, Step] = {}  # by the number of the answer
        self._failed: dict[Unit, int] = {}  # the newest answer of a unit, if it failed
        self._models: list[str] = []
        self._tools: list[dict[str, Any]] = []

    def add(self, step: Step, name: str, at_ns: int) -> Step:
        """Add a step."""
        step = {"timestamp": _timestamp(at_ns), **step}
        if name:
            step["extra"] = {**step.get("extra", {}), "step": name}
        self._steps.append((at_ns, step))
        return step

    def prompt(self, turn: Prompt) -> None:
        """Add a system prompt, the messages that the run does not hold, and a prompt."""
        if turn.system:
            self.add({"source": "system", **_said(turn.system)}, turn.unit[0], turn.at_ns)
        for message in turn.earlier:
            for step in _copied(message):
                self.add(step, turn.unit[0], turn.at_ns)
        if turn.blocks:
            self.add({"source": "user", **_said(turn.blocks)}, turn.unit[0], turn.at_ns)

    def answer(self, turn: Said) -> None:
        """Add an answer. It takes the place of an earlier attempt of the same call."""
        if turn.exchange and not (turn.blocks or turn.failed):
            return  # a request that no model answers, such as a count of tokens
        for tool in turn.request.get("tools") or ():
            if (known := _definition(object_or_empty(tool))) not in self._tools:
                self._tools.append(known)
        if turn.model and turn.model not in self._models:
            self._models.append(turn.model)
        failed = self._failed.pop(turn.unit, None)
        if failed is not None and (turn.started.get("attempt") or 1) > 1:
            gone = self._answers.pop(failed)
            self._steps = [(at, step) for at, step in self._steps if step is not gone]
        if turn.failed:
            self._failed[turn.unit] = turn.seq
        self._answers[turn.seq] = self.add(_agent(turn), turn.unit[0], turn.ended_ns)

    def result(self, turn: Tool) -> None:
        """Add the result of a tool to the step of its answer."""
        step = self._answers.get(turn.answer.seq)
        if step is None or turn.ended_ns is None:
            return
        content, extra = turn.result.get("content"), {}
        if not isinstance(content, str) and content is not None:
            blocks = list(content_blocks(content))
            if [block for block in blocks if block.get("type") != "text"] or len(blocks) != 1:
                extra["content"] = content  # the text names other blocks only
            content = result_text(content)
        if turn.result.get("is_error"):
            extra["is_error"] = True
        result = {"source_call_id": turn.id, "content": content or ""} | ({"extra": extra} if extra else {})
        step.setdefault("observation", {"results": []})["results"].append(result)

    def as_dict(self, run: RunInfo, task: str) -> dict[str, Any]:
        """Return the document. Its steps are in the order of their times."""
        steps = [step for _, step in sorted(self._steps, key=lambda timed: timed[0])]
        agent: dict[str, Any] = {"name": task or run.name or "retold", "version": "unknown"}
        if self._models:
            agent["model_name"] = self._models[0]
        if self._tools:
            agent["tool_definitions"] = self._tools
        return {
            "schema_version": VERSION,
            "session_id": run.run,
            "trajectory_id": task or run.run,
            "agent": agent,
            "steps": [{"step_id": number, **_without_model(step, agent)} for number, step in enumerate(steps, 1)],
            "final_metrics": _total(steps),
        }


def _timestamp(at_ns: int) -> str:
    """Return a time in microseconds: steps may follow each other within a millisecond."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000).isoformat(timespec="microseconds")[:-6] + "Z"


def _without_model(step: Step, agent: dict[str, Any]) -> Step:
    return {key: value for key, value in step.items() if key != "model_name" or value != agent.get("model_name")}


def _agent(turn: Said) -> Step:
    """Return the step of an answer."""
    step: Step = {"source": "agent", **_said([b for b in turn.blocks if b.get("type") == "text"])}
    if turn.model:
        step["model_name"] = turn.model
    if effort := object_or_empty(turn.request.get("output_config")).get("effort"):
        step["reasoning_effort"] = str(effort)
    if thought := [str(b.get("thinking", "")) for b in turn.blocks if b.get("type") == "thinking"]:
        step["reasoning_content"] = "\n".join(thought)
    if turn.tools:
        step["tool_calls"] = [_call(tool.block) for tool in turn.tools]
    step["llm_call_count"] = 1
    if metrics := _metrics(turn):
        step["metrics"] = metrics
    extra: dict[str, Any] = {"message_id": turn.message.get("id"), "stop_reason": turn.stop_reason}
    if turn.failed:
        extra["error"] = call_error(turn.ended)
    if others := [b for b in turn.blocks if not _is_kept(b)]:
        extra["blocks"] = others
    if turn.replayed:
        extra["replayed"] = True
    return step | {"extra": {key: value for key, value in extra.items() if value is not None}}


def _is_kept(block: dict[str, Any]) -> bool:
    kind = str(block.get("type", ""))
    return kind in ("text", "thinking") or kind.endswith(("tool_use", "tool_result"))


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = block.get("input")
    call: dict[str, Any] = {"tool_call_id": str(block.get("id", "")), "function_name": str(block.get("name", ""))}
    if isinstance(arguments, dict):
        return call | {"arguments": arguments}
    return call | {"arguments": {}, "extra": {"incomplete": arguments}}  # a stream that was cut in it


def _said(blocks: list[dict[str, Any]]) -> Step:
    """Return the text of blocks as the message of a step, and other blocks as its extra."""
    step: Step = {"message": "\n\n".join(str(b.get("text", "")) for b in blocks if b.get("type") == "text")}
    others = [block for block in blocks if block.get("type") != "text"]
    return step | ({"extra": {"blocks": others}} if others else {})


def _copied(message: dict[str, Any]) -> Iterator[Step]:
    """Yield the steps of a message in a request."""
    blocks = list(content_blocks(message.get("content")))
    said = [b for b in blocks if b.get("type") not in ("tool_use", "tool_result", "thinking")]
    if message.get("role") == "assistant":
        step: Step = {"source": "agent", **_said(said), "is_copied_context": True}
        calls = [_call(b) for b in blocks if b.get("type") == "tool_use"]
        if calls:
            step["tool_calls"] = calls
        yield step
        return
    results = [b for b in blocks if b.get("type") == "tool_result"]
    if results:
        observed = [{"source_call_id": str(b.get("tool_use_id")), "content": result_text(b.get("content"))} for b in results]
        yield {"source": "system", "message": "", "observation": {"results": observed}, "is_copied_context": True}
    if said or not results:
        yield {"source": "user", **_said(said), "is_copied_context": True}


def _metrics(turn: Said) -> dict[str, Any]:
    tokens = tokens_of(turn.usage)
    names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "cached_tokens": "cache_read.input_tokens"}
    metrics: dict[str, Any] = {name: tokens[own] for name, own in names.items() if own in tokens}
    if turn.cost_usd is not None:
        metrics["cost_usd"] = turn.cost_usd
    extra = {}
    if "cache_write.input_tokens" in tokens:
        extra["cache_creation_input_tokens"] = tokens["cache_write.input_tokens"]
    if "reasoning.output_tokens" in tokens:
        extra["reasoning_tokens"] = tokens["reasoning.output_tokens"]
    return metrics | ({"extra": extra} if extra else {})


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a tool in the form of the OpenAI API, as ATIF has it."""
    function = {"name": str(tool.get("name", ""))}
    for own, theirs in (("description", "description"), ("input_schema", "parameters")):
        if own in tool:
            function[theirs] = tool[own]
    return {"type": "function", "function": function}


def _total(steps: list[Step]) -> dict[str, Any]:
    spent = [step["metrics"] for step in steps if "metrics" in step]
    names = {"prompt_tokens": "total_prompt_tokens", "completion_tokens": "total_completion_tokens",
             "cached_tokens": "total_cached_tokens", "cost_usd": "total_cost_usd"}  # fmt: skip
    totals = {total: sum(each.get(name, 0) for each in spent) for name, total in names.items() if any(name in s for s in spent)}
    answered = sum(step["source"] == "agent" for step in steps)
    if sum("cost_usd" in each for each in spent) < answered:  # a sum without some of the costs would be too low
        totals.pop("total_cost_usd", None)
    return totals | {"total_steps": len(steps)}


def _facts(run: RunInfo, parts: Sequence[Scope]) -> dict[str, Any]:
    """Return the facts of a run that have no field in ATIF."""
    facts: dict[str, Any] = {"run": run.run, "mode": run.mode, "status": run.status}
    for part in parts:
        if part.kind == "run" and "fork" in part.data:
            facts["fork"] = part.data["fork"]
    return {"retold": facts | ({"replay": True} if run.mode == "mock" else {})}
