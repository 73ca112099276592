"""The limits of retold's servers: allowed clients, concurrent requests, and times, with web pages, slow clients and garbage."""

import contextlib
import random
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from retold.recorder.errors import InputError
from retold.recorder.http.exchange import Exchange
from retold.recorder.proxy.client_side import Limits
from retold.replay import server as replay_server
from retold.servers.gate import Gate
from retold.servers.summary import door_lines
from tests.children import Folder, line_of, rest_of, wait_until
from tests.clients import record
from tests.conftest import Cli
from tests.exchanges import answer, exchange
from tests.messages_server import MessagesServer, Reply, text
from tests.wire import Wire, connected, post, raw, request_bytes, rest, wire


def exchange_of(prompt: str = "hi", ending: str = "complete") -> Exchange:
    _, _, data = request_bytes(prompt).partition(b"\r\n\r\n")
    return replace(exchange(answer(b"event: ping\ndata: 1\n\n"), data), ending=ending)  # type: ignore[arg-type]


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]


# Web pages

PAGES = {
    "another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "another port of this machine": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    "this port by another name": {"Origin": "http://localhost.evil.example:{port}"},
    "a page from a file, or in a sandbox": {"Origin": "null"},
    "a browser that sends no Origin with a simple GET": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a link or a form": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "an extension": {"Origin": "chrome-extension://abcdefghijklmnop"},
    "upper case": {"ORIGIN": "HTTPS://EVIL.EXAMPLE", "SEC-FETCH-SITE": "CROSS-SITE"},
}
PROGRAMS: dict[str, dict[str, str]] = {
    "no browser": {},
    "fetch of Node": {"sec-fetch-mode": "cors"},
    "an address that a person typed": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    "a page of this server": {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"},
}


def lines(headers: dict[str, str], port: int) -> str:
    return "".join(f"{name}: {value.replace('{port}', str(port))}\r\n" for name, value in headers.items())


@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_web_page_is_refused(page: dict[str, str], method: str) -> None:
    """A simple request of a page has the right Host, but the browser names the page in other headers.

    Nothing is answered, forwarded or recorded, and a preflight gets no permission.
    """
    with MessagesServer([Reply([text("ok")])]) as api, wire(api.url) as running:
        head = f"{method} /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{running.server.port}\r\n{lines(page, running.server.port)}"
        received = raw(running.url, f"{head}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert (statuses(received), api.requests, running.use.recorded) == ([403], [], 0)
        assert b"access-control" not in received.lower()
        assert dict(running.serving.refusals) == {403: 1}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_answered(program: dict[str, str]) -> None:
    with wire(mode="none", recorded=[exchange_of()]) as running:
        head = f"{lines(program, running.server.port)}Connection: close\r\n"
        request = request_bytes(head=head).replace(b"Host: localhost", b"Host: 127.0.0.1:%d" % running.server.port)
        assert statuses(raw(running.url, request)) == [200]


def test_an_allowed_page_is_answered_and_others_are_refused() -> None:
    """Its preflight gets permission although no cassette contains one."""
    gate = Gate.make("127.0.0.1", allow_remote=False, token=None, origins=["http://localhost:5173/"])
    head = "Origin: http://localhost:5173\r\nSec-Fetch-Site: same-site\r\nConnection: close\r\n"
    with wire(mode="none", recorded=[exchange_of()], gate=gate) as running:
        leave = raw(running.url, (
            f"OPTIONS /v1/messages HTTP/1.1\r\nHost: localhost\r\n{head}Access-Control-Request-Method: POST\r\n"
            "Access-Control-Request-Headers: x-api-key\r\n\r\n"
        ).encode())  # fmt: skip
        assert b"access-control-allow-origin: http://localhost:5173\r\n" in leave
        assert b"access-control-allow-headers: x-api-key\r\n" in leave
        assert statuses(raw(running.url, request_bytes(head=head))) == [200]
        assert statuses(raw(running.url, request_bytes(head=head.replace("5173", "5174")))) == [403]
    assert running.use.misses == []


def test_an_invalid_origin_or_one_with_a_token_is_bad_usage(cli: Cli) -> None:
    for given, message in ((["localhost:5173"], "no web origin"), (["http://a.example/path"], "no web origin")):
        with pytest.raises(InputError, match=message):
            Gate.make("127.0.0.1", allow_remote=False, token=None, origins=given)
    refused = cli("proxy", "--allow-origin", "http://localhost:5173", "--token", "a-token-of-some-length")
    assert (refused.returncode, "exclude each other" in refused.stderr) == (2, True)


def test_a_token_does_not_admit_web_pages() -> None:
    token = "a-token-of-some-length"
    with wire(mode="none", recorded=[exchange_of()], gate=Gate(token)) as running:
        headers = {"x-retold-token": token, "Origin": "https://evil.example"}
        assert post(running.url, headers=headers).status == 403


# Before the body


@pytest.mark.parametrize("late", ["token", "page", "host", "length", "absolute", "connect"])
def test_a_request_is_refused_before_its_body_is_read(late: str) -> None:
    """The refusal arrives although the client, which waits for permission to send its body, never sends it."""
    target, host, head, status = "/v1/messages", "localhost", "", 403
    match late:
        case "page":
            head = "Origin: https://evil.example\r\n"
        case "host":
            host, status = "rebound.example", 421
        case "absolute":
            target, status = "http://other.example/", 400
        case "connect":
            target, status = "other.example:443", 405
        case "length":
            status = 413
    gate = Gate("a-token-of-some-length") if late == "token" else Gate()
    method = "CONNECT" if late == "connect" else "POST"
    asked = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{head}Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
    with wire(mode="none", recorded=[exchange_of()], gate=gate, limits=Limits(body_bytes=50_000)) as running:
        assert statuses(raw(running.url, asked.encode())) == [status]


def test_a_refused_client_that_still_sends_its_body_reads_the_answer() -> None:
    """Closing at once would reset the connection of a client that still sends."""
    gate = Gate("a-token-of-some-length")
    with wire(mode="none", recorded=[exchange_of()], gate=gate) as running, connected(running.url) as sock:
        sock.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):
            sock.sendall(b"x" * 100_000)
        assert statuses(rest(sock)) == [403]


# Bounds


def test_a_body_beyond_its_bound_is_refused() -> None:
    chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(60))
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with wire(mode="none", recorded=[exchange_of()], limits=Limits(body_bytes=50_000)) as running:
        assert statuses(raw(running.url, head + chunks)) == [413]
        wait_until(lambda: running.server.crowd.held == 0)


