"""The requests that a cassette covers, the parts that it records, and the parts that count in matching."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

import retold
from retold.recorder.http.exchange import Request
from tests.clients import ASKING, NOWHERE, Ask, ask, client, prompts_of, record, serve
from tests.messages_server import MessagesServer

CASSETTE = Path("c.yaml")
SECRET = "given-in-code-0815"


@pytest.fixture(name="ask", params=ASKING)
def _ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


# Which requests


def get(url: str) -> bytes:
    with httpx2.Client() as plain:
        return plain.get(f"{url}/v1/files?a=1").content


def get_async(url: str) -> bytes:
    async def run() -> bytes:
        async with httpx2.AsyncClient() as plain:
            return (await plain.get(f"{url}/v1/files?a=1")).content

    return asyncio.run(run())


GET = {"sync": get, "async": get_async}


def files() -> MessagesServer:
    server = MessagesServer([])
    server.routes["GET", "files"] = ("text/plain", b"content")
    return server


@pytest.mark.parametrize("kind", GET)
@pytest.mark.parametrize("mode", ["none", "all"])
def test_other_hosts_pass_through(kind: str, mode: str) -> None:
    """A request that is not for the Anthropic API is neither recorded nor a miss."""
    with files() as server, retold.use_cassette(CASSETTE, record_mode=mode) as cassette:
        assert GET[kind](server.url) == b"content"
    assert (cassette.recorded, cassette.misses, CASSETTE.exists()) == (0, [], False)


@pytest.mark.parametrize("kind", GET)
@pytest.mark.parametrize("pattern", ["127.0.0.1", "127.*", "*"])
def test_further_hosts_are_recorded_and_replayed(kind: str, pattern: str) -> None:
    """A pattern selects the hosts."""
    with files() as server, retold.use_cassette(CASSETTE, record_mode="once", hosts=["example.org", pattern]):
        assert GET[kind](server.url) == b"content"
    with retold.use_cassette(CASSETTE, hosts=[pattern]) as cassette:
        assert GET[kind](NOWHERE) == b"content"
        assert cassette.all_played


@pytest.mark.parametrize("kind", GET)
def test_block_network_refuses_other_hosts(kind: str) -> None:
    """The error names the request without its query, which may contain a secret."""
    with (
        files() as server,
        retold.use_cassette(CASSETTE, record_mode="once", block_network=True),
        pytest.raises(retold.BlockedError) as blocked,
    ):
        GET[kind](server.url)
    assert str(blocked.value) == (
        f"GET {server.url}/v1/files was refused: block_network is set and no recording covers it."
    )  # fmt: skip
    assert server.requests == []


def test_a_blocked_request_of_the_sdk_fails_at_once(slept: list[float]) -> None:
    """The error is one of the SDK, which neither wraps nor retries it."""
    with (
        serve() as server,
        client(server.url) as asking,
        retold.use_cassette(CASSETTE, block_network=True),
        pytest.raises(retold.BlockedError) as blocked,
    ):
        asking.models.list(extra_headers={"anthropic-version": anthropic.omit, "user-agent": "another"})
    assert slept == []
    assert isinstance(blocked.value, anthropic.AnthropicError)
    assert server.requests == []


def test_block_network_leaves_the_api_and_named_hosts_alone(ask: Ask) -> None:
    """They are recorded and replayed as usual."""
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once", block_network=True):
        ask("hi", server.url)
    with retold.use_cassette(CASSETTE, block_network=True):
        assert ask("hi") == "You said hi."


def refusal(url: str) -> str:
    with retold.use_cassette(CASSETTE, block_network=True), pytest.raises(retold.RetoldError) as error, httpx2.Client() as plain:
        plain.get(url)
    return error.type.__name__


def test_the_api_is_recognised_by_its_host() -> None:
    """Without a header of the API, the request is a miss and never sent."""
    assert refusal("https://api.anthropic.com/v1/models") == "MissError"


def test_a_host_with_the_same_ending_is_another_host() -> None:
    """notanthropic.com is not Anthropic's."""
    assert refusal("https://notanthropic.com/v1/models") == "BlockedError"


# Recorded and matched requests


def anonymous(request: Request) -> Request | None:
    """Remove the user's name, and return None for private requests."""
    return None if b"private" in request.body else replace(request, body=re.sub(rb"I am \w+", b"I am NAME", request.body))


def test_before_record_changes_recorded_and_matched_requests(ask: Ask) -> None:
    """The sent request is unchanged."""
    with serve("hello") as server, retold.use_cassette(CASSETTE, record_mode="once", before_record=anonymous):
        ask("I am Alice", server.url)
    assert server.requests[0].json["messages"][0]["content"] == "I am Alice"
    assert prompts_of(CASSETTE) == ["I am NAME"]
    with retold.use_cassette(CASSETTE, before_record=anonymous):
        assert ask("I am Bob") == "hello"


@pytest.mark.parametrize("mode", ["none", "all", "verify"])
def test_a_request_that_before_record_removes_passes_through(mode: str, ask: Ask) -> None:
    """In every mode it is neither recorded nor a miss."""
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode, before_record=anonymous) as cassette:
        assert ask("private", server.url) == "You said private."
    assert (cassette.recorded, cassette.misses, CASSETTE.exists()) == (0, [], False)


@pytest.mark.trap(32)
def test_loading_keeps_exchanges_that_before_record_would_remove() -> None:
    """The filter changes requests only. Recorded exchanges stay, and a block without the filter plays them."""
    record(CASSETTE, "private", "I am Alice")
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="new_episodes", before_record=anonymous) as cassette:
        assert len(cassette.requests) == 2
        ask("new", server.url)
    assert prompts_of(CASSETTE) == ["private", "I am Alice", "new"]


