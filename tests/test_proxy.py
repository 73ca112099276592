"""The recording proxy: the client gets the same bytes as without the proxy, and the log contains the exchange."""

import json
import re
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from retold.recorder.cassette.transfer import exchanges_of
from retold.recorder.http.exchange import Exchange
from tests.children import wait_until
from tests.clients import NOWHERE
from tests.messages_server import MessagesServer, Reply, text
from tests.wire import RawUpstream, Wire, connected, post, raw, request_bytes, rest, wire

SSE = b"content-type: text/event-stream\r\n"
FRAMES = b"event: ping\ndata: 1\n\nevent: ping\ndata: 2\n\n"


def exchanges(running: Wire) -> list[Exchange]:
    assert running.use.run is not None
    return exchanges_of(running.log, running.use.run)


def only(running: Wire) -> Exchange:
    (exchange,) = exchanges(running)
    return exchange


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


# Relayed bytes

ANSWERS = {
    "a phrase of its own": b"HTTP/1.1 200 Fine With Me\r\nX-Odd-CASE: Yes\r\nx-odd-case: twice\r\nContent-Length: 2\r\n\r\nok",
    "no phrase": b"HTTP/1.1 529 \r\nContent-Length: 2\r\n\r\n{}",
    "chunks": b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % SSE + chunked(FRAMES[:7], FRAMES[7:]) + b"0\r\n\r\n",
    "extensions and trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n%b\r\n" % SSE + FRAMES,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an empty body": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "CRLF frames": b"HTTP/1.1 200 OK\r\n%b\r\n" % SSE + FRAMES.replace(b"\n", b"\r\n"),
}


@pytest.mark.trap(6, 18)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_reaches_the_client_byte_for_byte(answer: bytes) -> None:
    """Status line, header case and order, framing and body are relayed unchanged."""
    with RawUpstream(answer) as upstream, wire(upstream.url) as running:
        assert raw(running.url, request_bytes()) == answer
    assert only(running).ending == ("http_error" if b"529" in answer else "complete")


def test_a_request_reaches_the_api_as_it_was_sent() -> None:
    """Only the host changes, and headers for retold are removed."""
    with RawUpstream(ANSWERS["no phrase"]) as upstream, wire(upstream.url + "/base") as running:
        raw(running.url, request_bytes(head="X-Odd: 1\r\nx-odd: 2\r\nX-Retold-Cassette: wire\r\n", path="/v1/messages?beta=true"))
    sent = request_bytes(head="X-Odd: 1\r\nx-odd: 2\r\n", path="/base/v1/messages?beta=true")
    assert upstream.requests == [sent.replace(b"localhost", upstream.url.encode().removeprefix(b"http://"))]
    assert only(running).request.uri == upstream.url + "/base/v1/messages?beta=true"


@pytest.mark.parametrize(
    ("base", "asked", "sent"),
    [
        ("", "/messages?beta=true", "/v1/messages?beta=true"),
        ("/gateway", "/messages/count_tokens", "/gateway/v1/messages/count_tokens"),
        ("/gateway/v1", "/messages", "/gateway/v1/messages"),
        ("", "/models", "/v1/models"),
        ("", "/messagesx", "/messagesx"),
        ("", "/v1/messages", "/v1/messages"),
    ],
)
def test_a_client_without_the_version_in_its_base_url_reaches_the_api(base: str, asked: str, sent: str) -> None:
    """The base URL of the Vercel AI SDK ends in /v1, for example. The request is recorded as it is sent."""
    with RawUpstream(ANSWERS["no phrase"]) as upstream, wire(upstream.url + base) as running:
        raw(running.url, request_bytes(path=asked))
    assert upstream.requests[0].startswith(f"POST {sent} HTTP/1.1".encode())
    assert only(running).request.uri == upstream.url + sent


