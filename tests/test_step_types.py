"""The step types and their keys, live against a scripted API and then in mock, with equal results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retold
from tests.e2e import in_this_process, prompts_of, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, http_error, text, tool_use

Json = dict[str, Any]
Script = list[Reply] | Callable[[Request], Reply]

BUSY = http_error(529, headers={"retry-after-ms": "1"})
HANGS = Reply([text("Half an answer")], hang_after=5)


class Both:
    """A workflow that runs live and, if that succeeds, in mock with the same result."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Script, *steps: Json, **keys: Any) -> None:
        workflow = write_workflow("w.yaml", *steps, **keys)
        with MessagesServer(script) as server:
            live = run_live(monkeypatch, server, workflow)
        self.server, self.result, self.output = server, live.result, live.output
        if self.result.status == "completed":
            mock = run_mock(workflow)
            for one, other in zip(live.result.steps, mock.result.steps, strict=True):
                assert one == other

    @property
    def bodies(self) -> list[Json]:
        """Return the requests in order."""
        return [request.json for request in self.server.requests]

    @property
    def calls(self) -> int:
        return len(self.server.requests)

    def step(self, number: int = -1) -> retold.StepResult:
        return self.result.steps[number]


def replies_of(*texts: str) -> list[Reply]:
    return [Reply([text(each)]) for each in texts]


def tools_of(body: Json) -> list[str]:
    return [tool["name"] for tool in body.get("tools", [])]


# claude_smart


@pytest.mark.needs("anthropic>=0.103")
def test_preset_applies_to_options_that_are_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's options take precedence one by one: a different model keeps the preset's tools and prompt."""
    smart = step(type="claude_smart", preset="production", claude_options={"model": "haiku"})
    (body,) = Both(monkeypatch, replies_of("x"), smart).bodies
    assert (body["model"], tools_of(body)) == ("claude-haiku-5-5", ["Read"])
    assert body["system"].startswith("You work unattended")


@pytest.mark.needs("anthropic>=0.103")
def test_preset_does_not_replace_the_tools_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step with two allowed tools under a preset with six has two tools. With an empty list it has none."""
    smart = [step(str(n), type="claude_smart", preset="development", claude_options={"allowed_tools": tools})
             for n, tools in enumerate((["Glob", "Write"], []))]  # fmt: skip
    assert [tools_of(body) for body in Both(monkeypatch, replies_of("x", "y"), *smart).bodies] == [["Write", "Glob"], []]


@pytest.mark.needs("anthropic>=0.103")
def test_retries_of_a_preset_are_merged_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom pause keeps the preset's number of retries: four requests with `development`."""
    options = {"retry_config": {"base_delay_ms": 1}}
    ran = Both(monkeypatch, lambda _: http_error(529), step(type="claude_smart", preset="development", claude_options=options))
    assert (ran.calls, ran.step().status) == (4, "failed")


@pytest.mark.needs("anthropic>=0.103")
@pytest.mark.parametrize(
    ("own", "defaults", "system"),
    [
        ({}, {}, "You are part of an automated test"),
        ({"preset": "chat"}, {}, "You are a helpful partner"),
        ({"environment_aware": False}, {}, None),
        ({"environment_aware": False}, {"claude_preset": "analysis"}, "You are an analyst"),
    ],
)
def test_preset_is_the_steps_own_then_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, own: Json, defaults: Json, system: str | None
) -> None:
    """`preset`, else the one named like `environment.mode` unless `environment_aware` is false, else the default."""
    ran = Both(monkeypatch, replies_of("x"), step(type="claude_smart", **own), environment={"mode": "test"}, defaults=defaults)
    assert (ran.bodies[0].get("system") or "").startswith(system or "")
    assert ("system" in ran.bodies[0]) == (system is not None)


# claude_batch and parallel_claude


