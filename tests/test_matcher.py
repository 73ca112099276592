"""The matcher finds the recorded exchange for a request by meaning, in order, never twice. A miss reports the differences."""

import json
import random
import threading
import traceback
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.errors import MissError
from retold.recorder.http.exchange import Exchange, Request
from retold.recorder.secrets.redactor import Redactor
from retold.replay.matching.matcher import MAX_DIFFERENCES, Matcher, note_unplayed
from retold.replay.matching.rules import Rules
from tests.exchanges import JSON, URL, exchange

Json = dict[str, Any]
KEY = "sk-ant-api03-Ab_9-Cd8efGhIjKlMnOpQrSt"
SECRET = "hunter2-correct-horse"
BODY: Json = {
    "model": "claude-test",
    "max_tokens": 100,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    "tools": [
        {"name": f"tool{number}", "description": "Does things.", "input_schema": {"type": "object"}} for number in range(4)
    ],
    "metadata": {"user_id": "user_1"},
    "stream": True,
}


def request(body: Any = BODY, uri: str = URL, method: str = "POST") -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(method, uri, JSON, data)


def recorded(*bodies: Any, **fields: Any) -> list[Exchange]:
    return [exchange(body=request(body).body, **fields) for body in bodies]


def edited(path: str, value: Any) -> Json:
    """Return BODY with one value replaced, and the path under which a miss names it."""
    body: Any = json.loads(json.dumps(BODY))
    *parents, last = path.replace("[", ".").replace("]", "").split(".")
    inner = body
    for part in parents:
        inner = inner[int(part) if part.isdigit() else part]
    inner[int(last) if last.isdigit() else last] = value
    return dict(body)


def report(matcher: Matcher, asked: Request) -> str:
    with pytest.raises(MissError) as caught:
        matcher.take(asked)
    return str(caught.value)


# Order


def test_identical_requests_are_answered_in_recorded_order() -> None:
    """Three identical calls recorded three answers, and replay three."""
    exchanges = recorded(BODY, BODY, BODY)
    matcher = Matcher(exchanges)
    assert [id(matcher.take(request())) for _ in range(3)] == [id(e) for e in exchanges]


@pytest.mark.trap(28)
@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2), max_size=12), st.randoms(use_true_random=False))
def test_requests_in_any_order_get_every_recording_once(asked: list[int], shuffle: random.Random) -> None:
    """Each request gets its own answers, first in first out, in any order of calls. Each recording is played exactly once."""
    exchanges = [exchange(body=b"%d" % number) for number in asked]
    matcher = Matcher(exchanges)
    order = list(asked)
    shuffle.shuffle(order)
    answers = [matcher.take(request(b"%d" % number)) for number in order]
    assert [e.request.body for e in answers] == [b"%d" % number for number in order]
    for number in set(asked):
        own = [id(e) for e in exchanges if e.request.body == b"%d" % number]
        assert [id(e) for e in answers if e.request.body == b"%d" % number] == own
    assert (matcher.unplayed, len(matcher.played)) == ([], len(asked))


