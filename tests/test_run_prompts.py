"""The requests of a workflow: prompts made of parts and templates, merged options, and answers written to files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import retold
from tests.e2e import Ran, prompts_of, run_live, run_mock, step, write_workflow
from tests.messages_server import MessagesServer, Reply, Request, text, tool_use

PERSON = json.dumps({"name": "Ada", "born": {"year": 1815}, "tags": ["a", "b"]})


def replies_of(*answers: str) -> list[Reply]:
    return [Reply([text(answer)]) for answer in answers]


def asked(monkeypatch: pytest.MonkeyPatch, *steps: dict[str, Any], answers: tuple[str, ...] = (), **keys: Any) -> list[Any]:
    """Return the prompts that a workflow of these steps sends, after its cassette has replayed the same ones."""
    workflow = write_workflow("asked.yaml", *steps, **keys)
    with MessagesServer(replies_of(*answers, *["ok"] * len(steps))) as server:
        live = run_live(monkeypatch, server, workflow)
    assert live.result.error is None
    assert run_mock(workflow).result.steps == live.result.steps
    return prompts_of(server)


def sent(monkeypatch: pytest.MonkeyPatch, *, defaults: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Return the request body of one step with these options, without the fields that all requests have."""
    keys = {} if defaults is None else {"defaults": {"claude_options": defaults}}
    workflow = write_workflow("sent.yaml", step(claude_options=options), **keys)
    with MessagesServer(replies_of("ok")) as server:
        assert run_live(monkeypatch, server, workflow).result.ok
    assert run_mock(workflow).result.ok
    body: dict[str, Any] = server.requests[0].json
    assert body.pop("messages") == [{"role": "user", "content": "Say hello."}]
    assert body.pop("stream") is True
    return body


# Parts


def test_string_prompt_is_sent_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is a string is the whole question."""
    assert asked(monkeypatch, step(prompt="Just this.")) == ["Just this."]


def test_parts_are_joined_by_blank_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static text and files follow each other as paragraphs. The path of a file is relative to the workflow's folder."""
    Path("notes.txt").write_text("From a file.")
    parts = [{"type": "static", "content": "Read this:"}, {"type": "file", "path": "notes.txt"}]
    assert asked(monkeypatch, step(prompt=parts)) == ["Read this:\n\nFrom a file."]


def test_previous_response_is_the_text_of_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later step can quote the answer of an earlier one, without asking again."""
    steps = [
        step("first"),
        step("second", [{"type": "previous_response", "step": "first"}, {"type": "static", "content": "Shorter."}]),
    ]
    assert asked(monkeypatch, *steps, answers=("A long text.",)) == ["Say hello.", "A long text.\n\nShorter."]


@pytest.mark.parametrize(
    ("extract", "value"),
    [("name", "Ada"), ("born.year", "1815"), ("tags.1", "b"), ("born", '{"year": 1815}')],
)
@pytest.mark.parametrize("answer", [PERSON, f"Here it is:\n```json\n{PERSON}\n```\nAnything else?"], ids=["bare", "fenced"])
def test_extract_takes_a_field_of_a_json_answer(monkeypatch: pytest.MonkeyPatch, extract: str, value: str, answer: str) -> None:
    """A dotted path selects one value of a JSON answer, with or without a fence."""
    parts = [{"type": "previous_response", "step": "first", "extract": extract}]
    assert asked(monkeypatch, step("first"), step("second", parts), answers=(answer,))[1] == value


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("no JSON", "cannot extract 'nom', the response is not JSON."),
        (PERSON, "nothing to extract at 'nom': no 'nom'; there are name, born, tags."),
    ],
)
def test_extract_of_a_missing_field_fails_the_run(monkeypatch: pytest.MonkeyPatch, answer: str, what: str) -> None:
    """The error names the step, the field and the existing fields."""
    parts = [{"type": "previous_response", "step": "first", "extract": "nom"}]
    workflow = write_workflow("x.yaml", step("first"), step("second", parts))
    with MessagesServer(replies_of(answer)) as server, pytest.raises(retold.WorkflowError) as raised:
        run_live(monkeypatch, server, workflow)
    assert str(raised.value) == f"x.yaml:7:5: step 'second', prompt, response of 'first': {what}"


SESSION = [
    ({}, "User: Say hello.\n\nAssistant: Hello.\n\nWhat did I say?"),
    ({"include_last_n": 1}, "Assistant: Hello.\n\nWhat did I say?"),
]


@pytest.mark.parametrize(("keys", "prompt"), SESSION)
def test_session_context_is_the_previous_conversation(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], prompt: str) -> None:
    """An earlier session of the run can be quoted, whole or its last messages."""
    parts = [{"type": "session_context", "session_id": "chat", **keys}, {"type": "static", "content": "What did I say?"}]
    steps = [step("first", claude_options={"session_id": "chat"}), step("second", parts)]
    assert asked(monkeypatch, *steps, answers=("Hello.",))[1] == prompt


# Templates


def test_templates_can_use_workflow_step_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts can contain the names of workflow and step, global variables and earlier answers."""
    prompts = asked(
        monkeypatch,
        step("first", "{{workflow.name}} {{workflow.version}}: {{step.name}} in {{global_vars.city}}"),
        step("second", "{{steps.first.text}}, {{steps.first.turns}} turn"),
        answers=("Bonjour",),
        version="1.2",
        global_vars={"city": "Paris"},
    )
    assert prompts == ["asked 1.2: first in Paris", "Bonjour, 1 turn"]


