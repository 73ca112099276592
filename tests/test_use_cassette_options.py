"""Several recordings, their age and timing, and mode verify, which reports changed answers of the API."""

import contextlib
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from retold.testing.use import Use
from tests.clients import ASKING, MODEL, Ask, ask, body, client, prompts_of, record, serve
from tests.messages_server import MessagesServer, Reply, http_error, text

CASSETTE = Path("c.yaml")


@pytest.fixture(name="ask", params=ASKING)
def _ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


def replay(**options: Any) -> retold.UsedCassette:
    with retold.use_cassette(CASSETTE, **options) as cassette:
        assert ask("hi") == "You said hi."
    return cassette


# More than one recording


def test_also_replays_from_further_cassettes() -> None:
    """The block's own cassette is searched first and gets new exchanges. The others stay unchanged."""
    record(Path("other.yaml"), "b", "c")
    before = record(CASSETTE, "a", "b").parent.joinpath("other.yaml").read_bytes()
    with serve() as server:
        settings = replace(retold.use_cassette().settings, also=(Path("other.yaml"),))
        with Use(CASSETTE, "new_episodes", settings) as cassette:
            for prompt in ("a", "b", "b", "c", "d"):
                ask(prompt, server.url)
        assert (server.calls, cassette.play_count, cassette.recorded, cassette.all_played) == (1, 4, 1, True)
    assert (prompts_of(CASSETTE), Path("other.yaml").read_bytes()) == (["a", "b", "d"], before)


def test_repeats_are_played_only_if_allowed(ask: Ask) -> None:
    """The last answer is repeated after all were played. Another request is still a miss."""
    with serve("one", "two") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url)
        ask("hi", server.url)
    with retold.use_cassette(CASSETTE, allow_playback_repeats=True) as cassette:
        assert [ask("hi") for _ in range(4)] == ["one", "two", "two", "two"]
        assert (cassette.play_count, cassette.all_played) == (4, True)
        with pytest.raises(retold.MissError):
            ask("other")


# Age


def aged(days: int, *prompts: str) -> str:
    """Record a cassette as if some days ago, and return that time."""
    then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record(CASSETTE, *prompts)
    CASSETTE.write_text(re.sub(r"(?<=recorded_at: ').*?(?=')", then, CASSETTE.read_text()))
    assert then in CASSETTE.read_text()
    return then


EXPIRED = "c.yaml was recorded 91 days ago, longer than its max_age of 90 days"


@pytest.mark.parametrize("age", ["90d", "12w", timedelta(days=90)])
def test_an_old_cassette_is_replayed_with_a_warning(age: Any) -> None:
    """The warning has the line that uses the cassette."""
    aged(91)
    with pytest.warns(retold.ExpiredWarning) as caught:
        replay(max_age=age)
    assert str(caught[0].message).startswith("c.yaml was recorded 91 days ago, longer than its max_age of ")
    assert str(caught[0].message).endswith(' days; record it again with record_mode="rewrite"')
    assert caught[0].filename == __file__


def test_a_cassette_within_its_age_causes_no_warning() -> None:
    """A cassette without an age, such as one of vcrpy, causes no warning either."""
    aged(89)
    replay(max_age="90d", on_expired="fail")
    CASSETTE.write_text(re.sub(r" *recorded_at: .*\n", "", CASSETTE.read_text()))
    replay(max_age="1d", on_expired="fail")


def test_an_old_cassette_can_be_refused() -> None:
    """The error comes before anything is replayed."""
    aged(91)
    with (
        pytest.raises(retold.CassetteError) as error,
        retold.use_cassette(CASSETTE, max_age="90d", on_expired="fail"),
    ):  # fmt: skip
        ask("hi")
    assert str(error.value) == f'{EXPIRED}. Record it again with record_mode="rewrite".'


RERECORD: Any = {"max_age": "90d", "on_expired": "rerecord"}


def test_an_old_cassette_can_be_recorded_again() -> None:
    """The block then works as in mode rewrite."""
    then = aged(91, "old", "hi")
    with serve("new") as server, retold.use_cassette(CASSETTE, **RERECORD) as cassette:
        assert ask("hi", server.url) == "new"
    assert (cassette.record_mode, then in CASSETTE.read_text(), prompts_of(CASSETTE)) == ("rewrite", False, ["hi"])