def test_identical_requests_of_two_threads_get_two_answers() -> None:
    """Two threads send the same request at the same moment. Neither gets the other's answer."""
    both_look = threading.Barrier(2)

    def slow(_: Request, __: Request) -> bool:
        with suppress(threading.BrokenBarrierError):
            both_look.wait(0.5)
        return True

    matcher = Matcher(recorded(BODY, BODY), rules=Rules(match_on=("body", slow)))
    taken: list[Exchange] = []
    threads = [threading.Thread(target=lambda: taken.append(matcher.take(request()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(e) for e in taken}) == 2


@pytest.mark.trap(30)
def test_turns_that_share_their_last_message_are_two_records() -> None:
    """The whole history counts, not only the last message."""
    turn = {"role": "user", "content": "go on"}
    first, second = {"messages": [turn]}, {"messages": [turn, {"role": "assistant", "content": "x"}, turn]}
    exchanges = recorded(first, second)
    matcher = Matcher(exchanges)
    assert matcher.take(request(second)) is exchanges[1]
    assert matcher.take(request(first)) is exchanges[0]


def test_the_next_attempt_of_a_call_is_its_recorded_retry() -> None:
    """One call is answered 529, then 200. The same request of the next call is not a retry of it."""
    exchanges = [exchange(body=request().body, call=call, attempt=attempt) for call, attempt in ((1, 1), (1, 2), (2, 1))]
    matcher = Matcher(exchanges)
    first = matcher.take(request())
    second = matcher.next_attempt(first)
    assert first is exchanges[0]
    assert second is exchanges[1]
    assert matcher.next_attempt(second) is None
    assert matcher.unplayed == [exchanges[2]]


def test_unplayed_exchanges_are_listed() -> None:
    """Unplayed exchanges are listed in recorded order, with their steps."""
    exchanges = [exchange(body=b"%d" % number, step=step) for number, step in enumerate(["b", "a", "", "b"])]
    matcher = Matcher(exchanges, source="c.yaml")
    matcher.take(request(b"1"))
    assert [e.request.body for e in matcher.unplayed] == [b"0", b"2", b"3"]
    assert note_unplayed(matcher.unplayed) == "3 recorded exchanges not played (of step b)"
    assert note_unplayed(exchanges[2:3]) == "1 recorded exchange not played"
    assert repr(matcher) == "<Matcher c.yaml 1 of 4 played>"


# Meaning


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.trap(34)
@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(reordered(BODY)),
        request(json.dumps(BODY, indent=2, ensure_ascii=False).encode()),
        request(edited("metadata.user_id", "user_2")),
        request({key: value for key, value in BODY.items() if key != "metadata"}),
        request(edited("tools[3].cache_control", {"type": "ephemeral"})),
        request(edited("messages[0].content[0].cache_control", {"type": "ephemeral"})),
        request(uri="http://127.0.0.1:8080/v1/messages"),
        request(uri="https://proxy.test/anthropic/eu/v1/messages"),
        request(method="post"),
        Request("POST", URL, (("x-stainless-retry-count", "3"), ("anthropic-beta", "new")), request().body),
    ],
    ids=[
        "same",
        "key order",
        "spaces",
        "user_id",
        "no metadata",
        "cache mark",
        "cache mark 2",
        "host",
        "prefix",
        "case",
        "headers",
    ],
)
def test_a_request_with_the_same_meaning_is_answered(asked: Request) -> None:
    """Key order, white space, the user's id, cache marks and the host do not change the meaning."""
    (only,) = exchanges = recorded(BODY)
    assert Matcher(exchanges).take(asked) is only


@pytest.mark.trap(33)
@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("messages[0].content[0].text", "Hello!", 'recorded "Hello", now "Hello!"'),
        ("messages[0].role", "assistant", 'recorded "user", now "assistant"'),
        ("model", "claude-other", 'recorded "claude-test", now "claude-other"'),
        ("max_tokens", 101, "recorded 100, now 101"),
        ("max_tokens", "100", 'recorded 100, now "100"'),
        ("system", "Be long.", 'recorded "Be brief.", now "Be long."'),
        ("tools[3].description", "Does nothing.", 'recorded "Does things.", now "Does nothing."'),
        ("tools[2].input_schema.type", "array", 'recorded "object", now "array"'),
        ("tools[2].input_schema.required", ["a"], 'not recorded, now ["a"]'),
        ("temperature", 0.5, "not recorded, now 0.5"),
        ("metadata.other", "x", 'not recorded, now {"other": "x"}'),
        ("stream", False, "recorded true, now false"),
        ("stream", 1, "recorded true, now 1"),
    ],
)
def test_a_request_with_another_meaning_is_a_miss_that_names_the_difference(path: str, value: Any, line: str) -> None:
    """Prompt, model, limits, system prompt, tool schemas and new fields count. The miss contains the path and both values."""
    place = "metadata" if path == "metadata.other" else path
    assert report(Matcher(recorded(BODY), source="c.yaml"), request(edited(path, value))) == (
        "no recorded exchange answers call 1, POST /v1/messages, in c.yaml.\n"
        "Nearest is recorded exchange 1; it differs in:\n"
        f"  {place}: {line}"
    )


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (request(uri=f"{URL}?beta=true"), 'query[0]: not recorded, now "beta=true"'),
        (
            request(uri="https://api.anthropic.com/v1/messages/count_tokens"),
            'path: recorded "/v1/messages", now "/v1/messages/count_tokens"',
        ),
        (request(method="GET"), 'method: recorded "POST", now "GET"'),
        (request(b"not JSON"), "body: recorded {"),
        (request({**BODY, "tools": BODY["tools"][:3]}), "tools[3]: recorded {"),
        (request({key: BODY[key] for key in BODY if key != "system"}), 'system: recorded "Be brief.", now missing'),
    ],
)
def test_method_path_query_and_missing_parts_count(asked: Request, line: str) -> None:
    """The miss names such a difference like any other."""
    assert f"\n  {line}" in report(Matcher(recorded(BODY)), asked)