def test_the_bodies_of_all_requests_together_are_bounded() -> None:
    """One connection reserves bytes that others cannot use until it releases them."""
    half = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + b"x" * 40_000
    with wire(mode="none", recorded=[exchange_of()], limits=Limits(held_bytes=70_000)) as running:
        with connected(running.url) as sock:
            sock.sendall(half)
            wait_until(lambda: running.server.crowd.held == 40_000)
            assert statuses(raw(running.url, half)) == [503]
            assert running.server.crowd.held == 40_000
        wait_until(lambda: running.server.crowd.held == 0)
        assert statuses(raw(running.url, request_bytes(head="Connection: close\r\n"))) == [200]


def test_connections_are_bounded_and_idle_ones_are_closed() -> None:
    with wire(mode="none", recorded=[exchange_of()], limits=Limits(clients=3)) as running, contextlib.ExitStack() as opened:
        begun = [opened.enter_context(connected(running.url)) for _ in range(2)]
        for sock in begun:
            sock.sendall(b"POST /v1")
        idle = opened.enter_context(connected(running.url))
        wait_until(lambda: sum(not client.is_idle for client in running.server.crowd.clients) == 2)
        third = opened.enter_context(connected(running.url))
        third.sendall(b"POST")
        assert rest(idle) == b""  # the third connection took its place
        wait_until(lambda: sum(not client.is_idle for client in running.server.crowd.clients) == 3)
        with contextlib.suppress(ConnectionResetError):
            assert statuses(rest(opened.enter_context(connected(running.url)))) == [503]
        third.close()
        wait_until(lambda: len(running.server.crowd.clients) == 2)
        assert statuses(raw(running.url, request_bytes(head="Connection: close\r\n"))) == [200]


# Time


