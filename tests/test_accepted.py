"""A client gets a recorded body in an encoding that it accepts: the recorded bytes if it accepts the recorded encoding."""

import http.client
import json
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import retold
from retold.recorder.errors import MissError
from retold.recorder.http import encodings
from retold.recorder.http.exchange import Exchange, Response, TimedPiece
from retold.replay.accepted import accepts, readable
from tests.clients import NOWHERE, body, record
from tests.exchanges import exchange
from tests.test_decoding import PACK
from tests.wire import wire

CASSETTE = Path("c.yaml")
TEXT = b"event: ping\ndata: {}\n\n" * 3


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (None, ""),
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip x-gzip"),
        ("gzip, deflate, br, zstd", "gzip x-gzip deflate br zstd"),
        ("br;q=1.0, gzip;q=0", "br"),
        ("*", "gzip x-gzip deflate br zstd"),
        ("*;q=0.5, br;q=0", "gzip x-gzip deflate zstd"),
        ("GZIP ; Q=0.1", "gzip x-gzip"),
        ("gzip;q=x", ""),
    ],
)
def test_accepted_encodings_are_those_of_the_header(value: str | None, accepted: str) -> None:
    headers = () if value is None else (("Accept-Encoding", value),)
    assert [each for each in ("gzip", "x-gzip", "deflate", "br", "zstd") if accepts(headers, each)] == accepted.split()


def packed(encoding: str, data: bytes = TEXT) -> Exchange:
    """Return a recorded event stream with a compressed body, in two pieces."""
    wire_bytes = PACK[encoding](data)
    headers = (("content-type", "text/event-stream"), ("content-encoding", encoding), ("content-length", str(len(wire_bytes))))
    pieces = (TimedPiece(5, wire_bytes[:10], False), TimedPiece(9, wire_bytes[10:], False))
    return exchange(Response(200, "OK", headers, pieces, 3), ended_ns=10)


@pytest.mark.parametrize("encoding", PACK)
def test_a_client_that_does_not_accept_the_encoding_gets_the_decoded_body(encoding: str) -> None:
    """Head, times and ending stay the same. A client that accepts the encoding gets the recorded exchange itself."""
    recorded = packed(encoding)
    assert readable(recorded, (("accept-encoding", f"identity, {encoding}"),)) is recorded
    for headers in ((), (("accept-encoding", "identity"),), (("accept-encoding", "compress"),)):
        decoded = readable(recorded, headers)
        assert decoded.response is not None
        assert (decoded.response.body, decoded.response.headers) == (TEXT, (("content-type", "text/event-stream"),))
        assert (decoded.response.first_ns, decoded.ended_ns, decoded.response.pieces[-1].offset_ns) == (3, 10, 9)


def test_a_body_that_cannot_be_decoded_here_is_a_miss_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client could not decode it either."""
    monkeypatch.setattr(encodings, "_OPTIONAL", {"br": (), "zstd": ()})
    with pytest.raises(MissError, match=r"compressed with br, which this client does not accept .* pip install brotli\."):
        readable(packed("br"), ())


@pytest.fixture
def compressed() -> bytes:
    """Return a recorded JSON answer compressed with gzip, and its content."""
    (recorded,) = retold.read_cassette(record(CASSETTE)).exchanges
    answer = json.dumps({"type": "message", "content": [{"type": "text", "text": "é"}]}, ensure_ascii=False).encode()
    headers = (("content-type", "application/json"), ("content-encoding", "gzip"))
    response = Response(200, "OK", headers, (TimedPiece(0, PACK["gzip"](answer), False),))
    retold.write_cassette(CASSETTE, [replace(recorded, response=response)])
    return answer


def test_a_client_in_the_block_reads_the_answer_with_any_accept_encoding(compressed: bytes) -> None:
    url, asked = f"{NOWHERE}/v1/messages", body("hi", stream=True)
    headers = {"anthropic-version": "2023-06-01"}
    for accepted in ("gzip", "identity", "br"):
        with retold.use_cassette(CASSETTE), httpx2.Client(verify=False) as asking:
            response = asking.post(url, json=asked, headers={**headers, "accept-encoding": accepted})
        assert (response.content, response.headers.get("content-encoding")) == (
            compressed,
            "gzip" if accepted == "gzip" else None,
        )


def test_a_client_of_the_server_reads_the_answer_with_any_accept_encoding(compressed: bytes) -> None:
    """http.client asks for identity by default. A client that accepts gzip gets the recorded bytes."""
    asked = json.dumps(body("hi", stream=True)).encode()
    for accepted, expected in ((None, compressed), ("gzip", PACK["gzip"](compressed))):
        with wire(path=CASSETTE, mode="none") as running:
            host, port = running.url.removeprefix("http://").split(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=20)
            extra = {} if accepted is None else {"accept-encoding": accepted}
            connection.request("POST", "/v1/messages", asked, {"content-type": "application/json", **extra})
            response = connection.getresponse()
            assert (response.read(), response.getheader("content-encoding")) == (expected, accepted)
            connection.close()