def test_the_order_of_query_parameters_does_not_count() -> None:
    """Their values count, including empty ones."""
    exchanges = [exchange(uri=f"{URL}?a=1&b=&c=x%20y")]
    assert Matcher(exchanges).take(request({"model": "m"}, uri=f"{URL}?c=x+y&a=1&b=")) is exchanges[0]
    assert "query" in report(Matcher(exchanges), request({"model": "m"}, uri=f"{URL}?a=1&c=x%20y"))


def test_bodies_that_are_not_json_match_as_bytes() -> None:
    """Text and bytes match, even if they are not valid UTF-8."""
    exchanges = recorded(b"\xff\x00", b"plain", b"")
    matcher = Matcher(exchanges)
    assert [matcher.take(request(body)) for body in (b"", b"\xff\x00", b"plain")] == [exchanges[2], exchanges[0], exchanges[1]]


def test_equal_numbers_match() -> None:
    """`temperature: 1` equals `temperature: 1.0`."""
    (only,) = exchanges = recorded({"temperature": 1})
    assert Matcher(exchanges).take(request({"temperature": 1.0})) is only


def test_a_body_nested_too_deeply_matches_as_text() -> None:
    """Any recorded body can be replayed."""
    (only,) = exchanges = recorded(b"[" * 100_000)
    assert Matcher(exchanges).take(request(b"[" * 100_000)) is only


# Misses


def test_a_miss_of_a_played_request_counts_its_recordings() -> None:
    """A request that was recorded once and played once is a different mistake from one that was never recorded."""
    matcher = Matcher(recorded(BODY), source="c.yaml")
    matcher.take(request())
    assert report(matcher, request()) == (
        "no recorded exchange answers call 2, POST /v1/messages, in c.yaml: "
        "the same request was recorded once and has been played once already."
    )
    twice = Matcher(recorded(BODY, BODY))
    twice.take(request())
    twice.take(request())
    assert report(twice, request()).endswith("recorded twice and has been played twice already.")


def test_repeats_are_played_again_if_they_are_allowed() -> None:
    """The last answer repeats, but only after every recorded one was played."""
    exchanges = recorded(BODY, BODY)
    matcher = Matcher(exchanges, repeats=True)
    assert [matcher.take(request()) for _ in range(4)] == [exchanges[0], exchanges[1], exchanges[1], exchanges[1]]


def test_the_nearest_recording_is_the_one_with_the_fewest_differences() -> None:
    """Among equally near recordings, unplayed ones come first, then the earliest."""
    matcher = Matcher(recorded({"a": 9, "b": 9}, {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 4}))
    matcher.take(request({"a": 1, "b": 1}))
    assert report(matcher, request({"a": 1, "b": 3})).endswith(
        "Nearest is recorded exchange 3; it differs in:\n  b: recorded 2, now 3"
    )


def test_a_miss_reports_an_empty_recording() -> None:
    """An empty recording has no nearest exchange."""
    assert report(Matcher([], source="c.yaml"), request()) == (
        "no recorded exchange answers call 1, POST /v1/messages, in c.yaml: it holds no exchanges."
    )


def test_a_report_names_only_the_first_differences() -> None:
    """The report counts the remaining differences."""
    matcher = Matcher(recorded({f"k{number}": 0 for number in range(9)}))
    lines = report(matcher, request({f"k{number}": 1 for number in range(9)})).splitlines()
    assert len(lines) == 2 + MAX_DIFFERENCES + 1
    assert lines[-1] == "  … and 4 more places"


def test_long_texts_are_shown_around_their_first_difference() -> None:
    """If a prompt of pages differs in one word, the report contains that word and not the pages."""
    old, new = "x" * 500 + " old " + "y" * 500, "x" * 500 + " new " + "y" * 500
    line = report(Matcher(recorded({"system": old})), request({"system": new})).splitlines()[2]
    assert " old yyy" in line
    assert " new yyy" in line
    assert len(line) < 200