def test_batch_sends_the_prompt_of_the_step_before_that_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's prompt is part of every task's prompt, which is a text, a file or both."""
    Path("salt.txt").write_text("salt")
    tasks = [{"prompt": "bread"}, {"file": "salt.txt"}, {"prompt": "both", "file": "salt.txt"}, {"id": "bare"}]
    ran = Both(
        monkeypatch, replies_of(*"abcd"), step(type="claude_batch", prompt="Say:", tasks=tasks, batch_config={"max_parallel": 1})
    )
    assert prompts_of(ran.server) == ["Say:\n\nbread", "Say:\n\nsalt", "Say:\n\nboth\n\nsalt", "Say:"]
    assert [task.id for task in ran.step().tasks] == ["task-1", "task-2", "task-3", "bare"]


def test_failed_task_fails_the_batch_unless_failures_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other tasks continue. The error names each failed task. With `allow_failures` the step succeeds."""

    def script(request: Request) -> Reply:
        bad = request.json["messages"][0]["content"] == "bad"
        return http_error(400, "invalid_request_error", "No.") if bad else Reply([text("Yes.")])

    tasks = [{"id": "good", "prompt": "good"}, {"id": "ill", "prompt": "bad"}]
    config = {"consolidate_results": False}
    batch = {"name": "say", "type": "claude_batch", "tasks": tasks}
    failed = Both(monkeypatch, script, batch, step("next")).result
    assert [s.status for s in failed.steps] == ["failed"]
    assert failed.steps[0].error == "1 of 2 tasks failed: ill: HTTP 400 invalid_request_error: No."
    ran = Both(monkeypatch, script, batch | {"batch_config": config | {"allow_failures": True}}, step("next"))
    assert [s.status for s in ran.result.steps] == ["completed", "completed"]
    assert json.loads(ran.step(0).text) == {"good": "Yes."}
    assert ran.result.notes == ["step 'say' went on although tasks failed: ill"]


def test_failed_task_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that reads a failed task is an error with its place. The status of the task can be read."""

    def script(request: Request) -> Reply:
        bad = request.json["messages"][0]["content"] == "bad"
        return http_error(400, "invalid_request_error", "No.") if bad else Reply([text("Yes.")])

    batch = {
        "name": "b",
        "type": "claude_batch",
        "batch_config": {"allow_failures": True},
        "tasks": [{"id": "ill", "prompt": "bad"}],
    }
    assert Both(monkeypatch, script, batch, step("next", "It {{steps.b.tasks.ill.status}}.")).bodies[1]["messages"][0][
        "content"
    ] == "It failed."  # fmt: skip
    with pytest.raises(
        retold.WorkflowError,
        match=r"w.yaml:\d+:5: step 'next', prompt: the template reads task 'ill' of step 'b', which failed\.",
    ):
        Both(monkeypatch, script, batch, step("next", "It said {{steps.b.tasks.ill.text}}."))


def test_task_has_its_own_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout_per_task` ends only the slow task, and the mock run replays that without waiting."""
    tasks = [{"id": "slow", "prompt": "slow"}, {"id": "quick", "prompt": "quick"}]
    config = {"timeout_per_task": 1000, "allow_failures": True}
    batch = {"name": "b", "type": "claude_batch", "batch_config": config, "tasks": tasks}
    ran = Both(monkeypatch, lambda r: HANGS if r.json["messages"][0]["content"] == "slow" else replies_of("Quick.")[0], batch)
    slow, quick = ran.step().tasks
    assert (slow.status, slow.error, quick.status, quick.text) == ("failed", "timed out after 1000 ms", "completed", "Quick.")


