"""Recordings of other tools: each form is read completely, or the error names the kind of file. None is called damaged."""

import json
from pathlib import Path

import pytest

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.errors import CassetteError
from retold.recorder.files import why_not_writable
from tests.e2e import in_this_process, refused

REQUEST = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "h\u00e9"}]}
HEAD = "interactions:\n- request:\n    method: POST\n    uri: https://api.anthropic.com/v1/messages\n"
ANSWER = "  response: {status: {code: 200, message: OK}, headers: {}, body: {string: '{}'}}\n"
EVENT = '{"type": "message_start", "message": {}}\n{"type": "message_stop"}\n'


def written(name: str, content: object) -> Path:
    """Write a file, from text or as JSON."""
    path = Path(name)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("module", ["multidict", "multidict._multidict", "multidict._multidict_py"])
@pytest.mark.parametrize("how", ["apply", "new"])
@pytest.mark.parametrize("value", ["- X-Name", "args: [X-Name]"])
def test_a_header_name_under_a_multidict_tag_is_text(how: str, module: str, value: str) -> None:
    header = f"    headers:\n      ? !!python/object/{how}:{module}.istr\n        {value}\n      : [v]\n"
    (exchange,) = read_cassette(written("c.yaml", f"{HEAD}{header}    body: x\n{ANSWER}")).exchanges
    assert exchange.request.headers == (("X-Name", "v"),)


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/object/new:os.system", "python/name:os.system"])
def test_other_python_objects_are_refused(tag: str) -> None:
    """The tag runs nothing, and the error does not advise to delete a file of another recorder."""
    text = f"{HEAD}    headers: {{a: !!{tag} [touch ran]}}\n    body: x\n{ANSWER}"
    with pytest.raises(CassetteError, match="constructor") as caught:
        read_cassette(written("c.yaml", text))
    assert "delete" not in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("key", ["body", "parsed_body"])
@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_parsed_body_has_its_recorded_length(key: str, separators: tuple[str, str], ascii_only: bool) -> None:
    data = json.dumps(REQUEST, separators=separators, ensure_ascii=ascii_only).encode()
    request = {"method": "POST", "uri": "https://h/", "headers": {"Content-Length": [str(len(data))]}, key: REQUEST}
    entry = {"request": request, "response": {"status": {"code": 200}, "body": None}}
    (exchange,) = read_cassette(written("c.json", {"interactions": [entry]})).exchanges
    assert exchange.request.body == data


def test_a_parsed_body_without_a_length_is_serialized_like_json_dumps() -> None:
    text = f"{HEAD}    parsed_body: {{a: 2026-01-01, b: [1, 'h\u00e9']}}\n{ANSWER}"
    (exchange,) = read_cassette(written("c.yaml", text)).exchanges
    assert exchange.request.body == b'{"a": "2026-01-01", "b": [1, "h\\u00e9"]}'


def test_empty_and_null_bodies_stay_empty() -> None:
    for body in ("{}", "null", "{string: ''}", "{string: null}", "''"):
        (exchange,) = read_cassette(written("c.yaml", f"{HEAD}    body: {body}\n{ANSWER}")).exchanges
        assert exchange.request.body == b""


CASSETTER_YAML = """\
version: 1
interactions:
- request: {method: POST, uri: 'https://h/v1/messages', headers: {}, body: {type: json, content: {model: m}}}
  response:
    status: 200
    headers: {content-type: [text/event-stream]}
    body: {type: text, content: "event: ping\\ndata: {}\\n\\n"}
  recorded_at: 2026-01-01T00:00:00Z
- request: {method: GET, uri: 'https://h/x', headers: {}, body: {type: none}}
  response: {status: 204, headers: {}, body: {type: binary, content: ff0061}}
  recorded_at: 2026-01-01T00:00:01Z
"""
CASSETTER_TOML = """\
version = 1
[[interactions]]
recorded_at = "2026-01-01T00:00:00Z"
[interactions.request]
method = "POST"
uri = "https://h/v1/messages"
body_type = "json"
body_content = '{"model": "m"}'
[interactions.request.headers]
[interactions.response]
status = 200
body_type = "text"
body_content = "event: ping\\ndata: {}\\n\\n"
[interactions.response.headers]
content-type = ["text/event-stream"]
[[interactions]]
recorded_at = "2026-01-01T00:00:01Z"
[interactions.request]
method = "GET"
uri = "https://h/x"
body_type = "none"
[interactions.response]
status = 204
body_type = "binary"
body_content = "ff0061"
"""


