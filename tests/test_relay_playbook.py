"""The rules of the recording proxy without a socket: events of the client, the API and the clock, and the resulting commands.

`tests/playbook.py` explains the notation.
"""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retold.recorder.proxy import commands as c
from retold.recorder.proxy.client_side import Limits, Room
from retold.recorder.proxy.http_messages import MAX_HEAD_BYTES, Asked, Refusal
from retold.recorder.proxy.upstream import Upstream
from tests.playbook import Playbook, play, to_bytes, to_text

ASK = "client POST /v1/messages HTTP/1.1¶Host: localhost¶Content-Length: 2¶¶{}"
LAST = "client POST /v1/messages HTTP/1.1¶Host: localhost¶Connection: close¶Content-Length: 2¶¶{}"
ASKED = ("client connects", ASK, "api connects")
"""The events of a client that has sent a request, and of a connection to the API that has received it."""


# One exchange


def test_a_request_is_relayed_recorded_and_answered() -> None:
    """The recording begins before the request is sent, and records an answer before the client gets it."""
    play("""
        >> client connects
        << wait 300 s
        >> client POST /v1/messages HTTP/1.1¶Host: localhost¶X-Odd: 1¶content-LENGTH: 2¶¶{}
        << wait no more
        << answer POST /v1/messages with 2 bytes
        << begin capture of POST http://api.example/v1/messages
        << connect
        >> api connects
        << api POST /v1/messages HTTP/1.1¶Host: api.example¶X-Odd: 1¶content-LENGTH: 2¶¶{}
        >> api HTTP/1.1 200 As You Like It¶X-Odd-CASE: Yes¶Content-Length: 4¶¶ok
        << observe 200 As You Like It
        << observe ok
        << client HTTP/1.1 200 As You Like It¶X-Odd-CASE: Yes¶Content-Length: 4¶¶ok
        >> api ay
        << observe ay
        << end capture: complete
        << client ay
        << done, both go on
        << wait 300 s
        """)


def test_the_next_request_uses_the_same_connection() -> None:
    play(
        """
        >> api HTTP/1.1 204 No Content¶¶
        << observe 204 No Content
        << end capture: complete
        << client HTTP/1.1 204 No Content¶¶
        << done, both go on
        << wait 300 s
        >> client GET /v1/models HTTP/1.1¶Host: localhost¶¶
        << wait no more
        << answer GET /v1/models with 0 bytes
        << begin capture of GET http://api.example/v1/models
        << api GET /v1/models HTTP/1.1¶Host: api.example¶¶
        """,
        before=ASKED,
    )


def test_requests_sent_ahead_are_answered_one_after_the_other() -> None:
    """The second request is parsed when the first answer is complete."""
    play(
        """
        >> client GET /v1/models HTTP/1.1¶Host: localhost¶¶
        >> api HTTP/1.1 204 No Content¶¶
        << observe 204 No Content
        << end capture: complete
        << client HTTP/1.1 204 No Content¶¶
        << done, both go on
        << wait no more
        << answer GET /v1/models with 0 bytes
        << begin capture of GET http://api.example/v1/models
        << api GET /v1/models HTTP/1.1¶Host: api.example¶¶
        """,
        before=ASKED,
    )


def test_a_client_that_sends_too_far_ahead_is_disconnected() -> None:
    playbook = play(f">> client {{{MAX_HEAD_BYTES} x}}", before=ASKED)
    playbook.happen("client x")
    assert playbook.transcript[-1] == "<< abort client"


@pytest.mark.parametrize(
    ("request_head", "answer_head"),
    [
        ("POST / HTTP/1.1¶Host: localhost¶Connection: close", "HTTP/1.1 200 OK¶Content-Length: 0"),
        ("POST / HTTP/1.1¶Host: localhost", "HTTP/1.1 200 OK¶Content-Length: 0¶Connection: close"),
        ("POST / HTTP/1.0", "HTTP/1.1 200 OK¶Content-Length: 0"),
        ("POST / HTTP/1.1¶Host: localhost", "HTTP/1.0 200 OK¶Content-Length: 0"),
    ],
    ids=["the client closes", "the API closes", "an old client", "an old API"],
)
def test_both_connections_close_if_one_side_does_not_continue(request_head: str, answer_head: str) -> None:
    play(
        f"""
        >> api {answer_head}¶¶
        << observe 200 OK
        << end capture: complete
        << client {answer_head}¶¶
        << done
        << wait no more
        << close api
        << close client
        """,
        before=["client connects", f"client {request_head}¶¶", "api connects"],
    )