@pytest.mark.parametrize(
    ("sent", "limits", "status"),
    [
        (b"", Limits(idle_s=0.05), []),
        (b"POST /v1/messages HTTP/1.1\r\nHost: local", Limits(head_s=0.05), [408]),
        (b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", Limits(gap_s=0.05), [408]),
        (b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{", Limits(body_s=0.05), [408]),
    ],
    ids=["nothing", "half a head", "half a body", "half a body in all"],
)
def test_a_client_that_stops_sending_is_disconnected(sent: bytes, limits: Limits, status: list[int]) -> None:
    with wire(mode="none", recorded=[exchange_of()], limits=limits) as running:
        assert statuses(raw(running.url, sent)) == status
    assert list(running.serving.refusals) == status


def test_a_client_that_sends_byte_by_byte_is_disconnected() -> None:
    """Each byte arrives in time, but the whole does not."""
    ended = threading.Event()

    def drip(sock: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                sock.sendall(bytes([byte]))
                if ended.wait(0.01):
                    return

    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
    for first, slow in ((b"", b"POST /" + b"v" * 5000), (head, b"x" * 5000)):
        limits = Limits(head_s=0.2, gap_s=0.2, body_s=0.2)
        with wire(mode="none", recorded=[exchange_of()], limits=limits) as running, connected(running.url) as sock:
            sock.sendall(first)
            thread = threading.Thread(target=drip, args=(sock, slow))
            thread.start()
            assert statuses(rest(sock)) == [408]
            ended.set()
            thread.join(20)
            ended.clear()


def test_a_pause_between_requests_is_not_request_time() -> None:
    """A connection that waits longer than a head may take is closed silently."""
    with (
        wire(mode="none", recorded=[exchange_of()], limits=Limits(head_s=0.02, idle_s=0.2)) as running,
        connected(running.url) as sock,
    ):
        sock.sendall(request_bytes())
        assert statuses(rest(sock)) == [200]
    assert not running.serving.refusals


# Summaries


def test_refusals_are_counted_by_status() -> None:
    found = door_lines({400: 2, 421: 1}, {"c.yaml": 1})
    assert found == [
        "refused 3 requests, neither forwarded nor recorded: 2 × 400 Bad Request, 1 × 421 Misdirected Request",
        "1 exchange of c.yaml broken off: closed by the client when recorded, and not this time",
    ]
    assert door_lines({}, {}) == []


@pytest.mark.parametrize("command", ["serve", "proxy"])
def test_a_server_reports_its_refusals(tmp_path: Path, command: str) -> None:
    """It reports each at once, and all of them at the end. A foreign request does not make the server fail."""
    folder = Folder(tmp_path)
    record(tmp_path / "c.yaml", "a")
    try:
        child = folder.spawn(*(["serve", "c.yaml"] if command == "serve" else ["proxy", "--upstream", "http://127.0.0.1:9"]))
        url = line_of(child.stdout).strip()
        assert statuses(raw(url, b"CONNECT a.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n")) == [405]
        assert statuses(raw(url, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")) == [400]
        for _ in range(2):
            assert post(url, headers={"Origin": "https://evil.example\x1b[2J"}).status == 403
        child.terminate()
        _, err = rest_of(child)
    finally:
        folder.close()
    assert "retold: refused 4 requests, neither forwarded nor recorded: 1 × 400 Bad Request, 2 × 403 Forbidden, 1 × 405" in err
    assert err.count("retold: refused a request (403)") == 1
    assert child.returncode == 0
    assert "\x1b" not in err


@pytest.mark.parametrize("command", ["record", "replay"])
def test_a_command_with_a_refused_request_fails(tmp_path: Path, command: str) -> None:
    """Its exchange is missing in the recording, although the command itself succeeded."""
    record(tmp_path / "c.yaml", "a")
    (tmp_path / "asks.py").write_text(
        "import os, socket, urllib.parse\n"
        "port = urllib.parse.urlsplit(os.environ['ANTHROPIC_BASE_URL']).port\n"
        "for asked in (b'GET http://a.example/', b'HEAD /v1/messages/hello'):\n"
        "    with socket.create_connection(('127.0.0.1', port)) as sock:\n"
        "        sock.sendall(asked + b' HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')\n"
        "        sock.recv(9)\n"
    )
    with MessagesServer([]) as api:
        folder = Folder(tmp_path)
        arguments = ["record", "--upstream", api.url] if command == "record" else ["replay", "c.yaml"]
        try:
            child = folder.spawn(*arguments, "--", "python3", "asks.py")
            _, err = rest_of(child)
        finally:
            folder.close()
    assert "refused 1 request, neither forwarded nor recorded: 1 × 400 Bad Request" in err
    assert child.returncode == 1


# Endings by the client


@pytest.mark.parametrize("has_response", [True, False], ids=["in the stream", "before the head"])
def test_an_exchange_that_its_client_closed_is_kept_open(has_response: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client closes the connection again, at any time. retold does not close it, and reports nothing."""
    monkeypatch.setattr(replay_server, "LINGER_S", 0.0)  # the server would close the connection without a delay
    recorded = exchange_of(ending="closed") if has_response else replace(exchange_of(ending="closed"), response=None)
    with wire(mode="none", recorded=[recorded, exchange_of("b")]) as running, connected(running.url) as sock:
        sock.sendall(request_bytes())
        received = b""
        while has_response and not received.endswith(b"data: 1\n\n\r\n"):
            received += sock.recv(65536)
        wait_until(lambda: running.use.play_count == 1)
        assert post(running.url, "b").status == 200
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.close()
        wait_until(lambda: not running.server.crowd.clients)
    assert not running.serving.kept_open


def test_a_client_that_keeps_the_connection_open_is_disconnected_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_server, "HOLD_S", 0.05)
    with wire(mode="none", recorded=[exchange_of(ending="closed")]) as running:
        assert raw(running.url, request_bytes()).endswith(b"data: 1\n\n\r\n")
    assert sum(running.serving.kept_open.values()) == 1


def test_a_closed_exchange_does_not_delay_the_next_ones() -> None:
    with wire(mode="none", recorded=[exchange_of("a", "closed"), exchange_of("b")]) as running, connected(running.url) as sock:
        sock.sendall(request_bytes("a"))
        sock.recv(1)
        assert post(running.url, "b").status == 200


def test_curl_ends_in_a_replay_as_recorded(cli: Cli) -> None:
    """A client's own timeout happens again, at any pace of the replay."""
    command = (
        'curl -s -N --max-time 0.5 -o got.txt "$ANTHROPIC_BASE_URL/v1/messages" -H "content-type: application/json" '
        '-d "{\\"model\\":\\"m\\",\\"stream\\":true,\\"messages\\":[]}"; echo "ended with $?"'
    )
    with MessagesServer([Reply([text("slow " * 20, pieces=2)], gap_s=0.1)]) as api:
        recorded = cli("record", "--upstream", api.url, "-o", "c.yaml", "--", "sh", "-c", command)
    replayed = cli("replay", "c.yaml", "--", "sh", "-c", command)
    assert (recorded.stdout, replayed.stdout) == ("ended with 28\n", "ended with 28\n")
    assert "1 closed early" in recorded.stderr
    assert "broken off" not in replayed.stderr


# Garbage


def mutated(rng: random.Random) -> bytes:
    """Return one or several requests with bytes removed, changed, repeated and inserted."""
    parts = [
        request_bytes(head="Connection: close\r\n"), b"\r\n" * rng.randrange(4),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nX: y\r\n\r\n",
        b"PUT /cassette/%ff/[::1 HTTP/1.1\r\nHost: [::1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"GET /\xff?%zz#[ HTTP/1.1\r\nHost: localhost\r\nX: " + bytes(rng.randrange(256) for _ in range(9)) + b"\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HEAD /[ HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ]  # fmt: skip
    data = bytearray(b"".join(rng.choices(parts, k=rng.randrange(1, 4))))
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(4):
            case 0:
                del data[at : at + rng.randrange(9)]
            case 1:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                data[at:at] = data[at : at + rng.randrange(40)]
            case _:
                data[at:at] = rng.choice(
                    [b"\x00", b"\r", b"\n", b"\xff\xfe", b"Content-Length: 5\r\n", b"Host: x\r\n", b"9" * 30]
                )
    return bytes(data)


def shoot(running: Wire, seeds: Sequence[int]) -> Iterator[bytes]:
    """Send mutated requests over several connections at once, because the server has to end half of them after a time."""
    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(partial(_shot, running.url), seeds)


def _shot(url: str, seed: int) -> bytes:
    rng = random.Random(seed)
    with connected(url) as sock, contextlib.suppress(OSError):
        data = mutated(rng)
        cut = rng.randrange(len(data) + 1)
        sock.sendall(data[:cut])
        sock.sendall(data[cut:])
        if seed % 2:  # otherwise the server has to end it
            sock.shutdown(socket.SHUT_WR)
        return rest(sock)
    return b""


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.stress)])
@pytest.mark.parametrize("mode", ["none", "rewrite"])
def test_garbage_leaves_nothing_behind(mode: str, count: int, capfd: pytest.CaptureFixture[str]) -> None:
    """No error reaches the event loop or stderr, no connection, body or task stays, and the server still answers."""
    recorded = [exchange_of()] * 2 if mode == "none" else None
    limits = Limits(idle_s=0.02, head_s=0.02, gap_s=0.02)
    with (
        MessagesServer(lambda _: Reply([text("ok")])) as api,
        wire(api.url, mode=mode, recorded=recorded, limits=limits) as running,
    ):
        for received in shoot(running, range(count)):
            assert not received or received.startswith(b"HTTP/1.1 ")
        wait_until(lambda: not running.server.crowd.clients and running.server.crowd.held == 0)
        assert statuses(raw(running.url, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")) == [200]
        assert running.serving.failures == []
    out, err = capfd.readouterr()
    assert (out, "Traceback" in err, "retold" in err) == ("", False, False)  # the scripted API logs bad requests


def test_a_length_with_too_many_digits_is_refused() -> None:
    """Python does not convert more than 4300 digits into a number."""
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
    with wire(mode="none", recorded=[exchange_of()]) as running:
        assert statuses(raw(running.url, head)) in ([400], [413])


def test_a_head_without_an_end_is_refused() -> None:
    for sent in (b"GET /" + b"a" * 300_000, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 300_000):
        with wire(mode="none", recorded=[exchange_of()]) as running, contextlib.suppress(ConnectionResetError):
            assert statuses(raw(running.url, sent)) in ([400], [431])
