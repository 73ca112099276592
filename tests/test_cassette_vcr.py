"""Cassettes are compatible with vcrpy: vcrpy replays cassettes of retold, and retold reads those of vcrpy and its users."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import vcr
import yaml
from hypothesis import given, settings

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.http.exchange import Exchange, Headers
from tests.conftest import ROOT
from tests.exchanges import GZIP, JSON, SSE, URL, answer, exchange, exchanges
from tests.messages_server import MessagesServer, Reply, text


def replayed_by_vcrpy(path: Path, recorded: Sequence[Exchange]) -> list[tuple[int, bytes]]:
    """Return the status and body of each recorded request, replayed by vcrpy alone. All must be played."""
    serializer = "json" if path.suffix == ".json" else "yaml"
    with vcr.use_cassette(str(path), record_mode="none", serializer=serializer) as cassette, httpx2.Client() as client:
        responses = [client.request(e.request.method, e.request.uri, content=e.request.body) for e in recorded]
        assert cassette.all_played
    return [(response.status_code, response.content) for response in responses]


def expected(recorded: Sequence[Exchange]) -> list[tuple[int, bytes]]:
    """Return the status and body of each recorded exchange, with compressed bodies decoded like in a client."""
    answers = [e.response for e in recorded if e.response is not None]
    return [(a.status, gzip.decompress(a.body) if a.header("content-encoding") else a.body) for a in answers]


@pytest.mark.parametrize("path", sorted((ROOT / "cassettes").glob("*.yaml")), ids=lambda path: path.stem)
def test_vcrpy_replays_the_cassettes_of_the_examples(path: Path) -> None:
    """This covers every cassette in the repository, byte for byte."""
    recorded = read_cassette(path).exchanges
    assert replayed_by_vcrpy(path, recorded) == expected(recorded)


@settings(deadline=None, max_examples=15)
@given(exchanges().filter(lambda e: e.response is not None), exchanges().filter(lambda e: e.response is not None))
def test_vcrpy_replays_every_cassette_of_retold(tmp_path_factory: pytest.TempPathFactory, one: Exchange, other: Exchange) -> None:
    """For any bytes, YAML's escapes, literal blocks and `!!binary` mean the same to vcrpy."""
    path = tmp_path_factory.getbasetemp() / "vcr.yaml"
    recorded = tuple(with_plain_headers(e) for e in (one, other))
    write_cassette(path, recorded)
    assert replayed_by_vcrpy(path, recorded) == expected(recorded)


def with_plain_headers(recorded: Exchange) -> Exchange:
    """Return the exchange without headers that no HTTP client accepts."""
    assert recorded.response is not None
    own: Headers = tuple(pair for pair in recorded.response.headers if pair[0] in ("content-type", "content-encoding"))
    response = replace(recorded.response, headers=own, reason="OK")
    return replace(recorded, request=replace(recorded.request, headers=()), response=response)


def test_vcrpy_replays_retolds_json(tmp_path: Path) -> None:
    """vcrpy's own JSON serializer reads it, if the bodies are text."""
    recorded = (exchange(answer("data: é😀\u2028\r\n\r\n".encode())), exchange(answer(b'{"a": 1}', headers=JSON)))
    write_cassette(tmp_path / "c.json", recorded)
    assert replayed_by_vcrpy(tmp_path / "c.json", recorded) == expected(recorded)


def test_retold_reads_a_recording_of_vcrpy(tmp_path: Path) -> None:
    """A real recording of a stream has the same bytes, cut into frames."""
    path = tmp_path / "recorded.yaml"
    with (
        MessagesServer([Reply([text("Ça va 😀?")]), Reply([text("yes")])]) as server,
        vcr.use_cassette(str(path), record_mode="all"),
        httpx2.Client() as client,
    ):
        for stream in (True, False):
            client.post(f"{server.url}/v1/messages", json={"stream": stream, "messages": []})
    streamed, whole = read_cassette(path).exchanges
    assert streamed.response is not None
    assert whole.response is not None
    assert [piece.data for piece in streamed.response.pieces] == [frame for _, frame in server.sent[0]]
    assert all(piece.is_frame for piece in streamed.response.pieces)
    assert whole.response.body == server.bodies[1]
    assert (streamed.request.method, streamed.request.uri) == ("POST", f"{server.url}/v1/messages")
    assert streamed.request.body == server.requests[0].body
    assert [e.ending for e in (streamed, whole)] == ["complete", "complete"]


# Unusual cassettes of other users


def read(tmp_path: Path, response: str, request: str = "body: null") -> Exchange:
    """Return the exchange of a hand-written cassette. The arguments are flow or block YAML of the two mappings' last keys."""
    path = tmp_path / "odd.yaml"
    path.write_text(
        "version: 1\n"
        "interactions:\n"
        f"- request: {{method: POST, uri: '{URL}', headers: {{}}, {request}}}\n"
        f"  response: {{{response}}}\n"
    )
    (found,) = read_cassette(path).exchanges
    return found


def body(recorded: Exchange) -> bytes:
    assert recorded.response is not None
    return recorded.response.body