# Framing of requests


def test_a_client_that_waits_for_permission_gets_it_at_once() -> None:
    """The API gets neither the expectation nor the chunks, because the request is complete by then."""
    play(
        """
        >> client POST /v1/messages HTTP/1.1¶Host: localhost¶Transfer-Encoding: chunked¶Expect: 100-continue¶¶
        << client HTTP/1.1 100 Continue¶¶
        << wait 30 s
        >> client 5¶{"a":¶
        << wait 30 s
        >> client 2¶1}¶0¶¶
        << wait no more
        << answer POST /v1/messages with 7 bytes
        << begin capture of POST http://api.example/v1/messages
        << connect
        >> api connects
        << api POST /v1/messages HTTP/1.1¶Host: api.example¶Content-Length: 7¶¶{"a":1}
        """,
        before=["client connects"],
    )


def test_a_request_with_two_lengths_is_relayed_with_one() -> None:
    """Two servers can read chunks and a length in two ways, and the second part as another request."""
    head = "POST / HTTP/1.1¶Host: localhost¶Content-Length: 99¶Transfer-Encoding: chunked"
    playbook = play("", before=["client connects", f"client {head}¶¶2¶{{}}¶0¶¶", "api connects"])
    assert playbook.sent(c.SendApi) == b"POST / HTTP/1.1\r\nHost: api.example\r\nContent-Length: 2\r\n\r\n{}"


def test_an_upgrade_is_not_passed_on() -> None:
    """Another protocol could not be recorded. The API answers the request in HTTP/1.1, or refuses it."""
    head = "GET /socket HTTP/1.1¶Host: localhost¶Connection: upgrade¶Upgrade: websocket¶X-Retold-Token: t"
    playbook = play("", before=["client connects", f"client {head}¶¶", "api connects"])
    assert playbook.sent(c.SendApi) == b"GET /socket HTTP/1.1\r\nHost: api.example\r\nConnection: upgrade\r\n\r\n"


def test_the_base_path_of_the_api_precedes_the_path_of_the_request() -> None:
    playbook = play("", before=ASKED, upstream=Upstream.parse("https://api.example:8443/base/"))
    assert playbook.sent(c.SendApi).startswith(b"POST /base/v1/messages HTTP/1.1\r\nHost: api.example:8443\r\n")
    assert playbook.of(c.BeginCapture)[0].request.uri == "https://api.example:8443/base/v1/messages"


# Framing of answers


def test_an_early_hint_is_relayed_and_not_recorded() -> None:
    play(
        """
        >> api HTTP/1.1 103 Early Hints¶Link: </a>¶¶
        << client HTTP/1.1 103 Early Hints¶Link: </a>¶¶
        >> api HTTP/1.1 200 OK¶Content-Length: 2¶¶ok
        << observe 200 OK
        << observe ok
        << end capture: complete
        << client HTTP/1.1 200 OK¶Content-Length: 2¶¶ok
        << done, both go on
        << wait 300 s
        """,
        before=ASKED,
    )


