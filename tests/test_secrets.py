"""The values that are secrets: keys by their shape, values of variables by name and look. Ordinary words never are.

The keys in this file are made up. The file assembles them at run time, so that no scanner reports a leak.
"""

import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.events import encode
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Request
from retold.recorder.http.sse import Piece
from retold.recorder.log.log import EventLog
from retold.recorder.secrets.redactor import Redactor, is_credential_header, secrets_in
from retold.recorder.secrets.streams import FrameRedactor, PackedRedactor, redact_body

LETTERS = "AbCd0123eFgH4567iJkL89mNoPqRsTuVwXyZ"
DIGITS = "0123456789abcdef" * 4
PEM = "-----BEGIN RSA PRIVATE " + "KEY-----\n" + f"{LETTERS}{LETTERS[:28]}\n" * 4 + "AbC=\n-----END RSA PRIVATE " + "KEY-----"
KEYS = {
    "Anthropic": "sk-" + "ant-api03-" + LETTERS,
    "OpenAI": "sk-" + "proj-" + LETTERS,
    "OpenAI, old": "sk-" + LETTERS + LETTERS[:12],
    "AWS": "AKIA" + "IOSFODNN7EXAMPLE",
    "AWS, session": "ASIA" + "IOSFODNN7EXAMPLE",
    "GitHub": "ghp" + "_" + LETTERS,
    "GitHub, OAuth": "gho" + "_" + LETTERS,
    "GitHub, fine-grained": "github" + "_pat_" + LETTERS,
    "Slack": "xox" + "b-123456789012-" + LETTERS,
    "JWT": "ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiIxMjM0NTY3ODkwIn0." + LETTERS,
    "Google": "AI" + "za" + LETTERS[:35],
    "Hugging Face": "hf" + "_" + LETTERS[:34],
    "Stripe": "sk" + "_live_" + LETTERS,
    "PEM": PEM,
}
ENV_SECRET = 'pa<ss>&w0rd+/x"y\\né😀'
SPELLED = {**KEYS, "variable": ENV_SECRET}
REDACTOR = Redactor({"DB_PASSWORD": ENV_SECRET})


