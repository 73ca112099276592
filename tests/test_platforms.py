"""Claude on Bedrock, Vertex, AWS and Foundry: retold records and replays the SDK's clients for them without `hosts=`."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from retold.recorder.cassette.transfer import import_exchanges
from retold.recorder.http.exchange import Request
from retold.recorder.http.platforms import api_of, asked_of, messages_request, model_path
from retold.recorder.http.recognition import Outgoing, is_api, is_model_host
from retold.replay.matching.rules import Rules, path
from tests.bedrock_server import BedrockServer, exception
from tests.conftest import Cli
from tests.messages_server import Reply, text, thinking, tool_use
from tests.test_ways_to_call import cells_of, rows

pytestmark = pytest.mark.needs("anthropic>=2.12")

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CALL: dict[str, Any] = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}
AWS_KEY, AWS_SECRET = "AKIAQ7EXAMPLE4ZX9KLM", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYQ3xAmPleK9"
TOKEN = "IQoJb3JpZ2luX2VjEJr7x9Qk2LmZs4" * 4
GOOGLE, AZURE = "ya29." + "c7xQ9-mZk2Lw4Rt8" * 3, "f3a91c0b7de84f52a6c1d0e98b7f4a35"
SECRETS = (AWS_KEY, AWS_SECRET, TOKEN, GOOGLE, AZURE)
AWS: dict[str, Any] = {"aws_access_key": AWS_KEY, "aws_secret_key": AWS_SECRET, "aws_session_token": TOKEN}

Options = dict[str, Any]
CLIENTS: dict[str, Callable[[str], Options]] = {
    "AnthropicBedrock": lambda region: {**AWS, "aws_region": region},
    "AnthropicBedrockMantle": lambda region: {**AWS, "aws_region": region},
    "AnthropicAWS": lambda region: {**AWS, "aws_region": region, "workspace_id": "wrkspc_1"},
    "AnthropicVertex": lambda region: {"region": region, "project_id": f"project-{region}", "access_token": GOOGLE},
    "AnthropicFoundry": lambda region: {"resource": f"mine-{region}", "api_key": AZURE},
}
"""The clients by name, with their arguments in a region."""


def made(name: str, region: str, url: str | None = None) -> Any:
    """Return a client for the real hosts, or only for `url`."""
    options = CLIENTS[name.removeprefix("Async")](region)
    if url is not None:
        options = {key: value for key, value in options.items() if key != "resource"} | {"base_url": url}
    return getattr(anthropic, name)(**options, max_retries=0)


def talk(name: str, region: str, url: str | None = None, model: str = MODEL) -> list[str]:
    """Ask for one answer without a stream and one with a stream."""
    call = CALL | {"model": model}

    async def run() -> list[str]:
        async with made(name, region, url) as asking:
            whole = await asking.messages.create(**call)
            return [whole.content[0].text, *[event.type async for event in await asking.messages.create(**call, stream=True)]]

    if name.startswith("Async"):
        return asyncio.run(run())
    with made(name, region, url) as asking:
        whole = asking.messages.create(**call)
        return [whole.content[0].text, *[event.type for event in asking.messages.create(**call, stream=True)]]


@pytest.mark.parametrize("name", [prefix + name for name in CLIENTS for prefix in ("", "Async")])
def test_a_client_is_recorded_and_replayed_in_another_region(name: str, tmp_path: Path) -> None:
    """Regions, projects and dates do not count, and no credential is written. The replay requests go to the real host names."""
    cassette = tmp_path / "c.yaml"
    with retold.EventLog(tmp_path / "log.db") as log, BedrockServer() as server:
        with retold.use_cassette(cassette, record_mode="rewrite", log=log):
            got = talk(name, "us-east-1", server.url)
        (run,) = log.runs()
        frames = [event for event in log.events(run.run) if event.kind == "frame"]
        written = cassette.read_text() + "".join(event.payload.decode("latin-1") for event in log.events(run.run))
    assert (got[0], len(frames)) == ("Hello there", 8)  # the client drops the ping
    assert not [secret for secret in SECRETS if secret in written]
    assert "Signature=" not in written
    for piece, body in zip(retold.read_cassette(cassette).exchanges, server.bodies, strict=True):
        assert piece.response is not None
        assert piece.response.body == body
    model = MODEL.replace("us.", "eu.") if name.endswith("Bedrock") else MODEL
    with retold.use_cassette(cassette) as used:
        assert talk(name, "eu-west-1", model=model) == got
    assert used.unplayed == []
    assert rows()[f"`{name.removeprefix('Async')}`"] == cells_of(used.exchanges)


def test_the_error_of_a_miss_contains_no_credential(tmp_path: Path) -> None:
    """The report names the nearest request, without its headers."""
    with BedrockServer() as server, retold.use_cassette(tmp_path / "c.yaml", record_mode="rewrite"):
        talk("AnthropicBedrock", "us-east-1", server.url)
    with retold.use_cassette(tmp_path / "c.yaml"), pytest.raises(retold.MissError) as caught:
        talk("AnthropicBedrock", "us-east-1", model="another")
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


@pytest.mark.parametrize(("tail", "cut"), [(exception("throttlingException", "Too many"), 4), (b"\0\0\1", 4)])
def test_an_exception_and_a_cut_frame_are_replayed(tail: bytes, cut: int, tmp_path: Path) -> None:
    """The client gets the same events and the same error from the replay. The cassette has the same bytes."""

    def read(url: str | None) -> list[str]:
        with made("AnthropicBedrock", "us-east-1", url) as asking:
            got = []
            try:
                for event in asking.messages.create(**CALL, stream=True):
                    got += [event.type]
            except anthropic.APIError as error:
                got += [type(error).__name__, str(error)]
            return got

    with BedrockServer(tail=tail, cut_after=cut) as server, retold.use_cassette(tmp_path / "c.yaml", record_mode="rewrite"):
        got = read(server.url)
    with retold.use_cassette(tmp_path / "c.yaml") as used:
        assert read(None) == got
    (exchange,) = used.exchanges
    assert exchange.response is not None
    assert exchange.response.body == server.bodies[0]
    assert exchange.ending == ("error_event" if len(tail) > 3 else "complete")
    assert [piece.is_frame for piece in exchange.response.pieces] == [True] * cut + [len(tail) > 3]


# Other programs: boto3 through the proxy and the server

BOTO3 = """
import base64, json, boto3
client = boto3.client("bedrock-runtime", region_name="us-east-1", aws_access_key_id="AKIAQ7EXAMPLE4ZX9KLM",
                      aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYQ3xAmPleK9")
model, asked = "us.anthropic.claude-x-v1:0", [{"role": "user", "content": [{"text": "Hi"}]}]
body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]})
print(client.invoke_model(modelId=model, body=body)["body"].read())
for event in client.invoke_model_with_response_stream(modelId=model, body=body)["body"]:
    print(event["chunk"]["bytes"])
