"""Message threads: a conversation that the server stores is compared and matched like the whole conversation."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import retold
from retold.comparing.compare import Comparison
from retold.comparing.reading import Side, read_run
from retold.recorder.cassette.transfer import exchanges_of, import_exchanges
from retold.recorder.errors import MissError
from retold.recorder.http.exchange import Exchange, Request
from retold.recorder.http.threads import Histories, in_one_form
from retold.recorder.secrets.redactor import Redactor
from retold.replay.matching.matcher import Matcher
from retold.replay.matching.rules import Rules
from tests.conftest import SHARED, Cli
from tests.exchanges import JSON, URL, answer, exchange
from tests.messages_server import Reply, text, tool_use
from tests.wire import post as wire_post
from tests.wire import wire

Json = dict[str, Any]
FAULTS = SHARED / "faults" / "threads"
BASE: Json = {"model": "m", "max_tokens": 50}
BEGUN: Json = {**BASE, "system": "Be short.", "tools": [{"name": "look"}]}


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Json:
    return {"role": "assistant", "content": content}


def post(body: Json, message_id: str, *content: Any, path: str = "", headers: Any = JSON) -> Exchange:
    """Return an exchange with these blocks in its answer. A string is a text block."""
    reply = Reply([text(block) if isinstance(block, str) else block for block in content], id=message_id)
    whole = json.dumps(reply.message(body, 1)).encode()
    made = exchange(answer(whole, headers=JSON), uri=URL + path)
    return Exchange(Request("POST", URL + path, headers, json.dumps(body).encode()), made.response, ended_ns=made.ended_ns)


def refused(body: Json, code: str, status: int = 404) -> Exchange:
    """Return an exchange that the API refused because of its thread."""
    error = {"type": "error", "error": {"type": "not_found_error", "message": "no", "details": {"error_code": code}}}
    made = exchange(answer(json.dumps(error).encode(), headers=JSON, status=status, reason=""), ending="http_error")
    return Exchange(Request("POST", URL, JSON, json.dumps(body).encode()), made.response, "http_error", ended_ns=made.ended_ns)


Talk = Sequence[tuple[Any, Sequence[Any]]]
"""The user's message and the blocks of the answer for each turn."""

TALK: Talk = [("My name is Ada.", ["Hello Ada."]), ("What is my name?", ["Ada."]), ("Thanks.", ["Welcome."])]


def whole(talk: Talk = TALK, ids: str = "p") -> list[Exchange]:
    """Return a conversation with a client that repeats everything in each turn."""
    history: list[Json] = []
    found = []
    for turn, (asked, blocks) in enumerate(talk, 1):
        history.append(user(asked))
        found.append(post({**BEGUN, "messages": list(history)}, f"msg_{ids}{turn}", *blocks))
        assert found[-1].response is not None
        history.append(assistant(json.loads(found[-1].response.body)["content"]))
    return found


def threaded(talk: Talk = TALK, ids: str = "t") -> list[Exchange]:
    """Return the same conversation as a thread."""
    found = []
    for turn, (asked, blocks) in enumerate(talk, 1):
        body = {**BEGUN, "thread": {"type": "create"}} if turn == 1 else {**BASE, "thread": continuing(f"msg_{ids}{turn - 1}")}
        found.append(post({**body, "messages": [user(asked)]}, f"msg_{ids}{turn}", *blocks))
    return found


def continuing(message_id: str) -> Json:
    return {"type": "continue", "previous_message_id": message_id}


def side(exchanges: list[Exchange]) -> Side:
    log = retold.EventLog("log.db")
    with log:
        return read_run(log, import_exchanges(log, exchanges, name="talk", source="test"))


def compared(a: list[Exchange], b: list[Exchange], **options: Any) -> Comparison:
    return retold.compare(side(a), side(b), **options)


def differing(comparison: Comparison) -> list[tuple[str, str, list[str]]]:
    return [(d.kind, d.what, [change.path for change in d.changes]) for d in comparison.differences]


ONLY_THREAD = [("changed", "request", ["thread"])]

# Compared


