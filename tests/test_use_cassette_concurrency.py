"""Concurrent requests: tasks, threads and executors use the cassette of the code that started them, and no other."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import pytest

import retold
from retold.recorder.http.exchange import Request
from retold.replay.matching.matcher import Matcher
from tests.clients import (
    ASKING,
    NOWHERE,
    Ask,
    Meeting,
    MeetingLog,
    answer_text_async,
    ask,
    client_async,
    gathered,
    prompts_of,
    record,
    serve,
    threaded,
)
from tests.messages_server import MessagesServer, Reply, http_error, text

CASSETTE = Path("c.yaml")
SIX = [f"question {number}" for number in range(6)]


@pytest.fixture(name="ask", params=ASKING)
def _ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


AT_ONCE = pytest.mark.parametrize("at_once", [gathered, threaded])


# Concurrent answers


@pytest.mark.trap(28)
@AT_ONCE
def test_six_concurrent_streams_get_the_right_answers_in_any_order(at_once: Callable[..., list[str]]) -> None:
    """They are recorded while all of them stream, and replayed in another order, in tasks and in threads."""
    expected = [f"You said {prompt}." for prompt in SIX]

    def slowly(request: Any) -> Reply:
        return Reply([text(f"You said {request.json['messages'][0]['content']}.")], gap_s=0.01)

    with MessagesServer(slowly) as server, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        assert at_once(SIX, server.url) == expected
        assert (server.calls, cassette.recorded) == (6, 6)
    assert sorted(prompts_of(CASSETTE)) == SIX
    with retold.use_cassette(CASSETTE) as cassette:
        assert at_once(SIX[3:] + SIX[:3]) == expected[3:] + expected[:3]
        assert cassette.all_played


@pytest.mark.trap(29)
def test_identical_calls_get_their_answers_in_recorded_order(ask: Ask) -> None:
    """Three calls record three answers, and three calls replay them. They are never merged into one."""
    with serve("one", "two", "three") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        recorded = [ask("hi", server.url) for _ in range(3)]
    with retold.use_cassette(CASSETTE):
        assert [ask("hi") for _ in range(3)] == recorded == ["one", "two", "three"]


@AT_ONCE
def test_concurrent_identical_calls_get_each_answer_once(at_once: Callable[..., list[str]]) -> None:
    """The first request gets the first answer."""
    with serve("one", "two", "three") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        assert sorted(at_once(["hi"] * 3, server.url)) == ["one", "three", "two"]
    with retold.use_cassette(CASSETTE):
        assert sorted(at_once(["hi"] * 3)) == ["one", "three", "two"]


def test_two_threads_never_play_the_same_recording() -> None:
    """Finding and taking a recording is one atomic step, even if both threads look at the same moment."""
    meeting = Meeting()

    def meet(_: Request, __: Request) -> bool:
        meeting.wait()
        return True

    with serve("one", "two") as server, retold.use_cassette(CASSETTE, record_mode="once"):
        threaded(["hi"] * 2, server.url)
    with retold.use_cassette(CASSETTE, match_on=["body", meet]):
        assert sorted(threaded(["hi"] * 2)) == ["one", "two"]


def test_the_second_request_in_new_episodes_is_not_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests for one recording come at the same moment. One gets it, and the other is recorded."""
    meeting, matches = Meeting(), Matcher.matches

    def meet(self: Matcher, *args: Any) -> bool:
        found = matches(self, *args)
        meeting.wait()
        return found

    record(CASSETTE)
    monkeypatch.setattr(Matcher, "matches", meet)
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="new_episodes"):
        assert threaded(["hi"] * 2, server.url) == ["You said hi."] * 2
    assert prompts_of(CASSETTE) == ["hi", "hi"]


def test_concurrent_threads_record_into_one_run() -> None:
    """The recordings of the first two threads are all kept, as two calls."""
    with serve() as server, MeetingLog("log.db") as log:
        with retold.use_cassette(CASSETTE, record_mode="once", log=log):
            threaded(SIX, server.url)
        assert [run.exchanges for run in log.runs()] == [6]
    assert sorted(prompts_of(CASSETTE)) == SIX
    assert sorted(exchange.place.call for exchange in retold.read_cassette(CASSETTE).exchanges) == [1, 2, 3, 4, 5, 6]


