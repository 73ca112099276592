"""Steps with `engine: claude_code`: sessions of Claude Code live, and the same steps in mock without Claude Code or its SDK."""

import json
import os
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import retold
from tests import engine_cli
from tests.e2e import Ran, in_this_process, normalised, refusal_of, refused, run_mock, step, write_workflow
from tests.test_run_live import comparable, is_running

pytest.importorskip("claude_agent_sdk")

CLAUDE_CODE = {"engine": "claude_code"}


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine_cli.install(monkeypatch, tmp_path / "bin")


def live(workflow: Path, **options: Any) -> Ran:
    """Run a workflow live with the fake. There is no key, because Claude Code has its own."""
    return run_mock(workflow, mode="live", **options)


def mock(workflow: Path, **options: Any) -> Ran:
    """Run a workflow in mock, without the SDK and without Claude Code."""
    with pytest.MonkeyPatch.context() as patch:
        engine_cli.remove(patch)
        patch.setenv("PATH", "/nonexistent")
        return run_mock(workflow, **options)


def both(workflow: Path) -> tuple[Ran, Ran]:
    """Run a workflow live and in mock. The results, the messages and the output must be equal."""
    one = live(workflow)
    other = mock(workflow)
    assert other.result.steps == one.result.steps
    assert other.result.notes == one.result.notes
    assert comparable(other.result.run) == comparable(one.result.run)
    assert normalised(other.output).replace("mock run", "live run") == normalised(one.output)
    return one, other


def session_step(name: str, prompt: str, session: dict[str, Any] | None = None, **keys: Any) -> dict[str, Any]:
    config = {"session_name": "talk", **(session or {})}
    return step(name, prompt, type="claude_session", session_config=config, **keys)


# The step types

STREAMED = {"claude_options": {"async_streaming": True}}

STEPS: list[dict[str, Any]] = [
    step("claude", "SAY Two lines.", claude_options={"allowed_tools": ["Read", "Bash(git log:*)"]}),
    step("claude_smart", "Judge: {{steps.claude.text}}", type="claude_smart", preset="test"),
    session_step("claude_session", "Remember seven."),
    session_step("claude_session_2", "SAY Seven."),
    {
        "name": "claude_batch",
        "type": "claude_batch",
        "batch_config": {"max_parallel": 1},
        "tasks": [{"id": "one", "prompt": "SAY Brot"}, {"prompt": "SAY Salz"}],
    },
    step("claude_extract", 'SAY {"a": [1, 2]}', type="claude_extract", extraction_config={"format": "json"}),
    step("claude_robust", "ONCE BUSY", type="claude_robust", retry_config={"max_retries": 1, "base_delay_ms": 1}),
    {
        "name": "parallel_claude",
        "type": "parallel_claude",
        "max_parallel": 1,
        "parallel_tasks": [{"id": "left", "prompt": "SAY Left."}, {"id": "right", "prompt": "SAY Right."}],
    },
]


def test_every_step_type_is_equal_live_in_mock_and_in_other_commands() -> None:
    workflow = write_workflow("w.yaml", *STEPS, **CLAUDE_CODE, defaults=STREAMED)
    one, other = both(workflow)
    texts = {done.name: done.text for done in one.result.steps}
    assert texts["claude_smart"] == "Hello."
    assert texts["claude_session_2"] == "Seven."
    assert texts["claude_batch"] == "## one\n\nBrot\n\n## task-2\n\nSalz"
    assert json.loads(texts["claude_extract"]) == {"a": [1, 2]}
    assert [done.attempts for done in one.result.steps if done.type == "claude_robust"] == [2]
    assert [done.cost_usd for done in one.result.steps] == [0.25, 0.25, 0.25, 0.25, 0.5, 0.25, 0.5, 0.5]
    assert "[HH:MM:SS] [right] ASSISTANT: Right.\n" in normalised(one.output)
    assert "✓ Stream completed: 3 messages (1 shown) in N.Ns\n" in normalised(one.output)
    assert list(retold.read_cassette("cassettes/w.yaml").exchanges) == []
    places = [session.place for session in retold.read_cassette("cassettes/w.yaml").sessions]
    assert [(place.steps, place.task) for place in places if place is not None] == [
        (("claude",), ""), (("claude_smart",), ""), (("claude_session", "claude_session_2"), ""),
        (("claude_batch",), "one"), (("claude_batch",), "task-2"), (("claude_extract",), ""),
        (("claude_robust",), ""), (("claude_robust",), ""), (("parallel_claude",), "left"), (("parallel_claude",), "right"),
    ]  # fmt: skip
    assert retold.compare(one.result, other.result).same
    assert in_this_process("export", other.result.run, "-o", "again.yaml").returncode == 0
    # A recording of an instant replay has the times of the replay.
    assert [done.text for done in mock(workflow, cassette="again.yaml").result.steps] == [d.text for d in one.result.steps]
    for command in (["show", one.result.run], ["stats"], ["verify"], ["play", "cassettes/w.yaml"]):
        assert in_this_process(*command).returncode == 0


