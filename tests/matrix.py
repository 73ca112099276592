"""A workflow with a step of each of the seven types, its scripted answers, and its working folder."""

from pathlib import Path
from typing import Any

from tests.e2e import step, write_workflow
from tests.messages_server import Block, Reply, Request, http_error, text, thinking, tool_use

STEP_TYPES = ("claude", "claude_smart", "claude_session", "claude_batch", "claude_extract", "claude_robust", "parallel_claude")

STEPS: list[dict[str, Any]] = [
    step("claude", "Read notes.txt.", claude_options={"allowed_tools": ["Read"], "max_turns": 2}),
    step("claude_smart", "Judge: {{steps.claude.text}}", type="claude_smart", preset="test"),
    step("claude_session", "Remember seven.", type="claude_session", session_config={"session_name": "talk"}),
    {
        "name": "claude_batch",
        "type": "claude_batch",
        "batch_config": {"max_parallel": 1},
        "prompt": "Translate:",
        "tasks": [{"id": "one", "prompt": "bread"}, {"id": "two", "file": "salt.txt"}],
    },
    step("claude_extract", "As JSON.", type="claude_extract", extraction_config={"format": "json"}),
    step(
        "claude_robust",
        "Be patient.",
        type="claude_robust",
        retry_config={"max_retries": 1, "base_delay_ms": 1, "retry_conditions": ["overloaded"]},
    ),
    {
        "name": "parallel_claude",
        "type": "parallel_claude",
        "max_parallel": 1,
        "parallel_tasks": [{"id": "left", "prompt": "Go left."}, {"id": "right", "prompt": "Go right."}],
    },
]
"""Each step is named like its type. Tasks run one at a time, so there is one right order."""

ANSWERS: dict[str, list[Block]] = {
    "Judge: Two lines,\nabout bread.": [text("Fair.")],
    "Remember seven.": [text("I remember seven.")],
    "Translate:\n\nbread": [text("Brot")],
    "Translate:\n\nsalt\n": [text("Salz")],
    "As JSON.": [text('Here you are:\n```json\n{"a": [1, 2]}\n```')],
    "Go left.": [text("Left.")],
    "Go right.": [text("Right.")],
}
"""The answer to each prompt, except those of the first step and the robust step."""

CALLBACK = """\
def note(message):
    with open("out/calls.txt", "a") as file:
        file.write(f"{message.step} {message.task or '-'} {message.type}\\n")
"""


class Answers:
    """The server's script: the first request of the robust step is refused, and the first step uses a tool."""

    def __init__(self) -> None:
        self.patient = 0

    def __call__(self, request: Request) -> Reply:
        messages = request.json["messages"]
        prompt = messages[0]["content"]
        if prompt == "Read notes.txt.":
            if len(messages) > 1:
                return Reply([text("Two lines,\nabout bread.")])
            use = tool_use("Read", {"file_path": "notes.txt"}, id="toolu_1")
            return Reply([thinking("A file."), text("I'll look."), use], stop_reason="tool_use")
        if prompt == "Be patient.":
            self.patient += 1
            patience = Reply([text("Patience helped.")])
            return patience if self.patient > 1 else http_error(529)
        return Reply(ANSWERS[prompt])


def write_matrix(folder: Path, handler: Any, **options: Any) -> Path:
    """Write the workflow with one handler, or a list of them, on every step, and the files that it reads."""
    (folder / "workspace").mkdir(parents=True)
    (folder / "workspace" / "notes.txt").write_text("Bread is\ngood.\n")
    (folder / "salt.txt").write_text("salt\n")
    (folder / "notes.py").write_text(CALLBACK)
    shown = {"async_streaming": True, "stream_handler": handler} | ({"stream_handler_opts": options} if options else {})
    return write_workflow(folder / "matrix.yaml", *STEPS, workspace_dir="workspace", defaults={"claude_options": shown})
