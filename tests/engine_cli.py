"""A fake of Claude Code that answers prompts: a child that speaks stream-json, for steps with `engine: claude_code`.

It answers `Hello.` to a prompt, or the text after `SAY `. `HANG` stops in the middle of an answer, `DIE` exits with an error,
and `BUSY` is an overloaded API. `ONCE` before one of them fails the first time only. `AFTER X` answers after the answer to the
prompt `X`. The fake logs each start with its arguments, and each prompt with its process, in `calls.jsonl` in the home folder.
"""

import json
import os
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

HALF = "Half an answer"
OVERLOADED = "API Error: 529 Overloaded"


def install(patch: "pytest.MonkeyPatch", folder: Path) -> None:
    """Install the fake as the Claude Code command that the SDK finds."""
    from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claude"
    path.write_text(f"#!{sys.executable} -SE\nimport runpy\nrunpy.run_path({str(__file__)!r}, run_name='__main__')\n")
    path.chmod(0o755)
    patch.setattr(SubprocessCLITransport, "_find_cli", lambda _: str(path))
    patch.setenv("CLAUDE_AGENT_SDK_SKIP_VERSION_CHECK", "1")


def remove(patch: "pytest.MonkeyPatch") -> None:
    """Remove the SDK and Claude Code."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "claude_agent_sdk"]:
        patch.setitem(sys.modules, name, None)
    patch.setitem(sys.modules, "claude_agent_sdk", None)


def calls() -> list[dict[str, Any]]:
    """Return the logged starts and prompts."""
    return [json.loads(line) for line in (Path(os.environ["HOME"]) / "calls.jsonl").read_text().splitlines()]


def starts() -> list[list[str]]:
    """Return the arguments of each start."""
    return [call["argv"] for call in calls() if "argv" in call]


def _note(**call: Any) -> None:
    with (Path(os.environ["HOME"]) / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **call}) + "\n")


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _Session:
    def __init__(self, arguments: list[str]) -> None:
        options = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
        self.id = options.get("resume") or options.get("session-id") or str(uuid.uuid4())
        self.cost = 0.0

    def send(self, type_: str, **fields: Any) -> None:
        _write({"type": type_, "session_id": self.id, "uuid": str(uuid.uuid4()), **fields})

    def assistant(self, text: str, model: str = "claude-opus-5-5") -> None:
        message = {
            "id": f"msg_{uuid.uuid4().hex}",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": text}],
        }
        self.send("assistant", message=message, parent_tool_use_id=None)

    def result(self, text: str, **fields: Any) -> None:
        self.cost += 0.25
        spent = {"claude-opus-5-5": {"inputTokens": 7, "outputTokens": 3, "costUSD": 0.25}}
        usage = {"input_tokens": 7, "output_tokens": 3}
        good = {"subtype": "success", "is_error": False, "result": text, "num_turns": 1, "stop_reason": "end_turn"}
        times = {"duration_ms": 5, "duration_api_ms": 4, "ttft_ms": 3}
        totals = {"total_cost_usd": self.cost, "model_usage_since_last_result": spent, "usage": usage}
        self.send("result", **{**good, **times, **totals, **fields})

    def answer(self, prompt: str) -> None:
        """Answer one prompt."""
        while prompt.startswith("AFTER ") and not any(call.get("answered") == prompt[6:] for call in calls()):
            time.sleep(0.01)
        has_failed = any(call.get("prompt") == prompt for call in calls())
        _note(prompt=prompt)
        self.send("system", subtype="session_state_changed", state="running", sdk_host_only=True)
        self.send("system", subtype="init", model="claude-opus-5-5", tools=[], cwd=os.getcwd(), permissionMode="default")
        fails = not (prompt.startswith("ONCE") and has_failed)
        if "HANG" in prompt and fails:
            self.assistant(HALF)
            signal.pause()
        if "DIE" in prompt and fails:
            self.assistant(HALF)
            sys.stderr.write("Error: the battery is empty.\n")
            sys.exit(3)
        if "BUSY" in prompt and fails:
            self.assistant(OVERLOADED, model="<synthetic>")
            self.result(OVERLOADED, is_error=True, api_error_status=529, terminal_reason="api_error")
            return
        text = prompt.rpartition("SAY ")[2] if "SAY " in prompt else "Hello."
        self.assistant(text)
        self.result(text)
        _note(answered=prompt)


def main() -> None:
    """Answer prompts until the input ends."""
    _note(argv=sys.argv[1:], retries=os.environ.get("CLAUDE_CODE_MAX_RETRIES"), cwd=os.getcwd())
    session = _Session(sys.argv[1:])
    for text in sys.stdin:
        line = json.loads(text)
        if line["type"] == "control_request":
            answer = {"subtype": "success", "request_id": line["request_id"], "response": {"commands": []}}
            _write({"type": "control_response", "response": answer})
        elif line["type"] == "user":
            session.answer(line["message"]["content"])


if __name__ == "__main__":
    main()
