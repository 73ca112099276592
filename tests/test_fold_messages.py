"""Frames become the complete messages of Claude Code's stream-json, one block each. Unknown events pass through."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.events import encode
from retold.recorder.http.fold import Fold
from retold.recorder.messages import Session
from tests.messages_server import Block, Reply, raw, redacted_thinking, text, thinking, tool_use

Json = dict[str, Any]
START = {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}}
STOP = {"type": "message_stop"}


def frame(event: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), json.dumps(event).encode())


def start(index: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stop(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def fold(*events: Json) -> tuple[Fold, list[Json]]:
    """Return the fold after these events, and the messages they completed."""
    folded = Fold(Session("session"))
    return folded, [message for event in events for message in folded.feed(frame(event))]


def blocks(messages: list[Json]) -> list[Json]:
    return [block for message in messages for block in message["message"]["content"]]


def folded_blocks(*events: Json) -> list[Json]:
    return blocks(fold(START, *events)[1])


SEARCH_RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [{"type": "web_search_result", "url": "u"}],
}


@pytest.mark.parametrize(
    "block",
    [
        text("Hello there, général Kenobi 😀"),
        text("one\n\ntwo", pieces=["one", "\n", "\ntwo"]),
        text(""),
        thinking("Let me see."),
        thinking(""),
        redacted_thinking(),
        redacted_thinking(""),
        tool_use("get_weather", {"city": "Paris", "days": [1, {"a": None}]}, "toolu_1", pieces=1),
        tool_use("no_input", {}, "toolu_2"),
        tool_use("web_search", {"query": "x"}, "srvtoolu_1", kind="server_tool_use"),
        raw(SEARCH_RESULT),
        raw({"type": "hologram", "shape": {"sides": 6}, "text": "kept"}),
    ],
    ids=lambda block: block.whole["type"],
)
def test_a_block_folds_to_its_whole(block: Block) -> None:
    """Every kind of block, assembled from the deltas of the real API, equals the block of the JSON answer."""
    reply = Reply([block])
    message = reply.message({}, 1)
    folded = Fold(Session("session"))
    messages = [made for piece in reply.frames(message) for made in folded.feed(piece)]
    assert blocks(messages) == message["content"] == [block.whole]


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_a_text_cut_anywhere_folds_to_the_text(whole: str, places: list[int]) -> None:
    """The cuts do not matter, including empty pieces."""
    edges = sorted([0, *(min(place, len(whole)) for place in places), len(whole)])
    deltas = [delta(0, type="text_delta", text=whole[a:b]) for a, b in itertools.pairwise(edges)]
    assert folded_blocks(start(0, type="text", text=""), *deltas, stop(0)) == [{"type": "text", "text": whole}]


def test_an_assistant_message_has_one_block_and_the_head_of_the_answer() -> None:
    """In Claude Code's stream-json, the lines of one answer share its message id."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    folded = Fold(Session("session"), "req_1")
    events = [START, start(0, type="text", text="a"), stop(0), start(1, type="text", text="b"), stop(1), STOP]
    messages = [message for event in events for message in folded.feed(frame(event))]
    ids = [message.pop("uuid") for message in messages]
    assert messages == [
        {
            "type": "assistant",
            "message": {**head, "content": [{"type": "text", "text": letter}]},
            "parent_tool_use_id": None,
            "request_id": "req_1",
            "session_id": "session",
        }
        for letter in "ab"
    ]
    assert len(set(ids)) == 2


def test_a_message_is_complete_when_its_block_stops() -> None:
    """It is not complete earlier, and does not wait for the end of the answer."""
    folded, messages = fold(START, start(0, type="text", text=""), delta(0, type="text_delta", text="a"))
    assert messages == []
    assert len(folded.feed(frame(stop(0)))) == 1


def test_thinking_keeps_its_signature_and_comes_before_the_text() -> None:
    """Signature deltas are pieces of the same block."""
    assert folded_blocks(
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="Let me "),
        delta(0, type="thinking_delta", thinking="see."),
        delta(0, type="signature_delta", signature="EqQB"),
        stop(0),
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="Yes."),
        stop(1),
    ) == [{"type": "thinking", "thinking": "Let me see.", "signature": "EqQB"}, {"type": "text", "text": "Yes."}]


