"""A notebook shows the repr of the last value in a cell: one line, with the outcome first."""

from pathlib import Path

import retold
from retold.recorder.messages import Message
from retold.workflow.results import TaskResult
from tests.clients import ask, record, serve
from tests.e2e import NUMBERS


def test_the_repr_of_a_run_result_begins_with_its_outcome() -> None:
    result = retold.run_workflow(NUMBERS, handlers=[])
    assert repr(result) == f"<RunResult {result.run[:8]} {result.name} mock completed: 1 step>"
    (step,) = result.steps
    assert repr(step).startswith(f"<StepResult {step.name} completed {step.text[:60]!r}"[:-1])
    assert len(repr(step)) < 120
    assert repr(TaskResult("a", "failed", error="too long: " + "x" * 90)) == f"<TaskResult a failed 'too long: {'x' * 50}…'>"


def test_the_repr_of_a_message_is_one_line() -> None:
    """A message shows its place, its type, and its first text or tool."""
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "name": "Read", "input": {}}]
    data: list[dict[str, object]] = [
        {"type": "system", "subtype": "init"},
        {"type": "assistant", "message": {"content": "Hello " * 20}},
        {"type": "assistant", "message": {"content": blocks}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "of the file"}]}},
    ]
    assert [repr(Message("r", seq, 0, 0, "", "", each)) for seq, each in enumerate(data)] == [
        "<Message 0 system:init>",
        f"<Message 1 assistant: {'Hello ' * 10}…>",
        "<Message 2 assistant: thinking, tool_use Read>",
        "<Message 3 user: tool_result>",
    ]


def test_the_repr_of_a_cassette_in_use_counts_its_calls() -> None:
    """A block that only records shows no count of plays."""
    with serve() as server:
        with retold.use_cassette("c.yaml", record_mode="once") as cassette:
            ask("a", server.url)
        assert repr(cassette) == "<UsedCassette c.yaml once 1 recorded>"
        with retold.use_cassette(record(Path("c.yaml"), "a", "b"), record_mode="refresh") as cassette:
            ask("a")
            ask("c", server.url)
        assert repr(cassette) == "<UsedCassette c.yaml refresh 1 of 2 played, 1 recorded>"
        with retold.record("job") as recording:
            ask("a", server.url)
        assert repr(recording) == "<UsedCassette job all 1 recorded>"
