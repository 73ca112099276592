"""Matching ignores values that change in every run, secrets, and the parts that the rules exclude."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retold.recorder.errors import InputError, MissError
from retold.recorder.http.exchange import Exchange, Request
from retold.recorder.secrets.redactor import Redactor
from retold.replay.matching.matcher import Matcher
from retold.replay.matching.rules import Rules
from tests.exchanges import URL
from tests.test_matcher import BODY, KEY, SECRET, Json, edited, recorded, reordered, report, request

# Variables


def greeting(date: str, id: str) -> Json:
    return {"messages": [{"role": "user", "content": f"Today is {date}. Run {id}."}], "system": [f"{id}"]}


def test_volatile_values_are_named_on_both_sides() -> None:
    """A workflow put the date and its own id into the prompt. Today's run finds yesterday's recording."""
    (only,) = exchanges = recorded(greeting("2026-11-22", "run_1"), variables={"date": "2026-11-22", "execution_id": "run_1"})
    asked = request(greeting("2027-01-01", "run_2"))
    assert Matcher(exchanges).take(asked, {"date": "2027-01-01", "execution_id": "run_2"}) is only
    assert '{{date}}. Run {{execution_id}}."' in report(Matcher(exchanges), asked)


def test_a_variable_does_not_hide_another_prompt() -> None:
    """The matcher replaces only the value itself. Variables without a value replace nothing."""
    exchanges = recorded(greeting("2026-11-22", "run_1"), variables={"date": "2026-11-22", "empty": ""})
    with pytest.raises(MissError):
        Matcher(exchanges).take(request(greeting("2027-01-01", "run_2")), {"date": "2027-01-01", "empty": ""})


def test_a_value_of_the_recording_day_may_be_repeated() -> None:
    """A recorded answer contains yesterday's date, and the next request of today repeats it."""
    exchanges = recorded({"a": "2026-11-22"}, {"a": "2026-11-22", "b": "2026-11-22"}, variables={"date": "2026-11-22"})
    matcher = Matcher(exchanges)
    assert matcher.take(request({"a": "2027-01-01"}), {"date": "2027-01-01"}) is exchanges[0]
    assert matcher.take(request({"a": "2026-11-22", "b": "2027-01-01"}), {"date": "2027-01-01"}) is exchanges[1]


def test_the_longest_value_is_replaced_first() -> None:
    """The value of one variable may be the beginning of another's."""
    (only,) = exchanges = recorded({"a": "run_12 run_1"}, variables={"short": "run_1", "long": "run_12"})
    assert Matcher(exchanges).take(request({"a": "x2y x2"}), {"short": "x2", "long": "x2y"}) is only


