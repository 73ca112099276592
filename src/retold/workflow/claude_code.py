"""A conversation with Claude Code: the options of a step as those of the Agent SDK, and the lines of one prompt as an outcome.

Nothing here needs the SDK, because a mock run does without it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..recorder.log.log import RunWriter
from ..recorder.messages import Session, content_blocks, usage_of
from ..recorder.strict_json import object_or_empty
from . import schema
from .agent import Cause, Outcome, cause_of
from .prompt_job import Unit, model_id

SYNTHETIC = "<synthetic>"
"""The model of messages that Claude Code writes itself, such as an error of the API."""


def agent_options(unit: Unit) -> dict[str, Any]:
    """Return the SDK's options (`ClaudeAgentOptions`) for a unit as JSON values, as far as they do not depend on the run.

    As on the Messages API, a conversation has no tools but the allowed ones, and does not depend on settings of the machine.
    """
    options = unit.options
    allowed = options.allowed_tools or []
    made: dict[str, Any] = {
        "model": None if options.model is None else model_id(options.model),
        "fallback_model": None if options.fallback_model is None else model_id(options.fallback_model),
        "system_prompt": _system_prompt(options),
        # `tools` are those that the model has, `allowed_tools` the rules that permit their use: Bash(git log:*).
        "tools": list(dict.fromkeys(tool.partition("(")[0] for tool in allowed)),
        "allowed_tools": allowed or None,
        "disallowed_tools": options.disallowed_tools or None,
        "permission_mode": options.permission_mode,
        "session_id": None if unit.session_name else options.session_id,
        "setting_sources": [],
        "strict_mcp_config": True,
    }
    if options.retry_config is not None:
        made["env"] = {"CLAUDE_CODE_MAX_RETRIES": str(options.retry_config.max_retries)}
    return {key: value for key, value in made.items() if value is not None}


def _system_prompt(options: schema.ClaudeOptions) -> Any:
    """Return the system prompt: the step's own, or that of Claude Code. `append_system_prompt` is behind either."""
    if options.system_prompt is not None:
        return "\n\n".join(filter(None, (options.system_prompt, options.append_system_prompt)))
    preset = {"type": "preset", "preset": "claude_code"}
    return preset if options.append_system_prompt is None else preset | {"append": options.append_system_prompt}


class ClaudeTurn:
    """One prompt and the lines that answer it, as they come. Times are microseconds of the recorded run."""

    def __init__(self, unit: Unit, writer: RunWriter, session: Session, notify: Callable[[str], None]) -> None:
        self.unit = unit
        self.session = session
        self.result: dict[str, Any] | None = None
        self._writer = writer
        self._is_first = session.made == 0
        self._notify = notify if unit.options.verbose else lambda _: None
        self._messages: list[dict[str, Any]] = []
        self._answers: list[str] = []
        self._started_us = self._ended_us = 0

    def __repr__(self) -> str:
        return f"<ClaudeTurn of step {self.unit.step!r} {len(self._messages)} messages{'' if self.result is None else ' ended'}>"

    def asked(self, at_us: int) -> None:
        """Take the time of the prompt."""
        self._started_us = self._ended_us = at_us

    def take(self, line: dict[str, Any], at_us: int) -> None:
        """Take a message that Claude Code wrote."""
        self.session.take(line)
        self._ended_us = at_us
        self._messages.append(line)
        if line.get("type") == "result":
            self.result = line
        elif line.get("type") == "assistant" and (answer := _answer_of(line)) not in self._answers:
            self._answers.append(answer)
            self._notify(f"turn {len(self._answers)}")

    def outcome(self) -> Outcome:
        """Return the outcome after the result."""
        result = self.result or {}
        error, failure = _error_of(result, self.unit.max_turns) or (None, None)
        usage = usage_of(result)
        text = str(result.get("result", "")) if error is None else self._text()
        return Outcome(
            text, int(result.get("num_turns") or 0), result.get("stop_reason"), usage if any(usage.values()) else {},
            self._cost_of(result), error, result, self._said(), failure, self._started_us, self._ended_us,
        )  # fmt: skip

    def failed(self, error: str, failure: Cause) -> Outcome:
        """Return the outcome of a conversation without a result, and append the message that Claude Code did not write."""
        result = self.session.result({"subtype": "error_during_execution", "is_error": True, "errors": [error]})
        self._writer.note("message", result, step=self.unit.step, task=self.unit.task)
        return Outcome(
            self._text(), len(self._answers), None, {}, None, error, result, self._said(), failure,
            self._started_us, self._ended_us,
        )  # fmt: skip

    def _text(self) -> str:
        """Return the text of the last answer, as far as it came."""
        answers = [line for line in self._messages if line.get("type") == "assistant" and _is_said(line)]
        last = [line for line in answers if _answer_of(line) == _answer_of(answers[-1])]
        blocks = (block for line in last for block in content_blocks(line["message"].get("content")))
        return "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")

    def _said(self) -> list[dict[str, Any]]:
        """Return the conversation so far, in the form of the Messages API."""
        return [*self.unit.history, {"role": "user", "content": self.unit.prompt}, *spoken(self._messages)]

    def _cost_of(self, result: dict[str, Any]) -> float | None:
        """Return the cost of this prompt. The total of a result counts the whole session."""
        if isinstance(spent := result.get("model_usage_since_last_result"), dict):
            costs = [object_or_empty(usage).get("costUSD") for usage in spent.values()]
            known = [cost for cost in costs if isinstance(cost, int | float)]
            return round(sum(known), 10) if len(known) == len(costs) else None
        total = result.get("total_cost_usd")
        return total if self._is_first and isinstance(total, int | float) else None


def spoken(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield messages of the conversation itself in the form of the Messages API, without those of subagents."""
    for line in messages:
        if line.get("type") in ("assistant", "user") and _is_said(line):
            yield {"role": line["type"], "content": line["message"].get("content", "")}


def _is_said(line: dict[str, Any]) -> bool:
    message = line.get("message")
    return isinstance(message, dict) and line.get("parent_tool_use_id") is None and message.get("model") != SYNTHETIC


def _answer_of(line: dict[str, Any]) -> str:
    """Return the id of the answer that a line is a part of."""
    return str(object_or_empty(line.get("message")).get("id"))


def _error_of(result: dict[str, Any], max_turns: int) -> tuple[str, Cause] | None:
    """Return the error of a result and its cause, or None if it is good."""
    subtype = str(result.get("subtype"))
    if not result.get("is_error") and subtype == "success":
        return None
    if subtype == "error_max_turns":
        return f"stopped after {max_turns} turns (max_turns)", "max_turns"
    errors = result.get("errors")
    text = str(result.get("result") or "; ".join(map(str, errors if isinstance(errors, list) else [])) or subtype)
    status, kind = result.get("api_error_status"), result.get("api_error_type")
    if status is None and result.get("terminal_reason") == "api_error":
        return text, "connection"
    return text, cause_of(status if isinstance(status, int) else None, kind)