def go(text: str) -> str:
    """Return a string as Go's encoding/json writes it, without the quotes."""
    return json.dumps(text)[1:-1].replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def every_character(text: str) -> str:
    """Return every UTF-16 unit as an escape in upper case."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02X}{units[at + 1]:02X}" for at in range(0, len(units), 2))


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "Python": lambda text: json.dumps(text)[1:-1],
    "UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "Go": go,
    "PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "escapes": every_character,
    "JSON in JSON": lambda text: json.dumps(go(text))[1:-1],
    "JSON in JSON in JSON": lambda text: json.dumps(json.dumps(every_character(text))[1:-1])[1:-1],
    "URL": lambda text: quote(text, safe=""),
    "form": quote_plus,
    "URL in URL": lambda text: quote(quote(text, safe=""), safe=""),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("secret", SPELLED)
def test_a_secret_is_found_in_every_spelling(secret: str, spelling: str) -> None:
    """The cases include every language, and several layers of escapes."""
    spelled = SPELLINGS[spelling](SPELLED[secret])
    assert REDACTOR.data(f'{{"a":"<{spelled}> b"}}'.encode()) == b'{"a":"<REDACTED> b"}'


def test_the_secret_of_an_aws_key_is_recognised_by_the_name_before_it() -> None:
    """Without the name, forty characters of base64 could also be a digest."""
    value = (LETTERS + LETTERS)[:40]
    for name in ("aws_secret_access_key = ", '{"SecretAccessKey": "', "export AWS_SECRET_ACCESS_KEY="):
        assert REDACTOR.text(f"{name}{value}\n") == f"{name}REDACTED\n"
    assert REDACTOR.text(f"digest {value}") == f"digest {value}"


@pytest.mark.parametrize("key", ["AWS", "Google", "Hugging Face", "Slack", "GitHub"])
def test_the_shape_of_a_key_inside_a_longer_run_is_not_a_key(key: str) -> None:
    """Images, signatures and digests are long runs of base64, which contain every short literal by chance."""
    assert REDACTOR.text(f"{LETTERS}{KEYS[key]}{LETTERS}") == f"{LETTERS}{KEYS[key]}{LETTERS}"


@pytest.mark.parametrize(
    "text",
    [
        "task-management-in-the-modern-workplace-2024", "sk-learn-pipeline-for-tabular-data", "a risk-averse disk-usage", "eyJ",
        "hf_transformer_model_for_text_generation", "SG.", "xoxo-", "-----BEGIN CERTIFICATE-----\nAbC\n-----END CERTIFICATE-----",
        "100% sure", "C:\\new\\table\\users", "https://h/?page_token=abcdefgh12345678", "{{execution_id}}",
        "msg_01AbCdEfGhIjKlMnOpQrStUv",
    ],
)  # fmt: skip
def test_ordinary_text_is_unchanged(text: str) -> None:
    """This is true for the plain text and for its JSON."""
    assert REDACTOR.url(text) == text
    assert REDACTOR.data(json.dumps(text).encode()) == json.dumps(text).encode()


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
def test_random_text_is_never_changed(text: str) -> None:
    """The text has none of the literals that begin a key."""
    data = json.dumps(text).encode()
    assert REDACTOR.data(data) is data


@pytest.mark.parametrize("key", ["id", "message_id", "previous_message_id", "tool_use_id", "request_id"])
def test_the_shape_of_an_id_does_not_make_it_a_secret(key: str) -> None:
    """The next request of a conversation contains the id. Without it, every continuation would be a miss."""
    for value in (KEYS["OpenAI, old"], KEYS["GitHub"], f"msg_{KEYS['AWS']}", f"toolu_{KEYS['Anthropic']}"):
        data = json.dumps({"thread": {key: value}}).encode()
        assert REDACTOR.data(data) == data
        assert REDACTOR.data(json.dumps(data.decode()).encode()) == json.dumps(data.decode()).encode()


def test_an_id_equal_to_a_secret_of_the_environment_is_removed() -> None:
    """The value is certain, and a shape is only a guess."""
    assert Redactor({"MY_TOKEN": "abc123def456"}).data(b'{"id":"abc123def456"}') == b'{"id":"REDACTED"}'


# The environment


@pytest.mark.parametrize(
    "value",
    [
        "postgres", "development", "PRODUCTION", "changeme", "local-development", "my.test.secret", "MyLocalSecret", "12345678",
        "2024-01-02", "http://localhost:8080/x1", "localhost:5432", "db1.internal.example.com", "127.0.0.1:6379",
        "/run/secrets/token1",
        "./keys/key1", "C:\\keys\\key1", "aaaaaaaa", "short1",
    ],
)  # fmt: skip
def test_a_value_without_the_look_of_a_secret_is_not_one(value: str) -> None:
    """Words, numbers, hosts, URLs and paths are in every prompt. Without them, a cassette could not be replayed elsewhere."""
    assert secrets_in({"POSTGRES_PASSWORD": value, "SECRET_KEY": value}) == []


@pytest.mark.parametrize(
    "value", ["hunter2hunter2", "hunter2-correct-horse", "pässwörd-ünïcode", "p@ssword", "correct horse battery staple", LETTERS]
)
def test_a_value_with_the_look_of_a_secret_is_one(value: str) -> None:
    """It mixes letters and digits, has other characters, or has more words than a name."""
    assert secrets_in({"APP_SECRET": value}) == [value]


@pytest.mark.parametrize(
    "name",
    [
        "API_TOKEN",
        "PGPASSWORD",
        "secretKey",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "SECRET_KEY_BASE",
        "MYSQL_PWD",
        "NPM_AUTH",
        "TOKEN_1",
    ],
)
def test_names_of_secret_variables_are_recognised(name: str) -> None:
    """The name contains a whole word, or ends in it."""
    assert secrets_in({name: "abc123def456"}) == ["abc123def456"]


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYBOARD_LAYOUT", "SECRETARY", "PASSWORDLESS_LOGIN", "AUTHOR"]
)
def test_names_that_only_contain_the_letters_of_a_word_are_not_secret(name: str) -> None:
    """`TOKENIZERS` is not `TOKEN`."""
    assert secrets_in({name: "abc123def456"}) == []


def test_the_password_in_a_url_of_the_environment_is_a_secret() -> None:
    """The name of the variable does not matter. The URL itself is not a secret."""
    assert secrets_in({"DATABASE_URL": "postgres://app:s3cr3t%2Fpass@db/x"}) == ["s3cr3t/pass"]


def test_values_given_as_secrets_are_always_removed() -> None:
    """For `redact=`, the look of a value does not matter."""
    assert Redactor({}, extra=["postgres"]).text("a postgres query") == "a REDACTED query"


# Headers and parameters


@pytest.mark.parametrize(
    "name",
    [
        "cf-aig-authorization", "x-portkey-api-key", "Helicone-Auth", "x-litellm-api-key", "x-litellm-key",
        "Ocp-Apim-Subscription-Key",
        "x-goog-api-key", "x-amz-security-token", "X-Forwarded-Authorization", "x-auth-token", "x-vault-token", "private-token",
        "cf-access-client-secret", "x-functions-key", "cf-access-jwt-assertion",
        "x-portkey-virtual-key", "x-auth-key",
    ],
)  # fmt: skip
def test_headers_with_credentials_are_recognised_by_their_names(name: str) -> None:
    """The words of the name count."""
    assert Redactor({}).headers([(name, "x")]) == [(name, "REDACTED")]


@pytest.mark.parametrize(
    "name",
    ["anthropic-ratelimit-tokens-remaining", "x-ratelimit-limit-tokens", "idempotency-key", "sec-websocket-key",
     "author", "surrogate-key", "anthropic-version",
     "www-authenticate"],
)  # fmt: skip
def test_other_headers_are_unchanged(name: str) -> None:
    """A count of tokens is not a token."""
    assert not is_credential_header(name)


@pytest.mark.parametrize("name", ["location", "referer", "link", "x-anything"])
@pytest.mark.parametrize("url", ["https://u:pw@h/a?{}=x1&b=2", "/callback?b=2&{}=x1", "</next?{}=x1;b=2>; rel=next", "/#{}=x1"])
@pytest.mark.parametrize("parameter", ["access_token", "accessToken", "sig", "api_key", "pwd", "X-Amz-Signature", "jwt"])
def test_urls_in_headers_lose_their_credentials(name: str, url: str, parameter: str) -> None:
    """The URLs are absolute or relative, one or several."""
    clean = Redactor({}).headers([(name, url.format(parameter))])[0][1]
    assert clean == url.format(parameter).replace("u:pw@", "").replace("x1", "REDACTED")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_request_is_recorded_unpacked(encoding: str) -> None:
    """Its wire bytes could not be scrubbed. The same text matches, whichever compressor the client used."""
    squeezer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    body = squeezer.compress(f'{{"a":"{KEYS["GitHub"]}"}}'.encode()) + squeezer.flush()
    request = Request("POST", "https://h/", (("content-encoding", encoding), ("content-length", "9"), ("a", "b")), body)
    assert Redactor({}).request(request) == Request("POST", "https://h/", (("a", "b"),), b'{"a":"REDACTED"}')


# Streams


def deltas(spelled: str, places: list[int]) -> list[bytes]:
    """Return JSON text as the deltas of a stream. As servers do, cut the text between its characters."""
    text = json.loads(f'"{spelled}"')
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    events = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": p}} for p in parts
    ]
    return [b"event: content_block_delta\ndata: " + encode(event) + b"\n\n" for event in events]


def joined(pieces: list[bytes]) -> str:
    return "".join(json.loads(piece.partition(b"data: ")[2])["delta"]["partial_json"] for piece in pieces)


spelled = st.sampled_from(["UTF-8", "Go", "JSON in JSON", "escapes"])
splits = st.lists(st.integers(0, 500), max_size=12)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(sorted(SPELLED)), spelled, splits)
def test_a_secret_in_any_spelling_split_over_deltas_is_removed(secret: str, spelling: str, places: list[int]) -> None:
    """The split may be inside an escape. At most three characters of the secret were written before."""
    inner = SPELLINGS[spelling](SPELLED[secret])
    frames = deltas(json.dumps(f'{{"a":"{inner}"}}')[1:-1], places)
    scrub = FrameRedactor(REDACTOR)
    clean = [piece.data for frame in frames for piece in scrub.feed(Piece(frame, True))] + [p.data for p in scrub.flush()]
    said = joined(clean)
    assert len(clean) == len(frames)
    assert "REDACTED" in said
    assert REDACTOR.search(said.encode()) is None
    assert said.startswith('{"a":"')
    assert said.endswith('"}')
    assert len(said) <= len('{"a":"REDACTED"}') + 3 * 24
    whole = redact_body([Piece(frame, True) for frame in frames], REDACTOR)
    assert joined([piece.data for piece in whole]) == '{"a":"REDACTED"}'


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(SPELLED)), splits, st.sampled_from([9, 31, 15]), st.integers(1, 400), st.booleans())
def test_a_secret_in_a_compressed_stream_never_reaches_the_log(
    secret: str, places: list[int], packing: int, size: int, flushed: bool
) -> None:
    """The log can always be unpacked, and contains no secret. Without a secret it contains every byte."""
    squeezer = zlib.compressobj(wbits=max(packing, 15))
    frames = deltas(json.dumps(SPELLED[secret])[1:-1], places)
    body = (
        b"".join(squeezer.compress(f) + (squeezer.flush(zlib.Z_SYNC_FLUSH) if flushed else b"") for f in frames)
        + squeezer.flush()
    )
    headers = (("content-type", "text/event-stream"), ("content-encoding", "gzip" if packing == 31 else "deflate"))
    packed = PackedRedactor(REDACTOR, headers)
    written, content = [], []
    for at in range(0, len(body), size):
        wire, pieces = packed.feed(body[at : at + size])
        written += wire
        content += pieces
    wire, pieces = packed.flush()
    assert packed.found
    left = zlib.decompressobj(wbits=max(packing, 15)).decompress(b"".join(written + wire))
    texts = [f for f in left.split(b"\n\n") if f.startswith(b"event: ") and b"data: " in f and f.endswith(b"}}")]
    assert REDACTOR.search(joined(texts).encode()) is None
    assert len(joined(texts)) < len(SPELLED[secret])
    assert "REDACTED" in joined([piece.data for piece in content + pieces])


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_compressed_stream_without_secrets_is_written_in_full(size: int) -> None:
    """The log has the same bytes in the same order."""
    body = zlib.compress(b"".join(deltas("a task-like text that sk- begins and ends: gho", [3, 9, 30])))
    packed = PackedRedactor(REDACTOR, (("content-type", "text/event-stream"), ("content-encoding", "deflate")))
    written = [wire for at in range(0, len(body), size) for wire in packed.feed(body[at : at + size])[0]]
    assert b"".join(written + packed.flush()[0]) == body


# Names


def test_names_of_runs_steps_and_tasks_contain_no_secret(tmp_path: Path) -> None:
    """This is true for events, for the listing, for every byte of the file, and for the error of a failed run."""
    key, secret = KEYS["Anthropic"], "hunter2hunter2"
    with EventLog(tmp_path / "log.db") as log:
        writer = log.start(name=f"run[{key}] {secret}", mode="live", redactor=Redactor({"A_TOKEN": secret}))
        writer.note("message", {"type": "user"}, step=f"step {secret}", task=f"task {key}")
        writer.end("failed", error=f"RuntimeError: no login with {secret}")
        (info,) = log.runs()
        assert (info.name, info.error) == ("run[REDACTED] REDACTED", "RuntimeError: no login with REDACTED")
        assert {(event.step, event.task) for event in log.events(info.run)} == {("", ""), ("step REDACTED", "task REDACTED")}
    data = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key.encode() not in data
    assert secret.encode() not in data


def test_a_capture_of_a_compressed_stream_with_a_split_key_is_cut_before_it(tmp_path: Path) -> None:
    """The log has the message without the key."""
    squeezer = zlib.compressobj(wbits=31)
    start = b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"m"}}\n\n'
    opened = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    text = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
        for part in ("Key: ", KEYS["GitHub"][:9], KEYS["GitHub"][9:], " ok")
    ]
    events = [opened, *text, {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    frames = [start, *(b"data: " + encode(event) + b"\n\n" for event in events)]
    with EventLog(tmp_path / "log.db") as log, log.start(name="run", mode="live", redactor=Redactor({})) as writer:
        capture = Capture(writer, Request("POST", "https://h/v1/messages", (), b"{}"))
        capture.response(200, "OK", (("content-type", "text/event-stream"), ("content-encoding", "gzip")))
        for frame in frames:
            capture.data(squeezer.compress(frame) + squeezer.flush(zlib.Z_SYNC_FLUSH))
        capture.end("complete")
        assert capture.ending == "cut"
        wire = b"".join(event.payload for event in log.events(writer.run, kinds=("chunk",)))
        assert b"Key: " in zlib.decompressobj(31).decompress(wire)
        assert KEYS["GitHub"][3:9].encode() not in zlib.decompressobj(31).decompress(wire)
        (message,) = log.messages(writer.run)
        assert next(message.blocks)["text"] == "Key: REDACTED ok"