@pytest.mark.parametrize("form", ["text", "json", "stream_json"])
def test_task_writes_a_file_in_its_own_format(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """`output_to_file` of a task is below `output_dir`. Both may have templates, and the format is that of the task."""
    task = {
        "id": "left",
        "prompt": "left",
        "output_to_file": "{{global_vars.out}}.txt",
        "claude_options": {"output_format": form},
    }
    parallel = {
        "name": "p",
        "type": "parallel_claude",
        "max_parallel": 1,
        "parallel_tasks": [task, {"id": "right", "prompt": "r"}],
    }
    Both(
        monkeypatch,
        replies_of("Left.", "Right."),
        parallel,
        defaults={"output_dir": "out/{{step.name}}"},
        global_vars={"out": "one"},
    )
    whole = Path("out/p/one.txt").read_text()
    match form:
        case "text":
            assert whole == "Left."
        case "json":
            assert (json.loads(whole)["type"], json.loads(whole)["result"]) == ("result", "Left.")
        case _:
            assert [json.loads(line)["type"] for line in whole.splitlines()] == ["system", "assistant", "result"]


# claude_robust


@pytest.mark.parametrize(
    ("replies", "conditions", "calls", "status"),
    [
        ([http_error(429), *replies_of("x")], ["rate_limit"], 2, "completed"),
        ([BUSY, *replies_of("x")], ["overloaded"], 2, "completed"),
        ([http_error(500, "api_error"), *replies_of("x")], ["server_error"], 2, "completed"),
        ([Reply([text("Half an")], cut_after=4), *replies_of("x")], ["cut"], 2, "completed"),
        ([Reply([text("Half an")], error_event_after=4), *replies_of("x")], ["overloaded"], 2, "completed"),
        ([HANGS, *replies_of("x")], ["timeout"], 2, "completed"),
        ([BUSY, *replies_of("x")], ["rate_limit", "cut"], 1, "failed"),
        ([http_error(400), *replies_of("x")], ["any"], 2, "completed"),
        ([BUSY, BUSY, BUSY, *replies_of("x")], ["any"], 3, "failed"),
    ],
    ids=["429", "529", "500", "cut", "error event", "timeout", "another condition", "any", "used up"],
)
def test_step_is_repeated_after_its_retry_conditions(
    monkeypatch: pytest.MonkeyPatch, replies: list[Reply], conditions: list[str], calls: int, status: str
) -> None:
    """Each attempt is one request. `retry_conditions` selects the failures to repeat, and `max_retries` limits their number."""
    config = {"max_retries": 2, "base_delay_ms": 1, "retry_conditions": conditions}
    options = {"timeout_ms": 1000} if HANGS in replies else {}
    ran = Both(monkeypatch, replies, step(type="claude_robust", retry_config=config, claude_options=options))
    assert (ran.calls, ran.step().attempts, ran.step().status) == (calls, calls, status)


@pytest.mark.parametrize("how", ["cut", "timeout"])
def test_graceful_degradation_continues_with_a_partial_text(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The partial answer of a broken stream is the step's text. The step is marked as a fallback, and the next one runs."""
    half = Reply([text("Half an answer", pieces=4)], **{"cut": {"cut_after": 5}, "timeout": {"hang_after": 5}}[how])  # type: ignore[arg-type]
    config = {"max_retries": 0, "fallback_action": "graceful_degradation"}
    robust = step(type="claude_robust", retry_config=config, claude_options={"timeout_ms": 1000})
    ran = Both(monkeypatch, [half, *replies_of("Next.")], robust, step("next", "It said: {{steps.say.text}}"))
    assert (ran.step(0).status, ran.step(0).fallback, ran.step(0).text) == ("fallback", "graceful_degradation", "Half an ")
    assert prompts_of(ran.server)[1] == "It said: Half an "
    assert "the step" not in (ran.step(0).error or "")
    assert ran.result.notes[0].startswith("step 'say' fell back (graceful_degradation) after: ")


@pytest.mark.needs("anthropic>=0.103")
def test_simplified_prompt_is_sent_once_without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last attempt has no tools and one turn. Its answer is a fallback, not a success."""
    config = {"max_retries": 1, "base_delay_ms": 1, "fallback_action": "simplified_prompt"}
    robust = step(type="claude_robust", retry_config=config, claude_options={"allowed_tools": ["Read"]})
    ran = Both(monkeypatch, [BUSY, BUSY, *replies_of("Simple.")], robust)
    assert [tools_of(body) for body in ran.bodies] == [["Read"], ["Read"], []]
    assert (ran.step().status, ran.step().text, ran.step().attempts) == ("fallback", "Simple.", 2)


# Time, retries, turns


@pytest.mark.needs("anthropic>=0.103")
def test_a_timeout_during_a_tool_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that took too long has no recorded result. In mock the conversation ends at the same place."""
    slow = Reply([tool_use("Bash", {"command": "sleep 30"}, id="toolu_1")], stop_reason="tool_use")
    tasks = [{"id": "slow", "prompt": "slow"}]
    options = {"allowed_tools": ["Bash"], "timeout_ms": 1500}
    batch = {
        "name": "b",
        "type": "claude_batch",
        "batch_config": {"allow_failures": True},
        "tasks": tasks,
        "claude_options": options,
    }
    ran = Both(monkeypatch, [slow], batch)
    assert [task.error for task in ran.step().tasks] == ["timed out after 1500 ms"]


@pytest.mark.needs("anthropic>=0.103")
def test_conversation_that_timed_out_has_a_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turns before the timeout count, with their tokens."""
    first = Reply(
        [text("Looking."), tool_use("Glob", {"pattern": "*"}, id="toolu_1")], stop_reason="tool_use", usage={"output_tokens": 7}
    )
    options = {"allowed_tools": ["Glob"], "timeout_ms": 2000}
    ran = Both(monkeypatch, [first, HANGS], step(claude_options=options))
    assert (ran.step().status, ran.step().turns) == ("failed", 2)
    assert ran.step().usage["output_tokens"] >= 7


# Conditions


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ('steps.say.text == "yes"', "completed"),
        ("steps.say.text", "completed"),
        ("not steps.say.text", "skipped"),
        ("{{steps.say.text == 'no'}}", "skipped"),
        ("global_vars.on", "skipped"),
        ("environment.mode == 'test' and steps.say.status == 'completed'", "completed"),
    ],
)
def test_condition_decides_if_a_step_runs(monkeypatch: pytest.MonkeyPatch, condition: str, status: str) -> None:
    """A condition is an expression, or a template of one. A skipped step is not a failure."""
    steps = [step(), step("next", condition=condition)]
    ran = Both(monkeypatch, replies_of("yes", "x"), *steps, global_vars={"on": False}, environment={"mode": "test"})
    assert ran.step().status == status


def test_skipped_step_has_a_status_but_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition can read the status. Reading the text is an error with the reason."""
    steps = [step(), step("never", condition="false"), step("next", condition="steps.never.status == 'skipped'")]
    assert [s.status for s in Both(monkeypatch, replies_of("x", "y"), *steps).result.steps] == [
        "completed",
        "skipped",
        "completed",
    ]
    for prompt in ("{{steps.never.text}}", "{{steps['never'].text}}"):
        with pytest.raises(retold.WorkflowError, match="the template reads step 'never', which was skipped"):
            Both(monkeypatch, replies_of("x", "y"), *steps[:2], step("next", prompt))
    with pytest.raises(retold.WorkflowError, match="step 'never' was skipped; it has no response"):
        Both(monkeypatch, replies_of("x", "y"), *steps[:2], step("next", [{"type": "previous_response", "step": "never"}]))


def test_step_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps can be read although their names have a dash or equal a method of Python's dictionaries."""
    steps = [step("update"), step("my-step"), step("next", "{{steps.update.text}} {{steps['my-step'].text}}")]
    assert prompts_of(Both(monkeypatch, replies_of("a", "b", "c"), *steps).server)[2] == "a b"


# Options of handlers


def test_handler_options_are_merged_over_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that sets one option keeps the others. A step with another handler inherits none. Templates work."""
    shown = {"async_streaming": True, "stream_handler": "file"}
    options = {"file_path": "logs/{{execution_id}}-{{step.name}}.jsonl", "format": "jsonl"}
    defaults = {"claude_options": shown | {"stream_handler_opts": options}}
    steps = [
        step("one"),
        step("two", claude_options={"stream_handler_opts": {"format": "text"}}),
        step("three", claude_options={"stream_handler": "simple"}),
    ]
    ran = Both(monkeypatch, replies_of("a", "b", "c"), *steps, defaults=defaults)
    logs = {path.name.removeprefix(f"{ran.result.run}-"): path.read_text() for path in Path("logs").glob(f"{ran.result.run}-*")}
    assert sorted(logs) == ["one.jsonl", "two.jsonl"]
    assert (logs["one.jsonl"][0], logs["two.jsonl"][0], ran.output.count("ASSISTANT: c")) == ("{", "=", 1)


def test_streamed_step_sends_its_request_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed step has its real text. Handlers and later references send no second request."""
    first = step("first", claude_options={"async_streaming": True, "stream_handler": ["simple", "debug", "buffer"]})
    parts = [{"type": "previous_response", "step": "first"}, {"type": "static", "content": "{{steps.first.text}}"}]
    ran = Both(monkeypatch, replies_of("Real.", "b"), first, step("second", parts))
    assert (ran.calls, ran.step(0).text, prompts_of(ran.server)[1]) == (2, "Real.", "Real.\n\nReal.")


def test_live_run_needs_no_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANTHROPIC_API_KEY alone makes a live run possible. No key of another vendor is read."""
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    ran = Both(monkeypatch, replies_of("Hello."), step())
    assert ran.step().text == "Hello."


def test_task_without_a_handler_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If one of two tasks is streamed, the step's text is still printed at the end."""
    tasks = [{"id": "left", "prompt": "l", "claude_options": {"async_streaming": True}}, {"id": "right", "prompt": "r"}]
    parallel = {"name": "p", "type": "parallel_claude", "max_parallel": 1, "parallel_tasks": tasks}
    ran = Both(monkeypatch, replies_of("Left.", "Right."), parallel)
    assert "[left] ASSISTANT: Left.\n" in ran.output
    assert in_this_process("run", "w.yaml").stdout.endswith("## left\n\nLeft.\n\n## right\n\nRight.\n")