def test_a_signature_without_a_field_at_the_start_is_kept() -> None:
    """A delta may add a field that the start of the block did not have."""
    events = [start(0, type="thinking", thinking=""), delta(0, type="signature_delta", signature="EqQB"), stop(0)]
    assert folded_blocks(*events) == [{"type": "thinking", "thinking": "", "signature": "EqQB"}]


def test_parallel_tools_with_split_json_get_their_own_input() -> None:
    """The JSON of each input is read when its block stops. The usual first delta is empty."""
    pieces = {1: ["", '{"ci', 'ty": "Pa', 'ris"}'], 2: ["", '{"city"', ': "Rome"}']}
    events = [start(index, type="tool_use", id=f"toolu_{index}", name="get_weather", input={}) for index in pieces]
    for one, other in itertools.zip_longest(*pieces.values()):
        events += [
            delta(index, type="input_json_delta", partial_json=piece)
            for index, piece in ((1, one), (2, other))
            if piece is not None
        ]
    assert folded_blocks(*events, stop(1), stop(2)) == [
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {"city": "Rome"}},
    ]


def test_interleaved_blocks_are_messages_in_the_order_of_their_ends() -> None:
    """Deltas go to the block of their index, in any order."""
    assert folded_blocks(
        start(0, type="text", text=""),
        start(1, type="text", text=""),
        delta(1, type="text_delta", text="b1"),
        delta(0, type="text_delta", text="a1"),
        delta(1, type="text_delta", text="b2"),
        stop(1),
        delta(0, type="text_delta", text="a2"),
        stop(0),
    ) == [{"type": "text", "text": "b1b2"}, {"type": "text", "text": "a1a2"}]


def test_a_reused_index_starts_a_new_block() -> None:
    """A stopped block leaves no state for the next one."""
    once = [start(0, type="text", text=""), delta(0, type="text_delta", text="a"), stop(0)]
    assert folded_blocks(*once, *once) == [{"type": "text", "text": "a"}] * 2


def test_citations_are_collected_in_order() -> None:
    """Each citations_delta adds one. The text continues to grow between them."""
    first, second = {"type": "char_location", "cited_text": "a"}, {"type": "char_location", "cited_text": "b"}
    assert folded_blocks(
        start(0, type="text", text="", citations=[]),
        delta(0, type="citations_delta", citation=first),
        delta(0, type="text_delta", text="x"),
        delta(0, type="citations_delta", citation=second),
        delta(0, type="text_delta", text="y"),
        stop(0),
    ) == [{"type": "text", "text": "xy", "citations": [first, second]}]


def test_unknown_deltas_pass_through() -> None:
    """New strings grow. New values of any other kind replace the old ones."""
    assert folded_blocks(
        start(0, type="compaction", content=None),
        delta(0, type="compaction_delta", content="sum"),
        delta(0, type="compaction_delta", content="mary", weight=7, parts=[1]),
        stop(0),
    ) == [{"type": "compaction", "content": "summary", "weight": 7, "parts": [1]}]


def test_an_unknown_delta_that_changes_a_type_does_not_break_the_recording() -> None:
    """An unknown delta must not raise an error in the client's stream."""
    block = folded_blocks(start(0, type="new", data=5), delta(0, type="new_delta", data="abc"), stop(0))[0]
    assert block["type"] == "new"


def test_unknown_events_pings_and_comments_change_nothing() -> None:
    """The log has them as frames. They create no message, and no message is lost by them."""
    around: list[Json] = [{"type": "ping"}, {"type": "future_event", "index": 0, "delta": {"text": "no"}}, {"type": 7}]
    events = [start(0, type="text", text=""), *around, delta(0, type="text_delta", text="a"), *around, stop(0)]
    assert folded_blocks(*events) == [{"type": "text", "text": "a"}]
    folded, _ = fold()
    assert [folded.feed(piece) for piece in (b": hello\n\n", b"data: [DONE]\n\n", b"data: {\n\n")] == [[], [], []]


@pytest.mark.parametrize("broken", [{}, {"index": "0"}, {"index": None, "content_block": 5, "delta": [], "message": "x"}])
@pytest.mark.parametrize("kind", ["message_start", "content_block_start", "content_block_delta", "message_delta", "error"])
def test_a_malformed_event_of_a_known_type_is_not_an_error(kind: str, broken: Json) -> None:
    """A recorder reads any server's events, and must not raise into the client."""
    assert fold({"type": kind, **broken})[1] == []