@pytest.mark.skipif(not FAULTS.exists(), reason="needs the folder of inputs beside the working copy")
def test_recorded_threads_compare_as_conversations(cli: Cli) -> None:
    """Ids do not count. A thread and a whole history of one conversation differ in `thread` alone."""
    files = {name: FAULTS / f"{name}.yaml" for name in ("plain-a", "plain-b", "threads-a", "threads-b")}
    assert cli("diff", files["plain-a"], files["plain-b"]).returncode == 0
    assert cli("diff", files["threads-a"], files["threads-b"]).returncode == 0
    found = cli("diff", files["plain-a"], files["threads-a"])
    assert found.returncode == 1
    assert 'turn 1, request, changed\n    thread: {+{"type": "create"}+}\n\ntotals' in found.stdout
    assert "1 difference: 1 changed; 6 items the same" in found.stdout
    assert cli("diff", files["plain-a"], files["threads-a"], "--ignore", "request.thread").returncode == 0


def test_a_thread_is_one_conversation() -> None:
    """Its requests have the items of whole histories: system and tools once, and each prompt once."""
    found = compared(whole(), threaded())
    assert differing(found) == ONLY_THREAD
    assert compared(whole(), threaded(), ignore=["request.thread"]).same
    assert compared(threaded(ids="a"), threaded(ids="b")).same
    assert len(side(threaded()).streams) == 1


def test_a_changed_turn_of_a_thread_is_the_only_difference() -> None:
    """A word of the second prompt is found at its place."""
    other = [TALK[0], ("What was my name?", ["Ada."]), TALK[2]]
    assert differing(compared(threaded(), threaded(other, "b"))) == [("changed", "prompt", ["content"])]


def test_parallel_threads_with_equal_beginnings_stay_separate() -> None:
    """A request follows the answer that it names, in any order of the turns."""
    other = [TALK[0], ("Forget it.", ["Done."]), ("Sure?", ["Yes."])]
    a, b = threaded(ids="a"), threaded(other, "b")
    mixed = [exchange for pair in zip(a, b, strict=True) for exchange in pair]
    assert compared(mixed, [*b, *a]).same
    assert compared(mixed, [*a, *b]).same


def test_an_expired_thread_continues_its_conversation() -> None:
    """The refused turn and its repetition with the whole history are one more turn of the same conversation."""
    thread = threaded()
    again = {**BEGUN, "thread": {"type": "create"}}
    history = json.loads(whole()[2].request.body)["messages"]
    late = refused({**BASE, "messages": [user("Thanks.")], "thread": continuing("msg_t2")}, "thread_not_found")
    recorded = [*thread[:2], late, post({**again, "messages": history}, "msg_x", "Welcome.")]
    (stream,) = side(recorded).streams
    assert [item.kind for item in stream.items] == [
        *("request", "prompt", "text", "answer"), *("prompt", "text", "answer"), "prompt", "answer", "text", "answer",
    ]  # fmt: skip
    assert [item.value.get("status") for item in stream.items if item.kind == "answer"] == [None, None, 404, None]


def test_a_fork_is_a_separate_conversation() -> None:
    """`fork()` sends the whole history as a new thread. The original thread continues from its own last answer."""
    first, *rest = threaded()
    history = [user(TALK[0][0]), assistant([{"type": "text", "text": "Hello Ada."}]), user("And yours?")]
    fork = post({**BEGUN, "thread": {"type": "create"}, "messages": history}, "msg_f", "Claude.")
    plain = post({**BEGUN, "messages": history}, "msg_g", "Claude.")
    for at in (1, 2, 3):
        a, b = [first, *rest], whole()
        a.insert(at, fork)
        b.insert(at, plain)
        found = compared(a, b, ignore=["request.thread"])
        assert found.same, differing(found)
        assert len(side(a).streams) == 2


