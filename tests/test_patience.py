"""Patterns of a user never take longer than the limit, however deeply they are nested."""

import random
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retold.recorder.errors import InputError
from retold.recorder.log.log import EventLog
from retold.recorder.patience import find_texts, patience, replaced
from retold.replay.matching.places import matches
from retold.testing.pytest_vcr import blocked_sockets
from tests.e2e import in_this_process, refused

CATASTROPHIC = ["(a+)+$", "(a|a)*b", "(?:a?){40}a{40}$"]
LONG = "a" * 40


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_redacting_with_an_endless_pattern_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """The error names the pattern. The log is unchanged."""
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    with EventLog(tmp_path / "log.db") as log, log.start(name="a", mode="import") as writer:
        writer.note("message", {"type": "user", "message": {"role": "user", "content": f"{LONG}?"}})
    done = in_this_process("redact", "--pattern", pattern, "--why", "a test", "--yes", "--db", tmp_path / "log.db")
    assert "0.2 s for one text" in refused(done)
    assert len(EventLog(tmp_path / "log.db").runs()) == 1


def test_an_endless_allowed_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal comes before a connection is opened."""
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    with blocked_sockets(["(a+)+$"]), socket.socket() as client, pytest.raises(InputError, match="for one text"):
        client.connect((f"{LONG}.example", 9))


def test_a_search_leaves_no_timer_and_no_handler() -> None:
    """The application has its signal handler back, also after an error."""
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ZeroDivisionError), patience("a"):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_an_endless_pattern_is_refused_in_a_worker_thread(monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Another process does the search, because in this one it would keep the lock that every other thread needs."""
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match=r"0\.2 s for one text"):
        pool.submit(find_texts, re.compile(pattern), f"{LONG}?").result()


@pytest.mark.parametrize("in_thread", [False, True])
def test_replacing_is_limited_in_every_thread(monkeypatch: pytest.MonkeyPatch, in_thread: bool) -> None:
    """The texts are the same in each thread."""
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    with ThreadPoolExecutor(1) as pool:

        def call(pattern: str, *texts: str) -> list[str]:
            compiled = re.compile(pattern)
            return pool.submit(replaced, compiled, texts, "X").result() if in_thread else replaced(compiled, texts, "X")

        assert call(r"\d+", "a 12 b 3", "", "é\ud800 4") == ["a X b X", "", "é\ud800 X"]
        assert call("12", "a 12 b", "3") == ["a X b", "3"]
        with pytest.raises(InputError, match=r"0\.2 s for one text"):
            call(CATASTROPHIC[0], f"{LONG}?")


def test_connecting_from_a_worker_thread_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that connects matches the hosts."""
    monkeypatch.setattr("retold.recorder.patience.LIMIT_S", 0.2)
    with blocked_sockets(["(a+)+$"]), socket.socket() as client, ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(client.connect, (f"{LONG}.example", 9))
        with pytest.raises(InputError, match="for one text"):
            connecting.result()


@pytest.mark.parametrize("pattern", ["b+", "(?i)B", "x*", "é|\ud800", "^b+", "bb"])
@pytest.mark.parametrize("at_start", [False, True])
def test_every_thread_finds_the_same_texts(pattern: str, at_start: bool) -> None:
    """The cases include flags, empty matches, half surrogates and texts of several lines."""
    text = "bb a\nb é\ud800 \udcff"
    compiled = re.compile(pattern)
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(find_texts, compiled, text, at_start=at_start).result()
    assert find_texts(compiled, text, at_start=at_start) == elsewhere
    expected = [match[0] for match in compiled.finditer(text) if not at_start or match.start() == 0][: 1 if at_start else None]
    assert elsewhere == expected


def _as_expression(name: str) -> re.Pattern[str]:
    wild = {"**.": r"(?:.*[.\]])?", "**": ".*", "*": r"[^.\[\]]*"}
    parts = re.split(r"(\*\*\.|\*\*|\*)", name)
    return re.compile("".join(wild.get(part, re.escape(part)) for part in parts) + r"(?=[.\[]|\Z)", re.DOTALL)


def test_wildcards_of_places_match_like_the_equivalent_expression() -> None:
    """The test compares fifteen hundred random names and places."""
    luck = random.Random(7)
    for _ in range(1500):
        name = "".join(luck.choices(["a", "b", ".", "[0]", "*", "**", "**."], k=luck.randrange(1, 6)))
        place = "".join(luck.choices(["a", "b", ".", "[0]", "\n"], k=luck.randrange(8)))
        assert matches(name, place) == (_as_expression(name).match(place) is not None), (name, place)


def test_many_wildcards_take_linear_time() -> None:
    """The equivalent expression would never finish here."""
    assert not matches("**.a" * 30 + ".z", "input" + ".a" * 500)
    assert not matches("**a" * 30 + "z", "a" * 2000)
