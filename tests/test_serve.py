"""`retold serve` and the replay server answer any client from cassettes, byte for byte, with the recorded ending."""

import hashlib
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import retold
from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange, Failure, Request, Response, TimedPiece
from retold.servers.gate import Gate
from tests.children import Folder, line_of, rest_of
from tests.clients import ask, body, record
from tests.conftest import Cli
from tests.exchanges import JSON, SSE, URL, answer, exchange
from tests.wire import connected, post, raw, request_bytes, rest, wire

FRAMES = (b"event: ping\ndata: 1\n\n", b": comment\r\ndata:2\r\n\r\n", "event: é\ndata: 3\ndata:4\n\n".encode())


def recorded_answer(response: Response | None = None, prompt: str = "hi", **fields: object) -> Exchange:
    """Return a recorded exchange for the request that `post` and `request_bytes` send."""
    recorded = exchange(answer(*FRAMES) if response is None else response, json.dumps(body(prompt)).encode())
    return replace(recorded, **fields)  # type: ignore[arg-type]


def parts(received: bytes) -> tuple[bytes, bytes]:
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


# Answers


def test_status_line_and_headers_are_the_recorded_ones() -> None:
    """Reason phrase, case of names and repeated headers are the same. New framing headers replace the recorded ones."""
    headers = (*SSE, ("X-Odd", "1"), ("Transfer-Encoding", "chunked"), ("x-odd", "2"))
    recorded = recorded_answer(replace(answer(*FRAMES, reason="As You Like It"), headers=headers))
    with wire(mode="none", recorded=[recorded]) as running:
        head, _ = parts(raw(running.url, request_bytes(head="Connection: close\r\n")))
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 As You Like It", b"content-type: text/event-stream; charset=utf-8", b"X-Odd: 1",
        b"Transfer-Encoding: chunked", b"x-odd: 2", b"Connection: close",
    ]  # fmt: skip


@pytest.mark.trap(25)
def test_a_wrong_recorded_length_is_not_repeated() -> None:
    """Many published cassettes contain one, and a client would wait forever for the rest."""
    response = Response(200, "OK", (*JSON, ("content-length", "999")), (TimedPiece(0, b'{"a": 1}', False),), 0)
    with wire(mode="none", recorded=[recorded_answer(response)]) as running:
        answered = post(running.url)
    assert (answered.headers["content-length"], answered.body) == ("8", b'{"a": 1}')


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_old_client_gets_no_chunks(version: str) -> None:
    with wire(mode="none", recorded=[recorded_answer()]) as running:
        request = request_bytes(head="Connection: close\r\n").replace(b"HTTP/1.1", b"HTTP/" + version.encode())
        _, received = parts(raw(running.url, request))
    assert (received == b"".join(FRAMES)) is (version == "1.0")


def test_a_connection_stays_open_after_a_miss_and_after_an_error() -> None:
    overloaded = recorded_answer(replace(answer(b"{}", headers=JSON), status=529, reason=""), ending="http_error")
    with wire(mode="none", recorded=[overloaded, recorded_answer()]) as running, connected(running.url) as sock:
        sock.sendall(request_bytes("other") + request_bytes() + request_bytes(head="Connection: close\r\n"))
        received = rest(sock)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"418", b"529", b"200"]


ENDINGS: dict[str, tuple[Exchange, type[OSError] | None, bytes | None]] = {
    "cut": (recorded_answer(ending="cut"), None, b"".join(FRAMES)),
    "reset": (recorded_answer(ending="cut", failure=Failure("ConnectionResetError", "")), ConnectionResetError, None),
    "no response": (replace(recorded_answer(), response=None, ending="no_response"), None, None),
    "refused": (
        replace(recorded_answer(), response=None, ending="no_response", failure=Failure("ConnectionResetError", "")),
        ConnectionResetError,
        None,
    ),
}


@pytest.mark.parametrize(("recorded", "error", "received"), ENDINGS.values(), ids=ENDINGS)
def test_the_recorded_ending_is_replayed(recorded: Exchange, error: type[OSError] | None, received: bytes | None) -> None:
    """A cut stream lacks its last chunk and has all bytes before it. A reset and a missing answer are repeated."""
    with wire(mode="none", recorded=[recorded]) as running, connected(running.url) as sock:
        sock.sendall(request_bytes())
        if error is not None:
            with pytest.raises(error):
                rest(sock)
            return
        _, came = parts(rest(sock))
    assert came == b"" if received is None else came.endswith(b"data:4\n\n\r\n")


def test_head_is_a_probe() -> None:
    """Claude Code sometimes sends HEAD. The recording or an empty 200 answers it, and it is not a miss."""
    probe = replace(
        recorded_answer(replace(answer(headers=JSON), status=204, reason="No Content")), request=Request("HEAD", URL + "/hello")
    )
    request = b"HEAD /v1/messages/%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with wire(mode="none", recorded=[probe]) as running:
        assert raw(running.url, request % b"hello").startswith(b"HTTP/1.1 204 No Content\r\n")
        assert raw(running.url, request % b"other") == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert running.use.misses == []