def test_chunks_are_relayed_unchanged_and_recorded_without_framing() -> None:
    play(
        """
        >> api HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶2;a=b¶o
        << observe 200 OK
        << observe o
        << client HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶2;a=b¶o
        >> api k¶1¶!¶0¶X-Trailer: 1¶¶
        << observe k | !
        << end capture: complete
        << client k¶1¶!¶0¶X-Trailer: 1¶¶
        << done, both go on
        << wait 300 s
        """,
        before=ASKED,
    )


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    play(
        """
        >> api HTTP/1.1 200 OK¶¶half
        << observe 200 OK
        << observe half
        << client HTTP/1.1 200 OK¶¶half
        >> api closes
        << end capture: complete
        << done
        << wait no more
        << close api
        << close client
        """,
        before=ASKED,
    )


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", "HTTP/1.1 200 OK¶Content-Length: 9¶¶"),
        ("GET", "HTTP/1.1 204 No Content¶¶"),
        ("GET", "HTTP/1.1 304 Not Modified¶Content-Length: 9¶¶"),
    ],
)
def test_an_answer_without_a_body_is_complete_with_its_head(method: str, answer: str) -> None:
    asked = f"client {method} /v1/models HTTP/1.1¶Host: localhost¶¶"
    playbook = play("", before=["client connects", asked, "api connects", f"api {answer}"])
    assert playbook.of(c.CaptureBody, c.EndCapture, c.Done) == [c.EndCapture("complete"), c.Done(goes_on=True)]


def test_a_head_that_only_a_lenient_client_reads_is_recorded() -> None:
    """h11 refuses this name of a header."""
    play(
        """
        >> api HTTP/1.1 200 OK¶X-Odd : 1¶Content-Length: 2¶¶ok
        << observe 200 OK
        << observe ok
        << end capture: complete
        << client HTTP/1.1 200 OK¶X-Odd : 1¶Content-Length: 2¶¶ok
        << done, both go on
        << wait 300 s
        """,
        before=ASKED,
    )


# Endings


def test_an_api_that_cannot_be_reached_is_a_reset() -> None:
    play(
        """
        >> api refuses
        << end capture: no_response (refused)
        << reset client
        << done
        << wait no more
        << close api
        << close client
        """,
        before=["client connects", ASK],
    )


@pytest.mark.parametrize(("answer", "ending"), [("", "no_response"), ("HTTP/1.1 200 OK¶Content-Length: 9¶¶half", "cut")])
def test_a_reset_of_the_api_is_a_reset_for_the_client(answer: str, ending: str) -> None:
    play(
        f"""
        >> api resets
        << end capture: {ending} (reset)
        << reset client
        << done
        << wait no more
        << close api
        << close client
        """,
        before=[*ASKED, *([f"api {answer}"] if answer else [])],
    )


BROKEN = {
    "nothing": ("", "no_response (Server disconnected without sending a response.)"),
    "half a head": ("HTTP/1.1 200 OK¶Content-", "no_response (Server disconnected without sending a response.)"),
    "half a body": (
        "HTTP/1.1 200 OK¶Content-Length: 9¶¶half",
        "cut (peer closed connection without sending complete message body (received 4 bytes, expected 9))",
    ),
    "half a chunk": (
        "HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶9¶half",
        "cut (peer closed connection without sending complete message body (incomplete chunked read))",
    ),
}


@pytest.mark.parametrize(("answer", "ending"), BROKEN.values(), ids=BROKEN)
def test_an_answer_that_breaks_off_closes_both_connections(answer: str, ending: str) -> None:
    """The client gets every received byte and no reset, because the API closed its connection in order."""
    play(
        f"""
        >> api closes
        << end capture: {ending}
        << done
        << wait no more
        << close api
        << close client
        """,
        before=[*ASKED, *([f"api {answer}"] if answer else [])],
    )


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        ("SSH-2.0-x¶¶", "no_response"),
        ("HTTP/1.1 101 Switching Protocols¶Upgrade: x¶¶", "no_response"),
        ("HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶nine¶", "cut"),
    ],
    ids=["another protocol", "an upgrade", "a bad chunk"],
)
def test_bytes_that_are_not_http_are_relayed_until_the_api_closes(answer: str, ending: str) -> None:
    """The recording ends at the error, because bytes that cannot be parsed cannot be recorded."""
    playbook = Playbook()
    for line in (*ASKED, f"api {answer}"):
        playbook.happen(line)
    assert [end.ending for end in playbook.of(c.EndCapture)] == [ending]
    playbook.transcript.clear()
    for line in ("api more", "api closes"):
        playbook.happen(line)
    assert playbook.transcript == [
        ">> api more", "<< client more", ">> api closes", "<< done", "<< wait no more", "<< close api",
        "<< close client",
    ]  # fmt: skip


