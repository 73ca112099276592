"""A secret is never written to log, cassette or error text, in any context and however it is split."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.cassette.format import write_cassette
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.events import encode
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Failure, Request
from retold.recorder.http.patching import intercepted
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog
from retold.recorder.secrets.redactor import SECRET_HEADERS, Redactor, secrets_in
from tests.exchanges import GZIP, JSON, SSE, URL, answer, exchange
from tests.messages_server import MessagesServer, Reply, http_error, text
from tests.test_redact_frames import KEY, SECRET, cut, frame


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "store" / "log.db") as opened:
        yield opened


def stored(folder: Path) -> bytes:
    """Return every byte of every file below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Values


@pytest.mark.parametrize("name", sorted(SECRET_HEADERS))
def test_the_values_of_credential_headers_are_removed(name: str) -> None:
    """The case of the name does not matter. Names, other headers and their order stay."""
    headers = [("A", "1"), (name.upper(), "x"), ("b", "2"), (name, "y")]
    assert Redactor({}).headers(headers) == [("A", "1"), (name.upper(), "REDACTED"), ("b", "2"), (name, "REDACTED")]


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Cookie", "Set-Cookie", "anthropic-organization-id"])
def test_headers_with_credentials_are_known(name: str) -> None:
    """The SDK sends Authorization, Claude Code sends x-api-key, and servers set cookies."""
    assert Redactor({}).headers([(name, "x")]) == [(name, "REDACTED")]


@pytest.mark.parametrize("around", ["{}", "Bearer {}", '{{"key":"{}"}}', "a={}&b=1", "x{}\ny", "é{}é"])
def test_text_in_the_shape_of_a_key_is_removed_anywhere(around: str) -> None:
    """Redaction does not need to know the value. It searches text, bytes and headers of any name."""
    redactor, whole, clean = Redactor({}), around.format(KEY), around.format("REDACTED")
    assert redactor.text(whole) == clean
    assert redactor.data(whole.encode()) == clean.encode()
    assert redactor.headers([("x-anything", whole)]) == [("x-anything", clean)]


@pytest.mark.parametrize(
    "name",
    ["MY_TOKEN", "API_KEY", "STRIPE_APIKEY", "db_password", "SMTP_PASSWD", "CLIENT_SECRET", "GIT_CREDENTIAL", "SSH_PRIVATE_KEY"],
)
def test_the_values_of_secret_variables_are_removed_anywhere(name: str) -> None:
    """The name of such a variable marks it as secret. Its value may look like anything."""
    assert Redactor({name: SECRET, "HOME": "/home/someone"}).text(f"a {SECRET} b /home/someone") == "a REDACTED b /home/someone"


@pytest.mark.parametrize("value", ["", "1", "true", "short", "/path/to/token", "~/token"])
def test_values_that_are_not_secrets_stay(value: str) -> None:
    """Removing a short value or a path would damage ordinary text."""
    assert secrets_in({"MY_TOKEN": value}) == []


def test_a_secret_that_contains_another_is_removed_in_full() -> None:
    """The longer secret is removed first, so that no part of it remains."""
    assert Redactor({"A_TOKEN": "1234567x", "B_TOKEN": "1234567xabcdef"}).text("1234567xabcdef 1234567x") == "REDACTED REDACTED"


def test_further_secrets_can_be_named() -> None:
    """A key that code passes to a client is not in the environment."""
    assert Redactor({}, extra=["given-in-code"]).data(b"given-in-code") == b"REDACTED"


@pytest.mark.parametrize(
    "secret", ['quote"back\\slash', "line\nbreak-secret", "pässwörd-ünïcode", "plus+slash/equals=1", "a.b*c(d)[e]^f$"]
)
def test_a_secret_is_found_in_each_form_of_json(secret: str) -> None:
    """The forms are escaped or not, with or without characters beyond ASCII."""
    redactor = Redactor({"MY_SECRET": secret})
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        assert redactor.data(f"<{form}>".encode()) == b"<REDACTED>"


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:password@h:8080/v1/messages?beta=true", "https://h:8080/v1/messages?beta=true"),
        ("https://token@h/", "https://h/"),
        ("https://h/v1?api_key=x&beta=true", "https://h/v1?api_key=REDACTED&beta=true"),
        ("https://h/v1?Token=x&key=&a=%20", "https://h/v1?Token=REDACTED&key=REDACTED&a=%20"),
        (f"https://h/v1?x={KEY}", "https://h/v1?x=REDACTED"),
        (f"https://h/{SECRET}/v1", "https://h/REDACTED/v1"),
        ("https://h/v1/messages?beta=true&x=%20#f", "https://h/v1/messages?beta=true&x=%20#f"),
        ("", ""),
    ],
)
def test_a_url_loses_its_user_and_its_credentials(url: str, clean: str) -> None:
    """Redaction removes user info, credential parameters and other secrets. A URL without secrets keeps every escape."""
    assert Redactor({"MY_TOKEN": SECRET}).url(url) == clean