def test_an_error_event_is_kept() -> None:
    """An error never counts as an end: there is no stop reason, and the answer has not stopped."""
    error = {"type": "overloaded_error", "message": "Overloaded"}
    folded, messages = fold(START, {"type": "error", "error": error})
    assert (folded.error, folded.stop_reason, folded.stopped, messages) == (error, None, False, [])


@pytest.mark.trap(14)
@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "future"])
def test_a_stop_reason_is_recorded_unchanged(reason: str) -> None:
    """Any stop reason is recorded."""
    folded, _ = fold(START, {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {}}, STOP)
    assert (folded.stop_reason, folded.stopped) == (reason, True)


def test_the_final_usage_overrides_the_first() -> None:
    """Later numbers replace earlier ones, null replaces nothing, and unknown fields stay."""
    begun = {"input_tokens": 9, "output_tokens": 1, "service_tier": "standard", "cache_read_input_tokens": 3}
    message = {**START, "message": {"id": "msg_1", "usage": begun}}
    ended = {
        "type": "message_delta",
        "delta": {},
        "usage": {"output_tokens": 5, "cache_read_input_tokens": None, "new": {"a": 1}},
    }
    assert fold(message, ended)[0].usage == {**begun, "output_tokens": 5, "new": {"a": 1}}


def test_cut_blocks_are_incomplete_messages() -> None:
    """Half a block is recorded: flushed in the order of the indexes, marked, and only once."""
    folded, messages = fold(
        START,
        start(1, type="tool_use", id="toolu_1", name="Bash", input={}),
        delta(1, type="input_json_delta", partial_json='{"comm'),
        start(0, type="text", text=""),
        delta(0, type="text_delta", text="Hel"),
        start(2, type="thinking", thinking=""),
    )
    flushed = folded.flush()
    assert messages == []
    assert blocks(flushed) == [
        {"type": "text", "text": "Hel"},
        {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": '{"comm'},
    ]
    assert [message["incomplete"] for message in flushed] == [True, True]
    assert folded.flush() == []


def test_an_empty_cut_block_yields_no_message() -> None:
    """This is a text or thinking block without any received text."""
    folded, _ = fold(START, start(0, type="text", text=""), start(1, type="thinking", thinking="", signature=""))
    assert folded.flush() == []


def test_complete_blocks_are_not_marked_incomplete() -> None:
    """Only an open block is incomplete."""
    folded, messages = fold(START, start(0, type="text", text="a"), stop(0))
    assert "incomplete" not in messages[0]
    assert folded.flush() == []


def test_legacy_completions_fold_to_one_text() -> None:
    """/v1/complete streams bare pieces, and the one with a stop reason is the last."""
    pieces = [
        {"type": "completion", "id": "c", "completion": piece, "stop_reason": None, "model": "claude-2"} for piece in (" A", "b")
    ]
    folded, messages = fold(*pieces, {**pieces[0], "completion": "", "stop_reason": "stop_sequence"})
    assert blocks(messages) == [{"type": "text", "text": " Ab"}]
    assert (folded.text, folded.stop_reason, folded.stopped, messages[0]["message"]["model"]) == (
        " Ab", "stop_sequence", True, "claude-2",
    )  # fmt: skip


def test_a_cut_legacy_completion_is_incomplete() -> None:
    """Its pieces so far are kept, and it has not stopped."""
    folded, messages = fold({"type": "completion", "completion": " A", "stop_reason": None, "model": "claude-2"})
    flushed = folded.flush()
    assert messages == []
    assert blocks(flushed) == [{"type": "text", "text": " A"}]
    assert (flushed[0]["incomplete"], folded.stopped, folded.flush()) == (True, False, [])


def test_a_json_answer_folds_to_the_same_messages_as_its_stream() -> None:
    """There is one message per block, with the same blocks, stop reason and usage."""
    reply = Reply(
        [thinking("Hm."), text("Hi"), tool_use("get_weather", {"city": "Paris"}, "toolu_1")],
        "tool_use",
        usage={"input_tokens": 7},
    )
    whole = reply.message({}, 1)
    streamed, answered = Fold(Session("session"), "req_1"), Fold(Session("session"), "req_1")
    by_stream = [message for piece in reply.frames(whole) for message in streamed.feed(piece)]
    by_answer = answered.feed_json(encode(whole))
    assert blocks(by_answer) == blocks(by_stream) == whole["content"]
    assert [message["uuid"] for message in by_answer] == [message["uuid"] for message in by_stream]
    assert (answered.stop_reason, answered.stopped, answered.text) == (streamed.stop_reason, streamed.stopped, streamed.text)
    assert answered.usage == whole["usage"]


def test_a_json_legacy_completion_is_one_text() -> None:
    """The old API answers without streaming."""
    folded = Fold(Session("session"))
    body = {"type": "completion", "id": "c", "completion": " Hi", "stop_reason": "max_tokens", "model": "claude-2"}
    assert blocks(folded.feed_json(encode(body))) == [{"type": "text", "text": " Hi"}]
    assert folded.stop_reason == "max_tokens"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"type":"message', b'{"input_tokens":5}', b'{"type":"message","content":5}']
)
def test_a_body_that_is_not_an_answer_yields_no_message(body: bytes) -> None:
    """Examples are token counts, proxies' error pages and cut JSON."""
    assert Fold(Session("session")).feed_json(body) == []