# The cassette of a thread or task


def in_thread(work: Callable[[], str]) -> str:
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]


def in_a_thread_of_a_thread(work: Callable[[], str]) -> str:
    return in_thread(lambda: in_thread(work))


class Worker(threading.Thread):
    """A thread that runs the given function."""

    def __init__(self, work: Callable[[], str]) -> None:
        super().__init__()
        self.work = work

    def run(self) -> None:
        self.answer = self.work()


def in_worker(work: Callable[[], str]) -> str:
    worker = Worker(work)
    worker.start()
    worker.join()
    return worker.answer


def in_pool(work: Callable[[], str]) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def by_map(work: Callable[[], str]) -> str:
    with ThreadPoolExecutor(1) as pool:
        return next(pool.map(lambda _: work(), [0]))


def by_to_thread(work: Callable[[], str]) -> str:
    return asyncio.run(asyncio.to_thread(work))


def in_executor(work: Callable[[], str]) -> str:
    async def run() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    return asyncio.run(run())


ELSEWHERE = [in_thread, in_a_thread_of_a_thread, in_worker, in_pool, by_map, by_to_thread, in_executor]


@pytest.mark.trap(39)
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_started_work_inherits_the_cassette(elsewhere: Callable[[Callable[[], str]], str]) -> None:
    """Threads, pools and `to_thread` record into and replay from the cassette of the code that started them."""
    with serve() as server, retold.use_cassette(CASSETTE, record_mode="once") as cassette:
        said = elsewhere(lambda: ask("hi", server.url))
    assert (said, cassette.recorded) == ("You said hi.", 1)
    with retold.use_cassette(CASSETTE) as cassette:
        assert elsewhere(ask) == said
        assert cassette.play_count == 1


def test_a_pool_uses_the_cassette_of_each_block() -> None:
    """Its threads are older than the blocks, and live longer."""
    record(Path("a.yaml"), "a")
    record(Path("b.yaml"), "b")
    with ThreadPoolExecutor(1) as pool, serve() as server:
        assert pool.submit(ask, "first", server.url).result() == "You said first."
        for name in ("a", "b", "a"):
            with retold.use_cassette(f"{name}.yaml") as cassette:
                assert pool.submit(ask, name).result() == f"You said {name}."
                assert cassette.all_played
        assert pool.submit(ask, "last", server.url).result() == "You said last."


def from_before(mode: str, url: str) -> tuple[list[str | Exception], retold.UsedCassette]:
    """Ask in a thread that is older than the block."""
    go, answers = threading.Event(), list[str | Exception]()

    def run() -> None:
        go.wait(20)
        try:
            answers.append(ask("hi", url))
        except retold.RetoldError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    with retold.use_cassette(CASSETTE, record_mode=mode) as cassette:
        go.set()
        thread.join()
    return answers, cassette


def test_an_older_thread_is_not_recorded() -> None:
    """Its request is sent and not recorded, because it belongs to other code."""
    with serve() as server:
        answers, cassette = from_before("all", server.url)
    assert (answers, cassette.recorded, cassette.misses, CASSETTE.exists()) == (["You said hi."], 0, [], False)


def test_an_older_thread_does_not_go_live_during_a_replay() -> None:
    """While the block is open, nothing is sent. The cassette answers, and a request that it lacks is a miss."""
    with serve() as server:
        answers, cassette = from_before("none", server.url)
        assert (len(cassette.misses), server.calls) == (1, 0)
    assert isinstance(answers[0], retold.MissError)
    record(CASSETTE)
    answers, cassette = from_before("none", NOWHERE)
    assert (answers, cassette.play_count) == (["You said hi."], 1)