def test_counting_the_tokens_of_a_thread_counts_its_whole_history() -> None:
    """`count_tokens` with a thread is the same question as with all messages."""
    path = "/count_tokens"
    new = {**BASE, "messages": [user("What is my name?")], "thread": continuing("msg_t1")}
    every = json.loads(whole()[1].request.body)
    a = [threaded()[0], post(new, "", path=path)]
    b = [whole(ids="t")[0], post(every, "", path=path)]
    assert compared(a, b, ignore=["request.thread"]).same
    assert Matcher(b).take(a[1].request) is b[1]
    assert Matcher(a).take(b[1].request) is a[1]


def test_ids_of_the_server_do_not_count() -> None:
    """Diagnostics name the last answer, and a container continues. Both have other ids in every run."""

    def recorded(ids: str) -> list[Exchange]:
        one, two = whole(ids=ids)[:2]
        body = json.loads(two.request.body) | {"diagnostics": {"previous_message_id": f"msg_{ids}1"}, "container": f"c_{ids}"}
        return [one, post(body, f"msg_{ids}2", "Ada.")]

    assert compared(recorded("a"), recorded("b")).same
    unknown = recorded("a")
    unknown[1] = post(json.loads(unknown[1].request.body) | {"diagnostics": {"previous_message_id": "msg_z"}}, "msg_a2", "Ada.")
    assert differing(compared(recorded("a"), unknown)) == [("changed", "request", ["diagnostics.previous_message_id"])]


def test_a_thread_is_exported_like_its_conversation(cli: Cli) -> None:
    """The transcript of a thread equals that of the whole history, and so do the totals of `stats`."""
    for name, exchanges in (("plain", whole()), ("threaded", threaded())):
        with retold.EventLog(f"{name}.db") as log:
            import_exchanges(log, exchanges, name="talk", source="test")
    texts = [cli("export", "last", "--format", "markdown", "--db", f"{name}.db").stdout for name in ("plain", "threaded")]
    assert texts[0].partition("\n\n")[2].partition("\n\n")[2] == texts[1].partition("\n\n")[2].partition("\n\n")[2] != ""
    sums = [json.loads(cli("stats", "--json", "--db", f"{name}.db").stdout) for name in ("plain", "threaded")]
    assert sums[0] == sums[1]


# Matched


def played(recorded: list[Exchange], requests: list[Exchange], **options: Any) -> list[int]:
    """Return the numbers of the recorded exchanges that answer these requests."""
    matcher = Matcher(recorded, redactor=Redactor({}), **options)
    numbers = {id(exchange): number for number, exchange in enumerate(recorded)}
    return [numbers[id(matcher.take(exchange.request))] for exchange in requests]


def test_a_thread_is_matched_by_the_answer_that_it_names() -> None:
    """The id itself does not count: the cassette may have another id than the client."""
    assert played(threaded(), threaded()) == [0, 1, 2]
    renamed = threaded()
    first, second = post(json.loads(renamed[0].request.body), "msg_new", "Hello Ada."), threaded()[1]
    second = post(json.loads(second.request.body) | {"thread": continuing("msg_new")}, "msg_t2", "Ada.")
    assert played([first, second, renamed[2]], [first, second, renamed[2]]) == [0, 1, 2]
    also = [*threaded(), first]
    assert played(also, [second]) == [1]


def test_each_form_of_a_recording_answers_each_form_of_a_client() -> None:
    """Whole histories answer a client with threads, and threads answer a client with whole histories."""
    plain, thread = whole(), threaded(ids="p")
    assert played(plain, thread) == [0, 1, 2]
    assert played(thread, plain) == [0, 1, 2]
    matcher = Matcher(plain)
    for each in thread:
        matcher.take(each.request)
    assert matcher.unplayed == []


_INPUTS = st.dictionaries(st.text(max_size=2), st.none(), max_size=1)
_BLOCKS = st.lists(st.one_of(st.text(max_size=5), st.builds(tool_use, st.just("look"), _INPUTS)), min_size=1, max_size=2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=5), _BLOCKS), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_conversation_matches_in_any_form(talk: Talk, random: Any) -> None:
    """Each request is in either form, and so is the recording."""
    plain, thread = whole(talk, "x"), threaded(talk, "x")
    recorded = [random.choice(pair) for pair in zip(plain, thread, strict=True)]
    asked = [random.choice(pair) for pair in zip(plain, thread, strict=True)]
    assert played(recorded, asked) == [*range(len(talk))]