def test_the_query_counts() -> None:
    beta = replace(recorded_answer(), request=replace(recorded_answer().request, uri=URL + "?beta=true"))
    with wire(mode="none", recorded=[beta]) as running:
        assert post(running.url, path="/v1/messages").status == 418
        assert post(running.url, path="/v1/messages?beta=true").status == 200


@pytest.mark.trap(28)
def test_a_hundred_concurrent_streams_get_the_right_answers() -> None:
    """They come in any order, over as many connections."""
    prompts = [f"prompt {number}" for number in range(100)]
    recorded = [recorded_answer(answer(f"event: ping\ndata: {prompt}\n\n".encode(), *FRAMES), prompt) for prompt in prompts]
    together = threading.Barrier(len(prompts))

    def asked(prompt: str) -> bytes:
        together.wait(20)
        return post(running.url, prompt).body

    with wire(mode="none", recorded=recorded) as running, ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(asked, reversed(prompts)))
    assert answers == [recorded.response.body for recorded in reversed(recorded) if recorded.response]


# The commands


def test_a_server_prints_its_address_and_ends_on_sigterm(tmp_path: Path) -> None:
    """The first line is the URL. A later signal stops the server, which leaves no process and frees the port."""
    folder = Folder(tmp_path)
    record(tmp_path / "hello.yaml", "a")
    record(tmp_path / "bye.yaml", "b")
    try:
        child = folder.spawn("serve", "hello.yaml", "bye.yaml")
        url = line_of(child.stdout).strip()
        assert ask("a", f"{url}/cassette/hello") == "You said a."
        assert post(url, "b", headers={"x-retold-cassette": "bye"}).status == 418  # it was recorded as a stream
        assert "name a cassette" in json.loads(post(url, "a").body)["error"]["message"]
        health = json.loads(raw(url, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")[2])
        child.terminate()
        out, err = rest_of(child)
    finally:
        folder.close()
    assert health["status"] == "ok"
    assert (health["cassettes"]["hello"]["played"], health["cassettes"]["bye"]["misses"]) == (1, 1)
    assert (out, child.returncode) == ("", 3)
    assert "replayed 1 of 1 exchange from hello.yaml\n" in err
    assert "replayed 0 of 1 exchange from bye.yaml; 1 recorded exchange not played\n" in err
    with pytest.raises(ConnectionRefusedError):
        raw(url, b"")


def test_a_proxy_records_until_it_is_stopped(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with wire(mode="none", recorded=[recorded_answer()]) as api:
        try:
            child = folder.spawn("proxy", "--upstream", api.url, "-o", "c.yaml")
            url = line_of(child.stdout).strip()
            received = post(url).sha256
            child.terminate()
            _, err = rest_of(child)
        finally:
            folder.close()
    (kept,) = retold.read_cassette(tmp_path / "c.yaml").exchanges
    assert kept.response is not None
    assert hashlib.sha256(kept.response.body).hexdigest() == received == hashlib.sha256(b"".join(FRAMES)).hexdigest()
    assert "recorded 1 exchange (1 complete), 3 frames" in err
    assert child.returncode == 0


# Access


def test_a_public_address_needs_explicit_permission(cli: Cli) -> None:
    for arguments, said in (
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--host", "0.0.0.0", "--allow-remote"], "--token"),
        (["--host", "192.0.2.1", "--allow-remote", "--token", "short"], "16 characters"),
    ):
        with pytest.raises(InputError, match=said):
            Gate.make(arguments[1], allow_remote="--allow-remote" in arguments, token="short" if "--token" in arguments else None)
    refused = cli("proxy", "--host", "0.0.0.0")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--allow-remote" in refused.stderr


def test_every_request_needs_the_token() -> None:
    """With a token the Host header does not matter, because other machines use other names. The token is not relayed."""
    token = "a-token-of-some-length"
    with wire(mode="none", recorded=[recorded_answer(), recorded_answer()], gate=Gate(token)) as running:
        for given in ({}, {"x-retold-token": "another-token-of-that"}, {"Authorization": f"Bearer {token}"}):
            assert post(running.url, headers=given).status == 403
        assert post(running.url, headers={"x-retold-token": token, "Host": "build-7.example"}).status == 200
    assert running.use.play_count == 1


def test_cassettes_with_the_same_name_are_distinguished(cli: Cli, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        record(tmp_path / folder / "c.yaml", "hi")
    refused = cli("serve", tmp_path / "a" / "c.yaml", tmp_path / "b" / "c.yaml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "have the same name" in refused.stderr


def test_the_error_of_a_port_in_use_is_one_line(cli: Cli, tmp_path: Path) -> None:
    record(tmp_path / "c.yaml", "hi")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = cli("serve", tmp_path / "c.yaml", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert refused.stderr.startswith("retold: cannot listen on 127.0.0.1 port ")


@pytest.mark.trap(46)
def test_a_server_can_be_stopped_as_soon_as_it_prints_its_address(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    try:
        child = folder.spawn("proxy")
        line_of(child.stdout)
        child.terminate()
        _, err = rest_of(child)
    finally:
        folder.close()
    assert child.returncode == 0
    assert "Traceback" not in err
