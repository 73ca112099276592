"""The export of long answers: read from the log piece by piece, and equal to the byte to an export from memory."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.cassette import logged, transfer
from retold.recorder.cassette.format import cassette_of, to_yaml
from retold.recorder.cassette.logged import MANY, LiteralBody, LoggedPieces
from retold.recorder.cassette.transfer import each_exchange, exchanges_of, import_exchanges
from retold.recorder.folders import Folders
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Exchange
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from tests.exchanges import SSE, answer, exchange, exchanges


@pytest.fixture
def log() -> Iterator[EventLog]:
    with EventLog(store=MemoryStore()) as opened:
        yield opened


def deltas(count: int, text: str = "word") -> list[bytes]:
    return [f'event: content_block_delta\ndata: {{"text":"{text} {number}"}}\n\n'.encode() for number in range(count)]


def written(log: EventLog, run: str) -> tuple[str, str]:
    """The YAML of a run: of exchanges in memory, and of exchanges in the log."""
    in_memory, from_log = io.StringIO(), io.StringIO()
    to_yaml(exchanges_of(log, run), in_memory)
    to_yaml(each_exchange(log, run), from_log)
    return in_memory.getvalue(), from_log.getvalue()


def is_streamed(log: EventLog, run: str) -> list[bool]:
    return [LiteralBody.of(each.response) is not None for each in each_exchange(log, run)]


LONG = MANY + 10
FOLDERS = Folders(cwd="/home/someone/project", home="/home/someone", tmp="/tmp/elsewhere")

BODIES = {
    "deltas": (deltas(LONG), True),
    "emoji": (deltas(LONG, "😀 é"), True),
    "comments and open ends": ([*deltas(LONG), b": ping\n\n", b"data: last\n\n"], True),
    "one empty line inside": ([b"data: 1\n\n", *deltas(LONG), b"\n", b"data: 2\n\n"], True),
    "CRLF": ([each.replace(b"\n", b"\r\n") for each in deltas(LONG)], False),
    "a space before a line end": (deltas(LONG, "word \\n \n"), False),
    "a first line with a space": ([b" data: 1\n\n", *deltas(LONG)], False),
    "a last frame without an end": ([*deltas(LONG), b"data: cut"], False),
    "not UTF-8": ([*deltas(LONG), b"data: \xff\n\n"], False),
    "one more than is kept in memory": (deltas(MANY + 1), True),
    "as many as are kept in memory": (deltas(MANY), False),
}


@pytest.mark.parametrize(("pieces", "streamed"), BODIES.values(), ids=BODIES.keys())
def test_a_long_answer_is_written_from_the_log_as_from_memory(log: EventLog, pieces: list[bytes], streamed: bool) -> None:
    """A body that no literal block holds takes the other way, and the bytes of the file are the same on both."""
    run = import_exchanges(log, [exchange(answer(*pieces)), exchange(answer(*deltas(3)))], name="long", source="test")
    in_memory, from_log = written(log, run)
    assert from_log == in_memory
    assert is_streamed(log, run) == [streamed, False]
    assert [each.response.body for each in cassette_of(Path("c.yaml"), from_log.encode()).exchanges if each.response] == [
        b"".join(pieces), b"".join(deltas(3)),
    ]  # fmt: skip


@pytest.mark.parametrize("shown", [True, False])
def test_folders_of_the_program_are_found_in_a_long_answer(log: EventLog, shown: bool) -> None:
    """A cassette names them only if one of its pieces does."""
    made = exchange(answer(*deltas(LONG), *deltas(1, FOLDERS.cwd if shown else "nothing")))
    made = replace(made, request=replace(made.request, folders=FOLDERS))
    in_memory, from_log = written(log, import_exchanges(log, [made], name="long", source="test"))
    assert from_log == in_memory
    assert ("folders:" in from_log) is shown


def test_a_long_answer_without_an_end_keeps_the_time_of_its_last_piece(log: EventLog) -> None:
    """It is the exchange of a recorder that died: the last piece is its end."""
    with log.start(name="cut", mode="live") as writer:
        capture = Capture(writer, exchange().request)
        capture.response(200, "OK", SSE)
        for frame in deltas(LONG):
            capture.data(frame)
        in_memory, from_log = written(log, writer.run)
        (recorded,), (expected,) = each_exchange(log, writer.run), exchanges_of(log, writer.run)
        assert from_log == in_memory
        assert (recorded.ended_ns, recorded.failure) == (expected.ended_ns, expected.failure)
        capture.end("cut")


def test_logged_pieces_are_those_of_the_log(log: EventLog) -> None:
    """They count, begin and end as a sequence in memory does."""
    run = import_exchanges(log, [exchange(answer(*deltas(LONG)))], name="long", source="test")
    (recorded,), (expected,) = each_exchange(log, run), exchanges_of(log, run)
    assert recorded.response is not None
    assert expected.response is not None
    pieces = recorded.response.pieces
    assert isinstance(pieces, LoggedPieces)
    assert tuple(pieces) == expected.response.pieces
    assert (len(pieces), pieces[0], pieces[-1]) == (LONG, expected.response.pieces[0], expected.response.pieces[-1])
    assert recorded.response.span_ns == expected.response.span_ns


@settings(deadline=None, max_examples=40)
@given(st.lists(exchanges(), min_size=1, max_size=3))
def test_any_exchange_is_written_from_the_log_as_from_memory(recorded: list[Exchange]) -> None:
    """Every exchange of more than one piece takes the way of long answers here."""
    with pytest.MonkeyPatch.context() as patch, EventLog(store=MemoryStore()) as log:
        patch.setattr(transfer, "MANY", 1)
        patch.setattr(logged, "MANY", 1)
        run = import_exchanges(log, recorded, name="any", source="test")
        in_memory, from_log = written(log, run)
        assert from_log == in_memory