def test_a_percent_encoded_secret_in_a_url_is_found() -> None:
    """A query percent-encodes `+` and `/`."""
    request = httpx2.Request("GET", "https://h/", params={"q": "plus+slash/equals=1"})
    assert Redactor({"MY_SECRET": "plus+slash/equals=1"}).url(str(request.url)) == "https://h/?q=REDACTED"


def test_text_with_half_a_character_is_scrubbed() -> None:
    """The text of an error may quote broken input. Scrubbing it must not raise another error."""
    assert Redactor({}).text(f"\ud83d {KEY}") == "\ud83d REDACTED"


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60))
def test_bytes_without_secrets_are_returned_as_the_same_object(data: bytes) -> None:
    """Redaction copies and re-encodes nothing."""
    assert Redactor({"MY_TOKEN": SECRET}).data(data) is data


def test_redacting_twice_changes_nothing() -> None:
    """Recording and matching may both scrub the same text."""
    redactor = Redactor({"MY_TOKEN": SECRET})
    once = redactor.request(Request("POST", f"https://u:p@h/?key={KEY}", (("x-api-key", KEY),), SECRET.encode()))
    assert redactor.request(once) == once


# Recordings


def frames_of(*parts: str) -> list[bytes]:
    """Return the frames of a whole answer with this text in these parts."""
    start: dict[str, Any] = {"type": "message_start", "message": {"id": "msg_1", "model": "m"}}
    opened: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    ended = [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    head, tail = ([b"data: " + encode(event) + b"\n\n" for event in events] for events in ([start, opened], ended))
    return [*head, *(frame(0, part) for part in parts), *tail]


def assert_clean(folder: Path, *secrets: str) -> None:
    data = stored(folder)
    assert b"REDACTED" in data
    assert [secret for secret in secrets if secret.encode() in data] == []


@pytest.mark.trap(41)
def test_a_recorded_exchange_leaves_no_secret_in_log_and_cassette(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real client uses a real key. The secrets are credentials, and texts in the prompt, the query, the answer and a header."""
    monkeypatch.setenv("MY_TOKEN", SECRET)
    reply = Reply(
        [text(f"Your token is {SECRET} and your key {KEY}.", pieces=5)], headers={"x-echo": SECRET, "set-cookie": "id=1234"}
    )
    with MessagesServer([reply]) as server, log.start(name="run", mode="live") as writer:
        client = anthropic.Anthropic(base_url=server.url, api_key=KEY, default_query={"api_key": "query-credential"})
        with client, intercepted(Recorder(lambda request: Capture(writer, request))):
            stream = client.messages.create(
                model="m", max_tokens=9, stream=True, messages=[{"role": "user", "content": f"{SECRET} {KEY}"}], system=SECRET
            )
            said = "".join(getattr(event.delta, "text", "") for event in stream if event.type == "content_block_delta")
    assert said == f"Your token is {SECRET} and your key {KEY}."
    assert SECRET in server.requests[0].body.decode()
    write_cassette(tmp_path / "store" / "c.yaml", exchanges_of(log, writer.run))
    assert_clean(tmp_path / "store", SECRET, KEY, "query-credential", "id=1234")


@pytest.mark.trap(41)
def test_an_error_body_leaves_no_secret(log: EventLog, tmp_path: Path) -> None:
    """An API may quote the key that it refuses."""
    with (
        MessagesServer([http_error(401, "authentication_error", f"invalid key {KEY}")]) as server,
        log.start(name="run", mode="live") as writer,
        anthropic.Anthropic(base_url=server.url, api_key=KEY) as client,
        intercepted(Recorder(lambda request: Capture(writer, request))),
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    write_cassette(tmp_path / "store" / "c.yaml", exchanges_of(log, writer.run))
    assert_clean(tmp_path / "store", KEY)


@pytest.mark.trap(41)
def test_the_text_of_an_exception_leaves_no_secret(log: EventLog, tmp_path: Path) -> None:
    """The error of a proxy may quote a URL with its password."""
    with log.start(name="run", mode="live") as writer:
        Capture(writer, Request("POST", URL, (), b"")).end("no_response", ConnectionError(f"no route to {KEY}"))
    (found,) = exchanges_of(log, writer.run)
    assert found.failure is not None
    assert found.failure.message == "no route to REDACTED"
    assert_clean(tmp_path / "store", KEY)


@pytest.mark.parametrize("places", [[7], [4, 9], [1, 2, 3, 20]])
def test_a_split_key_is_neither_in_frames_nor_in_messages(log: EventLog, tmp_path: Path, places: list[int]) -> None:
    """The message is folded from written frames, so that it cannot join the pieces again."""
    with log.start(name="run", mode="live") as writer:
        capture = Capture(writer, Request("POST", URL, JSON, b"{}"))
        capture.response(200, "OK", SSE)
        for data in frames_of("Key: ", *cut(KEY, places), " ok"):
            capture.data(data)
        capture.end("complete")
    (message,) = log.messages(writer.run)
    said = next(message.blocks)["text"]
    assert said.startswith("Key: ")
    assert said.endswith(" ok")
    assert KEY[4:] not in said
    assert_clean(tmp_path / "store", KEY[4:])


def test_a_split_key_in_a_compressed_stream_is_not_in_the_messages(log: EventLog) -> None:
    """Compressed bytes are stored unchanged. The messages in them are scrubbed like any other."""
    body = b"".join(frames_of("Key: ", KEY[:9], KEY[9:], " ok"))
    run = import_exchanges(log, [exchange(answer(gzip.compress(body), headers=GZIP))], name="run", source="here")
    assert [next(message.blocks)["text"] for message in log.messages(run)] == ["Key: REDACTED ok"]


def test_a_key_split_over_the_chunks_of_a_json_body_is_removed(log: EventLog, tmp_path: Path) -> None:
    """The socket may cut the body at any byte."""
    body = encode({"type": "message", "content": [{"type": "text", "text": f"Key: {KEY} ok"}]})
    middle = body.index(KEY.encode()) + 9
    run = import_exchanges(log, [exchange(answer(body[:middle], body[middle:], headers=JSON))], name="run", source="here")
    write_cassette(tmp_path / "store" / "c.yaml", exchanges_of(log, run))
    assert_clean(tmp_path / "store", KEY)


def test_a_key_inside_a_compressed_body_is_removed(log: EventLog) -> None:
    """A search of the file cannot find a compressed key, but unpacking the body would reveal it."""
    run = import_exchanges(
        log, [exchange(answer(gzip.compress(f"Key: {KEY} ok".encode()), headers=GZIP))], name="run", source="here"
    )
    (found,) = exchanges_of(log, run)
    assert found.response is not None
    packed = found.response.header("content-encoding") == "gzip"
    assert KEY.encode() not in (gzip.decompress(found.response.body) if packed else found.response.body)


def foreign(secret_in: str) -> Any:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": KEY}
    return {
        "request": exchange(body=encode({"messages": [{"role": "user", "content": [result]}]})),
        "response": exchange(answer(frame(0, KEY))),
        "header": exchange(answer(headers=(("x-echo", KEY),))),
        "URL": exchange(uri=f"{URL}?key={KEY}"),
        "tool result": exchange(tool_results=(result,)),
        "variable": exchange(variables={"token": KEY}),
        "failure": exchange(ending="cut", failure=Failure("builtins.OSError", KEY)),
    }[secret_in]


@pytest.mark.parametrize(
    "secret_in",
    [
        "request",
        "response",
        "header",
        "URL",
        "tool result",
        "variable",
        "failure",
    ],
)
def test_an_imported_secret_does_not_reach_the_log(log: EventLog, tmp_path: Path, secret_in: str) -> None:
    """Cassettes of other tools may contain unscrubbed secrets."""
    import_exchanges(log, [foreign(secret_in)], name="run", source="here")
    assert_clean(tmp_path / "store", KEY)


def test_a_secret_in_a_tool_result_does_not_reach_the_log(log: EventLog, tmp_path: Path) -> None:
    """A later request of an import contains the result of an earlier tool call, in its body and as a message."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": KEY}
    asked = exchange(answer(encode({"type": "message", "content": [call]}), headers=JSON))
    told = exchange(body=encode({"messages": [{"role": "user", "content": [result]}]}))
    run = import_exchanges(log, [asked, told], name="run", source="here")
    assert [message.type for message in log.messages(run)] == ["assistant", "user"]
    assert_clean(tmp_path / "store", KEY)


IDS = [
    "id",
    "message_id",
    "previous_message_id",
    "tool_use_id",
    "custom_tool_use_id",
    "event_id",
    "session_thread_id",
    "batch_id",
]


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("prefix", ["", "msg_", "chatcmpl-", "sesn_"])
def test_an_id_that_looks_like_a_key_is_kept(name: str, prefix: str) -> None:
    """A later request repeats the id, so a redacted id could never match. Spaces and escaped quotes do not matter."""
    redactor = Redactor({})
    for kept in (json.dumps({name: prefix + KEY}), json.dumps({name: prefix + KEY}, separators=(",", ":")),
                 json.dumps(json.dumps({name: prefix + KEY}))):  # fmt: skip
        assert redactor.text(kept) == kept
    assert KEY not in redactor.text(json.dumps({"text": KEY, name: "x"}))


def test_an_id_in_a_path_is_kept() -> None:
    """Ids of sessions, events and batches are parts of paths. A key in a path is removed."""
    redactor = Redactor({})
    for kept in ("sesn_", "sthr_", "msgbatch_"):
        url = f"https://api.anthropic.com/v1/x/{kept}{KEY}/events"
        assert redactor.url(url) == url
    assert KEY not in redactor.url(f"https://api.anthropic.com/v1/x/{KEY}/events")


@pytest.mark.parametrize("name", ["aws_access_key_id", "client_id", "secret_id", "key_id"])
def test_a_credential_with_the_name_of_an_id_is_removed(name: str) -> None:
    """Ids of keys and clients are credentials or parts of credentials."""
    assert KEY not in Redactor({}).text(json.dumps({name: KEY}))
