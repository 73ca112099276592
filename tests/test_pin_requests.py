"""`retold pin` of requests: the written test sends them again in every form of the anthropic SDK."""

import json
from pathlib import Path
from typing import Any

import pytest

import retold
from retold.experiments.pinning.expectations import parts_of
from retold.experiments.pinning.literals import WIDTH, Code, call, literal, pattern
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Exchange, Request
from tests.bedrock_server import BedrockServer
from tests.clients import body
from tests.e2e import in_this_process, refused
from tests.exchanges import JSON, answer, exchange
from tests.messages_server import Reply, text
from tests.pinning import replayed


def message(said: str = "Fine.", **fields: Any) -> bytes:
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "stop_reason": "end_turn"}
    usage = {"input_tokens": 3, "output_tokens": 2}
    return json.dumps({**whole, "content": [{"type": "text", "text": said}], "usage": usage, **fields}).encode()


def asked(uri: str, sent: Any = None, got: bytes = b"{}", method: str = "POST", **fields: Any) -> Exchange:
    """Return a recorded exchange with the API."""
    made = exchange(answer(got, headers=JSON), uri=f"https://api.anthropic.com{uri}", **fields)
    data = b"" if sent is None else json.dumps(sent).encode()
    return Exchange(
        Request(method, made.request.uri, JSON, data), made.response, ending=made.ending, started_ns=made.started_ns
    )  # fmt: skip


def pin(*exchanges: Exchange, options: tuple[str, ...] = ()) -> str:
    """Pin a run of these exchanges, run the written test, and return its source."""
    with retold.EventLog() as log:
        import_exchanges(log, exchanges, name="calls", source="calls")
    done = in_this_process("pin", "calls", *options)
    assert done.returncode == 0, done.stderr
    assert replayed("calls").all_played
    return Path("tests/test_calls.py").read_text()


QUESTION = body("How are you?")


def test_requests_of_every_endpoint_are_sent_again() -> None:
    """The endpoints are messages, token counts, batches with results, and models. Old SDKs lack one field. Another is a beta."""
    source = pin(
        asked("/v1/messages", {**QUESTION, "temperature": 0.5, "new_field": {"a": True}}, message()),
        asked("/v1/messages?beta=true", {**QUESTION, "stream": False}, message()),
        asked("/v1/messages/count_tokens", {key: QUESTION[key] for key in ("model", "messages")}, b'{"input_tokens": 9}'),
        asked("/v1/messages/batches", {"requests": [{"custom_id": "a", "params": QUESTION}]}, b'{"id": "msgbatch_1"}'),
        asked("/v1/messages/batches/msgbatch_1/results", got=b'{"custom_id": "a"}\n', method="GET"),
        asked("/v1/models?limit=2", got=b'{"data": []}', method="GET"),
        asked("/v1/messages", {**QUESTION, "max_tokens": 64_000}, message("Slow.")),
    )
    assert 'extra_body={"temperature": 0.5, "new_field": {"a": True}}' in source
    assert 'extra_query={"beta": "true"}' in source
    assert 'client.get("/v1/models?limit=2", cast_to=object)' in source
    assert "timeout=600" in source


def test_long_texts_come_from_the_cassette() -> None:
    """Long texts, system prompts and lists of tools are read from the cassette, so that the test stays readable."""
    tools = [{"name": f"tool_{number}", "description": "Does it.", "input_schema": {"type": "object"}} for number in range(90)]
    long = {**body("x" * 2000), "system": "Be brief.", "tools": tools}
    source = pin(asked("/v1/messages", long, message()), asked("/v1/messages", {**long, "system": "Be kind."}, message()))
    assert '{"role": "user", "content": recorded[0]["messages"][0]["content"]}' in source
    assert 'tools=recorded[1]["tools"]' in source
    assert len(source.splitlines()) < 60


