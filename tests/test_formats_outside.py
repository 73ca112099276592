"""Runs are exported to other tools and imported again: traces in OTLP, trajectories in ATIF, session traces of the Hub."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from atif import Trajectory
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from retold.formats import FORMATS, otlp
from retold.formats.imports import import_files
from retold.formats.turns import Prompt, Said, Tool, turns
from retold.recorder.log import erasure
from retold.recorder.log.log import EventLog
from retold.recorder.log.runs import RunInfo
from tests.conftest import ROOT
from tests.e2e import in_this_process
from tests.exchanges import JSON, answer
from tests.talk import asked, packed, record, text, tool_result, tool_use, turn, unstreamed

EXAMPLES = (
    "streaming_file_operations", "session_conversation", "parallel_reviews", "robust_retries", "claude_code_steps",
    "production_pipeline",
)  # fmt: skip

ENDINGS = {"otlp": ".otlp.json", "atif": ".atif.json", "session-trace": ".trace.jsonl"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """Return a log with the recordings of the examples. No test writes to it."""
    log = EventLog(tmp_path_factory.mktemp("examples") / "log.db")
    import_files(log, [ROOT / "cassettes" / f"{name}.yaml" for name in EXAMPLES])
    return log


def write(log: EventLog, form: str, info: RunInfo, path: Path, *, content: bool = True) -> Path:
    """Write one run to a file, with its texts."""
    with path.open("wb") as out:
        replace(FORMATS[form], with_content=content and FORMATS[form].content).write(log, [info], out)
    return path


def spans_of(data: str | bytes) -> list[dict[str, Any]]:
    """Return the spans of a file, with their attributes as an object. OpenTelemetry's own schema must accept each line."""
    found = []
    for line in data.splitlines():
        spans = [span for r in json.loads(line)["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]
        found += [span | {"attributes": {a["key"]: _value(a["value"]) for a in span["attributes"]}} for span in spans]
        document = json.loads(line)
        spans = [span for r in document["resourceSpans"] for s in r["scopeSpans"] for span in s["spans"]]
        for each in [*spans, *(link for span in spans for link in span.get("links", ()))]:
            for key in ("traceId", "spanId", "parentSpanId"):  # OTLP has ids in hex, and protobuf's JSON has bytes in base64
                if key in each:
                    each[key] = base64.b64encode(bytes.fromhex(each[key])).decode()
        parsed = json_format.ParseDict(document, TracesData())
        for resource in parsed.resource_spans:
            for span in resource.scope_spans[0].spans:
                assert (len(span.trace_id), len(span.span_id)) == (16, 8)
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    return found


def _value(value: dict[str, Any]) -> Any:
    ((kind, held),) = value.items()
    return [_value(each) for each in held["values"]] if kind == "arrayValue" else int(held) if kind == "intValue" else held


def content_of(log: EventLog, run: str) -> list[tuple[Any, ...]]:
    """Return the prompts, answers and results of a run in the order of their times: the content of any exchange format."""
    found: list[tuple[int, tuple[Any, ...]]] = []
    for each in turns(log, run):
        match each:
            case Prompt():
                texts = ("system", each.system), ("user", each.blocks)
                found += [(each.at_ns, (role, each.unit, [b.get("text") for b in blocks])) for role, blocks in texts if blocks]
            case Said() if each.blocks:
                blocks = [{k: b[k] for k in ("type", "text", "thinking", "id", "name", "input") if k in b} for b in each.blocks]
                tokens = {k: n for k, n in each.usage.items() if k.endswith("_tokens")}
                facts = each.model, each.stop_reason, each.message.get("id"), tokens
                found.append((each.ended_ns, ("assistant", each.unit, blocks, *facts)))
            case Tool():
                result = each.result.get("content"), bool(each.result.get("is_error"))
                found.append((each.ended_ns or 0, ("tool", each.id, each.name, *result)))
    return [content for _, content in sorted(found, key=lambda timed: timed[0] // 1000)]


@pytest.mark.parametrize("form", ENDINGS)
def test_the_content_of_a_run_survives_export_and_import(examples: EventLog, tmp_path: Path, form: str) -> None:
    """Prompts, system prompts, answers, thinking, tools, models, usage and times are equal."""
    for info in examples.runs():
        path = write(examples, form, info, tmp_path / f"{info.name}{ENDINGS[form]}")
        with EventLog(tmp_path / f"{form}.db") as other:
            (made,) = import_files(other, [path])
            assert (made.name, made.counts, made.new) == (info.name, "message", True)
            expected, found = content_of(examples, info.run), content_of(other, made.run)
            if form == "session-trace":
                expected, found = ([(*each[:1], each[2]) for each in side] for side in (expected, found))
            assert found == expected
            assert [each.new for each in import_files(other, [path])] == [False]


def test_a_trajectory_obeys_the_rules_of_atif(examples: EventLog, tmp_path: Path) -> None:
    """Harbor's models accept each document. Tasks are separate trajectories, and a failed attempt leaves no step."""
    made = {}
    for info in examples.runs():
        document = json.loads(write(examples, "atif", info, tmp_path / "run.json").read_text())
        made[info.name] = Trajectory.model_validate(document)
        assert Trajectory.model_validate(document).to_json_dict() == document
    pipeline = made["parallel_reviews"]
    embedded = {each.trajectory_id for each in pipeline.subagent_trajectories or ()}
    assert embedded == {"look/speed", "look/safety"}
    results = [result for step in pipeline.steps if step.observation for result in step.observation.results]
    assert {ref.trajectory_id for result in results for ref in result.subagent_trajectory_ref or ()} == embedded
    assert [step.source for step in made["robust_retries"].steps] == ["user", "agent", "user", "agent"]
    files = made["streaming_file_operations"]
    assert [call.function_name for step in files.steps for call in step.tool_calls or ()] == ["Write", "Read", "Edit", "Bash"]
    assert files.final_metrics is not None
    assert files.final_metrics.total_prompt_tokens == sum(s.metrics.prompt_tokens or 0 for s in files.steps if s.metrics)
    assert files.agent.tool_definitions is not None


def talk(db: Path, *, headers: tuple[tuple[str, str], ...] = ()) -> str:
    """Record a run with a retry, a tool, an error, a cut stream, a compressed answer and a count of tokens."""
    use, result = tool_use("Read", "t1", path="/secret/path"), tool_result("t1", "the secret result", is_error=True)
    limit = answer(b'{"type":"error","error":{"type":"overloaded_error","message":"secret text"}}', status=529, headers=JSON)
    call = turn(asked("Say the secret."), {"type": "thinking", "thinking": "secret"}, text("Secret."), use, call=1)
    call = replace(call, request=replace(call.request, headers=headers))
    refused = replace(call, response=limit, ending="http_error", place=replace(call.place, attempt=1))
    second = packed(turn(asked("Say the secret.", [use], [result]), text("Done."), call=2))
    cut = turn(asked("More secrets."), text("half"), call=3)
    assert cut.response is not None
    half = replace(cut, response=replace(cut.response, pieces=cut.response.pieces[:4]), ending="cut")
    count = unstreamed(b'{"model":"m","messages":[]}', call=4)
    count = replace(count, request=replace(count.request, uri="https://api.anthropic.com/v1/messages/count_tokens"))
    retried = replace(call, place=replace(call.place, attempt=2))
    return record(db, refused, retried, second, half, count)


def test_each_exchange_is_a_span_with_its_attempt_and_its_ending(tmp_path: Path) -> None:
    """Attempts, errors, cuts, times, usage and tools have the names of the conventions. Each export has the same ids."""
    log = EventLog(tmp_path / "log.db")
    info = log.find(talk(log.path))
    data = write(log, "otlp", info, tmp_path / "a.json", content=False).read_bytes()
    assert data == write(log, "otlp", info, tmp_path / "b.json", content=False).read_bytes()
    assert b"ecret" not in data  # no text, no argument, no result and no error text
    *others, run = spans_of(data)
    assert len({span["spanId"] for span in (*others, run)}) == len(others) + 1
    assert {span["parentSpanId"] for span in others} == {run["spanId"]}
    assert (run["name"], run["kind"], "parentSpanId" in run) == ("invoke_agent talk", otlp.INTERNAL, False)
    refused, retried, tool, second, half, count = others
    assert refused["status"] == {"code": 2}
    expected = {"error.type": "overloaded_error", "http.response.status_code": 529, "retold.ending": "http_error"}
    assert expected.items() <= refused["attributes"].items()
    assert (retried["name"], retried["kind"], retried.get("status")) == ("chat claude-test-1", otlp.CLIENT, None)
    assert {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-test-1",
        "gen_ai.response.id": "msg_1", "gen_ai.response.finish_reasons": ["stop"], "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 0.001, "http.request.resend_count": 1, "server.address": "api.anthropic.com",
        "gen_ai.usage.input_tokens": 15, "gen_ai.usage.cache_read.input_tokens": 2, "gen_ai.usage.cache_write.input_tokens": 3,
        "gen_ai.usage.output_tokens": 5,
    }.items() <= retried["attributes"].items()  # fmt: skip
    assert {"gen_ai.tool.name": "Read", "gen_ai.tool.call.id": "t1", "error.type": "tool_error"}.items() <= tool[
        "attributes"
    ].items()
    assert (tool["name"], tool["links"][0]["spanId"]) == ("execute_tool Read", retried["spanId"])
    assert retried["endTimeUnixNano"] <= tool["startTimeUnixNano"] <= tool["endTimeUnixNano"] == second["startTimeUnixNano"]
    assert half["attributes"]["gen_ai.response.finish_reasons"] == ["error"]
    assert (half["attributes"]["error.type"], half["status"]) == ("cut", {"code": 2})
    assert (count["name"], count["attributes"].get("gen_ai.operation.name")) == ("POST", None)
    assert count["attributes"]["url.path"] == "/v1/messages/count_tokens"


@pytest.mark.parametrize(("flags", "prefix"), [("01", "retold.usage."), ("00", "gen_ai.usage.")])
def test_a_span_links_to_its_clients_span_and_counts_no_token_twice(tmp_path: Path, flags: str, prefix: str) -> None:
    """The SDK sends the context of its own span. If that was sampled, the tokens have another name."""
    theirs = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    log = EventLog(tmp_path / "log.db")
    info = log.find(talk(log.path, headers=(("Traceparent", f"00-{theirs[0]}-{theirs[1]}-{flags}"), ("tracestate", "v=1"))))
    spans = spans_of(write(log, "otlp", info, tmp_path / "a.json", content=False).read_bytes())
    linked = [span for span in spans if span.get("links", [{}])[0].get("traceId") == theirs[0]]
    assert [span["attributes"]["http.response.status_code"] for span in linked] == [529, 200]
    assert [span["links"][0]["spanId"] for span in linked] == [theirs[1]] * 2
    assert linked[0]["links"][0]["traceState"] == "v=1"
    assert theirs[0] not in {span["traceId"] for span in spans}
    assert theirs[1] not in {span["spanId"] for span in spans}
    assert [key for key in linked[1]["attributes"] if "usage" in key and not key.startswith(prefix)] == []
    assert linked[1]["attributes"][f"{prefix}input_tokens"] == 15


def test_a_header_that_is_not_a_trace_context_is_not_a_link(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.db")
    for header in ("", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "00-xyz-b7ad6b7169203331-01"):
        info = log.find(talk(log.path, headers=(("traceparent", header),)))
        spans = spans_of(write(log, "otlp", info, tmp_path / "a.json", content=False).read_bytes())
        assert [span for span in spans if "links" in span and "execute_tool" not in span["name"]] == []


def test_a_replay_is_marked_and_a_workflow_has_steps_and_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow is `invoke_workflow`, its steps and tasks `invoke_agent`.

    Every span of an exchange of a mock run has the mark.
    """
    monkeypatch.chdir(tmp_path)
    done = in_this_process("run", str(ROOT / "examples/parallel_reviews.yaml"), "--db", "log.db")
    assert done.returncode == 0, done.stderr
    out = in_this_process("export", "last", "--format", "otlp", "--db", "log.db")
    spans = {span["spanId"]: span for span in spans_of(out.stdout)}
    roots = [span for span in spans.values() if "parentSpanId" not in span]
    assert [span["name"] for span in roots] == ["invoke_workflow parallel_reviews"]
    assert roots[0]["attributes"]["retold.replay"] is True

    def path(span: dict[str, Any]) -> str:
        own = span["name"].removeprefix("invoke_")
        own = "chat" if own == f"chat {span['attributes'].get('gen_ai.request.model')}" else own
        return own if "parentSpanId" not in span else f"{path(spans[span['parentSpanId']])} > {own}"

    found = sorted(path(span) for span in spans.values())
    assert found == sorted([
        "workflow parallel_reviews",
        "workflow parallel_reviews > agent look",
        "workflow parallel_reviews > agent look > agent speed",
        "workflow parallel_reviews > agent look > agent safety",
        "workflow parallel_reviews > agent look > agent speed > chat",
        "workflow parallel_reviews > agent look > agent safety > chat",
        "workflow parallel_reviews > agent conclude",
        "workflow parallel_reviews > agent conclude > chat",
    ])  # fmt: skip
    assert all(span["attributes"]["retold.replay"] for span in spans.values() if span["kind"] == otlp.CLIENT)


def test_an_open_run_and_an_erased_one_can_be_exported(tmp_path: Path) -> None:
    """Open turns end with the run, marked as interrupted. Only times, usage and endings are left of erased payloads."""
    log = EventLog(tmp_path / "log.db")
    run = talk(log.path)
    with log, log.start(name="erase", mode="audit") as writer:
        for event in list(log.events(run)):
            stone = erasure.tombstone(event.kind, event.payload, writer.run)
            erasure.replace_payloads(log, writer, run, [(event.seq, stone)], kind=erasure.ERASED)
    spans = spans_of(write(log, "otlp", log.find(run), tmp_path / "a.json").read_bytes())
    assert [span["attributes"]["retold.ending"] for span in spans if span["kind"] == otlp.CLIENT] == [
        "http_error", "complete", "complete", "cut", "complete"
    ]  # fmt: skip
    assert b"ecret" not in (tmp_path / "a.json").read_bytes()
    with log, log.start(name="open", mode="live") as writer:
        writer.note("step.started", {"name": "one", "type": "claude"}, step="one")
        step, whole = spans_of(write(log, "otlp", log.find(writer.run), tmp_path / "b.json").read_bytes())
        assert [span["attributes"]["error.type"] for span in (step, whole)] == ["interrupted"] * 2


def test_an_unrecorded_history_is_copied_context(tmp_path: Path) -> None:
    """A first request contains earlier turns. They are exported with a mark, and their tool results keep their place."""
    use = tool_use("Read", "t9", path="/x")
    log = EventLog(tmp_path / "log.db")
    run = record(log.path, turn(asked("One.", [text("Two."), use], [tool_result("t9", "three")], "Four.", "Five."), text("Six.")))
    document = json.loads(write(log, "atif", log.find(run), tmp_path / "run.atif.json").read_text())
    Trajectory.model_validate(document)
    texts = [(step["source"], step["message"], step.get("is_copied_context", False)) for step in document["steps"]]
    assert texts == [
        ("user", "One.", True), ("agent", "Two.", True), ("system", "", True), ("agent", "Four.", True), ("user", "Five.", False),
        ("agent", "Six.", False),
    ]  # fmt: skip
    assert document["steps"][2]["observation"]["results"] == [{"source_call_id": "t9", "content": "three"}]
    with EventLog(tmp_path / "other.db") as other:
        (made,) = import_files(other, [tmp_path / "run.atif.json"])
        marked = [message.data.get("is_copied_context", False) for message in other.messages(made.run)]
        assert marked == [True, True, True, True, True, False, False]  # the second answer has two blocks
        (made,) = import_files(other, [write(log, "otlp", log.find(run), tmp_path / "run.otlp.json")])
        assert [each[0] for each in content_of(other, made.run)] == [
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
            "assistant",
        ]


def test_a_tool_of_the_api_ends_within_its_answer(tmp_path: Path) -> None:
    """Its use, its result and the text after it are one answer. The old API with a bare prompt is read as well."""
    use = {"type": "server_tool_use", "id": "srv1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srv1", "content": [{"type": "web_search_result", "title": "X"}]}
    log = EventLog(tmp_path / "log.db")
    legacy = unstreamed(b'{"model":"m","prompt":"Human: Hi"}', text("Hello."), call=2)
    legacy = replace(legacy, request=replace(legacy.request, uri="https://api.anthropic.com/v1/complete"))
    run = record(log.path, unstreamed(asked("Search x."), use, found, text("X it is."), call=1), legacy)
    *spans, _ = spans_of(write(log, "otlp", log.find(run), tmp_path / "run.otlp.json").read_bytes())
    assert [span["name"] for span in spans] == ["chat claude-test-1", "execute_tool web_search", "text_completion claude-test-1"]
    answer, tool, _ = spans
    assert answer["startTimeUnixNano"] <= tool["startTimeUnixNano"] <= tool["endTimeUnixNano"] <= answer["endTimeUnixNano"]
    assert tool["attributes"]["gen_ai.tool.type"] == "extension"
    document = json.loads(write(log, "atif", log.find(run), tmp_path / "run.atif.json").read_text())
    Trajectory.model_validate(document)
    assert [each["source_call_id"] for each in document["steps"][1]["observation"]["results"]] == ["srv1"]
    with EventLog(tmp_path / "other.db") as other:
        for form, ending in ENDINGS.items():
            (made,) = import_files(other, [write(log, form, log.find(run), tmp_path / f"run{ending}")])
            roles = [each[0] for each in content_of(other, made.run)]
            assert sorted(roles) == ["assistant", "assistant", "tool", "user", "user"], form


FOREIGN_TRACE = {
    "resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "name": "chat gpt", "kind": 3,
         "startTimeUnixNano": 1544712660000000000, "endTimeUnixNano": "1544712661000000000", "attributes": [
             {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
             {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4"}},
             {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 7}},
             {"key": "gen_ai.usage.cache_creation.input_tokens", "value": {"intValue": "2"}},
             {"key": "gen_ai.response.finish_reasons", "value": {"arrayValue": {"values": [{"stringValue": "tool_calls"}]}}},
             {"key": "gen_ai.input.messages", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [
                 {"key": "role", "value": {"stringValue": "user"}},
                 {"key": "parts", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [
                     {"key": "type", "value": {"stringValue": "text"}}, {"key": "content", "value": {"stringValue": "Hi"}}]}}]}}},
             ]}}]}}},
             {"key": "gen_ai.output.messages", "value": {"stringValue": json.dumps([{"role": "assistant", "parts": [
                 {"type": "tool_call", "id": "c1", "name": "now", "arguments": {}}, {"type": "x.new", "y": 1}]}])}},
         ]},
        {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B175", "name": "execute_tool now", "kind": 1,
         "startTimeUnixNano": "1544712661000000000", "endTimeUnixNano": "1544712662000000000", "attributes": [
             {"key": "gen_ai.tool.call.id", "value": {"stringValue": "c1"}},
             {"key": "gen_ai.tool.call.result", "value": {"stringValue": "noon"}}]},
    ]}]}]
}  # fmt: skip


def test_a_trace_of_another_instrumentation_is_imported(tmp_path: Path) -> None:
    """Structured values, unquoted numbers, the older name of a count, and parts of unknown types are read."""
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(FOREIGN_TRACE, indent=1))
    with EventLog(tmp_path / "log.db") as log:
        (made,) = import_files(log, [path])
        user, call, tool = content_of(log, made.run)
        assert (user[2], call[3:5], tool) == (["Hi"], ("gpt-4", "tool_use"), ("tool", "c1", "now", "noon", False))
        assert call[6] == {"input_tokens": 5, "cache_creation_input_tokens": 2}
        assert call[2][1] == {"type": "x.new"}
        assert log.find(made.run).started_ns == 1544712660000000000


def test_spans_without_a_duration_keep_their_order(tmp_path: Path) -> None:
    """Recordings of other tools may have no times: an answer, its tool and the next answer have the same time."""
    use = tool_use("Read", "t1", path="/x")
    log = EventLog(tmp_path / "log.db")
    talk = [turn(asked("Read it."), use), turn(asked("Read it.", [use], [tool_result("t1", "found")]), text("Done."))]
    still = [replace(each, response=answer(*(p.data for p in each.response.pieces), step_ns=0), ended_ns=0) for each in talk
             if each.response is not None]  # fmt: skip
    info = log.find(record(log.path, *still))
    with EventLog(tmp_path / "other.db") as other:
        for form, ending in ENDINGS.items():
            (made,) = import_files(other, [write(log, form, info, tmp_path / f"run{ending}")])
            found = [each[0] for each in content_of(other, made.run)]
            assert found == ["user", "assistant", "tool", "assistant"], form


def test_each_trace_of_a_file_is_a_run(tmp_path: Path) -> None:
    """A file with one run per line gives these runs again, each once."""
    log = EventLog(tmp_path / "log.db")
    record(log.path, turn(asked("One."), text("1")), name="first")
    record(log.path, turn(asked("Two."), text("2")), name="second")
    done = in_this_process("export", "--all", "-o", str(tmp_path / "all.otlp.jsonl"), "--content", "--db", str(log.path))
    assert done.returncode == 0, done.stderr
    with EventLog(tmp_path / "other.db") as other:
        assert [(each.name, each.new) for each in import_files(other, [tmp_path / "all.otlp.jsonl"])] == [
            ("first", True), ("second", True)
        ]  # fmt: skip
        assert [each.new for each in import_files(other, [tmp_path / "all.otlp.jsonl"])] == [False, False]


STEP = {"step_id": 1, "source": "agent", "message": "x"}
AGENT = {"name": "a", "version": "1"}


def trajectory(*steps: Any, **keys: Any) -> str:
    return json.dumps({"schema_version": "ATIF-v1.6", "agent": AGENT, "steps": list(steps)} | keys)


def trace(span: dict[str, Any]) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", trajectory(STEP, schema_version="ATIF-v1.9"), "has the format ATIF-v1.9; this retold reads up to ATIF-v1.8"),
        ("a.json", trajectory(STEP, schema_version="ATIF-v9"), "schema_version should be ATIF-v1.0 to ATIF-v1.8"),
        ("a.json", trajectory(STEP, agent=None), "agent is missing; nothing was imported"),
        ("a.json", trajectory(STEP, steps={}), "steps should be a list"),
        ("a.json", trajectory(), "a.json holds no steps"),
        ("a.json", trajectory(STEP, 1), "steps[1] should be an object"),
        ("a.json", trajectory(STEP | {"source": "robot"}), "steps[0].source should be user, system or agent"),
        ("a.json", trajectory(STEP | {"message": None}), "steps[0].message is missing"),
        ("a.json", trajectory(STEP | {"message": [{"type": "text"}]}), "steps[0].message[0].text is missing"),
        ("a.json", trajectory(STEP | {"timestamp": "noon"}), "steps[0].timestamp should be an ISO 8601 time"),
        ("a.json", trajectory(STEP | {"tool_calls": [{"tool_call_id": "t"}]}), "steps[0].tool_calls[0].function_name is missing"),
        ("a.json", trajectory(STEP | {"observation": {"results": [3]}}), "steps[0].observation.results[0] should be an object"),
        ("a.json", trajectory(STEP, subagent_trajectories=[{"agent": AGENT, "steps": []}]),
         "subagent_trajectories[0].trajectory_id is missing"),
        ("a.json", trajectory(STEP)[:-2], "a.json"),
        ("t.json", '{"resourceSpans": 3}', "t.json: `resourceSpans` should be a list"),
        ("t.json", '{"resourceSpans": [{"scopeSpans": [{"spans": 1}]}]}', "t.json: resourceSpans[0].scopeSpans[0]: `spans`"),
        ("t.json", trace({"traceId": "xyz", "spanId": "00"}), "resourceSpans[0].scopeSpans[0].spans[0] is not a span of OTLP"),
        ("t.json", trace({"traceId": "ab" * 16, "spanId": "cd" * 8, "startTimeUnixNano": "soon"}), "spans[0] is not a span"),
        ("t.json", trace({"traceId": "ab" * 16, "spanId": "cd" * 8}), "t.json holds 1 span and no messages"),
        ("t.jsonl", '{"resourceSpans": []}\n{"resourceSpans": ', "t.jsonl:2: not a line of JSON"),
        ("s.jsonl", '{"type":"session","harness":"h","id":"1"}\n', "s.jsonl holds no messages"),
        ("s.jsonl", '{"type":"session","harness":"h","id":"1"}\n{"type":"message","message":{"role":"robot","content":""}}\n',
         "s.jsonl:2: a message should have a role"),
        ("s.jsonl", '{"type":"session","harness":"h","id":"1"}\n{"type"\n', "s.jsonl:2: not a line of JSON"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_error_with_its_place(tmp_path: Path, name: str, data: str, message: str) -> None:
    """The exit code is 2, the error is one line without a traceback, and no log is created."""
    (tmp_path / name).write_text(data)
    done = in_this_process("import", str(tmp_path / name), "--db", str(tmp_path / "log.db"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "log.db").exists()


@pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: b"[" + d, lambda d: d.replace(b"{", b"[", 1)])
def test_a_json_cassette_is_still_read_as_a_cassette(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Only its keys make a document a trace or a trajectory. A cassette with texts that name these keys is a cassette."""
    log = EventLog(tmp_path / "log.db")
    run = record(log.path, turn(asked('{"resourceSpans": [], "schema_version": "ATIF-v1.6"}'), text("Yes.")))
    done = in_this_process("export", run, "-o", str(tmp_path / "c.json"), "--format", "cassette", "--db", str(log.path))
    assert done.returncode == 0, done.stderr
    with EventLog(tmp_path / "other.db") as other:
        (made,) = import_files(other, [tmp_path / "c.json"])
        assert (made.counts, made.count) == ("exchange", 1)
    (tmp_path / "c.json").write_bytes(damage((tmp_path / "c.json").read_bytes()))
    done = in_this_process("import", str(tmp_path / "c.json"), "--db", str(tmp_path / "third.db"))
    assert done.returncode == 2
    assert "cassette" in done.stderr or "YAML" in done.stderr


def test_a_run_is_compared_with_its_exports(examples: EventLog, tmp_path: Path) -> None:
    """`diff` reads traces, trajectories and session traces like runs of messages. Other commands name the file."""
    info = examples.find("streaming_file_operations")
    for form, ending in ENDINGS.items():
        path = write(examples, form, info, tmp_path / f"run{ending}")
        done = in_this_process(
            "diff", info.run, str(path), "--ignore", "totals", "--ignore", "system", "--db", str(examples.path)
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        other = path.with_name(path.name.replace("run", "other"))
        other.write_text(path.read_text().replace("gamma", "delta"))
        done = in_this_process("diff", info.run, str(other), "--ignore", "totals", "--db", str(examples.path))
        assert (done.returncode, "delta" in done.stdout) == (1, True)
    done = in_this_process("play", str(tmp_path / "run.atif.json"), "--db", str(examples.path))
    assert (done.returncode, "this is a trajectory in ATIF. `retold import` takes it." in done.stderr) == (2, True)
    done = in_this_process("play", str(tmp_path / "run.otlp.json"), "--db", str(examples.path))
    assert (done.returncode, "this is a file of traces in the JSON of OTLP." in done.stderr) == (2, True)


def test_the_command_chooses_by_the_ending_and_writes_a_file_per_run(tmp_path: Path) -> None:
    """`--all` writes a folder for the formats with one run per file. `--content` applies only to otlp."""
    log = EventLog(tmp_path / "log.db")
    record(log.path, turn(asked("One."), text("1")), name="first")
    db = ("--db", str(log.path))
    for form, ending in ENDINGS.items():
        path = tmp_path / f"x{ending}"
        assert in_this_process("export", "last", "-o", str(path), *db).returncode == 0
        assert path.read_bytes() == in_this_process("export", "last", "--format", form, *db).stdout.encode()
    for form in ("atif", "session-trace", "transcript", "agent-cassette"):
        done = in_this_process("export", "--all", "--format", form, "-o", str(tmp_path / form), *db)
        assert "Traceback" not in done.stderr
        assert done.returncode == (0 if form in ENDINGS else 1), done.stderr  # no run is a transcript of that kind
    assert [path.name.endswith("atif.json") for path in (tmp_path / "atif").iterdir()] == [True]
    done = in_this_process("export", "last", "--format", "atif", "--content", *db)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--content is for --format otlp" in done.stderr
    with EventLog(tmp_path / "empty.db") as empty, empty.start(name="nothing", mode="live"):
        pass
    for form in ("atif", "session-trace"):
        done = in_this_process("export", "last", "--format", form, "--db", str(tmp_path / "empty.db"))
        assert (done.returncode, done.stdout) == (2, "")
        assert "has no messages to export" in done.stderr