# Secrets

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(max_size=8),
        st.sampled_from([KEY, SECRET, f"x {KEY}\n{SECRET}"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5) | st.just(SECRET), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.trap(31)
@settings(deadline=None, max_examples=80)
@given(
    json_values,
    st.booleans(),
    st.sampled_from([URL, f"https://u:p@h/v1/messages?api_key=x&a={KEY}", f"https://h/{SECRET}/v1/x?token="]),
)
def test_a_recorded_request_always_matches_itself(value: Any, ascii_only: bool, uri: str) -> None:
    """Redaction and matching agree: a recording answers its own request, with any content."""
    redactor = Redactor({"MY_TOKEN": SECRET})
    asked = Request(
        "POST", uri, (("x-api-key", KEY),), json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    )
    only = Exchange(redactor.request(asked), None)
    assert KEY.encode() not in only.request.body
    assert Matcher([only], redactor=redactor).take(asked) is only


def test_a_recording_matches_if_the_environment_has_other_secrets() -> None:
    """A value may be secret here that was not secret on the recording machine, or another tool recorded it. The matcher scrubs
    both sides.
    """
    (only,) = exchanges = recorded({"system": f"The word is {SECRET}."})
    assert Matcher(exchanges, redactor=Redactor({"MY_TOKEN": SECRET})).take(request({"system": f"The word is {SECRET}."})) is only


# Rules


@pytest.mark.parametrize(
    ("match_on", "asked", "is_same"),
    [
        (("method",), request({"other": 1}, "https://h/x"), True),
        (("path",), request(uri="http://127.0.0.1:9/base/v1/messages"), True),
        (("path",), request(uri="http://127.0.0.1:9/messages"), True),
        (("path",), request(uri="http://127.0.0.1:9/messages/count_tokens"), False),
        (("path",), request(uri="http://127.0.0.1:9/base/messagesx"), False),
        (("host",), request(uri="https://API.anthropic.com/"), True),
        (("host",), request(uri="https://h/v1/messages"), False),
        (("port",), request(uri="https://h:443/"), True),
        (("port",), request(uri="https://h:444/"), False),
        (("scheme",), request(uri="http://h/"), False),
        (("uri",), request(uri=f"{URL}?a=1"), False),
        (("raw_body",), request(reordered(BODY)), False),
        (("raw_body",), request(), True),
        (("headers",), Request("GET", URL, (("User-Agent", "x"), ("X-Stainless-OS", "y"))), True),
        (("headers",), Request("GET", URL, (("anthropic-version", "2"),)), False),
    ],
)
def test_rules_select_the_parts_that_count(match_on: tuple[str, ...], asked: Request, is_same: bool) -> None:
    """Rules are names, as in vcrpy."""
    assert Matcher(recorded(BODY), rules=Rules(match_on=match_on)).matches(asked) is is_same


@pytest.mark.parametrize(
    ("ignore", "path"),
    [
        ("system", "system"),
        ("tools[*].description", "tools[3].description"),
        ("tools[1].description", "tools[1].description"),
        ("**.text", "messages[0].content[0].text"),
        ("messages[*].content[*].text", "messages[0].content[0].text"),
        ("tools[0]", "tools[0]"),
    ],
)
def test_ignored_parts_may_differ(ignore: str, path: str) -> None:
    """A path of the body may contain a key, an index or any index, or match anywhere."""
    (only,) = exchanges = recorded(BODY)
    assert Matcher(exchanges, rules=Rules(ignore=(ignore, "metadata.user_id"))).take(request(edited(path, "else"))) is only


@pytest.mark.parametrize("rules", [{"match_on": ("methud",)}, {"ignore": ("",)}])
def test_invalid_rules_are_an_error(rules: Any) -> None:
    """The constructor raises an error with the valid names."""
    with pytest.raises(InputError):
        Rules(**rules)


def test_a_rule_may_be_a_function() -> None:
    """It takes (request, recorded). As in vcrpy, None means that they agree, and AssertionError that they do not."""

    def shorter(asked: Request, recorded: Request) -> None:
        assert len(asked.body) < len(recorded.body)

    exchanges = recorded(b"xx", b"xxxx")
    matcher = Matcher(exchanges, rules=Rules(match_on=("method", shorter)))
    assert matcher.take(request(b"yyy")) is exchanges[1]
    assert not matcher.matches(request(b"yyy"))


def test_a_miss_names_the_function_that_disagreed() -> None:
    """If no value differs, the report names the rule."""

    def never(_: Request, __: Request) -> bool:
        return False

    assert "never" in report(Matcher(recorded(BODY), rules=Rules(match_on=("body", never))), request())


# Multipart bodies


def uploaded(boundary: str, content: str = "hello", *, end: str = "\r\n") -> Request:
    """Return an upload of two parts, one of which contains lines that look like boundaries."""
    part = f"--{boundary}\r\nContent-Disposition: form-data; name=file\r\n\r\n{content}\r\n"
    body = f"{part}{part}--{boundary}--{end}"
    return Request("POST", URL, (("content-type", f"multipart/form-data; boundary={boundary}"),), body.encode())


@pytest.mark.parametrize("end", ["", "\r\n"])
@pytest.mark.parametrize("content", ["hello", "--x\r\n--a.b+c", "a --first b", "--first\xe9"])
def test_the_boundary_of_a_multipart_body_does_not_count(content: str, end: str) -> None:
    """Clients generate a random boundary for each request. Different parts remain a difference."""
    exchanges = [Exchange(uploaded("first", content, end=end), None)]
    assert Matcher(exchanges).matches(uploaded("a.b+(c", content, end=end))
    assert not Matcher(exchanges).matches(uploaded("second", content + "!", end=end))


def test_a_body_that_only_begins_like_multipart_is_compared_unchanged() -> None:
    exchanges = [Exchange(Request("POST", URL, (), b"--one\r\nrest"), None)]
    assert not Matcher(exchanges).matches(Request("POST", URL, (), b"--two\r\nrest"))