def test_execution_id_is_the_run_and_date_is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """`{{execution_id}}` is the id of the run in the log, and `{{date}}` is an ISO date."""
    workflow = write_workflow("ids.yaml", step(prompt="{{execution_id}} {{date}}"))
    with MessagesServer(replies_of("ok")) as server:
        run = run_live(monkeypatch, server, workflow).result.run
    (prompt,) = prompts_of(server)
    assert re.fullmatch(run + r" \d{4}-\d\d-\d\d", prompt)


def test_volatile_variables_cause_no_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on another day matches its recording, even if the answer repeated the old date."""
    steps = [step("first", "Run {{execution_id}} of {{date}}."), step("second", "You said: {{steps.first.text}}")]
    workflow = write_workflow("ids.yaml", *steps)

    def script(request: Request) -> Reply:
        return Reply([text("Noted: " + request.json["messages"][0]["content"], pieces=1000)])

    with MessagesServer(script) as server:
        live = run_live(monkeypatch, server, workflow)
    run, date = prompts_of(server)[0].removeprefix("Run ").rstrip(".").split(" of ")
    cassette = Path("cassettes/ids.yaml")
    cassette.write_text(cassette.read_text().replace(date, "2001-02-03").replace(run, "0123456789abcdef"))
    mock = run_mock(workflow)
    assert mock.result.ok
    assert live.result.steps[1].text != mock.result.steps[1].text
    assert mock.result.steps[1].text == "Noted: You said: Noted: Run 0123456789abcdef of 2001-02-03."


def test_variable_in_a_system_prompt_is_volatile_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A date in the system prompt, inherited from the defaults, causes no miss on another day."""
    workflow = write_workflow("ids.yaml", defaults={"claude_options": {"system_prompt": "Today is {{date}}."}})
    with MessagesServer(replies_of("ok")) as server:
        run_live(monkeypatch, server, workflow)
    date = server.requests[0].json["system"].removeprefix("Today is ").rstrip(".")
    cassette = Path("cassettes/ids.yaml")
    assert date in cassette.read_text()
    cassette.write_text(cassette.read_text().replace(date, "2001-02-03"))
    assert run_mock(workflow).result.ok


def test_templates_in_options_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates work in every string of a step, including options and the output file."""
    options = {"system_prompt": "You are {{global_vars.who}}.", "model": "{{global_vars.model}}"}
    workflow = write_workflow(
        "t.yaml",
        step(claude_options=options, output_to_file="{{step.name}}-{{execution_id}}.txt"),
        global_vars={"who": "Ada", "model": "opus"},
    )
    with MessagesServer(replies_of("Hello.")) as server:
        run = run_live(monkeypatch, server, workflow).result.run
    assert (server.requests[0].json["system"], server.requests[0].json["model"]) == ("You are Ada.", "claude-opus-5-5")
    assert Path(f"say-{run}.txt").read_text() == "Hello."


# Options


def test_step_without_options_sends_only_model_and_max_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options a request has no system, tools or temperature."""
    assert sent(monkeypatch) == {"model": "claude-sonnet-5-5", "max_tokens": 8192}


def test_system_prompts_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """`append_system_prompt` follows `system_prompt` as a paragraph."""
    body = sent(monkeypatch, system_prompt="Be brief.", append_system_prompt="Be kind.", max_tokens=10)
    assert body == {"model": "claude-sonnet-5-5", "max_tokens": 10, "system": "Be brief.\n\nBe kind."}


def test_temperature_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`temperature` goes into the request."""
    assert sent(monkeypatch, temperature=0.5) == {"model": "claude-sonnet-5-5", "max_tokens": 8192, "temperature": 0.5}


@pytest.mark.needs("anthropic>=0.103")
def test_options_of_the_step_replace_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults apply to every step. A step's own options replace them one by one."""
    defaults = {"model": "opus", "max_tokens": 100, "allowed_tools": ["Read", "Write"]}
    body = sent(monkeypatch, defaults=defaults, max_tokens=200, allowed_tools=["Grep"])
    assert [tool["name"] for tool in body.pop("tools")] == ["Grep"]
    assert body == {"model": "claude-opus-5-5", "max_tokens": 200}