def test_a_request_in_chunks_arrives_with_its_length() -> None:
    """The proxy answers 100-continue at once, because it reads the whole request before it sends it."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    with RawUpstream(b"HTTP/1.1 204 \r\n\r\n") as upstream, wire(upstream.url) as running, connected(running.url) as sock:
        sock.sendall(head)
        assert sock.recv(99) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(chunked(b'{"a":', b"1}") + b"0\r\n\r\n")
        assert rest(sock) == b"HTTP/1.1 204 \r\n\r\n"
    assert upstream.requests[0].endswith(b'\r\nContent-Length: 7\r\n\r\n{"a":1}')


def test_a_request_with_two_lengths_is_sent_with_one() -> None:
    """Two servers may interpret chunks together with a length in two ways, which can bypass a check."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawUpstream(b"HTTP/1.1 204 \r\n\r\n") as upstream, wire(upstream.url) as running:
        raw(running.url, head + chunked(b"{}") + b"0\r\n\r\n")
    assert upstream.requests[0].partition(b"\r\nHost: ")[2].partition(b"\r\n")[2] == b"Content-Length: 2\r\n\r\n{}"


def test_a_large_request_passes() -> None:
    """It has 2.8 MB, like the largest request in real recordings."""
    prompt = "x" * 2_800_000
    with MessagesServer([Reply([text("ok")])]) as server, wire(server.url) as running:
        assert post(running.url, prompt, stream=True).status == 200
    assert server.requests[0].json["messages"][0]["content"] == prompt
    assert json.loads(only(running).request.body)["messages"][0]["content"] == prompt


@pytest.mark.trap(1)
def test_a_frame_is_relayed_before_the_next_one_is_sent() -> None:
    with MessagesServer([Reply([text("one two")], hang_after=2)]) as server, wire(server.url) as running:
        with connected(running.url) as sock:
            sock.sendall(request_bytes(stream=True))
            received = b""
            while received.count(b"\n\n") < 2:
                received += sock.recv(65536)
        assert server.wait_idle()
    assert only(running).ending == "closed"


@pytest.mark.trap(12)
def test_frames_have_the_time_of_their_arrival() -> None:
    """A client that does not read yet does not delay the recording."""
    with MessagesServer([Reply([text("one two three")])]) as server, wire(server.url) as running, connected(running.url) as sock:
        sock.sendall(request_bytes(stream=True))
        assert server.wait_idle()
        wait_until(lambda: running.use.calls.count > 0 and all(each.ending is not None for each in running.use.calls.open))
        assert only(running).ending == "complete"
        assert only(running).place.stamped == "arrival"
        assert b"message_stop" in sock.recv(1 << 20, socket.MSG_WAITALL | socket.MSG_DONTWAIT)


