"""A replayed exchange without a socket: the bytes for the client, and the end of its connection."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from retold.recorder.http.exchange import Exchange, Failure, Request, Response, TimedPiece
from retold.recorder.proxy.http_messages import Asked
from retold.replay.server import HOLD_S, LINGER_S, retell
from retold.replay.timing.timing import INSTANT
from tests.exchanges import JSON, SSE, URL, answer, exchange

FRAMES = (b"data: 1\n\n", b"data: 2\n\n")
CHUNKS = b"12\r\ndata: 1\n\ndata: 2\n\n\r\n"
"""Both frames in one chunk, because a replay without timing joins them."""


@dataclass
class Listener:
    """A client that records every call. With `leaves`, it leaves as soon as the server waits for that."""

    leaves: bool = False
    received: bytes = b""
    happened: list[str] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.received += data

    @property
    def lags(self) -> bool:
        return False

    async def drain(self) -> None:
        """The client reads at once."""

    async def wait_gone(self, seconds: float) -> bool:
        self.happened.append(f"wait {seconds:.3g} s")
        return self.leaves

    async def reset(self) -> None:
        self.happened.append("reset")

    def close(self) -> None:
        self.happened.append("close")


def replayed(recorded: Exchange, *, method: str = "POST", version: str = "1.1", headers: tuple[tuple[str, str], ...] = (),
         leaves: bool = False) -> tuple[Listener, bool, int]:  # fmt: skip
    """Replay an exchange. Return the client, whether its connection continues, and how often the client failed to close."""
    client = Listener(leaves)
    kept: list[int] = []
    asked = Asked(method, "/v1/messages", headers, b"{}", version)
    goes_on = asyncio.run(retell(recorded, INSTANT, asked, client, kept_open=lambda: kept.append(1)))
    return client, goes_on, len(kept)


def head_and_body(client: Listener) -> tuple[list[bytes], bytes]:
    head, _, body = client.received.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def test_a_stream_is_sent_in_chunks() -> None:
    client, goes_on, _ = replayed(exchange(answer(*FRAMES, reason="As You Like It")))
    assert head_and_body(client) == (
        [b"HTTP/1.1 200 As You Like It", b"content-type: text/event-stream; charset=utf-8", b"transfer-encoding: chunked"],
        CHUNKS + b"0\r\n\r\n",
    )
    assert (goes_on, client.happened) == (True, [])


@pytest.mark.parametrize(("version", "headers"), [("1.0", ()), ("1.1", (("connection", "close"),))])
def test_a_client_without_keep_alive_is_closed(version: str, headers: tuple[tuple[str, str], ...]) -> None:
    """An old client gets no chunks: the end of its connection is the end of the body."""
    client, goes_on, _ = replayed(exchange(answer(*FRAMES)), version=version, headers=headers)
    lines, body = head_and_body(client)
    assert not goes_on
    assert b"Connection: close" in lines
    assert body == (b"".join(FRAMES) if version == "1.0" else CHUNKS + b"0\r\n\r\n")


@pytest.mark.parametrize("ending", ["cut", "closed"])
def test_a_broken_body_has_no_last_chunk(ending: str) -> None:
    client, goes_on, _ = replayed(exchange(answer(*FRAMES), ending=ending))
    assert (head_and_body(client)[1], goes_on) == (CHUNKS, False)


@pytest.mark.parametrize(
    ("stored", "ending", "framing"),
    [
        ("999", "complete", b"content-length: 8"),
        ("999", "cut", b"content-length: 999"),
        ("3", "cut", b"transfer-encoding: chunked"),
        ("x", "cut", b"transfer-encoding: chunked"),
    ],
)
def test_a_stored_length_is_used_only_if_it_is_correct(stored: str, ending: str, framing: bytes) -> None:
    """A cut body must be shorter than its length. Otherwise the client would take it for a complete one."""
    response = Response(200, "OK", (*JSON, ("content-length", stored)), (TimedPiece(0, b'{"a": 1}', False),), 0)
    client, _, _ = replayed(exchange(response, ending=ending))
    assert head_and_body(client)[0][-1] == framing


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("POST", 304)])
def test_some_answers_have_no_body(method: str, status: int) -> None:
    """This does not depend on the recorded body. The headers are the recorded ones."""
    recorded = exchange(replace(answer(*FRAMES, headers=(*SSE, ("content-length", "18"))), status=status))
    client, goes_on, _ = replayed(replace(recorded, request=Request(method, URL)), method=method)
    lines, body = head_and_body(client)
    assert (body, lines[-1], goes_on) == (b"", b"content-length: 18", True)


@pytest.mark.parametrize(("kind", "resets"), [("ConnectionResetError", True), ("httpx.ReadError", True), ("ValueError", False)])
def test_a_reset_is_replayed_after_the_client_could_read(kind: str, resets: bool) -> None:
    client, _, _ = replayed(exchange(answer(*FRAMES), ending="cut", failure=Failure(kind, "")))
    assert client.happened == [f"wait {LINGER_S} s", *(["reset"] if resets else [])]


def test_a_missing_answer_is_missing_in_the_replay() -> None:
    client, goes_on, _ = replayed(replace(exchange(), response=None, ending="no_response"))
    assert (client.received, goes_on) == (b"", False)


@pytest.mark.parametrize("leaves", [True, False])
def test_an_exchange_that_the_client_closed_waits_for_the_client(leaves: bool) -> None:
    """A client that does not close it this time is reported and disconnected."""
    client, goes_on, kept_open = replayed(exchange(answer(*FRAMES), ending="closed"), leaves=leaves)
    assert (goes_on, kept_open) == (False, 0 if leaves else 1)
    assert client.happened[0].startswith(f"wait {HOLD_S:.3g}")


def test_an_error_that_sdks_retry_is_retried_at_once() -> None:
    """A replay without timing has no server to protect from load."""
    recorded = exchange(replace(answer(b"{}", headers=(*JSON, ("retry-after-ms", "9000"))), status=529), ending="http_error")
    client, _, _ = replayed(recorded)
    assert [line for line in head_and_body(client)[0] if line.startswith(b"retry")] == [b"retry-after-ms: 1"]