def test_a_report_contains_no_secret() -> None:
    """The traceback contains none either, because requests are scrubbed before they are compared."""
    with pytest.raises(MissError) as caught:
        Matcher(recorded(BODY), redactor=Redactor({"MY_TOKEN": SECRET})).take(request(edited("system", f"{KEY} {SECRET}")))
    text = "".join(traceback.format_exception(caught.value))
    assert 'system: recorded "Be brief.", now "REDACTED REDACTED"' in text
    assert KEY not in text
    assert SECRET not in text


def test_a_miss_reads_few_recorded_requests_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss compares only the nearest of a hundred growing requests in depth. It selects them by the digests of their parts."""
    from retold.recorder.http.exchange import Exchange, Request
    from retold.recorder.secrets.redactor import Redactor
    from retold.replay.matching import matcher as module

    def asked(*said: str) -> Request:
        messages = [{"role": "user", "content": text} for text in said]
        return Request("POST", "https://h/v1/messages", (), json.dumps({"model": "m", "messages": messages}).encode())

    recorded = [Exchange(asked(*map(str, range(1, number + 2))), None) for number in range(100)]
    found = module.Matcher(recorded)
    read: list[Request] = []
    redact = Redactor.request
    monkeypatch.setattr(Redactor, "request", lambda self, request, **how: read.append(request) or redact(self, request, **how))  # type: ignore[func-returns-value]
    with pytest.raises(MissError, match=r"Nearest is recorded exchange 60; it differs in:\n  messages\[0\]\.content"):
        found.take(asked("other", *map(str, range(2, 61))))
    assert len(read) <= 1 + module.MAX_CANDIDATES


# Redacted places


def redacted(text: str) -> Json:
    return BODY | {"messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        ("a REDACTED query", "a postgres query"), ("REDACTED", "any\ntext"), ("REDACTED at the start", "x at the start"),
        ("at the end: REDACTED", "at the end: "), ("REDACTED and REDACTED.", "one and two and three."),
        ("a REDACTED query", "a REDACTED query"),
    ],
)  # fmt: skip
def test_a_redacted_place_matches_any_text(recorded: str, now: str) -> None:
    """The recording machine had a secret that this machine lacks."""
    matcher = Matcher([exchange(body=json.dumps(redacted(recorded)).encode())], redactor=Redactor({}))
    assert matcher.matches(request(redacted(now)))


@pytest.mark.parametrize(
    ("recorded", "now"), [("a REDACTED query", "a postgres"), ("a REDACTED query", "one postgres query"), ("aREDACTEDa", "a")]
)
def test_the_text_around_a_redacted_place_counts(recorded: str, now: str) -> None:
    """The rest of the request must equal the recorded one."""
    matcher = Matcher([exchange(body=json.dumps(redacted(recorded)).encode())], redactor=Redactor({}))
    assert not matcher.matches(request(redacted(now)))


def test_an_exact_recording_takes_precedence_over_a_redacted_one() -> None:
    """The first recording could match both requests, the second only one of them."""
    exchanges = [exchange(body=json.dumps(redacted(text)).encode()) for text in ("a REDACTED b", "a word b")]
    matcher = Matcher(exchanges, redactor=Redactor({}))
    assert matcher.take(request(redacted("a word b"))) is exchanges[1]
    assert matcher.take(request(redacted("a word b"))) is exchanges[0]


def test_a_miss_does_not_name_a_redacted_place() -> None:
    """A redacted place is not a difference."""
    matcher = Matcher([exchange(body=json.dumps(redacted("a REDACTED b")).encode())], redactor=Redactor({}))
    with pytest.raises(MissError) as caught:
        matcher.take(request(redacted("a word b") | {"max_tokens": 5}))
    assert "max_tokens: recorded 100, now 5" in str(caught.value)
    assert "REDACTED" not in str(caught.value)


def test_the_matcher_keeps_no_copy_of_the_requests() -> None:
    """The requests of a conversation of 1,000 turns take half a gigabyte, and their keys once took as much again."""
    messages: list[Json] = []
    exchanges = []
    for turn in range(60):
        messages.append({"role": "user", "content": f"turn {turn} " + "of some length " * 100})
        exchanges += recorded(BODY | {"messages": messages})
    size = sum(len(exchange.request.body) for exchange in exchanges)
    tracemalloc.start()
    matcher = Matcher(exchanges)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < size / 10
    assert matcher.take(exchanges[30].request) is exchanges[30]