def test_an_answer_may_be_sent_back_in_any_form() -> None:
    """The forms are a text, blocks, or blocks with fields that are null."""
    blocks = [{"type": "text", "text": "Hello Ada.", "citations": None}, {"type": "tool_use", "input": {"a": None}, "x": [None]}]
    assert in_one_form({"messages": [assistant("Hi"), assistant(blocks), user("x"), "odd"]})["messages"] == [
        assistant([{"type": "text", "text": "Hi"}]),
        assistant([{"type": "text", "text": "Hello Ada."}, {"type": "tool_use", "input": {"a": None}, "x": [None]}]),
        user("x"),
        "odd",
    ]
    body = {**BEGUN, "messages": [user(TALK[0][0]), assistant("Hello Ada."), user(TALK[1][0])]}
    assert played([whole()[0], post(body, "msg_2", "Ada.")], threaded(ids="p")[:2]) == [0, 1]


def test_equal_threads_keep_their_answers() -> None:
    """Two threads have equal beginnings and got different answers. Each continues from its own answer."""
    other = [(TALK[0][0], ["Good day."]), ("What is my name?", ["You told me."])]
    a, b = threaded(TALK[:2], "a"), threaded(other, "b")
    assert played([*a, *b], [a[0], b[0], b[1], a[1]]) == [0, 2, 3, 1]


def test_headers_of_the_beta_do_not_count_across_forms() -> None:
    """With `match_on` headers, the beta of threads is not a difference between a thread and a whole history."""
    betas = ("anthropic-beta", "message-threads-2026-08-12,other-1"), ("anthropic-beta", "other-1")
    one, two = (post({**BEGUN, "messages": [user("x")], **more}, "msg_1", "y", headers=(*JSON, beta))
                for beta, more in zip(betas, ({"thread": {"type": "create"}}, {}), strict=True))  # fmt: skip
    rules = Rules(match_on=("method", "path", "headers", "body"))
    assert played([two], [one], rules=rules) == [0]
    assert played([one], [two], rules=rules) == [0]


def refusal(recorded: list[Exchange], asked: Exchange, **options: Any) -> tuple[int, str]:
    """Return the status and the error code for an answer that is not in the recording."""
    found = Matcher(recorded, **options).take(asked.request)
    assert found.response is not None
    error = json.loads(found.response.body)["error"]
    assert error["message"].startswith("retold: ")
    return found.response.status, error["details"]["error_code"]


def test_an_unknown_answer_is_a_thread_that_was_not_found() -> None:
    """The client then sends everything, as it does five minutes after the last turn of a thread."""
    assert refusal(threaded(), threaded(ids="z")[1]) == (404, "thread_not_found")
    assert refusal([], threaded()[1]) == (404, "thread_not_found")


@pytest.mark.parametrize("profile", [(), (("x-claude-code-session-id", "s"),)], ids=["api", "claude-code"])
def test_a_server_answers_with_the_error_of_the_api(profile: Any) -> None:
    """The error reaches any client over HTTP, also Claude Code. No client repeats the same request for it."""
    recorded = [replace(each, request=replace(each.request, headers=(*JSON, *profile))) for each in threaded()]
    with wire(mode="none", recorded=recorded) as running:
        found = wire_post(running.url, "b", thread=continuing("msg_z"))
    assert (found.status, found.headers["x-should-retry"]) == (404, "false")
    assert json.loads(found.body)["error"]["details"] == {"error_code": "thread_not_found"}


def test_another_history_than_the_recorded_one_is_requested() -> None:
    """If a client edits its history before it sends it, only the client can make that request."""
    body = {**BEGUN, "messages": [user("[My name is Ada.]"), assistant("Hello Ada."), user(TALK[1][0])]}
    recorded = [whole()[0], post(body, "msg_2", "Ada.")]
    assert refusal(recorded, threaded(ids="p")[1]) == (404, "thread_not_found")