@pytest.mark.parametrize("before", [ASKED[:2], ASKED, [*ASKED, "api HTTP/1.1 200 OK¶¶half"]], ids=["connecting", "asked", "body"])
def test_a_client_that_leaves_closes_the_connection_to_the_api(before: Sequence[str]) -> None:
    play(
        """
        >> client leaves
        << cancel the answer
        << end capture: closed
        << wait no more
        << close api
        << close client
        """,
        before=before,
    )


def test_a_server_that_stops_cuts_an_answer() -> None:
    """The recording does not name the client as the cause."""
    play(
        """
        >> server stops
        << cancel the answer because the server stops
        << end capture: cut (the recording proxy was stopped)
        << wait no more
        << close api
        << close client
        """,
        before=ASKED,
    )


def test_an_api_that_closes_between_requests_closes_the_client() -> None:
    """The client gets the last bytes, too: some servers send 408 first."""
    play(
        """
        >> api HTTP/1.1 204 No Content¶¶
        << observe 204 No Content
        << end capture: complete
        << client HTTP/1.1 204 No Content¶¶
        << done, both go on
        << wait 300 s
        >> api HTTP/1.1 408 Request Timeout¶¶
        << client HTTP/1.1 408 Request Timeout¶¶
        << wait no more
        << close api
        << close client
        """,
        before=ASKED,
    )


@pytest.mark.parametrize("event", ["api closes", "api resets"])
def test_an_idle_connection_closes_with_the_connection_to_the_api(event: str) -> None:
    play(
        f"""
        >> {event}
        << wait no more
        << close api
        << close client
        """,
        before=[*ASKED, "api HTTP/1.1 204 No Content¶¶"],
    )


@pytest.mark.parametrize("answer", ["HTTP/1.1 200 OK¶Content-Length: 2¶¶", "HTTP/1.1 204 No Content¶¶"])
def test_the_client_gets_only_recorded_bytes(answer: str) -> None:
    """A recording that fails closes both connections before the client gets the bytes."""
    playbook = play("", before=[*ASKED, "log fails", f"api {answer}"])
    assert playbook.sent(c.SendClient) == b""
    assert playbook.transcript == [] or playbook.transcript[-1] == "<< close client"


def test_the_api_gets_only_recorded_bytes() -> None:
    play(
        """
        >> client POST / HTTP/1.1¶Host: localhost¶Content-Length: 2¶¶{}
        << wait no more
        << answer POST / with 2 bytes
        << begin capture of POST http://api.example/ (fails)
        << wait no more
        << close api
        << close client
        """,
        before=["client connects", "log fails"],
    )


# Refusals


def refused(status: int, reason: str) -> str:
    """Return the commands that follow if a request is refused."""
    return f"""
        << refuse {status}: {reason}
        << close api
        << client the error
        << end client
        << wait 2 s
        """


def head(request_line: str, *lines: str) -> str:
    return "¶".join([f"client {request_line}", "Host: localhost", *lines]) + "¶¶"


ONE_API = "this server serves one API only; request a path, not another host"


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (head("CONNECT api.example:443 HTTP/1.1"), 405, ONE_API),
        (head("GET http://api.example/ HTTP/1.1"), 400, ONE_API),
        (head("OPTIONS * HTTP/1.1"), 400, ONE_API),
        (head("POST / HTTP/1.1", "Content-Length: 101"), 413, "the body has more than 100 bytes"),
        (head("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 101"), 413, "the body has more than 100 bytes"),
        ("client SSH-2.0-x¶¶", 400, "this is not an HTTP/1.1 request"),
        ("client GET / HTTP/1.1¶¶", 400, "this is not an HTTP/1.1 request"),
        (head("POST / HTTP/1.1", "Content-Length: x"), 400, "this is not an HTTP/1.1 request"),
        (f"client GET /{{{MAX_HEAD_BYTES} x}}", 431, "this is not an HTTP/1.1 request"),
    ],
)  # fmt: skip
def test_a_request_is_refused_by_its_head(line: str, status: int, reason: str) -> None:
    """The refusal comes before the body is read, and without a permission to send it."""
    play(f">> {line}{refused(status, reason)}", before=["client connects"], limits=Limits(body_bytes=100))