def test_an_old_cassette_is_not_recorded_again_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI never records by default, but it shows a warning."""
    then = aged(91)
    monkeypatch.setenv("CI", "true")
    with pytest.warns(retold.ExpiredWarning):
        cassette = replay(**RERECORD)
    assert (cassette.record_mode, then in CASSETTE.read_text()) == ("none", True)


@pytest.mark.filterwarnings("ignore::retold.ExpiredWarning")
@pytest.mark.parametrize("mode", ["none", "once", "new_episodes"])
def test_using_a_cassette_never_makes_it_newer(mode: str) -> None:
    """Its age counts from its oldest exchange, even after a new one was added."""
    then = aged(91)
    with serve() as server, retold.use_cassette(CASSETTE, record_mode=mode, max_age="90d"):
        ask("hi")
        if mode == "new_episodes":
            ask("new", server.url)
    stamps = [exchange.recorded_at for exchange in retold.read_cassette(CASSETTE).exchanges]
    assert (stamps[0], min(stamps), len(stamps)) == (then, then, 2 if mode == "new_episodes" else 1)
    with pytest.warns(retold.ExpiredWarning), retold.use_cassette(CASSETTE, max_age="90d"):
        pass


def test_an_invalid_age_is_an_error() -> None:
    """The error lists the valid options."""
    with pytest.raises(retold.InputError, match="unknown duration 'a while'"):
        retold.use_cassette(CASSETTE, max_age="a while")


# Timing


def test_original_timing_takes_as_long_as_the_recording(ask: Ask) -> None:
    """It takes at least that time, and half of it at twice the speed."""
    with (
        MessagesServer([Reply([text("Hello there", pieces=4)], gap_s=0.03)]) as server,
        retold.use_cassette(CASSETTE, record_mode="once"),
    ):
        ask("hi", server.url)
    sent = [at for at, _ in server.sent[0]]
    for timing, least in (("original", 0.9), ("2x", 0.45)):
        began = time.monotonic_ns()
        with retold.use_cassette(CASSETTE, timing=timing):
            ask("hi")
        assert time.monotonic_ns() - began > (sent[-1] - sent[0]) * least


def test_an_idle_limit_shortens_only_pauses(ask: Ask) -> None:
    """The replay shortens a pause of half a minute."""
    record(CASSETTE)
    (recorded,) = retold.read_cassette(CASSETTE).exchanges
    assert recorded.response is not None
    slow = tuple(piece._replace(offset_ns=30 * 10**9 * (number > 2)) for number, piece in enumerate(recorded.response.pieces))
    response = replace(recorded.response, pieces=slow, first_ns=0)
    retold.write_cassette(CASSETTE, [replace(recorded, response=response, ended_ns=recorded.started_ns + 30 * 10**9)])
    began = time.monotonic()
    with retold.use_cassette(CASSETTE, timing="original", idle_limit="50ms"):
        assert ask("hi") == "You said hi."
    assert 0.05 <= time.monotonic() - began < 15


# Verify


def verify(now: tuple[Reply, ...], asked: str) -> retold.UsedCassette:
    """Ask once for each answer in mode verify, without streaming."""
    with MessagesServer(now) as server:
        with retold.use_cassette(CASSETTE, record_mode="verify") as cassette, client(server.url, max_retries=0) as asking:
            for _ in now:
                with contextlib.suppress(anthropic.APIStatusError):
                    asking.messages.create(**body(asked))
        assert server.calls == len(now)
    return cassette


def drift(*now: Reply, asked: str = "hi") -> list[str]:
    """Return the report of mode verify, its warning and `drift`, for these answers. Check that the file stays unchanged."""
    before = CASSETTE.read_bytes() if CASSETTE.exists() else None
    with pytest.warns(retold.DriftWarning) as caught:
        cassette = verify(now, asked)
    assert (CASSETTE.read_bytes() if CASSETTE.exists() else None) == before
    lines = str(caught[0].message).splitlines()
    assert lines == ["c.yaml: the API answers otherwise than recorded:", *(f"  {line}" for line in cassette.drift)]
    assert (caught[0].filename, len(caught)) == (__file__, 1)
    return cassette.drift


def taped(*answers: Reply) -> None:
    """Return a cassette of these answers, without streaming."""
    with MessagesServer(answers) as server, retold.use_cassette(CASSETTE, record_mode="rewrite"), client(server.url) as asking:
        for _ in answers:
            asking.messages.create(**body())


HELLO = Reply([text("Hello there")])
CHANGES = {
    "text": (Reply([text("Hello here")]), 'call 1: content[0].text: recorded "Hello there", now "Hello here"'),
    "stop_reason": (Reply([text("Hello there")], "max_tokens"), 'call 1: stop_reason: recorded "end_turn", now "max_tokens"'),
    "block": (
        Reply([text("Hello there"), text("!")]),
        'call 1: content[1]: not recorded, now {"type": "text", "text": "!"}',
    ),
    "model": (Reply([text("Hello there")], model="m-2"), f'call 1: model: recorded "{MODEL}", now "m-2"'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_reports_changes(change: str) -> None:
    """Each changed place is one line, and the cassette stays unchanged."""
    taped(HELLO)
    now, line = CHANGES[change]
    assert drift(now) == [line]


def test_verify_reports_another_status() -> None:
    """It also reports the differences that follow from the status."""
    taped(HELLO)
    assert drift(http_error(529))[:2] == [
        "call 1: status: recorded 200, now 529",
        'call 1: ending: recorded "complete", now "http_error"',
    ]


def test_verify_reports_a_request_that_was_not_recorded() -> None:
    """The report is one line. Without a cassette it has one line for each request, and no cassette is written."""
    taped(HELLO)
    assert drift(HELLO, asked="something else") == ["call 1: not recorded"]
    CASSETTE.unlink()
    assert drift(HELLO, HELLO) == ["call 1: not recorded", "call 2: not recorded"]


def test_verify_compares_each_answer_with_the_right_recording() -> None:
    """Identical requests are compared in recorded order."""
    taped(HELLO, Reply([text("Bye")]))
    assert drift(HELLO, Reply([text("By")])) == ['call 2: content[0].text: recorded "Bye", now "By"']


def test_verify_reports_nothing_if_the_answer_has_the_same_meaning(ask: Ask) -> None:
    """Message ids, request ids, times and token counts change every time. The run is in the log nevertheless."""
    with serve("Hello there") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url)
    before = CASSETTE.read_bytes()
    reply = Reply([text("Hello there", pieces=3)], id="msg_another", usage={"input_tokens": 99})
    with MessagesServer([reply]) as server, retold.use_cassette(CASSETTE, record_mode="verify") as cassette:
        assert ask("hi", server.url) == "Hello there"
    run = retold.EventLog().runs()[0]
    assert (cassette.drift, cassette.recorded, CASSETTE.read_bytes()) == ([], 1, before)
    assert (run.run, run.mode, run.messages) == (cassette.run, "live", 1)