def test_raw_bytes_are_matched_only_without_a_thread() -> None:
    """A rule that compares bytes cannot join a history, so the server asks the client to send everything."""
    rules = Rules(match_on=("method", "raw_body"))
    assert refusal(whole(), threaded()[0], rules=rules) == (400, "thread_unsupported_request")
    assert played(threaded(), threaded(), rules=rules) == [0, 1, 2]


def test_another_prompt_in_a_thread_is_a_miss() -> None:
    """The report compares whole conversations."""
    asked = post(json.loads(threaded(ids="p")[1].request.body) | {"messages": [user("What else?")]}, "msg_p2", "Ada.")
    for recorded in (whole(), threaded(ids="p")):
        with pytest.raises(MissError) as caught:
            played(recorded, [asked])
        assert 'messages[2].content: recorded "What is my name?", now "What else?"' in str(caught.value)


def test_an_answer_can_be_continued_once() -> None:
    """The second continuation replays the recorded error. Without such a recording it is a miss, like any repeated request."""
    thread = threaded()
    twice = refused(json.loads(thread[1].request.body), "thread_already_continued", 400)
    assert played([*thread[:2], twice], [thread[0], thread[1], thread[1]]) == [0, 1, 2]
    with pytest.raises(MissError, match="has been played once already"):
        played(thread, [thread[0], thread[1], thread[1]])


def test_a_whole_history_never_gets_the_error_of_a_thread() -> None:
    """The recorded attempt with the expired thread is skipped, and counts as played."""
    thread, plain = threaded(ids="p"), whole()
    late = refused(json.loads(thread[2].request.body), "thread_not_found")
    again = post(json.loads(plain[2].request.body) | {"thread": {"type": "create"}}, "msg_y", "Welcome.")
    recorded = [*thread[:2], late, again]
    assert played(recorded, plain) == [0, 1, 3]
    assert played(recorded, recorded) == [0, 1, 2, 3]
    matcher = Matcher(recorded)
    for each in plain:
        matcher.take(each.request)
    assert matcher.unplayed == []


def test_a_paused_turn_continues_without_new_messages() -> None:
    """After `pause_turn` a thread continues with no message, and a whole history with the unfinished answer at its end."""
    plain = [whole()[0], post({**BEGUN, "messages": [user(TALK[0][0]), assistant("Hello Ada.")]}, "msg_2", "More.")]
    thread = [threaded(ids="p")[0], post({**BASE, "messages": [], "thread": continuing("msg_p1")}, "msg_2", "More.")]
    assert played(plain, thread) == played(thread, plain) == [0, 1]
    assert compared(plain, thread, ignore=["request.thread"]).same


def test_ids_that_look_like_keys_are_recorded_and_matched() -> None:
    """A gateway may give any ids. The recorded thread and the replaying client both continue by them."""
    thread = threaded(ids="sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt")
    with retold.EventLog("log.db") as log:
        kept = exchanges_of(log, import_exchanges(log, thread, name="talk", source="test"))
    assert [each.request.body for each in kept] == [each.request.body for each in thread]
    assert played(kept, thread) == [0, 1, 2]
    assert compared(thread, threaded()).same


# Histories


def test_histories_inherit_and_replace() -> None:
    """System and tools come from the first request, unless a later one has its own. Other fields are never inherited."""
    held = Histories()
    held.hold("msg_1", {**BEGUN, "temperature": 1, "messages": [user("a")], "thread": {"type": "create"}}, ["A"])
    held.hold("msg_2", {**BASE, "messages": [user("b")], "thread": continuing("msg_1")}, ["B"])
    assert held.whole({**BASE, "messages": [user("c")], "thread": continuing("msg_2")}) == {
        **BEGUN,
        "messages": [user("a"), assistant(["A"]), user("b"), assistant(["B"]), user("c")],
    }
    assert held.whole({"messages": [user("c")], "thread": continuing("msg_9")}) is None
    assert held.whole({"messages": [user("c")], "thread": None}) == {"messages": [user("c")]}
    held.hold("msg_4", {"messages": [], "thread": continuing("msg_3")}, ["lost"])
    assert "msg_4" not in held