answer = client.converse(modelId=model, messages=asked)
print(answer["output"], answer["usage"])
print(*client.converse_stream(modelId=model, messages=asked)["stream"], sep="\\n")
"""


def test_boto3_is_recorded_and_replayed_as_a_command(cli: Cli) -> None:
    """The parser of botocore reads the same events from the replay. The test counts the row of the table in docs/ways.md."""
    command = [sys.executable, "-c", BOTO3]
    with BedrockServer(CONVERSATION) as server:
        recorded = cli("record", "-o", "c.yaml", "--upstream", server.url, "--", *command)
    replayed = cli("replay", "c.yaml", "--", *command)
    assert (recorded.returncode, replayed.returncode) == (0, 0), replayed.stderr
    assert replayed.stdout == recorded.stdout
    assert [each in recorded.stdout for each in ("message_stop", "contentBlockDelta", "toolUse")] == [True] * 3
    written = Path("c.yaml").read_text()
    assert AWS_KEY not in written
    assert "Signature=" not in written
    exchanges = retold.read_cassette("c.yaml").exchanges
    assert [each.response.body for each in exchanges if each.response is not None] == server.bodies
    assert rows()["boto3 `bedrock-runtime`"] == cells_of(exchanges)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "https://api.anthropic.com"),
        ({"ANTHROPIC_BASE_URL": "http://g"}, "http://g"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BASE_URL": "http://g"}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "AWS_REGION": "eu-west-1"}, "https://bedrock-runtime.eu-west-1.amazonaws.com"),
        ({"CLAUDE_CODE_USE_BEDROCK": "true", "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://e"}, "http://e"),
        ({"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_BEDROCK_BASE_URL": "http://b"}, "http://b"),
        ({"CLAUDE_CODE_USE_VERTEX": "1"}, "https://aiplatform.googleapis.com/v1"),
        ({"CLAUDE_CODE_USE_VERTEX": "1", "CLOUD_ML_REGION": "us-east5"}, "https://us-east5-aiplatform.googleapis.com/v1"),
        ({"CLAUDE_CODE_USE_VERTEX": "1", "ANTHROPIC_VERTEX_BASE_URL": "http://v/v1"}, "http://v/v1"),
        ({"CLAUDE_CODE_USE_VERTEX": "0"}, "https://api.anthropic.com"),
    ],
)  # fmt: skip
def test_the_upstream_of_a_recording_comes_from_the_environment(environ: dict[str, str], url: str) -> None:
    """Claude Code on Bedrock or Vertex calls another host than ANTHROPIC_BASE_URL names."""
    assert api_of(environ) == url


# Paths

ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A12%3A"


@pytest.mark.parametrize(
    ("uri", "matched"),
    [
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.c-v1:0/invoke", "/model/anthropic.c-v1:0/invoke"),
        ("http://127.0.0.1:1/a/model/apac.anthropic.c-v1%3A0/converse-stream", "/model/anthropic.c-v1:0/converse-stream"),
        ("https://x/model/us-gov.anthropic.c/invoke-with-response-stream", "/model/anthropic.c/invoke-with-response-stream"),
        (f"https://x/model/{ARN}inference-profile%2Fglobal.anthropic.c/converse", "/model/anthropic.c/converse"),
        (f"https://x/model/{ARN}application-inference-profile%2Fa1b2/converse", "/model/a1b2/converse"),
        ("https://x/v1/projects/p/locations/l/publishers/anthropic/models/c@1:streamRawPredict", "/models/c@1:streamRawPredict"),
        ("http://x/projects/q/locations/eu/publishers/anthropic/models/c@1:rawPredict", "/models/c@1:rawPredict"),
        ("https://x/model/anthropic.c/other", "/model/anthropic.c/other"),
        ("https://x/v1/models/c", "/v1/models/c"),
    ],
)  # fmt: skip
def test_regions_accounts_and_projects_are_not_part_of_a_path(uri: str, matched: str) -> None:
    assert path(uri) == matched


def test_headers_of_signatures_do_not_count() -> None:
    """This is true even if `match_on` has headers. A date, a token or a checksum belongs to the transport."""
    plain = Request("POST", "https://x/model/m/invoke", (("accept-language", "en"),))
    signed = Request("POST", plain.uri, (*plain.headers, ("X-Amz-Date", "20260101T000000Z"), ("amz-sdk-request", "attempt=1")))
    rules = Rules(match_on=("headers",))
    assert rules.meaning(signed, {}) == rules.meaning(plain, {})


@pytest.mark.parametrize(
    "host",
    [
        "bedrock-runtime.us-east-1.amazonaws.com", "bedrock-mantle.eu-west-1.api.aws", "aws-external-anthropic.us-west-2.api.aws",
        "us-east5-aiplatform.googleapis.com", "aiplatform.us.rep.googleapis.com", "claude.googleapis.com",
        "mine.services.ai.azure.com",
    ],
)  # fmt: skip
def test_hosts_of_the_platforms_are_known(host: str) -> None:
    """In a replay, an unpatched client must not reach them."""
    assert is_model_host(host)


def test_a_request_of_boto3_is_recognised_by_its_path() -> None:
    assert is_api(Outgoing("POST", "https://vpce-1.example/model/anthropic.claude-x-v1%3A0/converse-stream", {}, b"{}"))


def test_a_request_of_converse_is_read_like_one_of_the_messages_api() -> None:
    asked = {
        "messages": [
            {"role": "user", "content": [{"text": "Hi"}, {"cachePoint": {"type": "default"}}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "now", "input": {}}}]},
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "12"}], "status": "error"}}]},
        ],
        "system": [{"text": "Be brief"}],
        "inferenceConfig": {"maxTokens": 64, "stopSequences": ["x"]},
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object"}}}}],
            "toolChoice": {"tool": {"name": "now"}},
        },
        "additionalModelRequestFields": {"thinking": {"type": "disabled"}},
    }
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12"}], "is_error": True}
    assert asked_of("https://x/model/us.anthropic.m/converse-stream", json.dumps(asked)) == {
        "model": "anthropic.m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "now", "input": {}}]},
            {"role": "user", "content": [result]},
        ],
        "system": [{"type": "text", "text": "Be brief"}],
        "max_tokens": 64,
        "stop_sequences": ["x"],
        "tools": [{"name": "now", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": "now"},
        "thinking": {"type": "disabled"},
        "stream": True,
    }
    assert messages_request("https://x/v1/messages", b"{}") is None
    assert model_path("https://x/model/m/invoke") == ("m", "invoke")


# Showing and comparing

BLOCKS = (thinking("Let me see"), text("I look."), tool_use("now", {"zone": "UTC"}, id="toolu_1"))
CONVERSATION = Reply(BLOCKS, stop_reason="tool_use")


def shown(cassette: Path) -> list[Any]:
    """Return the blocks of the messages of a recording."""
    with retold.EventLog(cassette.with_suffix(".db")) as log:
        run = import_exchanges(log, retold.read_cassette(cassette).exchanges, name="shown", source="test")
        return [list(message.blocks) for message in log.messages(run)]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_recording_of_a_platform_differs_from_one_of_the_api_only_by_the_model(name: str, tmp_path: Path) -> None:
    """The same conversation goes through the Messages API and a platform. Messages and everything else in `diff` are equal."""
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    with BedrockServer(CONVERSATION) as server:
        with retold.use_cassette(mine, record_mode="rewrite"), made(name, "us-east-1", server.url) as asking:
            read(asking)
        plain = anthropic.Anthropic(base_url=server.url, api_key="test-key", max_retries=0)
        with retold.use_cassette(other, record_mode="rewrite"), plain as asking:
            read(asking)
    assert retold.compare(mine, other, ignore=("request.model", "answer.model")).same
    assert len(shown(mine)) == 6
    assert shown(mine) == shown(other)


def read(asking: Any) -> None:
    """Ask with a stream and without one."""
    list(asking.messages.create(**CALL, stream=True))
    asking.messages.create(**CALL)