def test_other_hosts_and_probes_are_left_out() -> None:
    """The test contains only requests to the API. A run without one is refused."""
    probe = asked("/api/hello", method="HEAD")
    other = exchange(answer(b"{}", headers=JSON), uri="https://api.github.com/user")
    with retold.EventLog() as log:
        import_exchanges(log, [probe, other], name="others", source="others")
        import_exchanges(log, [probe, asked("/v1/messages", QUESTION, message()), other], name="calls", source="calls")
    assert "has no requests to the Messages API" in refused(in_this_process("pin", "others"))
    done = in_this_process("pin", "calls", "--json")
    assert (json.loads(done.stdout)["exchanges"], json.loads(done.stdout)["left_out"]) == (1, 2)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (asked("/v1/sessions/sesn_1/events", {"events": []}), "belongs to a session of Managed Agents"),
        (asked("/model/anthropic.claude-x/converse", {"messages": []}), "is one of boto3"),
        (Exchange(Request("POST", "https://api.anthropic.com/v1/files", JSON, b"--x"), None), "has a body that is not JSON"),
    ],
)
def test_a_request_that_the_sdk_cannot_send_is_refused(sent: Exchange, why: str) -> None:
    """The error names the request and another way to test it."""
    with retold.EventLog() as log:
        import_exchanges(log, [sent], name="calls", source="calls")
    said = refused(in_this_process("pin", "calls"))
    assert said.startswith(f"retold: request 1 (POST {sent.request.uri.removeprefix('https://api.anthropic.com')}) {why}")
    assert "retold record" in said
    assert not Path("tests").exists()


@pytest.mark.stress
@pytest.mark.needs("anthropic>=2.12", "boto3")
def test_requests_of_bedrock_use_its_client() -> None:
    """The requests work with and without a stream. The model is in the path."""
    import anthropic

    keys: Any = {"aws_region": "eu-central-1", "aws_access_key": "none", "aws_secret_key": "none"}
    model = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
    with (
        BedrockServer(Reply([text("One.")])) as server,
        retold.record("bedrock"),
        anthropic.AnthropicBedrock(base_url=server.url, **keys) as asking,
    ):
        asking.messages.create(**{**QUESTION, "model": model})
        with asking.messages.stream(**{**QUESTION, "model": model}) as stream:
            stream.until_done()
    assert in_this_process("pin", "bedrock").returncode == 0
    assert replayed("bedrock").all_played
    assert f'model="{model}"' in Path("tests/test_bedrock.py").read_text()


# The parts


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["Yes."], ["Yes."]),
        (["I wrote `a.py` and **three tests**; 12 % faster, see docs/a.md."], ["a.py", "three tests", "docs/a.md", "12 %"]),
        (["It costs $12.50 for 3 days, or 1,200 km of road, which is a long way to go for it."], ["$12.50", "1,200 km"]),
        (["There is no number in this text. It ends with a longer sentence."], ["There is no number in this text."]),
        (["", "  "], []),
        (["a"] * 3 + ["Some long first line without facts\nand the last line of it all"], ["a", "and the last line of it all"]),
    ],
)
def test_the_distinctive_parts_of_a_text_are_expected(texts: list[str], parts: list[str]) -> None:
    """Of a short text that is everything. Of a longer one it is code, names and numbers, or a sentence."""
    found = parts_of(texts)
    assert found == parts
    assert all(any(part in text for text in texts) for part in found)


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, True, "x" * 90], "b": {"c": "d" * 90}},
        ["long line of words " * 20 + "\nand another\n\n" + "w" * 300],
        "quotes \" and ' and \\ and \u2028 and \x00",
        {"deep": [{"er": {"and": ["deeper " * 30] * 3}}]},
    ],
)
def test_a_literal_evaluates_to_its_value_and_fits_the_width(value: Any) -> None:
    source = literal(value)
    assert eval(source) == value
    assert eval(call("dict", {"value": value}))["value"] == value
    assert max(map(len, source.split("\n"))) <= WIDTH + 5


@pytest.mark.parametrize("said", ["a.b (c) [d]*", "plain", 'quote " and .', "back\\slash", "ends in \\", "line\nend?"])
def test_a_pattern_matches_its_text(said: str) -> None:
    import re

    assert re.fullmatch(eval(pattern(said)), said)
    assert isinstance(pattern(said), Code)