@pytest.mark.parametrize(("name", "text"), [("c.yaml", CASSETTER_YAML), ("c.toml", CASSETTER_TOML)])
def test_cassettes_of_cassetter_are_read(name: str, text: str) -> None:
    first, second = read_cassette(written(name, text)).exchanges
    assert first.response is not None
    assert second.response is not None
    assert (first.request.body, first.response.status) == (b'{"model": "m"}', 200)
    assert first.response.body == b"event: ping\ndata: {}\n\n"
    assert (second.request.body, second.response.status, second.response.body) == (b"", 204, b"\xff\x00a")
    assert (first.recorded_at, second.recorded_at) == ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")
    assert in_this_process("import", name).returncode == 0


def test_toml_is_not_written() -> None:
    with pytest.raises(CassetteError, match="does not write it"):
        write_cassette("c.toml", [])
    assert why_not_writable(Path("c.toml")) is not None
    assert not Path("c.toml").exists()


def test_a_file_of_one_exchange_is_a_cassette_of_one() -> None:
    """Datadog's test agent writes each exchange to a file, with `url` and with bodies as text."""
    request = {"method": "POST", "url": "https://h/v1/messages", "headers": {"a": "b"}, "body": json.dumps(REQUEST)}
    answer = {"status": {"code": 200, "message": "OK"}, "headers": {}, "body": "{}"}
    (exchange,) = read_cassette(written("c.json", {"request": request, "response": answer})).exchanges
    assert json.loads(exchange.request.body) == REQUEST
    assert exchange.response is not None
    assert exchange.response.body == b"{}"


NAMED = [
    ("c.yaml", "version: 1\ninteractions: []\ngrpc_interactions:\n- {request: {method: /a.B/C}}\n", "gRPC"),
    ("c.yaml", "interactions:\n- request: {method: /a.B/C, body: x}\n  response: {code: 0}\n", "gRPC"),
    ("c.yaml", "interactions:\n- request: {method: POST, uri: 'grpc://h/a.B/C'}\n  response: {code: 0}\n", "gRPC"),
    ("c.yaml", "version: 1\ninteractions: []\nws_interactions:\n- {uri: 'wss://h/x', frames: []}\n", "WebSocket"),
    ("c.yaml", "interactions:\n- request: {method: GET, uri: 'wss://h/x'}\n  response: {frames: []}\n", "WebSocket"),
    ("c.json", {"request": {"url": "https://h"}, "response": {"status": 200}, "chunks": [{"b64": "e30="}]}, "req_llm"),
    ("c.json", {"type": "message", "role": "assistant", "content": []}, "one response without its request"),
    ("c.json", {"status": 200, "headers": {}, "body": "{}"}, "one response without its request"),
    ("c.json", [{"type": "system", "subtype": "init"}, {"type": "result"}], "transcript of a session"),
    ("c.yaml", "messages:\n- {type: system}\n- {type: result}\n", "transcript of a session"),
    ("c.txt", EVENT, "response chunks"),
    ("c.jsonl", EVENT, "response chunks"),
    ("c.jsonl", '{"id": "x", "choices": []}\n', "response chunks"),
    ("c.txt", '{"type": "system", "subtype": "init"}\n{"type": "result"}\n', "transcript of a session"),
]


@pytest.mark.parametrize(("name", "content", "kind"), NAMED)
def test_the_error_names_the_kind_of_a_file_that_is_not_an_http_cassette(name: str, content: object, kind: str) -> None:
    """The error does not advise to delete it."""
    written(name, content)
    error = refused(in_this_process("import", name))
    assert kind in error
    assert "damaged" not in error
    assert "delete" not in error


def test_only_the_error_of_a_damaged_file_of_retold_advises_to_delete_it() -> None:
    for head, own in (("version: 1\nretold: {format: 1}\n", True), ("version: 1\n", False)):
        error = refused(in_this_process("import", str(written("c.yaml", f"{head}interactions: [\n"))))
        assert ("delete it" in error) == own
