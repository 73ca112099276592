"""Nothing is sent by accident: decorators, connections of other clients, child processes, and fixtures of wide scope."""

import asyncio
import functools
import multiprocessing
import pickle
import socket
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import retold
from retold.recorder.errors import InputError
from retold.recorder.http.recognition import Outgoing, is_api
from tests.clients import answer_text, ask, client, record, serve
from tests.suites import Suite

A, B = Path("a.yaml"), Path("b.yaml")


# Decorators


def test_interleaved_generators_use_their_own_cassettes() -> None:
    """A generator uses its cassette while it runs. Its caller does not."""
    record(A, "a1", "a2")
    record(B, "b1", "b2")

    def turns(name: str) -> Iterator[str]:
        yield ask(f"{name}1")
        yield ask(f"{name}2")

    pairs = zip(retold.use_cassette(A)(turns)("a"), retold.use_cassette(B)(turns)("b"), strict=True)
    assert list(pairs) == [("You said a1.", "You said b1."), ("You said a2.", "You said b2.")]
    with serve() as server:
        assert ask("outside", server.url) == "You said outside."


def test_a_decorated_function_that_returns_an_awaitable_uses_its_cassette_when_awaited() -> None:
    record(A)

    async def asking() -> str:
        return await asyncio.to_thread(ask)

    @functools.wraps(asking)
    def wrapped() -> Any:
        return asking()

    assert asyncio.run(retold.use_cassette(A)(wrapped)()) == "You said hi."


def test_each_test_of_a_decorated_class_uses_the_cassette() -> None:
    """The decorated class is still a class, so test runners collect it."""
    record(A)

    @retold.use_cassette(A)
    class Tests(unittest.TestCase):
        def test_one(self) -> None:
            assert ask() == "You said hi."

        def test_two(self) -> None:
            assert ask() == "You said hi."

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert (result.testsRun, result.wasSuccessful()) == (2, True)


def test_a_class_without_tests_cannot_be_decorated() -> None:
    class Helper:
        pass

    with pytest.raises(InputError, match="has no method whose name begins with test"):
        retold.use_cassette(A)(Helper)


# Requests and connections


@pytest.mark.parametrize(
    ("url", "headers", "body"),
    [
        ("https://api.anthropic.com/v1/models", {}, None),
        ("https://gateway.example/api", {"anthropic-version": "2023-06-01"}, None),
        ("https://gateway.example/messages", {"user-agent": "AsyncAnthropic/Python 0.40.0"}, None),
        ("https://gateway.example/v1/messages", {"x-stainless-lang": "js"}, None),
        ("https://x.example/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict", {}, None),
        ("https://x.example/model/anthropic.claude%3A0/invoke-with-response-stream", {}, None),
        ("https://x.example/anything", {}, b'{"anthropic_version": "bedrock-2023-05-31"}'),
    ],
)
def test_a_request_of_the_api_is_recognised_on_any_host(url: str, headers: dict[str, str], body: bytes | None) -> None:
    assert is_api(Outgoing("POST", url, headers, body))


def test_other_requests_are_not_requests_of_the_api() -> None:
    for url in ("https://api.openai.com/v1/threads/t/messages", "https://chat.example/v1/messages"):
        assert not is_api(Outgoing("POST", url, {"user-agent": "OpenAI/Python 3.0"}))


def test_a_replay_refuses_connections_of_clients_that_are_not_patched() -> None:
    """The refusal comes before a name is looked up."""
    with retold.use_cassette(A), pytest.raises(retold.BlockedError, match="only replays"):
        socket.create_connection(("bedrock-runtime.us-east-1.amazonaws.com", 443))


def test_block_network_refuses_every_host_but_this_machine() -> None:
    with serve() as server, retold.use_cassette(A, block_network=True):
        with pytest.raises(retold.BlockedError, match="block_network is set"):
            socket.getaddrinfo("example.com", 443)
        with (
            socket.socket(type=socket.SOCK_DGRAM) as datagrams,
            pytest.raises(retold.BlockedError, match=r"192\.0\.2\.1:53"),
        ):
            datagrams.sendto(b"", ("192.0.2.1", 53))
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))).close()


def test_a_fake_transport_is_left_alone() -> None:
    with (
        retold.use_cassette(A),
        httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(204))) as client,
    ):
        assert client.post("https://api.anthropic.com/v1/messages").status_code == 204


# Other processes


def test_a_child_program_uses_the_cassette_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is in the child's environment, for recording and replaying. The environment of this process is unchanged."""
    code = (
        "import os, urllib.request as u; r = u.Request(os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages', data=b'{\"messages\": "
        '[{"role": "user", "content": "hi"}]}\', headers={"content-type": "application/json"}); print(u.urlopen(r).status)'
    )
    with serve() as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        for mode in ("rewrite", "none"):
            with retold.use_cassette(A, record_mode=mode) as cassette:
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert (done.stdout, cassette.recorded + cassette.play_count) == ("200\n", 1), done.stderr
        assert server.calls == 1


def test_a_forked_child_records_into_a_separate_run() -> None:
    """The recording belongs to one client. Two processes cannot write one run."""
    with (
        serve() as server,
        retold.EventLog("log.db") as log,
        retold.recording(log) as recording,
        client(server.url, middleware=[recording]) as asking,
    ):
        answer_text(asking, "parent")
        child = multiprocessing.get_context("fork").Process(target=answer_text, args=(asking, "child"))
        child.start()
        child.join()
        answer_text(asking, "parent again")
        assert child.exitcode == 0
    assert sorted(run.exchanges for run in retold.EventLog("log.db").runs() if run.status == "completed") == [2]
    assert len(retold.EventLog("log.db").runs()) == 2


def test_a_miss_can_be_pickled() -> None:
    """A child process can raise it in its parent."""
    with retold.use_cassette(A), pytest.raises(retold.MissError) as miss:
        ask()
    again = pickle.loads(pickle.dumps(miss.value))
    assert isinstance(again, retold.MissError)
    assert str(again) == str(miss.value)


# Under pytest

WIDE = """
    @pytest.fixture(scope="module")
    def plan():
        return ask("plan")

    @pytest.mark.retold
    def test_one(plan):
        assert ask("one") == "You said one."
"""
pytest_plugins = ["pytester"]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return Suite(pytester, monkeypatch)


def test_a_wide_fixture_that_goes_live_is_counted_and_is_refused_in_mode_none(suite: Suite) -> None:
    suite.write(WIDE)
    with serve() as server:
        live = suite.run("--retold-mode=once", server=server)
        live.assert_outcomes(passed=1)
        live.stdout.fnmatch_lines(["1 API request outside of every cassette sent to the API: POST http://127.0.0.1:*"])
        assert server.calls == 2
        refused = suite.run(server=server)
        refused.assert_outcomes(errors=1)
        refused.stdout.fnmatch_lines(["*was made outside of every cassette*", "1 API request outside of every cassette refused*"])
        suite.run("-o", "retold_outside=count", server=server).assert_outcomes(passed=1)
        assert server.calls == 3