def test_a_json_error_is_kept() -> None:
    """It is the envelope of an HTTP error."""
    folded = Fold(Session("session"))
    error = {"type": "invalid_request_error", "message": "max_tokens: required"}
    assert folded.feed_json(encode({"type": "error", "error": error})) == []
    assert folded.error == error


def test_lone_surrogates_survive_the_log() -> None:
    """JSON may escape half a character, which UTF-8 cannot encode. Two halves in two deltas become whole again."""
    _, messages = fold(START, start(0, type="text", text=""), delta(0, type="text_delta", text="\ud83d x"), stop(0))
    assert blocks([json.loads(encode(messages[0]))]) == [{"type": "text", "text": "\ud83d x"}]
    halves = [delta(0, type="text_delta", text=half) for half in ("\ud83d", "\ude00")]
    _, messages = fold(START, start(0, type="text", text=""), *halves, stop(0))
    assert blocks([json.loads(encode(messages[0]))]) == [{"type": "text", "text": "😀"}]


def test_a_long_text_folds_in_linear_time() -> None:
    """100,000 deltas of a growing text pass. Copying the text each time would take quadratic time."""
    folded = Fold(Session("session"))
    folded.feed(frame(START))
    folded.feed(frame(start(0, type="text", text="")))
    piece = frame(delta(0, type="text_delta", text="x" * 100))
    for _ in range(100_000):
        folded.feed(piece)
    assert len(blocks(folded.feed(frame(stop(0))))[0]["text"]) == 10_000_000


def messages_of(session: Session) -> list[Json]:
    return [
        session.init(model="m", tools=["Read"], cwd="/work", permission_mode="default"),
        session.assistant({"id": "msg_1"}, {"type": "text", "text": "a"}, None),
        session.tool_result({"type": "tool_result", "tool_use_id": "toolu_1", "content": "b"}),
        session.result({"subtype": "success"}),
    ]


def test_the_ids_of_a_session_depend_on_its_own_id() -> None:
    """Played again with the same id, a session is exactly equal. Another session has other ids, and no id occurs twice."""
    one, again, other = (messages_of(Session(name)) for name in ("one", "one", "other"))
    assert one == again
    assert len({message["uuid"] for message in (*one, *other)}) == 8
    assert {message["session_id"] for message in one} == {"one"}
    assert Session().id != Session().id


def test_diagnostics_and_containers_of_an_answer_pass_through() -> None:
    """Each message of an answer has the fields of the answer, including the reason for a cache miss."""
    extra = {
        "diagnostics": {"cache_miss_reason": {"type": "tools_changed", "cache_missed_input_tokens": 9}},
        "container": {"id": "c"},
    }
    started = {"type": "message_start", "message": {"id": "msg_1", **extra}}
    _, messages = fold(started, start(0, type="text", text=""), delta(0, type="text_delta", text="x"), stop(0))
    assert [message["message"] | extra for message in messages] == [message["message"] for message in messages]


def test_a_compaction_is_a_separate_block() -> None:
    """The summary grows with the deltas, and the answer ends with the stop reason `compaction`."""
    folded, messages = fold(
        START, start(0, type="compaction", content=None), delta(0, type="compaction_delta", content="Sum"),
        delta(0, type="compaction_delta", content="med up."), stop(0),
        {"type": "message_delta", "delta": {"stop_reason": "compaction"}, "usage": {"output_tokens": 3}}, STOP,
    )  # fmt: skip
    assert blocks(messages) == [{"type": "compaction", "content": "Summed up."}]
    assert (folded.stop_reason, folded.stopped) == ("compaction", True)
