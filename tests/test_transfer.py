"""Between log and cassette: the export of an import equals the original, whichever tool recorded it."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.comparing.reading import read_exchanges, read_run
from retold.handlers import make_handler, read_stream
from retold.handlers.base import READ_KINDS
from retold.recorder.cassette.folding import in_order
from retold.recorder.cassette.format import read_cassette, write_cassette
from retold.recorder.cassette.sessions import each_session
from retold.recorder.cassette.transfer import INTERRUPTED, exchanges_of, import_exchanges
from retold.recorder.events import encode
from retold.recorder.http.capture import Capture
from retold.recorder.http.exchange import Exchange, Failure, Request, Response, TimedPiece, has_frames
from retold.recorder.interrupted import events_of
from retold.recorder.log.log import EventLog
from retold.recorder.log.memory import MemoryStore
from retold.recorder.messages import Session
from tests.conftest import RECORDINGS, ROOT
from tests.exchanges import JSON, SSE, URL, answer, exchange, exchanges
from tests.raw_log import Child, store_of

Json = dict[str, Any]


class Imported(NamedTuple):
    """Foreign recordings in one log: for each file the exchanges read from it, and their run."""

    log: EventLog
    runs: dict[Path, tuple[Sequence[Exchange], str]]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    with EventLog(tmp_path_factory.mktemp("transfer") / "log.db") as log:
        runs = {}
        for path in sorted(RECORDINGS.glob("*/*.yaml")):
            recorded = read_cassette(path).exchanges
            runs[path] = recorded, import_exchanges(log, recorded, name=path.stem, source=str(path))
        yield Imported(log, runs)


def digests(recorded: Sequence[Exchange]) -> list[str | None]:
    """Return the sha256 of each response's body."""
    return [None if e.response is None else sha256(e.response.body).hexdigest() for e in recorded]


def test_every_published_recording_is_imported(imported: Imported) -> None:
    """All 150 YAML files are imported into one log, each as a completed run."""
    assert len(imported.runs) == 150
    infos = imported.log.runs()
    assert {(info.mode, info.status) for info in infos} == {("import", "completed")}
    counts = {info.run: info.exchanges for info in infos}
    assert counts == {run: len(recorded) for recorded, run in imported.runs.values()}


def test_every_published_recording_is_exported_byte_for_byte(imported: Imported) -> None:
    """Responses, requests, statuses, endings and times equal the originals."""
    for path, (recorded, run) in imported.runs.items():
        found = exchanges_of(imported.log, run)
        assert digests(found) == digests(recorded), path
        assert [e.request.body for e in found] == [e.request.body for e in recorded], path
        assert [(e.request.method, e.request.uri) for e in found] == [(e.request.method, e.request.uri) for e in recorded], path
        assert [e.ending for e in found] == [e.ending for e in recorded], path
        assert [(e.response.status, e.response.reason) for e in found if e.response] == [
            (e.response.status, e.response.reason) for e in recorded if e.response
        ], path


def test_published_streams_are_split_into_frames(imported: Imported) -> None:
    """The recordings have at least 78 plain event streams. Each is complete, and its frames add up to its body."""
    streams = [
        e.response
        for recorded, _ in imported.runs.values()
        for e in recorded
        if e.response is not None and any(piece.is_frame for piece in e.response.pieces)
    ]
    assert len(streams) >= 78
    assert all(len(stream.pieces) > 2 for stream in streams)
    assert all(piece.is_frame for stream in streams for piece in stream.pieces)


def test_every_published_recording_is_shown(imported: Imported) -> None:
    """The debug handler shows each message of every run, also unknown ones, without an error."""
    shown = 0
    for path, (_, run) in imported.runs.items():
        out = io.StringIO()
        read_stream(imported.log.events(run, kinds=READ_KINDS), make_handler("debug", {}, out))
        assert out.getvalue(), path
        shown += len(list(imported.log.messages(run)))
    assert shown >= 150


def test_every_published_recording_survives_a_cassette_of_retold(imported: Imported, tmp_path: Path) -> None:
    """It is exported, written, read and imported again with the same bytes."""
    for recorded, run in imported.runs.values():
        write_cassette(tmp_path / "c.yaml", exchanges_of(imported.log, run))
        assert digests(read_cassette(tmp_path / "c.yaml").exchanges) == digests(recorded)


@pytest.fixture
def log(tmp_path: Path) -> Any:
    with EventLog(tmp_path / "log.db") as opened:
        yield opened