def test_two_cassettes_in_two_tasks_do_not_mix() -> None:
    """Both are in use at the same time, in one thread and with one client, recording and replaying."""

    async def use(asking: anthropic.AsyncAnthropic, name: str, together: asyncio.Barrier) -> list[str]:
        async with retold.use_cassette(f"{name}.yaml", record_mode="once"):
            await together.wait()
            said = [await answer_text_async(asking, f"{name} {number}") for number in range(3)]
            await together.wait()
        return said

    async def run(url: str) -> list[list[str]]:
        together = asyncio.Barrier(2)
        async with client_async(url) as asking:
            return list(await asyncio.gather(*(use(asking, name, together) for name in ("left", "right"))))

    expected = [[f"You said {name} {number}." for number in range(3)] for name in ("left", "right")]
    with serve() as server:
        assert asyncio.run(run(server.url)) == expected
    for name in ("left", "right"):
        assert prompts_of(Path(f"{name}.yaml")) == [f"{name} {number}" for number in range(3)]
    assert asyncio.run(run(NOWHERE)) == expected


def test_two_cassettes_in_two_threads_do_not_mix() -> None:
    """Both are in use at the same time in two threads."""
    together = threading.Barrier(2)

    def use(name: str) -> list[str]:
        with retold.use_cassette(f"{name}.yaml", record_mode="once"):
            together.wait(20)
            said = [ask(f"{name} {number}", server.url) for number in range(3)]
            together.wait(20)
        return said

    with serve() as server, ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            said = list(pool.map(use, ["left", "right"]))
            assert said == [[f"You said {name} {number}." for number in range(3)] for name in ("left", "right")]
        assert server.calls == 6
    assert [prompts_of(Path(f"{name}.yaml"))[0] for name in ("left", "right")] == ["left 0", "right 0"]


# Retries


RETRY = http_error(529, headers={"retry-after-ms": "1"})


def attempts() -> list[tuple[int, int, int]]:
    """Return (call, attempt, status) of each exchange in the cassette."""
    exchanges = retold.read_cassette(CASSETTE).exchanges
    return [(e.place.call, e.place.attempt, e.response.status) for e in exchanges if e.response is not None]


@pytest.mark.trap(17)
def test_a_retry_is_a_second_attempt_of_the_same_call(ask: Ask) -> None:
    """529 and 200 are recorded, with a body that the SDK never reads. They are replayed in order, each once."""
    with MessagesServer([RETRY, Reply([text("yes")]), Reply([text("again")])]) as server:
        with retold.use_cassette(CASSETTE, record_mode="once"):
            assert [ask("hi", server.url), ask("hi", server.url)] == ["yes", "again"]
        assert server.calls == 3
    assert attempts() == [(1, 1, 529), (1, 2, 200), (2, 1, 200)]
    refused = retold.read_cassette(CASSETTE).exchanges[0].response
    assert refused is not None
    assert (b"overloaded_error" in refused.body, refused.header("retry-after-ms")) == (True, "1")
    with retold.use_cassette(CASSETTE) as cassette:
        assert [ask("hi"), ask("hi")] == ["yes", "again"]
        assert (cassette.play_count, cassette.all_played) == (3, True)


def test_an_instant_replay_does_not_wait_before_a_retry(ask: Ask, slept: list[float]) -> None:
    """The API asked for a pause of half a minute, but a replay has no server to protect."""
    with MessagesServer([RETRY, Reply([text("yes")])]) as server, retold.use_cassette(CASSETTE, record_mode="once"):
        ask("hi", server.url)
    refused, answered = retold.read_cassette(CASSETTE).exchanges
    assert refused.response is not None
    headers = (*((n, v) for n, v in refused.response.headers if n != "retry-after-ms"), ("retry-after", "30"))
    retold.write_cassette(CASSETTE, [replace(refused, response=replace(refused.response, headers=headers)), answered])
    slept.clear()
    with retold.use_cassette(CASSETTE):
        assert ask("hi") == "yes"
    assert [seconds for seconds in slept if seconds > 1] == []


def test_retries_of_concurrent_identical_calls_stay_with_their_calls() -> None:
    """The recording has two calls with two attempts each, not one call with one and one with three."""
    both_asked = threading.Barrier(2)

    def refuse_first(request: Any) -> Reply:
        if request.headers["x-stainless-retry-count"] != "0":
            return Reply([text("yes")])
        both_asked.wait(20)
        return RETRY

    with MessagesServer(refuse_first) as server, retold.use_cassette(CASSETTE, record_mode="once"):
        assert gathered(["hi", "hi"], server.url) == ["yes", "yes"]
    assert sorted(attempts()) == [(1, 1, 529), (1, 2, 200), (2, 1, 529), (2, 2, 200)]