@pytest.mark.needs("anthropic>=0.103")
def test_disallowed_tools_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is both allowed and disallowed is disallowed."""
    body = sent(monkeypatch, allowed_tools=["Read", "Write", "Bash"], disallowed_tools=["Bash"])
    assert [tool["name"] for tool in body["tools"]] == ["Read", "Write"]


@pytest.mark.needs("anthropic>=0.103")
def test_plan_mode_offers_no_tool_that_changes_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """`permission_mode: plan` removes Write, Edit and Bash, and refuses them too."""
    tools = ["Read", "Write", "Edit", "Bash", "Glob", "Grep"]
    options: dict[str, Any] = {"allowed_tools": tools, "permission_mode": "plan"}
    body = sent(monkeypatch, **options)
    assert [tool["name"] for tool in body["tools"]] == ["Read", "Glob", "Grep"]
    use = Reply([tool_use("Write", {"file_path": "x.txt", "content": "x"})], stop_reason="tool_use")
    with MessagesServer([use, *replies_of("ok")]) as server:
        run_live(monkeypatch, server, write_workflow("plan.yaml", step(claude_options=options)))
    assert not Path("x.txt").exists()


@pytest.mark.needs("genai-prices")
def test_unknown_cost_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a known price has no cost. With `cost_tracking: false` no model has one."""
    costs = []
    for options in ({"model": "sonnet"}, {"model": "claude-next-9"}, {"model": "sonnet", "cost_tracking": False}):
        workflow = write_workflow("cost.yaml", step(claude_options=options))
        with MessagesServer(replies_of("ok")) as server:
            costs.append(run_live(monkeypatch, server, workflow).result.steps[0].cost_usd)
        assert run_mock(workflow).result.steps[0].cost_usd == costs[-1]
    assert [cost is None for cost in costs] == [False, True, True]
    assert costs[0] is not None
    assert costs[0] > 0


def test_cost_of_a_failed_call_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a known usage there is no known cost."""
    with MessagesServer([Reply([text("x")], cut_after=0)]) as server:
        ran = run_live(monkeypatch, server, write_workflow("cost.yaml"))
    assert ran.result.steps[0].cost_usd is None


# Output files


def written(monkeypatch: pytest.MonkeyPatch, output_format: str) -> tuple[str, Ran]:
    """Return the file that a step writes in this format, after its mock run has written the same."""
    options = {"output_format": output_format, "session_id": "fixed"}
    workflow = write_workflow(
        "out.yaml", step(claude_options=options, output_to_file="deep/out.txt"), defaults={"output_dir": "o"}
    )
    with MessagesServer(replies_of("Hello.\n")) as server:
        ran = run_live(monkeypatch, server, workflow)
    live = Path("o/deep/out.txt").read_text()
    Path("o/deep/out.txt").unlink()
    assert run_mock(workflow).result.ok
    assert Path("o/deep/out.txt").read_text() == live
    return live, ran


def test_output_as_text_is_exactly_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`output_format: text` writes the exact answer below `defaults.output_dir` and creates folders."""
    assert written(monkeypatch, "text")[0] == "Hello.\n"


def test_output_as_json_is_the_result_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """`output_format: json` writes the result message, as Claude Code prints it."""
    content, ran = written(monkeypatch, "json")
    *_, last = retold.EventLog().messages(ran.result.run)
    assert json.loads(content) == last.data
    assert (last.data["type"], last.data["subtype"], last.data["result"]) == ("result", "success", "Hello.\n")


def test_output_as_stream_json_is_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """`output_format: stream_json` writes the step's messages, one JSON object a line."""
    content, ran = written(monkeypatch, "stream_json")
    assert [json.loads(line) for line in content.splitlines()] == [m.data for m in retold.EventLog().messages(ran.result.run)]


def test_output_that_cannot_be_written_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step fails with the reason. The answer is still in the log."""
    Path("file.txt").write_text("mine")
    workflow = write_workflow("out.yaml", step(output_to_file="file.txt/out.txt"))
    with MessagesServer(replies_of("Hello.")) as server:
        ran = run_live(monkeypatch, server, workflow)
    assert ran.result.status == "failed"
    assert (ran.error or "").startswith("cannot write output_to_file file.txt/out.txt: ")
    assert ran.text == "Hello."


def test_step_with_a_failed_output_is_a_failed_step_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log and the footer agree with the result about a step."""
    Path("file.txt").write_text("mine")
    options = {"async_streaming": True}
    workflow = write_workflow("out.yaml", step(output_to_file="file.txt/out.txt", claude_options=options))
    with MessagesServer(replies_of("Hello.")) as server:
        ran = run_live(monkeypatch, server, workflow)
    (ended,) = retold.EventLog().events(ran.result.run, kinds=("step.ended",))
    assert (ran.result.status, ended.data["status"]) == ("failed", "failed")
    assert "✓" not in ran.output