def test_the_two_connections_of_a_client_have_the_same_lifetime() -> None:
    """Two requests over one connection use one connection to the API. If the API closes it, the proxy closes the client's."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, wire(f"http://127.0.0.1:{listener.getsockname()[1]}") as running, connected(running.url) as sock:
        sock.sendall(request_bytes("a"))
        with listener.accept()[0] as api:
            for prompt in ("b", "c", None):
                api.recv(65536)
                api.sendall(answer)
                assert sock.recv(65536) == answer
                if prompt is not None:
                    sock.sendall(request_bytes(prompt))
        assert sock.recv(1) == b""
    assert [json.loads(e.request.body)["messages"][0]["content"] for e in exchanges(running)] == ["a", "b", "c"]


def test_requests_sent_ahead_are_answered_in_order() -> None:
    with MessagesServer([Reply([text(answer)]) for answer in ("one", "two")]) as server, wire(server.url) as running:
        received = raw(running.url, request_bytes("a") + request_bytes("b", head="Connection: close\r\n"))
    assert received.index(b'"one"') < received.index(b'"two"')
    assert len(exchanges(running)) == 2


# Endings


def test_a_refused_connection_is_a_broken_connection_for_the_client() -> None:
    with wire(NOWHERE) as running, pytest.raises(ConnectionResetError):
        raw(running.url, request_bytes())
    exchange = only(running)
    assert (exchange.ending, exchange.response) == ("no_response", None)
    assert exchange.failure is not None
    assert exchange.failure.type == "ConnectionRefusedError"


BROKEN: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "no_response", "Server disconnected without sending a response."),
    "garbage": (b"\x16\x03\x01 what is this?\r\n\r\n", "no_response", "illegal"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "no_response", "Server disconnected"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "cut", "peer closed connection"),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "cut", "incomplete chunked read"),
    "a bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnine\r\nwhat", "cut", "chunk"),
}


@pytest.mark.trap(2, 13)
@pytest.mark.parametrize(("answer", "ending", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_reaches_the_client_broken(answer: bytes, ending: str, said: str) -> None:
    """The client gets every byte that arrived, and the log has the error."""
    with RawUpstream(answer) as upstream, wire(upstream.url) as running:
        assert raw(running.url, request_bytes()) == answer
    exchange = only(running)
    assert exchange.ending == ending
    assert exchange.failure is not None
    assert said in exchange.failure.message


def test_a_reset_is_a_reset_for_the_client() -> None:
    """The client gets the reset after the bytes that arrived before it."""
    answer = b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % SSE + chunked(FRAMES)
    with RawUpstream(answer, ending="reset") as upstream, wire(upstream.url) as running, connected(running.url) as sock:
        sock.sendall(request_bytes())
        with pytest.raises(ConnectionResetError):
            rest(sock)
    assert only(running).ending == "cut"


@pytest.mark.trap(15)
def test_a_client_that_leaves_closes_the_connection_to_the_api() -> None:
    answer = b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % SSE + chunked(FRAMES)
    with RawUpstream(answer, ending="wait") as upstream, wire(upstream.url) as running:
        with connected(running.url) as sock:
            sock.sendall(request_bytes())
            while FRAMES not in sock.recv(65536, socket.MSG_PEEK):
                pass
        assert upstream.left.wait(20)
    exchange = only(running)
    assert exchange.ending == "closed"
    assert exchange.response is not None
    assert exchange.response.body == FRAMES


def test_an_exchange_is_cut_if_the_proxy_stops() -> None:
    """The log does not claim that the client left."""
    with RawUpstream(b"HTTP/1.1 200 OK\r\n\r\nhalf", ending="wait") as upstream, wire(upstream.url) as running:
        sock = connected(running.url)
        sock.sendall(request_bytes())
        while b"half" not in sock.recv(65536, socket.MSG_PEEK):
            pass
    assert rest(sock).endswith(b"half")
    sock.close()
    assert only(running).ending == "cut"
    assert "stopped" in repr(only(running).failure)


# Never an open proxy, no keys on disk


@pytest.mark.parametrize(
    ("request_line", "head", "status"),
    [
        ("CONNECT evil.example:443", "Host: evil.example:443\r\n", 405),
        ("GET http://evil.example/v1/models", "Host: localhost\r\n", 400),
        ("GET //evil.example/v1/models", "Host: evil.example\r\n", 421),
        ("GET /v1/models", "Host: evil.example\r\n", 421),
        ("GET /v1/models", "Host: localhost.evil.example\r\n", 421),
        ("GET /v1/models", "Host: 127.0.0.1.evil.example:80\r\n", 421),
        ("OPTIONS *", "Host: localhost\r\n", 400),
        ("GET /v1/models", "Host: localhost\r\nHost: evil.example\r\n", 400),
        ("GET /v1/models", "", 400),
    ],
)
def test_requests_for_other_hosts_are_refused(request_line: str, head: str, status: int) -> None:
    """The cases are other hosts in any spelling, and a page in a browser that bound its host name to this machine."""
    with MessagesServer([]) as server, wire(server.url) as running:
        answer = raw(running.url, f"{request_line} HTTP/1.1\r\n{head}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-should-retry: false" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"] == "error"
    assert (server.requests, running.use.recorded) == ([], 0)


@pytest.mark.trap(41)
def test_no_key_of_a_client_reaches_the_log(tmp_path: Path) -> None:
    """The key is in a header, in the query, or in an answer of the API."""
    secrets = ["first-Secret-1234567890", "second+Secret/1234567890", "third-Secret-1234567890"]
    echo = b'{"error": "no such key: %b, %b, %b"}' % tuple(secret.encode() for secret in secrets)
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(echo) + echo
    head = f"x-api-key: {secrets[0]}\r\nAuthorization: Bearer {secrets[2]}\r\nConnection: close\r\n"
    query = "/v1/messages?beta=true&anthropic_api_key=second%2BSecret%2F1234567890"
    with RawUpstream(answer) as upstream, wire(upstream.url, path=tmp_path / "c.yaml") as running:
        assert raw(running.url, request_bytes(f"my key is {secrets[2]}", head=head, path=query)) == answer
    assert b"beta=true&anthropic_api_key=second%2BSecret%2F" in upstream.requests[0]
    connection = sqlite3.connect("wire.db")
    held = repr(connection.execute("SELECT * FROM events").fetchall()) + (tmp_path / "c.yaml").read_text()
    connection.close()
    assert not re.search("Secret|%2F1234", held)
    assert "beta=true" in held


def test_a_client_that_sends_no_http_is_refused() -> None:
    with wire(NOWHERE) as running:
        assert raw(running.url, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").startswith(b"HTTP/1.1 400 ")


# Modes


def asked(running: Wire, *prompts: str) -> list[Any]:
    return [json.loads(post(running.url, prompt).body)["content"][0]["text"] for prompt in prompts]


def test_new_episodes_sends_and_records_missing_requests(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with MessagesServer([Reply([text(str(n))]) for n in range(4)]) as server:
        with wire(server.url, mode="once", path=path) as running:
            assert asked(running, "a", "b") == ["0", "1"]
        with wire(server.url, mode="once", path=path) as running:
            assert asked(running, "b", "a") == ["1", "0"]
            assert post(running.url, "c").status == 418
        with wire(server.url, mode="new_episodes", path=path) as running:
            assert asked(running, "c", "a") == ["2", "0"]
        with wire(server.url, mode="all", path=path) as running:
            assert asked(running, "a") == ["3"]
    with wire(mode="none", path=path) as running:
        assert asked(running, "c", "b", "a") == ["2", "1", "3"]


LENIENT = {
    "a field without a name": (b"HTTP/1.1 200 OK\r\n: odd\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "a space before the colon": (b"HTTP/1.1 200 OK\r\nX-Odd : 1\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "a control character": (b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", b"ok"),
    "a coding beside chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    "hints before it": (b"HTTP/1.1 103 Hints\r\nX : 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
}


@pytest.mark.parametrize(("answer", "body"), LENIENT.values(), ids=LENIENT)
def test_an_answer_that_a_client_may_read_is_recorded(answer: bytes, body: bytes) -> None:
    """The parser of the recording is strict. If it refuses a head, the log still has status and body."""
    with RawUpstream(answer) as upstream, wire(upstream.url) as running:
        assert raw(running.url, request_bytes()) == answer
    exchange = only(running)
    assert exchange.ending == "complete"
    assert exchange.response is not None
    assert (exchange.response.status, b"".join(piece.data for piece in exchange.response.pieces)) == (200, body)


def test_an_answer_before_the_end_of_the_request_is_recorded() -> None:
    """The API refuses a large request by its head and closes. The client gets the refusal, and the log records it."""
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
    with RawUpstream(refused) as upstream, wire(upstream.url) as running:
        assert raw(running.url, request_bytes("x" * 3_000_000)) == refused
    exchange = only(running)
    assert exchange.ending == "http_error"
    assert exchange.response is not None
    assert exchange.response.status == 413


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_an_answer_without_a_body_is_complete(method: str, answer: bytes) -> None:
    """HEAD, 204 and 304 have no body, even with a length. 100 precedes the answer."""
    with RawUpstream(answer) as upstream, wire(upstream.url) as running, connected(running.url) as sock:
        sock.sendall(request_bytes().replace(b"POST", method.encode(), 1))
        assert sock.recv(999) == answer
    assert only(running).ending == "complete"