@pytest.mark.parametrize("path", sorted((ROOT / "cassettes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_cassette_imported_and_exported_is_the_same_file(log: EventLog, path: Path, tmp_path: Path) -> None:
    """The log loses nothing: every byte of the file is equal."""
    recorded = read_cassette(path)
    run = import_exchanges(log, in_order(recorded.exchanges, recorded.sessions), name="run", source=str(path))
    write_cassette(tmp_path / "again.yaml", exchanges_of(log, run), list(each_session(log, run)))
    assert (tmp_path / "again.yaml").read_text("utf-8") == path.read_text("utf-8")


@settings(deadline=None, max_examples=20)
@given(exchanges())
def test_any_exchange_passes_through_the_log_unchanged(tmp_path_factory: pytest.TempPathFactory, recorded: Exchange) -> None:
    """This includes bytes, pieces, times, status, ending and the notes of a workflow."""
    recorded = as_recorded(recorded)
    with EventLog(tmp_path_factory.getbasetemp() / "any.db") as log:
        (found,) = exchanges_of(log, import_exchanges(log, [recorded], name="run", source="here"))
    assert found == recorded


def as_recorded(given: Exchange) -> Exchange:
    """Return a random exchange in the form of a recording.

    A status of 400 is an error. Half a frame is recognised at the end of the stream, and a frame ending in CR when more comes.
    """
    response, ending = given.response, given.ending
    if response is not None and has_frames(response.headers, response.body):
        pieces, known_ns = list[TimedPiece](), given.ended_ns - given.started_ns
        for piece in reversed(response.pieces):
            if piece.is_frame and not piece.data.endswith(b"\r"):
                known_ns = piece.offset_ns
            pieces.insert(0, piece._replace(offset_ns=known_ns))
            known_ns = pieces[0].offset_ns
        response = replace(response, pieces=tuple(pieces))
    if response is not None and response.status >= 400 and ending != "cut":
        ending = "http_error"
    at = given.recorded_at or "2026-11-22T14:29:35.123Z"
    return replace(given, response=response, ending=ending, recorded_at=at, tool_results=())


def test_a_piece_that_redaction_delays_keeps_its_time(log: EventLog) -> None:
    """A backslash may begin an escape in a secret, so it waits for the next piece, or for the end of the body."""
    request = Request("POST", "https://api.anthropic.com/v1/messages", (), b"{}")
    pieces = tuple(TimedPiece(number, data, False) for number, data in enumerate([b"\\", b"x", b"\\"], 1))
    recorded = Exchange(request, Response(200, "OK", (("content-type", "application/json"),), pieces, 0), ended_ns=9)
    (found,) = exchanges_of(log, import_exchanges(log, [recorded], name="run", source="here"))
    assert found.response is not None
    assert [(piece.offset_ns, piece.data) for piece in found.response.pieces] == [(1, b"\\"), (2, b"x"), (3, b"\\")]


def test_an_import_keeps_the_recorded_times(log: EventLog) -> None:
    """Events of an imported run have the times of the recording, not those of the import."""
    response = answer(b"data: 1\n\n", b"data: 2\n\n", step_ns=10**12)
    first = exchange(response, started_ns=10**9)
    run = import_exchanges(log, [first, replace(first, started_ns=10**13)], name="run", source="here")
    times = [event.t_ns for event in log.events(run, kinds=("frame",))]
    assert times == [1_001 * 10**9, 2_001 * 10**9, 11 * 10**12, 12 * 10**12]


@pytest.mark.parametrize("later_ns", [1_000, 1_500_000, 10_000_000])
def test_overlapping_exchanges_are_imported_unchanged(log: EventLog, later_ns: int) -> None:
    """Each has its own times and bytes, in the order of the cassette. The times of the run never decrease."""
    one = exchange(answer(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"), body=b'{"a": 1}', call=1)
    other = exchange(answer(b"data: a\n\n", b"data: b\n\n"), body=b'{"b": 1}', call=2, started_ns=later_ns)
    other = replace(other, ended_ns=later_ns + other.ended_ns)
    run = import_exchanges(log, [one, other], name="import", source="c.yaml")
    assert [replace(e, recorded_at="") for e in exchanges_of(log, run)] == [one, other]
    times = [event.t_ns for event in log.events(run)][:-1]
    assert times == sorted(times)


def test_an_added_exchange_keeps_its_place_and_its_length(log: EventLog) -> None:
    """In a cassette that grew later, times begin again. Matching uses the order of exchanges, and replay uses their lengths."""
    late = exchange(body=b'{"a": 1}', call=1, started_ns=5_000_000)
    late = replace(late, ended_ns=late.started_ns + late.ended_ns)
    early = exchange(answer(b"data: 1\n\n", b"data: 2\n\n"), body=b'{"b": 1}', call=2)
    imported = exchanges_of(log, import_exchanges(log, [late, early], name="import", source="c.yaml"))
    assert [e.request.body for e in imported] == [b'{"a": 1}', b'{"b": 1}']
    assert [e.ended_ns - e.started_ns for e in imported] == [e.ended_ns - e.started_ns for e in (late, early)]


def test_an_import_folds_the_same_messages_as_a_live_recording(log: EventLog) -> None:
    """Both use the same capture: the messages are equal up to the ids of their session."""
    stream = b"".join(tool_call("toolu_1"))
    recorded = exchange(answer(stream))
    with log.start(name="live", mode="live") as writer:
        capture = Capture(writer, recorded.request)
        capture.response(200, "OK", SSE)
        capture.data(stream)
        capture.end("complete")
    run = import_exchanges(log, [recorded], name="import", source="here")
    live, again = ([message.data["message"] for message in log.messages(name)] for name in (writer.run, run))
    assert live == again
    assert live[0]["content"] == [{"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}]


# Interrupted runs


def test_an_exchange_without_an_ending_is_exported_as_cut(log: EventLog) -> None:
    """Its writer died in the middle of the stream. The cassette has the received bytes, and its ending gives the reason."""
    writer = log.start(name="run", mode="live")
    capture = Capture(writer, Request("POST", URL, JSON, b"{}"))
    capture.response(200, "OK", SSE)
    capture.data(b"data: 1\n\ndata: 2\n\ndata: 3")
    assert [each.failure for each in exchanges_of(log, writer.run)] == [Failure("Interrupted", "the run goes on")]
    store_of(log)._alive.release(writer.run)
    (found,) = exchanges_of(log, writer.run)
    assert found.response is not None
    assert ([piece.data for piece in found.response.pieces], found.ending, found.failure) == (
        [b"data: 1\n\n", b"data: 2\n\n"], "cut", INTERRUPTED,
    )  # fmt: skip
    assert found.ended_ns == found.started_ns + found.response.pieces[-1].offset_ns


def test_an_exchange_without_a_head_is_exported_without_a_response(log: EventLog, tmp_path: Path) -> None:
    """Its writer died while it waited for the answer. A cassette can contain such an exchange."""
    writer = log.start(name="run", mode="live")
    Capture(writer, Request("POST", URL, JSON, b"{}"))
    store_of(log)._alive.release(writer.run)
    (found,) = exchanges_of(log, writer.run)
    assert (found.response, found.ending, found.failure) == (None, "no_response", INTERRUPTED)
    write_cassette(tmp_path / "c.yaml", [found])
    (read,) = read_cassette(tmp_path / "c.yaml").exchanges
    assert (read.response, read.ending, read.failure) == (None, "no_response", INTERRUPTED)


@pytest.mark.parametrize(
    "failure", [None, Failure("httpx2.RemoteProtocolError", "peer closed connection"), Failure("TimeoutError", "")]
)
def test_a_failure_passes_through_the_log_unchanged(log: EventLog, failure: Failure | None) -> None:
    """The type and the text of the exception are equal."""
    recorded = exchange(ending="cut", failure=failure)
    (found,) = exchanges_of(log, import_exchanges(log, [recorded], name="run", source="here"))
    assert (found.ending, found.failure) == ("cut", failure)


def test_overlapping_exchanges_keep_their_own_events(log: EventLog) -> None:
    """Two parallel streams alternate frame by frame."""
    with log.start(name="run", mode="live") as writer:
        captures = [Capture(writer, Request("POST", URL, JSON, b"%d" % number)) for number in range(2)]
        for capture in captures:
            capture.response(200, "OK", SSE)
        for number in range(3):
            for name, capture in zip("ab", captures, strict=True):
                capture.data(f"data: {name}{number}\n\n".encode())
        for capture in reversed(captures):
            capture.end("complete")
    found = exchanges_of(log, writer.run)
    assert [e.request.body for e in found] == [b"0", b"1"]
    assert [e.response.body for e in found if e.response] == [
        b"".join(f"data: {name}{number}\n\n".encode() for number in range(3)) for name in "ab"
    ]


DIES = """
import sys
from retold.recorder.http.capture import Capture
from retold.recorder.events import encode
from retold.recorder.http.exchange import Request
from retold.recorder.log import EventLog
from retold.recorder.messages import Session

writer = EventLog(sys.argv[1]).start(name="dies", mode="live")
session = Session(writer.run)
start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hello"}}
for events in ([start, {"type": "content_block_stop", "index": 0}], [start]):
    capture = Capture(writer, Request("POST", "https://h/v1/messages"), session=session)
    capture.response(200, "OK", (("content-type", "text/event-stream"),))
    for event in events:
        capture.data(b"data: " + encode(event) + b"\\n\\n")
    if len(events) == 2:
        capture.end("complete")
print(writer.run, flush=True)
sys.stdin.readline()
"""


def test_the_partial_message_of_an_interrupted_run_has_its_own_id(log: EventLog) -> None:
    """The run died in its second answer. It shows one whole message and one incomplete message, each with another id."""
    with Child(DIES, log.path) as child:
        run = child.line()
    messages = [event.data for event in events_of(log, run, READ_KINDS) if event.kind == "message"]
    assert [message.get("incomplete", False) for message in messages] == [False, True]
    assert len({message["uuid"] for message in messages}) == 2


# Tool results


def tool_call(id: str) -> list[bytes]:
    """Return the frames of an answer that asks for one tool."""
    block = {"type": "tool_use", "id": id, "name": "Read", "input": {}}
    events: list[Json] = [
        {"type": "message_start", "message": {"id": "msg_1"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_stop"},
    ]
    return [b"data: " + encode(event) + b"\n\n" for event in events]


def result(id: str, content: str = "done") -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def asking(*results: Json) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": list(results)}]}).encode()


def test_tool_results_without_a_later_request_are_kept(log: EventLog) -> None:
    """The run stopped at its last turn. Its tools ran, and no request contains their results."""
    with log.start(name="run", mode="live") as writer:
        session = Session(writer.run)
        for number in (1, 2):
            capture = Capture(writer, Request("POST", URL, JSON, asking(*([result("toolu_1")] * (number - 1)))), session=session)
            capture.response(200, "OK", SSE)
            capture.data(b"".join(tool_call(f"toolu_{number}")))
            capture.end("complete")
            writer.note("message", session.tool_result(result(f"toolu_{number}")))
    first, second = exchanges_of(log, writer.run)
    assert (first.tool_results, second.tool_results) == ((), (result("toolu_2"),))


def test_kept_tool_results_pass_through_cassette_and_import(log: EventLog, tmp_path: Path) -> None:
    """They become messages again, after the answer that asked for them."""
    recorded = exchange(answer(*tool_call("toolu_1")), tool_results=(result("toolu_1"),))
    write_cassette(tmp_path / "c.yaml", [recorded])
    run = import_exchanges(log, read_cassette(tmp_path / "c.yaml").exchanges, name="run", source="here")
    assert [message.type for message in log.messages(run)] == ["assistant", "user"]
    assert exchanges_of(log, run)[0].tool_results == (result("toolu_1"),)


def test_tool_results_in_a_later_request_become_messages_once(log: EventLog) -> None:
    """Each request repeats the history. A result becomes a message at its place when it first appears."""
    turns = [asking(), asking(result("toolu_1")), asking(result("toolu_1"), result("toolu_2"), result("toolu_unknown"))]
    recorded = [exchange(answer(*tool_call(f"toolu_{number}")), body=body) for number, body in enumerate(turns, 1)]
    run = import_exchanges(log, recorded, name="run", source="here")
    blocks = [block for message in log.messages(run) for block in message.blocks]
    assert [block.get("id") or block.get("tool_use_id") for block in blocks] == [
        "toolu_1",
        "toolu_1",
        "toolu_2",
        "toolu_2",
        "toolu_3",
    ]
    assert [e.tool_results for e in exchanges_of(log, run)] == [(), (), ()]


def test_an_import_that_fails_is_a_failed_run(log: EventLog) -> None:
    """The run keeps the messages imported before, and its error gives the reason."""

    def broken() -> Any:
        yield exchange()
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        import_exchanges(log, broken(), name="run", source="here")
    (info,) = log.runs()
    assert (info.status, info.error, info.exchanges) == ("failed", "ValueError: no more", 1)


@settings(deadline=None, max_examples=20)
@given(recorded=st.lists(exchanges(), max_size=4))
def test_exchanges_are_compared_like_their_import(recorded: list[Exchange]) -> None:
    """A comparison reads the same items and totals, in the same order, from a cassette and from its imported run."""
    with EventLog(store=MemoryStore()) as log:
        imported = read_run(log, import_exchanges(log, recorded, name="i", source="s"))
    sides = [
        ([[(item.kind, item.value, item.turn) for item in stream.items] for stream in side.streams], side.totals)
        for side in (imported, read_exchanges(recorded, title="c"))
    ]
    assert repr(sides[0]) == repr(sides[1])