def test_a_token_is_checked_before_the_body_is_read() -> None:
    """A client that waits for permission does not send its body."""

    def gate(asked: Asked) -> Refusal | None:
        return None if asked.header("x-retold-token") == "right" else Refusal(403, "permission_error", "the token is wrong")

    line = head("POST / HTTP/1.1", "X-Retold-Token: {}", "Expect: 100-continue", "Content-Length: 2")
    play(f">> {line.format('wrong')}{refused(403, 'the token is wrong')}", before=["client connects"], refuses=gate)
    play(
        f"""
        >> {line.format("right")}
        << client HTTP/1.1 100 Continue¶¶
        << wait 30 s
        """,
        before=["client connects"],
        refuses=gate,
    )


def test_a_body_in_chunks_is_refused_at_the_limit() -> None:
    play(
        f"""
        >> client 32¶{{50 x}}¶33¶{{50 x}}
        << wait 30 s
        >> client x{refused(413, "the body has more than 100 bytes")}
        """,
        before=["client connects", head("POST / HTTP/1.1", "Transfer-Encoding: chunked")],
        limits=Limits(body_bytes=100),
    )


def test_the_bodies_of_all_connections_share_one_limit() -> None:
    """The room is free again after the answer."""
    room = Room(Limits(held_bytes=100))
    first = Playbook(room=room)
    ask = head("POST / HTTP/1.1", "Content-Length: 80") + "{80 x}"
    for line in ("client connects", ask, "api connects"):
        first.happen(line)
    assert room.held == 80
    play(f">> {ask}{refused(503, 'the bodies of all requests exceed 100 bytes')}", before=["client connects"], room=room)
    assert room.held == 80
    first.happen("api HTTP/1.1 204 No Content¶¶")
    assert room.held == 0


def test_a_client_beyond_the_limit_of_connections_is_refused() -> None:
    play(f">> client connects beside 512{refused(503, 'all 512 connections are in use')}<< close client")


def test_a_refused_client_may_continue_sending_for_a_while() -> None:
    """Closing at once would reset the connection, and the client would lose the answer."""
    before = ["client connects", head("CONNECT x:1 HTTP/1.1")]
    limits = Limits(body_bytes=100)
    play(">> client {100 x}", before=before, limits=limits)
    play(">> client {101 x}\n<< abort client", before=before, limits=limits)
    play(">> 1.9 s pass\n>> 0.1 s pass\n<< abort client", before=before, limits=limits)


def test_an_error_for_head_has_no_body() -> None:
    playbook = play("", before=["client connects", head("HEAD * HTTP/1.1")])
    sent = playbook.sent(c.SendClient)
    assert sent.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nx-should-retry: false\r\n")
    assert sent.endswith(b"connection: close\r\n\r\n")


# Time


def test_a_client_without_a_request_is_closed_without_an_answer() -> None:
    play(
        """
        >> client connects
        << wait 300 s
        >> 299 s pass
        >> 1 s pass
        << wait no more
        << close api
        << close client
        """
    )


def test_a_head_has_one_time_limit() -> None:
    """Later bytes do not extend it."""
    play(
        f"""
        >> client POST / HT
        << wait 30 s
        >> 29 s pass
        >> client TP/1.1¶Ho
        >> 1 s pass{refused(408, "the headers of the request did not come within 30 s")}
        """,
        before=["client connects"],
    )


def test_each_piece_of_a_body_has_a_time_limit() -> None:
    play(
        f"""
        >> client xx
        << wait 30 s
        >> 29 s pass
        >> client xx
        << wait 30 s
        >> 30 s pass{refused(408, "the body of the request did not come within 30 s")}
        """,
        before=["client connects", head("POST / HTTP/1.1", "Content-Length: 9")],
    )


def test_a_whole_body_has_a_time_limit() -> None:
    """Pieces that come in time do not extend it."""
    play(
        f"""
        >> 25 s pass
        >> client x
        << wait 15 s
        >> 14 s pass
        >> client x
        << wait 1 s
        >> 1 s pass{refused(408, "the body of the request did not come within 30 s")}
        """,
        before=["client connects", head("POST / HTTP/1.1", "Content-Length: 9")],
        limits=Limits(body_s=40),
    )


