"""Run Claude Code against a scripted API: its command, the API's answers, and its messages without the parts of one run."""

import importlib.util
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests.messages_server import Reply, Request, text, tool_use

CLIENTS = Path(__file__).resolve().parent.parent / ".clients"
"""The folder in which `.ci/run` installs the available clients of other projects."""

_BINARY = Path("claude_agent_sdk", "_bundled", "claude")


def find() -> str | None:
    """Return the Claude Code binary: RETOLD_CLAUDE_CODE, or the binary of claude-agent-sdk, installed here or by `.ci/run`."""
    spec = importlib.util.find_spec("claude_agent_sdk")
    folders = [CLIENTS / "python", *([] if spec is None or spec.origin is None else [Path(spec.origin).parent.parent])]
    named = [Path(os.environ["RETOLD_CLAUDE_CODE"])] if "RETOLD_CLAUDE_CODE" in os.environ else []
    return next((str(path) for path in (*named, *(folder / _BINARY for folder in folders)) if path.is_file()), None)


ENVIRONMENT = {
    "ANTHROPIC_API_KEY": "test-key",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
}


def command(binary: str, prompt: str) -> list[str]:
    return [binary, "-p", prompt, "--output-format", "stream-json", "--verbose", "--allowedTools", "Bash", "Agent"]


def _tool_results(body: dict[str, Any]) -> int:
    blocks = (block for message in body["messages"] for block in message["content"] if isinstance(message["content"], list))
    return sum(block.get("type") == "tool_result" for block in blocks)


class Script:
    """Choose the answer from the request: a text, tools, a background agent, an error in mid-stream, or a cut."""

    def __init__(self) -> None:
        self._cut = False

    def __call__(self, request: Request) -> Reply:
        body = request.json
        texts, answered = json.dumps(body["messages"]), _tool_results(body)
        first = json.dumps(body["messages"][0])
        for number in (1, 2):
            if f"SUBTASK-{number}" in first:
                return Reply([text(f"Subtask {number} is done, and this is said of it.")], gap_s=0.03 * number)
        if "GO-TOOLS" in texts:
            return self._tools(answered)
        for prompt, agents in (("GO-AGENT", 1), ("GO-PAIR", 2)):
            if prompt in texts:
                return self._agent(answered, agents, reports=texts.count("<task-notification>"))
        if "GO-ERROR" in texts and body.get("stream"):
            return Reply([text("This breaks in the middle of it.")], error_event_after=6, gap_s=0.01)
        if "GO-CUT" in texts and not self._cut:
            self._cut = True
            return Reply([text("This is cut the first time.")], cut_after=6, gap_s=0.01)
        return Reply([text("All is said.")])

    def _tools(self, answered: int) -> Reply:
        if answered == 0:
            write = tool_use("Bash", {"command": "echo hello > note.txt && cat note.txt", "description": "Write"})
            where = tool_use("Bash", {"command": "pwd", "description": "Where"})
            return Reply([text("Two at once."), write, where], stop_reason="tool_use")
        if answered == 2:
            return Reply([tool_use("Bash", {"command": "wc -c note.txt", "description": "Count"})], stop_reason="tool_use")
        return Reply([text("Done with tools.")])

    def _agent(self, answered: int, agents: int, *, reports: int) -> Reply:
        if answered == 0:
            tasks = [{"description": f"Part {n}", "prompt": f"SUBTASK-{n}", **_IN_BACKGROUND} for n in range(1, agents + 1)]
            return Reply([text("Starting."), *(tool_use("Agent", task) for task in tasks)], stop_reason="tool_use")
        return Reply([text(f"{reports} of {agents} have reported.")], gap_s=0.01)


_IN_BACKGROUND = {"subagent_type": "general-purpose", "run_in_background": True}

_OF_ITS_RUN = {"session_id", "uuid", "timestamp", "run_id", "runId", "end_time", "messaging_socket_path", "request_id"}
_IN_TEXT = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"\ba[0-9a-f]{16}\b"), "AGENT"),
    (re.compile(r"<duration_ms>\d+"), "<duration_ms>N"),
)


def turns(lines: str, home: str) -> dict[str, Counter[str]]:
    """Return the stream-json messages of each turn, sorted: tools start while a turn still streams, so their order varies."""
    found: dict[str, Counter[str]] = {}
    for line in lines.splitlines():
        message = json.loads(line)
        turn = message["message"]["id"] if message["type"] == "assistant" else message["type"]
        found.setdefault(turn, Counter())[json.dumps(_without_run(message, home), sort_keys=True)] += 1
    return found


def _without_run(value: Any, home: str) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in _OF_ITS_RUN and not key.endswith("_ms")}
        return {key: _without_run(item, home) for key, item in kept.items()}
    if isinstance(value, list):
        return [_without_run(item, home) for item in value]
    if isinstance(value, str):
        for pattern, name in _IN_TEXT:
            value = pattern.sub(name, value)
        return value.replace(home, "HOME")
    return value