@pytest.mark.trap(31, 41)
@pytest.mark.parametrize("in_environment", [True, False])
def test_secrets_are_neither_in_the_cassette_nor_in_the_log(
    in_environment: bool, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secrets of the environment and those that `redact` names are removed, and the recording still matches itself."""
    options: dict[str, Any] = {} if in_environment else {"redact": [SECRET]}
    if in_environment:
        monkeypatch.setenv("MY_TOKEN", SECRET)
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once", **options):
        assert ask(f"my token is {SECRET}", server.url) == f"You said my token is {SECRET}."
    assert SECRET in server.requests[0].body.decode()
    stored = b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())
    assert SECRET.encode() not in stored
    assert prompts_of(CASSETTE) == ["my token is REDACTED"]
    with retold.use_cassette(CASSETTE, **options):
        assert ask(f"my token is {SECRET}").endswith("REDACTED.")
    with retold.use_cassette(CASSETTE, **options), pytest.raises(retold.MissError) as miss:
        ask(f"{SECRET} is my token")
    assert SECRET not in str(miss.value)


# Parts that count


def test_only_the_parts_in_match_on_count(ask: Ask) -> None:
    """Without the body, any prompt is answered, in recorded order. With the port, another server does not match."""
    record(CASSETTE, "a", "b")
    with retold.use_cassette(CASSETTE, match_on=["method", "path"]):
        assert [ask("y"), ask("z")] == ["You said a.", "You said b."]
    with retold.use_cassette(CASSETTE, match_on=["port", "body"]), pytest.raises(retold.MissError, match="port: recorded"):
        ask("a")


def test_predicates_in_match_on_decide(ask: Ask) -> None:
    """As in vcrpy, they accept by True or None and refuse by False or an AssertionError. All must accept."""
    record(CASSETTE, "a", "b")

    def silent(asked: Request, recorded: Request) -> None:
        assert (b'"b"' in recorded.body) == (b"second" in asked.body)

    with retold.use_cassette(CASSETTE, match_on=["path", silent, lambda asked, _: b"never" not in asked.body]):
        assert [ask("the second"), ask("the first")] == ["You said b.", "You said a."]
        with pytest.raises(retold.MissError):
            ask("never")


def test_an_unknown_rule_is_an_error_that_lists_the_known_ones() -> None:
    """The error comes before anything is recorded."""
    with pytest.raises(retold.InputError, match="unknown rule 'bodi' in match_on; there are method, scheme, host, port, path"):
        retold.use_cassette(CASSETTE, match_on=["method", "bodi"])


@pytest.mark.parametrize("path", ["temperature", "metadata", "messages[*].content", "messages[0].content", "**.content"])
def test_paths_of_ignore_do_not_count(path: str) -> None:
    """The paths are in a JSON body. Everything else counts."""
    changed = {path: {"temperature": 1, "metadata": {"user_id": "u"}}[path]} if path in ("temperature", "metadata") else {}
    with serve("yes") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url)
    prompt = "other" if "content" in path else "hi"
    with retold.use_cassette(CASSETTE, ignore=[path]):
        assert ask(prompt, NOWHERE, extra_body=changed) == "yes"
    with retold.use_cassette(CASSETTE, ignore=[]), pytest.raises(retold.MissError):
        ask(prompt, NOWHERE, extra_body=changed)


def test_the_id_of_the_user_and_cache_marks_do_not_count_by_default(ask: Ask) -> None:
    """The transport does not count either. The model, the limit and the tools do."""
    system: Any = [{"type": "text", "text": "s"}]
    with serve("yes") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url, system=system)
    cached = [system[0] | {"cache_control": {"type": "ephemeral"}}]
    with retold.use_cassette(CASSETTE):
        extra = {"user-agent": "another", "x-stainless-os": "x", "anthropic-beta": "b"}
        assert ask("hi", system=cached, metadata={"user_id": "somebody"}, extra_headers=extra) == "yes"
    changes: list[dict[str, Any]] = [
        {"model": "claude-other-1"},
        {"max_tokens": 65},
        {"tools": [{"name": "t", "input_schema": {}}]},
    ]
    for change in changes:
        with retold.use_cassette(CASSETTE), pytest.raises(retold.MissError, match=f"  {next(iter(change))}: "):
            ask("hi", system=system, extra_body=change)


def test_the_order_of_keys_does_not_count(ask: Ask) -> None:
    """A JSON object has no order."""
    record(CASSETTE)
    (recorded,) = retold.read_cassette(CASSETTE).exchanges
    turned = json.dumps(dict(reversed(json.loads(recorded.request.body).items()))).encode()
    retold.write_cassette(CASSETTE, [replace(recorded, request=replace(recorded.request, body=turned))])
    with retold.use_cassette(CASSETTE):
        assert ask("hi") == "You said hi."


@pytest.mark.trap(34)
def test_headers_count_on_request(ask: Ask) -> None:
    """Only headers about the question count, with betas in any order."""
    with serve("yes") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url, extra_headers={"anthropic-beta": "a,b"})
    with retold.use_cassette(CASSETTE, match_on=["body", "headers"]):
        with pytest.raises(retold.MissError, match=r"headers\.anthropic-beta\[1\]: recorded \"b\", now \"c\""):
            ask("hi", extra_headers={"anthropic-beta": "a,c"})
        assert ask("hi", extra_headers={"anthropic-beta": "b, a", "user-agent": "another"}) == "yes"