def test_an_answer_has_no_time_limit() -> None:
    play(">> 86400 s pass", before=ASKED)


# Every sequence of events

PIECES = st.sampled_from([
    "client connects", ASK, LAST, "client GET / HTTP/1.1¶", "client Host: x¶¶", "client x", "client leaves", "api connects",
    "api HTTP/1.1 200 OK¶Content-Length: 3¶¶", "api ok!", "api HTTP/1.1 204 No Content¶¶", "api closes", "api resets",
    "api refuses", "1 s pass", "600 s pass", "server stops", "log fails", head("POST / HTTP/1.1", "Content-Length: 9"),
])  # fmt: skip


def may_happen(playbook: Playbook, line: str) -> bool:
    """Return whether a rim can report an event. The API has events only while it is connected or connecting."""
    state = playbook.api.state
    if line in ("api connects", "api refuses"):
        return state == "connecting"
    return not line.startswith("api ") or state in ("answering", "waiting")


@given(st.lists(PIECES, max_size=30))
def test_any_sequence_of_events_keeps_the_promises(lines: list[str]) -> None:
    """Each capture ends once, bytes are recorded before the client gets them, and the room for bodies is freed."""
    playbook = Playbook(limits=Limits(body_bytes=100))
    playbook.happen("client connects")
    for line in lines:
        if line != "client connects" and may_happen(playbook, line):
            playbook.happen(line)
    playbook.happen("client leaves")
    playbook.happen("client x")
    assert (playbook.room.held, playbook.client.state) == (0, "closed")
    has_log = "log fails" not in lines
    order = [type(command) for command in playbook.of(c.BeginCapture, c.EndCapture)]
    assert order == [c.BeginCapture, c.EndCapture] * (len(order) // 2) or not has_log
    for group in "\n".join(playbook.transcript).split("\n>> api ")[1:]:
        commands = group.split("\n>> ")[0].splitlines()[1:]
        recorded = [at for at, line in enumerate(commands) if line.startswith(("<< observe", "<< end capture"))]
        sent = [at for at, line in enumerate(commands) if line.startswith("<< client")]
        assert not recorded or not sent or max(recorded) < min(sent)


REQUEST = to_bytes('POST / HTTP/1.1¶Host: localhost¶Transfer-Encoding: chunked¶¶5¶{"a":¶2¶1}¶0¶¶GET / HTTP/1.1¶Host: x¶¶')
ANSWER = to_bytes("HTTP/1.1 100 Continue¶¶HTTP/1.1 200 OK¶Transfer-Encoding: chunked¶¶5¶data:¶4¶ 1\\n\\n¶0¶X: y¶¶")


def cut(data: bytes, places: set[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.sets(st.integers(1, 120)), st.sets(st.integers(1, 120)))
def test_the_cuts_between_received_bytes_change_nothing(of_request: set[int], of_answer: set[int]) -> None:
    """The API and the client get the same bytes, and the recording gets the same body, wherever the network cuts."""
    playbook = Playbook()
    lines = ["client connects", *(f"client {to_text(piece)}" for piece in cut(REQUEST, of_request)), "api connects"]
    for line in (*lines, *(f"api {to_text(piece)}" for piece in cut(ANSWER, of_answer))):
        playbook.happen(line)
    assert [asked.asked.body for asked in playbook.of(c.Answer)] == [b'{"a":1}', b""]
    assert playbook.sent(c.SendClient) == ANSWER
    assert b"".join(piece for body in playbook.of(c.CaptureBody) for piece in body.pieces) == b"data: 1\n\n"
    assert playbook.of(c.CaptureHead, c.EndCapture) == [
        c.CaptureHead(200, "OK", (("Transfer-Encoding", "chunked"),)),
        c.EndCapture("complete"),
    ]


@given(st.binary(max_size=60))
def test_the_notation_of_bytes_is_exact(data: bytes) -> None:
    assert to_bytes(to_text(data)) == data