STATUS = "status: {code: 200, message: OK}, headers: {}"


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("body: {string: 'a é'}", "a é".encode()),
        ("body: {string: !!binary /wB4}", b"\xff\x00x"),
        ("body: {string: null}", b""),
        ("body: {string: ''}", b""),
        ("body: {base64_string: /wB4}", b"\xff\x00x"),
        ("body: 'a é'", "a é".encode()),
        ("body: !!binary /wB4", b"\xff\x00x"),
        ("body: null", b""),
        ("body: {}", b""),
    ],
)
def test_a_body_is_read_in_every_known_form(tmp_path: Path, form: str, content: bytes) -> None:
    """A body is text, binary, base64 or missing, as the response's `string` or bare, and the same in requests."""
    assert body(read(tmp_path, f"{STATUS}, {form}")) == content
    assert read(tmp_path, f"{STATUS}, body: null", request=form).request.body == content


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("{A: [x, y], b: [z]}", (("A", "x"), ("A", "y"), ("b", "z"))),
        ("{A: x, b: 5}", (("A", "x"), ("b", "5"))),
        ("[[A, x], [b, z]]", (("A", "x"), ("b", "z"))),
        ("{}", ()),
        ("null", ()),
    ],
)
def test_headers_are_read_in_every_known_form(tmp_path: Path, form: str, headers: Headers) -> None:
    """Headers are lists, single strings, pairs, or missing."""
    recorded = read(tmp_path, f"status: {{code: 200}}, headers: {form}, body: null")
    assert recorded.response is not None
    assert recorded.response.headers == headers


@pytest.mark.parametrize("key", ["content", "body"])
def test_vcrpys_old_httpx_format_is_read(tmp_path: Path, key: str) -> None:
    """It has `status_code` and `content` instead of `status` and `body`."""
    recorded = read(tmp_path, f"http_version: HTTP/1.1, status_code: 201, headers: {{A: [x]}}, {key}: 'data'")
    assert recorded.response is not None
    assert (recorded.response.status, recorded.response.headers, body(recorded)) == (201, (("A", "x"),), b"data")


@pytest.mark.trap(26)
def test_a_gzip_header_over_a_decoded_body_is_repaired(tmp_path: Path) -> None:
    """Many recorders decode the body and keep the header, but a client would fail on it."""
    headers = "{Content-Type: [text/event-stream], Content-Encoding: [gzip]}"
    recorded = read(tmp_path, f'status: {{code: 200}}, headers: {headers}, body: {{string: "data: 1\\n\\n"}}')
    assert recorded.response is not None
    assert recorded.response.headers == (("Content-Type", "text/event-stream"),)
    assert [(piece.data, piece.is_frame) for piece in recorded.response.pieces] == [(b"data: 1\n\n", True)]


def test_a_gzip_header_over_a_gzip_body_is_kept(tmp_path: Path) -> None:
    """Nothing is repaired if header and body agree."""
    packed = gzip.compress(b"data: 1\n\n")
    written = exchange(answer(packed, headers=GZIP))
    write_cassette(tmp_path / "c.yaml", [written])
    assert read_cassette(tmp_path / "c.yaml").exchanges == (written,)


def test_a_stream_without_headers_is_cut_into_frames(tmp_path: Path) -> None:
    """Without a content type, the beginning of the body identifies a stream."""
    recorded = read(tmp_path, f'{STATUS}, body: {{string: "event: a\\ndata: 1\\n\\ndata: 2\\n\\n"}}')
    assert recorded.response is not None
    assert [piece.data for piece in recorded.response.pieces] == [b"event: a\ndata: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize(("status", "ending"), [(200, "complete"), (302, "complete"), (400, "http_error"), (529, "http_error")])
def test_the_ending_of_a_foreign_exchange_follows_from_its_status(tmp_path: Path, status: int, ending: str) -> None:
    """vcrpy records only whole answers."""
    assert read(tmp_path, f"status: {{code: {status}, message: x}}, headers: {{}}, body: null").ending == ending


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    """Other tools add their own keys, as retold does."""
    path = tmp_path / "c.yaml"
    write_cassette(path, [exchange()])
    data = yaml.safe_load(path.read_text())
    data |= {"recorded_with": "x", "metadata": {"a": 1}}
    data["interactions"][0] |= {"future": [1]}
    data["interactions"][0]["retold"] |= {"future": 1}
    data["interactions"][0]["response"] |= {"protocol": "HTTP/2"}
    path.write_text(yaml.safe_dump(data, explicit_end=True))
    assert read_cassette(path).exchanges == (exchange(),)


def test_vcrpys_anchors_for_shared_values_are_read(tmp_path: Path) -> None:
    """Plain YAML aliases are not damage."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "version: 1\ninteractions:\n"
        f"- request: {{method: GET, uri: '{URL}', headers: &h {{A: [x]}}, body: null}}\n"
        "  response: {status: {code: 200, message: OK}, headers: *h, body: {string: a}}\n"
    )
    (found,) = read_cassette(path).exchanges
    assert found.response is not None
    assert found.request.headers == found.response.headers == (("A", "x"),)


def test_a_parsed_body_is_read(tmp_path: Path) -> None:
    """`parsed_body` (pydantic-ai's serializer, 378 published cassettes) has the JSON itself. Serialized, it means the same."""
    recorded = read(tmp_path, f"{STATUS}, parsed_body: {{type: message, content: []}}", request="parsed_body: {a: é}")
    assert json.loads(recorded.request.body) == {"a": "é"}
    assert json.loads(body(recorded)) == {"type": "message", "content": []}


def test_the_headers_of_these_tests_are_correct() -> None:
    """The sets for SSE, JSON and gzip have the content types and encodings of their names."""
    assert [dict(headers).get("content-encoding") for headers in (SSE, JSON, GZIP)] == [None, None, "gzip"]