def test_engines_can_be_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of a step takes precedence over that of the workflow. One cassette contains both kinds of recording."""
    from tests.e2e import run_live
    from tests.messages_server import MessagesServer, Reply, text

    workflow = write_workflow("w.yaml", step("one"), step("two", "SAY {{steps.one.text}}", engine="claude_code"))
    with MessagesServer([Reply([text("From the API.")])]) as server:
        one = run_live(monkeypatch, server, workflow)
    assert [done.text for done in one.result.steps] == ["From the API."] * 2
    assert mock(workflow).result.steps == one.result.steps
    # A cassette has no init and no result message for its exchanges. It has those of the session, which are compared.
    for sides in ((one.result, "cassettes/w.yaml"), ("cassettes/w.yaml", one.result)):
        found = retold.compare(*sides)
        assert (found.same, found.not_compared) == (True, ("init", "result")), found
        rows = {pair.label: sorted({row.item.kind for row in pair.rows}) for pair in found.pairs}
        assert ("result" in rows["one"], "result" in rows["two"]) == (False, True)


# Options


def options_of(argv: list[str]) -> dict[str, str]:
    pairs = dict(pairwise(argv))
    return {name: value for name, value in pairs.items() if name.startswith("--")} | {
        word.split("=")[0]: word.split("=", 1)[1] for word in argv if "=" in word and word.startswith("--")
    }


def test_options_are_passed_to_claude_code() -> None:
    options = {
        "model": "haiku", "fallback_model": "sonnet", "max_turns": 4, "append_system_prompt": "Be brief.",
        "allowed_tools": ["Bash(git log:*)", "Bash(git diff:*)", "WebSearch"], "disallowed_tools": ["Write"],
        "permission_mode": "acceptEdits", "cwd": "deep", "session_id": "6f1b1c1e-4c1b-4b7e-9a0f-0123456789ab",
        "retry_config": {"max_retries": 1},
    }  # fmt: skip
    one, _ = both(write_workflow("w.yaml", step(claude_options=options), step("bare"), **CLAUDE_CODE, workspace_dir="ws"))
    (first, bare) = [call for call in engine_cli.calls() if "argv" in call]
    assert options_of(first["argv"]) == options_of(first["argv"]) | {
        "--model": "claude-haiku-5-5", "--fallback-model": "claude-sonnet-5-5", "--max-turns": "4",
        "--append-system-prompt": "Be brief.", "--tools": "Bash,WebSearch",
        "--allowedTools": "Bash(git log:*),Bash(git diff:*),WebSearch", "--disallowedTools": "Write",
        "--permission-mode": "acceptEdits", "--session-id": options["session_id"], "--setting-sources": "",
    }  # fmt: skip
    assert (first["cwd"], first["retries"]) == (str(Path("ws/deep").resolve()), "1")
    assert one.result.steps[0].session_id == options["session_id"]
    assert options_of(bare["argv"])["--tools"] == ""
    assert bare["retries"] is None
    assert not {"--model", "--system-prompt", "--allowedTools"} & options_of(bare["argv"]).keys()


PROBLEMS = {
    "max_tokens: 5": "'max_tokens' has no meaning on claude_code: Claude Code sets the length of an answer.",
    "temperature: 0.5": "'temperature' has no meaning on claude_code: Claude Code sets it.",
    "cost_tracking: false": "'cost_tracking' has no meaning on claude_code: Claude Code computes the costs in the messages.",
    "retry_config: {max_retries: 1, base_delay_ms: 5}": (
        "'base_delay_ms' has no meaning on claude_code: Claude Code sets its pauses."
    ),
    "session_id: mine": "'session_id' should be a UUID for claude_code, and is 'mine'.",
}


@pytest.mark.parametrize("option", PROBLEMS)
def test_an_option_without_a_meaning_is_refused_by_its_name(option: str) -> None:
    error = refusal_of(f"engine: claude_code\nprompt: Hi\nclaude_options: {{{option}}}\n")
    assert error.partition(": ")[2].partition(":8:")[2].partition(": ")[2] == PROBLEMS[option] + "\n"


def test_tools_of_claude_code_are_refused_on_the_messages_api() -> None:
    error = refusal_of("prompt: Hi\nclaude_options: {allowed_tools: [Raed, WebSearch]}\n")
    assert "w.yaml:7:" in error
    assert "'allowed_tools' cannot be 'Raed'; did you mean 'Read'?" in error
    assert "'allowed_tools' cannot be 'WebSearch'" in error


def test_a_default_that_one_engine_lacks_is_refused() -> None:
    options = {"defaults": {"claude_options": {"temperature": 0.5}}}
    write_workflow("w.yaml", step("one"), step("two", engine="claude_code"), **options)
    error = refused(in_this_process("run", "w.yaml"))
    assert "'temperature' has no meaning in step 'two', which runs on claude_code: Claude Code sets it." in error


def test_a_session_has_one_engine() -> None:
    write_workflow("w.yaml", session_step("one", "a"), session_step("two", "b", engine="claude_code"))
    error = refused(in_this_process("run", "w.yaml"))
    assert "session 'talk' cannot continue on claude_code: step 'one' holds it on messages_api." in error


def test_an_unknown_engine_is_refused_with_the_nearest_one() -> None:
    assert "'engine' cannot be 'claude-code'; did you mean 'claude_code'?" in refusal_of("engine: claude-code\nprompt: Hi\n")


@pytest.mark.parametrize("missing", ["the SDK", "the command"])
def test_a_missing_claude_code_is_reported_in_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import claude_agent_sdk as sdk
    from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

    workflow = write_workflow("w.yaml", **CLAUDE_CODE)
    if missing == "the SDK":
        engine_cli.remove(monkeypatch)
        monkeypatch.delitem(sys.modules, "retold.workflow.claude_code_live", raising=False)
    else:

        def find(_: Any) -> str:
            raise sdk.CLINotFoundError("Claude Code not found.\nInstall …")

        monkeypatch.setattr(SubprocessCLITransport, "_find_cli", find)
    error = refused(in_this_process("run", workflow, "--live"))
    assert error.count("\n") == 1
    assert error.startswith("retold: engine: claude_code needs ")
    assert "pip install 'retold[agent]'" in error


# Sessions


def test_steps_of_a_session_are_prompts_of_one_process() -> None:
    one, _ = both(write_workflow("w.yaml", session_step("one", "a"), step("between"), session_step("two", "b"), **CLAUDE_CODE))
    asked = {call["prompt"]: call["pid"] for call in engine_cli.calls() if "prompt" in call}
    assert asked["a"] == asked["b"] != asked["Say hello."]
    first, _, second = one.result.steps
    assert first.session_id == second.session_id


def test_other_options_continue_a_session_by_its_id() -> None:
    steps = [session_step("one", "a"), session_step("two", "b", claude_options={"model": "haiku"})]
    one, _ = both(write_workflow("w.yaml", *steps, **CLAUDE_CODE))
    first, second = map(options_of, engine_cli.starts())
    assert "--resume" not in first
    assert second["--resume"] == one.result.steps[0].session_id == one.result.steps[1].session_id


def test_a_kept_session_continues_in_a_later_run() -> None:
    workflow = write_workflow("w.yaml", session_step("one", "a", {"persist": True, "max_turns": 3}), **CLAUDE_CODE)
    one, _ = both(workflow)
    two, _ = both(workflow)
    assert options_of(engine_cli.starts()[1])["--resume"] == one.result.steps[0].session_id == two.result.steps[0].session_id
    assert two.result.ok


def test_a_later_step_reads_the_conversation_of_a_session() -> None:
    parts = [{"type": "session_context", "session_id": "talk"}]
    one, _ = both(write_workflow("w.yaml", session_step("one", "a"), step("two", parts), **CLAUDE_CODE))
    assert [call["prompt"] for call in engine_cli.calls() if "prompt" in call][-1] == "User: a\n\nAssistant: Hello."
    assert one.result.ok


# Failures


def failing(prompt: str, **options: Any) -> Path:
    return write_workflow("w.yaml", step("say", prompt, claude_options={"async_streaming": True, **options}), **CLAUDE_CODE)


@pytest.mark.parametrize(
    ("prompt", "options", "error"),
    [
        ("HANG", {"timeout_ms": 1500}, "timed out after 1500 ms"),
        ("DIE", {}, "Claude Code failed (exit code 3): Error: the battery is empty."),
        ("BUSY", {}, engine_cli.OVERLOADED),
    ],
)
def test_a_failed_session_fails_in_mock_too(prompt: str, options: dict[str, Any], error: str) -> None:
    """A user exports the cassette of a failed run to examine it."""
    workflow = failing(prompt, **options)
    one = live(workflow)
    assert (one.result.status, one.error) == ("failed", error)
    assert not Path("cassettes/w.yaml").exists()
    assert not any(is_running(call["pid"]) for call in engine_cli.calls())
    assert in_this_process("export", "last", "-o", "failed.yaml").returncode == 0
    other = mock(workflow, cassette="failed.yaml")
    assert other.result.steps == one.result.steps
    assert normalised(other.output) == normalised(one.output)
    types = [message.type for message in retold.EventLog().messages(one.result.run)]
    assert types == ["system", "assistant", "result"]


def test_graceful_degradation_continues_with_the_partial_text() -> None:
    robust = step(type="claude_robust", prompt="DIE", retry_config={"max_retries": 0, "fallback_action": "graceful_degradation"})
    one, _ = both(write_workflow("w.yaml", robust, **CLAUDE_CODE))
    assert (one.result.steps[0].status, one.text) == ("fallback", engine_cli.HALF)
    assert [call["retries"] for call in engine_cli.calls() if "argv" in call] == ["0"]


def test_an_interrupted_run_continues() -> None:
    """The session of the first step is in the cassette once, without the failed prompt."""
    steps = [session_step("one", "a"), session_step("two", "ONCE DIE"), session_step("three", "c")]
    workflow = write_workflow("w.yaml", *steps, **CLAUDE_CODE, checkpoint_enabled=True)
    assert live(workflow).result.status == "failed"
    again = live(workflow)
    assert [done.resumed for done in again.result.steps] == [True, False, False]
    assert options_of(engine_cli.starts()[1])["--resume"] == again.result.steps[0].session_id
    whole = mock(workflow)
    assert [(done.text, done.resumed) for done in whole.result.steps] == [("Hello.", False)] * 3
    assert whole.result.notes == []


# Misses and volatile values


def missed(workflow: Path) -> str:
    with pytest.raises(retold.MissError) as caught:
        mock(workflow)
    return str(caught.value)


def test_a_changed_step_is_a_miss_that_names_the_difference() -> None:
    live(write_workflow("w.yaml", step(claude_options={"model": "opus"}), **CLAUDE_CODE))
    error = missed(write_workflow("w.yaml", step(claude_options={"model": "haiku"}), **CLAUDE_CODE))
    assert '\n  model: recorded "claude-opus-5-5", now "claude-haiku-5-5"\n' in error
    assert "Record it again with: retold run w.yaml --live" in error
    error = missed(write_workflow("w.yaml", step(prompt="Say goodbye.", claude_options={"model": "opus"}), **CLAUDE_CODE))
    assert 'prompt: recorded "Say hello.", now "Say goodbye."' in error
    error = missed(write_workflow("w.yaml", step("new"), **CLAUDE_CODE))
    assert "cassettes/w.yaml holds no further session with Claude Code for step 'new'." in error


def test_volatile_values_are_not_misses_on_another_day() -> None:
    """A later step of a session may be the first one with a volatile value."""
    steps = [session_step("one", "a"), session_step("two", "SAY {{date}} {{execution_id}}")]
    workflow = write_workflow("w.yaml", *steps, **CLAUDE_CODE)
    live(workflow)
    cassette = Path("cassettes/w.yaml")
    cassette.write_text(cassette.read_text().replace(date.today().isoformat(), "2020-02-02"))
    assert mock(workflow).text.startswith("2020-02-02 ")


def test_a_cassette_replays_in_another_folder_with_another_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workflow = write_workflow("w.yaml", step(prompt=f"SAY {Path.cwd()}/x"), **CLAUDE_CODE).absolute()
    one = live(workflow)
    assert str(Path.cwd()) not in Path("cassettes/w.yaml").read_text()
    other = tmp_path / "elsewhere"
    other.mkdir()
    workflow.write_text(workflow.read_text().replace(str(Path.cwd()), str(other)))
    monkeypatch.chdir(other)
    monkeypatch.setenv("HOME", str(other))
    assert one.text.endswith("/work/x")
    assert mock(workflow).text == f"{other}/x"


def test_original_timing_plays_the_lines_at_their_times() -> None:
    workflow = write_workflow("w.yaml", **CLAUDE_CODE)
    times = [live(workflow).result.run, mock(workflow, timing="original").result.run, mock(workflow, timing="20x").result.run]
    last = [[event.t_ns for event in retold.EventLog().events(run, kinds=("message",))][-1] for run in times]
    assert last[1] >= last[0] - 1_000
    assert last[2] >= last[0] / 20 - 1_000


def test_a_verbose_step_reports_its_turns() -> None:
    notes: list[str] = []
    live(write_workflow("w.yaml", step(claude_options={"verbose": True}), **CLAUDE_CODE), notify=notes.append)
    assert notes == ["step 1/1 say", "turn 1"]


def test_the_key_of_the_environment_is_not_needed() -> None:
    assert "ANTHROPIC_API_KEY" not in os.environ
    assert live(write_workflow("w.yaml", **CLAUDE_CODE)).result.ok
