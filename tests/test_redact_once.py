"""Each frame is processed once: each message is scrubbed, and each packed piece unpacked, a single time."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from retold.recorder.http import encodings
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Place, Request
from retold.recorder.log.log import EventLog
from retold.recorder.secrets.redactor import Redactor
from retold.replay.matching.matcher import Matcher
from retold.replay.matching.rules import Rules
from tests.messages_server import MessagesServer, Reply, text
from tests.tape import Tape, consume_sync

SAID = "It is said once, and read once."
ASKED = Request("POST", "https://api.anthropic.com/v1/messages", (("x-a", "b"), ("accept", "*/*")), b'{"messages": []}')

EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
FRAMES = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS]


class Counting(Redactor):
    """A redactor that counts the texts it scrubs."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.seen: list[bytes] = []
        super().__init__(environ or {})

    def data(self, data: bytes) -> bytes:
        self.seen.append(data)
        return super().data(data)


@pytest.fixture
def log() -> Iterator[EventLog]:
    with EventLog("log.db") as log:
        yield log


@pytest.mark.parametrize("own", [False, True])
def test_a_message_is_scrubbed_once_by_each_redactor(log: EventLog, own: bool) -> None:
    """The redactors are that of the run, and that of the capture if it has one."""
    of_run, of_capture = Counting(), Counting()
    with log.start(name="a", mode="live", redactor=of_run) as writer:
        capture = Capture(writer, ASKED, place=Place(), redactor=of_capture if own else None)
        capture.response(200, "OK", (("content-type", "text/event-stream"),))
        for frame in FRAMES:
            capture.data(frame)
        capture.end("complete")
    for redactor, times in ((of_run, 1), (of_capture, int(own))):
        assert sum(SAID.encode() in each and b"event: " not in each for each in redactor.seen) == times


def test_a_packed_body_is_unpacked_once(monkeypatch: pytest.MonkeyPatch, log: EventLog) -> None:
    """Recording unpacks each piece for the redaction. Folding reuses its content."""
    unpacked = Counter[bytes]()
    decode = encodings._Bounded.decode

    def counted(self: encodings._Bounded, data: bytes) -> bytes:
        unpacked[data] += 1
        return decode(self, data)

    monkeypatch.setattr(encodings._Bounded, "decode", counted)
    tape = Tape(log)
    with MessagesServer([Reply([text(SAID * 9, pieces=9)], encoding="gzip")]) as server, tape.on():
        consume_sync(server.url)
    assert unpacked
    assert max(unpacked.values()) == 1
    assert any(SAID in str(message.data) for message in log.messages(tape.run))


@pytest.mark.parametrize(("match_on", "read"), [(("method", "path", "body"), False), (("path", "headers"), True)])
def test_a_replay_scrubs_the_parts_that_matching_reads(match_on: tuple[str, ...], read: bool) -> None:
    """It scrubs headers only if a rule reads them."""
    redactor = Counting()
    Matcher([], rules=Rules(match_on=match_on), redactor=redactor).key(ASKED)
    assert ASKED.body in redactor.seen
    assert (b"*/*" in redactor.seen) is read
