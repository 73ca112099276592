"""After recording, export, replay, a second recording and import, the bytes and the ending are those of the first recording."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Exchange, Response
from retold.recorder.http.patching import Send
from retold.recorder.http.tee import Recorder
from retold.recorder.log.log import EventLog
from retold.replay.matching.matcher import Matcher
from retold.replay.transport import Replayer
from tests.exchanges import URL, exchanges


class Body(httpx2.SyncByteStream):
    """The pieces of a response, followed by a lost connection if `is_cut`."""

    def __init__(self, response: Response, is_cut: bool) -> None:
        self._response = response
        self._is_cut = is_cut

    def __iter__(self) -> Iterator[bytes]:
        yield from (piece.data for piece in self._response.pieces)
        if self._is_cut:
            raise httpx2.RemoteProtocolError("lost")


def recorded(log: EventLog, send: Send, leaves_after: int | None) -> Exchange:
    """Record an exchange while a client reads it to its end, or leaves after some bytes."""
    with log.start(name="run", mode="live") as writer:
        recorder = Recorder(lambda request: Capture(writer, request))
        asked = httpx2.Request("POST", URL, headers={"accept-encoding": "*"}, content=b'{"a": 1}')  # any encoding: raw bytes
        response = recorder.handle(asked, send)
        got, chunks = 0, response.iter_raw()
        try:
            while leaves_after is None or got < leaves_after:
                got += len(next(chunks))
        except (httpx2.RemoteProtocolError, StopIteration):
            pass
        finally:
            response.close()
    (exchange,) = exchanges_of(log, writer.run)
    return exchange


def through_a_file(path: Path, exchange: Exchange) -> Exchange:
    write_cassette(path, [exchange])
    (read,) = read_cassette(path).exchanges
    return read


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    with EventLog(tmp_path_factory.mktemp("circle") / "log.db") as opened:
        yield opened


@settings(deadline=None, max_examples=25)
@given(exchanges(), st.sampled_from(["read", "cut", "left"]), st.sampled_from([".yaml", ".json"]))
def test_the_whole_circle_is_the_identity_on_bytes_and_endings(log: EventLog, drawn: Exchange, how: str, suffix: str) -> None:
    """Any response may be read to its end, cut, left by the client, or be an HTTP error."""
    answer = drawn.response or Response(200, "OK", (), (), 0)
    own = [pair for pair in answer.headers if pair[0] in ("content-type", "content-encoding")]
    leaves_after = len(answer.body) if how == "left" and answer.status < 400 else None

    def server(_: object) -> httpx2.Response:
        return httpx2.Response(answer.status, headers=own, stream=Body(answer, how == "cut"))

    path = log.path.with_suffix(suffix)
    first = recorded(log, server, leaves_after)
    exported = through_a_file(path, first)
    again = recorded(log, Replayer(Matcher([exported])).handle, leaves_after)
    last = through_a_file(path, replace(again, recorded_at=first.recorded_at))
    (imported,) = exchanges_of(log, import_exchanges(log, [last], name="import", source=str(path)))
    circle = [first, exported, again, last, imported]
    assert [e.response.body for e in circle if e.response is not None] == [answer.body] * 5
    assert [(e.ending, e.failure) for e in circle] == [(first.ending, first.failure)] * 5
    error = "http_error" if answer.status >= 400 else None
    assert first.ending == {"read": error or "complete", "cut": "cut", "left": error or "closed"}[how]
